//! Sends one request until it is answered, as often as its upstream allows: over an idle or a new connection, to one
//! server or another, and not before there is one. What may be tried again is decided in `retry`.

use http::Method;
use http_body::Body as _;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::AnswerBody;
use super::eject::Chosen;
use super::h1::{AnswerFrames, AnswerHead, Exchange, Fault, RequestHead};
use super::hold::Woken;
use super::outgoing::Outgoing;
use super::pool::Home;
use super::retry::Condition;
use super::upstream::{Lease, NotLeased, Reuse, Tries, Wish};
use super::{Forward, disregard, refusal_of};
use crate::message::body::Body;
use crate::message::reject::Reject;

/// A response's head, the rest of it, and where its connection returns to.
pub(super) type Answered = (Box<AnswerHead>, Exchange, Home);

/// What became of a request on its way to the app, for its access record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// The index of the server that was tried last.
    pub(crate) server: Option<usize>,
    /// How often it was tried.
    pub(crate) tries: u32,
    /// How long it waited for a server.
    pub(crate) queued: std::time::Duration,
}

/// A try that failed.
struct Failed {
    fault: Fault,
    /// The index of the server, and how it was chosen.
    server: usize,
    chosen: Chosen,
    /// Whether the connection had carried another request.
    reused: bool,
    /// Whether not a byte of the request was sent.
    unsent: bool,
    /// Its place at the server, given back once the failure is noted: nobody who waits may get it before.
    home: Home,
}

impl Failed {
    /// The word of the failure, if it is the server's: that it has closed an idle connection is none.
    fn reason(&self) -> Option<&'static str> {
        match self.fault {
            Fault::Gone(_) if self.reused => None,
            Fault::Gone(_) => Some("broken"),
            Fault::Malformed(_) => Some("invalid"),
            Fault::Late => Some("timeout"),
            Fault::Client(_) => None,
        }
    }
}

impl Forward {
    /// Sends the request over an idle or a new connection and waits for the head of the response.
    ///
    /// A request that was written to an idle connection which then closed without a response is sent once more, over a
    /// new connection, if its method is idempotent (RFC 9110 section 9.2.2) and its body can be sent again. Everything
    /// else is as the upstream's `retries` say.
    ///
    /// # Errors
    /// `Upstream*` for the failure of the last try, `Body*` and `Request*` for those of the client.
    pub(super) async fn exchange(
        &self,
        (worker, began, wish): (usize, Instant, Wish),
        head: RequestHead<'_>,
        mut body: Outgoing,
        course: &mut Course,
    ) -> Result<Answered, Reject> {
        let idempotent = is_idempotent(head.method);
        let is_head = *head.method == Method::HEAD;
        let retries = self.upstream.retries();
        let response = self.timeouts.response;
        let response = retries.per_try.map_or(response, |it| it.min(response));
        if retries.on.sends_again() {
            self.upstream.comes(worker);
        }
        let mut tries = Tries::new(wish);
        loop {
            let again = body.again();
            let repeatable = idempotent && again.is_some();
            // Most requests need not read the clock here.
            let is_first = tries.made == 0 && matches!(body, Outgoing::Empty);
            let now = if idempotent && is_first {
                began
            } else {
                Instant::now()
            };
            let reuse = match (repeatable, tries.stale) {
                (_, true) => Reuse::Never,
                (true, false) => Reuse::Any,
                (false, false) => Reuse::Fresh,
            };
            let connect = self.timeouts.connect;
            let leasing = self
                .upstream
                .lease(worker, connect, (reuse, now), &mut tries);
            let lease = match leasing.await {
                Ok(lease) => lease,
                Err(why) => {
                    let connecting = self.connect_again(worker, reuse, (why, &mut tries), course);
                    Box::pin(connecting).await?
                }
            };
            tries.made += 1;
            course.tries = tries.made;
            course.server = Some(lease.server);
            let since = if lease.reused { now } else { Instant::now() };
            let mut exchange = Exchange::begin(lease.connection, head, body);
            let Lease {
                server,
                reused,
                chosen,
                home,
                ..
            } = lease;
            let fault = match exchange.answer(is_head, since, response).await {
                Ok(answer) => {
                    home.counts().answered(answer.status.as_u16());
                    let Some(failed) = self.upstream.condition_of(answer.status) else {
                        self.upstream.succeeds(server, chosen);
                        return Ok((answer, exchange, home));
                    };
                    self.upstream.fails(server, failed, chosen);
                    let may =
                        |_: &Outgoing| self.may_send_again(failed, worker, idempotent, &tries);
                    let Some(again) = again.filter(may) else {
                        return Ok((answer, exchange, home));
                    };
                    pass_over(*answer, exchange, home, self.timeouts.idle);
                    tries.tried.push(server);
                    Box::pin(self.pause(worker, &mut tries)).await;
                    body = again;
                    continue;
                }
                Err(fault) => fault,
            };
            let failed = Failed {
                fault,
                server,
                chosen,
                reused,
                unsent: exchange.is_unsent(),
                home,
            };
            if let Some(reason) = failed.reason() {
                failed.home.counts().failed(reason);
            }
            drop(exchange);
            let more = self.after(worker, failed, (again, idempotent), &mut tries);
            body = Box::pin(more).await?;
        }
    }

    /// What is sent in the next try after one that failed.
    ///
    /// # Errors
    /// The failure, if there is no other try.
    async fn after(
        &self,
        worker: usize,
        failed: Failed,
        (again, idempotent): (Option<Outgoing>, bool),
        tries: &mut Tries,
    ) -> Result<Outgoing, Reject> {
        let upstream = self.upstream.name.as_str();
        let (condition, reject) = match failed.fault {
            Fault::Gone(error) => {
                tracing::debug!(upstream.name = upstream, %error, "the app closed the connection without a response");
                (Condition::Broken, Reject::UpstreamUnreachable)
            }
            Fault::Malformed(what) => {
                tracing::warn!(
                    upstream.name = upstream,
                    what,
                    "the app's response is not HTTP"
                );
                (Condition::Invalid, Reject::UpstreamInvalid)
            }
            Fault::Late => (Condition::Timeout, Reject::UpstreamTimeout),
            Fault::Client(error) => return Err(refusal_of(&error)),
        };
        // An app that closes an idle connection does not fail.
        let is_stale = condition == Condition::Broken && failed.reused;
        if !is_stale {
            self.upstream.fails(failed.server, condition, failed.chosen);
        }
        drop(failed.home);
        let Some(again) = again else {
            return Err(reject);
        };
        if is_stale && !tries.stale && (idempotent || failed.unsent) {
            tries.stale = true;
            return Ok(again);
        }
        if !self.may_send_again(condition, worker, idempotent, tries) {
            return Err(reject);
        }
        tries.tried.push(failed.server);
        self.pause(worker, tries).await;
        Ok(again)
    }

    /// Whether a request that was sent is sent again; if so, that is taken from the budget.
    fn may_send_again(
        &self,
        failed: Condition,
        worker: usize,
        idempotent: bool,
        tries: &Tries,
    ) -> bool {
        let retries = self.upstream.retries();
        // The second one after a stale connection has no key, and takes none of the others.
        let made = tries.made - u32::from(tries.stale);
        if !retries.may_send_again(failed, made, idempotent) {
            return false;
        }
        let has_budget = self.upstream.takes(worker);
        let word = if has_budget { "sent" } else { "budget" };
        self.upstream.count(worker, |lane| lane.retries.count(word));
        if !has_budget {
            tracing::debug!(
                upstream.name = self.upstream.name,
                "not tried again: the budget is spent"
            );
        }
        has_budget
    }

    /// Pauses before the next try, if all servers were tried.
    async fn pause(&self, worker: usize, tries: &mut Tries) {
        if !self.upstream.has_other(tries) {
            sleep(self.upstream.pause(worker, tries)).await;
        }
    }

    /// A connection after a server could not be connected to: to another one, or to the same one after a pause; if that
    /// fails too, and the upstream holds requests, to the first that accepts one. Where all servers have as many requests
    /// as they may, to the first that has a place.
    async fn connect_again(
        &self,
        worker: usize,
        reuse: Reuse,
        (mut why, tries): (NotLeased, &mut Tries),
        course: &mut Course,
    ) -> Result<Lease, Reject> {
        let holds = !self.upstream.retries().hold.is_zero();
        let connect = self.timeouts.connect;
        let mut until = None;
        loop {
            course.tries = tries.made;
            let since = Instant::now();
            let leased = match why {
                NotLeased::Refused(reject) => return Err(reject),
                NotLeased::Full => {
                    let until = *until.get_or_insert_with(|| since + self.upstream.wait());
                    let placed = self.placed(worker, reuse, (tries, until)).await;
                    self.count_queued(worker, &placed, until);
                    course.queued += since.elapsed();
                    placed
                }
                NotLeased::Failed if self.may_connect_again(tries) => {
                    self.pause(worker, tries).await;
                    let at = (reuse, Instant::now());
                    self.upstream.lease(worker, connect, at, tries).await
                }
                NotLeased::Failed if !holds => return Err(Reject::UpstreamUnreachable),
                NotLeased::Failed | NotLeased::Held => {
                    let held = self.held(worker, reuse, tries).await;
                    let until = since + self.upstream.retries().hold;
                    self.count_queued(worker, &held, until);
                    course.queued += since.elapsed();
                    held
                }
            };
            match leased {
                Ok(lease) => return Ok(lease),
                Err(other) => why = other,
            }
        }
    }

    /// Counts what became of a request that has waited, until this moment at most.
    fn count_queued(&self, worker: usize, leased: &Result<Lease, NotLeased>, until: Instant) {
        let word = match leased {
            Ok(_) => "served",
            Err(_) if Instant::now() >= until => "waited",
            Err(_) => "full",
        };
        self.upstream.count(worker, |lane| lane.queued.count(word));
    }

    /// Whether another connection is tried after the last one failed.
    fn may_connect_again(&self, tries: &Tries) -> bool {
        let connect = self.timeouts.connect;
        let since = tries.first.map_or(connect, |first| first.elapsed());
        let others = self.upstream.has_other(tries);
        let made = tries.made - u32::from(tries.stale);
        let retries = self.upstream.retries();
        retries.may_connect_again(made, others, since, connect)
    }

    /// Waits for a place at a server, at most until this moment, and connects to it.
    async fn placed(
        &self,
        worker: usize,
        reuse: Reuse,
        (tries, until): (&mut Tries, Instant),
    ) -> Result<Lease, NotLeased> {
        let place = self.upstream.place(worker, reuse, (tries, until)).await?;
        let at = (reuse, Instant::now());
        let connect = self.timeouts.connect;
        self.upstream.lease_at(place, connect, at, tries).await
    }

    /// Waits for a server that can be connected to.
    ///
    /// # Errors
    /// `UpstreamUnreachable` if there is none in time, `UpstreamBusy` if too many wait; `Full` if there is one, with as
    /// many requests as it may have.
    async fn held(
        &self,
        worker: usize,
        reuse: Reuse,
        tries: &mut Tries,
    ) -> Result<Lease, NotLeased> {
        let retries = self.upstream.retries();
        let until = Instant::now() + retries.hold;
        let waiting = self.upstream.hold(retries.queue);
        let waiting = waiting.ok_or(NotLeased::Refused(Reject::UpstreamBusy))?;
        tries.held = true;
        let connect = self.timeouts.connect;
        loop {
            let woken = waiting.wait(until).await;
            tries.tried.clear();
            if matches!(woken, Woken::Late) {
                return Err(NotLeased::Refused(Reject::UpstreamUnreachable));
            }
            let leased = timeout_at(until, async {
                loop {
                    let leasing =
                        self.upstream
                            .lease(worker, connect, (reuse, Instant::now()), tries);
                    match leasing.await {
                        Err(NotLeased::Failed | NotLeased::Held)
                            if self.upstream.has_other(tries) => {}
                        leased => return leased,
                    }
                }
            });
            let leased = leased.await.unwrap_or(Err(NotLeased::Failed));
            match (leased, woken) {
                (Ok(lease), Woken::Tries(trying)) => {
                    trying.succeeded();
                    return Ok(lease);
                }
                (Ok(lease), Woken::Follows | Woken::Late) => return Ok(lease),
                // Whoever tries for all leaves that to the next.
                (Err(why @ (NotLeased::Refused(_) | NotLeased::Full)), _) => return Err(why),
                (Err(NotLeased::Failed | NotLeased::Held), Woken::Tries(trying)) => {
                    trying.failed();
                }
                (Err(NotLeased::Failed | NotLeased::Held), Woken::Follows | Woken::Late) => {}
            }
        }
    }
}

/// Reads what is left of a response that no client gets, so that its connection can be reused.
fn pass_over(mut head: AnswerHead, exchange: Exchange, home: Home, idle: std::time::Duration) {
    let body = AnswerBody::new(AnswerFrames::new(exchange, &mut head), home, Some(idle));
    if !body.is_end_stream() {
        disregard(Body::stream(body));
    }
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}
