//! What is done about one certificate when its time has come: look whether it is to be renewed, order it, and keep the
//! outcome, or keep why there is none and when to try again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::{Account, CertificateIdentifier};
use tokio::task::spawn_blocking;

use super::account;
use super::client::{Client, Failure, Kind};
use super::kept::load;
use super::order::{Arrived, Attempt, has_no_ari};
use super::renewal;
use super::rows::{Row, YieldedRow};
use super::store::Store;
use crate::net::dial::Dialer;
use crate::net::tls::{About, ClientTls};
use crate::snapshot::AcmeDirectory;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
/// When to look again where `state` cannot be read, in seconds.
const UNREAD: u64 = 60;
/// When to look again at a certificate that another gateway works on, in seconds.
const ELSEWHERE: u64 = 10;
/// How long all gateways of a fleet take to reload a configuration, in seconds.
const RELOADS: u64 = 5 * 60;
/// How long a gateway whose certificate was replaced by one with other names leaves it alone, in seconds. Gateways that have
/// different configurations for a while must not use up a week's certificates in turns.
const YIELDED: u64 = 6 * HOUR;

/// Why a certificate is worked on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// Its time has come.
    Due,
    /// The configuration says something else about it than before.
    Changed,
    /// Somebody asked to renew it.
    Asked,
}

/// Does what is due about a certificate, unless another gateway does. Returns when to look again, in seconds since 1970.
pub(super) async fn work(mut attempt: Attempt, dialer: Dialer, why: Why) -> u64 {
    let hold = match attempt.store.hold(&attempt.place.name).await {
        Ok(Some(hold)) => hold,
        Ok(None) => return super::now() + renewal::around(ELSEWHERE, renewal::random()),
        Err(failure) => return unusable(&attempt, &failure),
    };
    attempt.store = attempt.store.under(&hold);
    tokio::select! {
        next = held(&attempt, &dialer, why) => next,
        () = hold.lost() => {
            tracing::warn!(
                certificate = attempt.place.name,
                "`state` did not answer for too long: another gateway may go on with this certificate"
            );
            super::now() + UNREAD
        }
    }
}

/// The same with the right to it. What another gateway did until a moment ago is read first, so that it is not done twice.
async fn held(attempt: &Attempt, dialer: &Dialer, why: Why) -> u64 {
    let is_shared = matches!(attempt.store, Store::Shared(_));
    let (mut row, why) = match read(attempt, why).await {
        Ok(read) => read,
        Err(failure) => return unusable(attempt, &failure),
    };
    let (names, now) = (&attempt.managed.names, super::now());
    // One with more names serves until it is renewed: gateways of a fleet get a new configuration one by one.
    let same = row.covers(names) && (row.order.is_none() || row.names == *names);
    let is_tried = match why {
        Why::Due => true,
        // All gateways of a fleet reload, and one attempt is enough.
        Why::Changed => is_shared && now < row.tried.saturating_add(RELOADS),
        Why::Asked => false,
    };
    if same && is_tried && row.failures > 0 && now < row.next {
        return row.next;
    }
    if !same {
        if let Some(until) = yields(&row, names, now)
            && why != Why::Asked
        {
            tracing::warn!(
                certificate = attempt.place.name,
                names = names.join(", "),
                instead = row.names.join(", "),
                "another gateway orders this certificate with other names: this one waits, unless `cert renew` asks for it"
            );
            return until;
        }
        let yielded = YieldedRow {
            names: row.names,
            until: now.saturating_add(YIELDED),
        };
        row = Row {
            names: names.clone(),
            ordered: row.ordered,
            yielded: (is_shared && !yielded.names.is_empty()).then_some(yielded),
            ..Row::default()
        };
    }
    if why == Why::Asked {
        row.asked = true;
        row.rehearses = false;
        let noted = attempt.store.keep_row(&attempt.place, &row).await;
        let noted = match noted {
            Ok(()) => attempt.store.end_renewal(&attempt.place).await,
            failed => failed,
        };
        if let Err(failure) = noted {
            return unusable(attempt, &failure);
        }
    }
    let outcome = Work { attempt, dialer }.run(&mut row).await;
    if let Err(failure) = outcome {
        failed(attempt, &mut row, &failure);
    }
    if let Err(failure) = attempt.store.keep_row(&attempt.place, &row).await {
        tracing::error!(certificate = attempt.place.name, "{}", failure.text);
    }
    row.next.max(super::now() + 1)
}

/// What is known about a certificate, and why it is still worked on.
async fn read(attempt: &Attempt, why: Why) -> Result<(Row, Why), Failure> {
    let Attempt {
        store,
        place,
        managed,
        ..
    } = attempt;
    let row = match store {
        Store::Folder(..) => store.row(place).await?,
        // With the certificate that another gateway brought perhaps.
        Store::Shared(_) => load(store, managed).await?,
    };
    let is_done = why == Why::Asked && !store.is_asked(place).await?;
    Ok((row, if is_done { Why::Due } else { why }))
}

/// Until when a certificate is left alone, where one with these names was replaced by one with other names a while ago.
fn yields(row: &Row, names: &[String], now: u64) -> Option<u64> {
    let yielded = row.yielded.as_ref();
    let yielded = yielded.filter(|it| it.names == names && now < it.until);
    yielded.map(|it| it.until)
}

/// Nothing is ordered with a `state` that cannot be used, since nothing would be remembered of it.
fn unusable(attempt: &Attempt, failure: &Failure) -> u64 {
    tracing::error!(
        certificate = attempt.place.name,
        again_in = ?Duration::from_secs(UNREAD),
        "{}",
        failure.text
    );
    super::now() + UNREAD
}

/// What became of an order, in a word.
fn outcome_of(ordered: &Result<Arrived, Failure>) -> &'static str {
    match ordered {
        Ok(_) => "good",
        Err(failure) => match failure.kind {
            Kind::Elsewhere => "unavailable",
            Kind::Validation => "validation",
            Kind::Account | Kind::AlreadyReplaced | Kind::NotReady | Kind::Gone | Kind::Other => {
                "failed"
            }
        },
    }
}

/// Notes a failure, and when to try again.
fn failed(attempt: &Attempt, row: &mut Row, failure: &Failure) {
    row.failures = row.failures.saturating_add(1);
    row.tried = super::now();
    if failure.kind == Kind::Validation {
        row.refused = row.refused.saturating_add(1);
    }
    let pause = renewal::pause(row.failures, failure.retry_after, renewal::random());
    row.next = super::now().saturating_add(pause);
    row.error = Some(failure.text.clone());
    let again_in = Duration::from_secs(pause);
    let served = attempt.managed.slot.current();
    let expires = served.map(|served| httpdate::fmt_http_date(served.about().ends));
    tracing::warn!(
        certificate = attempt.place.name,
        failures = row.failures,
        ?again_in,
        served_until = expires.as_deref().unwrap_or("none is there"),
        "certificate not issued: {}",
        failure.text
    );
}

struct Work<'a> {
    attempt: &'a Attempt,
    dialer: &'a Dialer,
}

impl Work<'_> {
    async fn run(&self, row: &mut Row) -> Result<(), Failure> {
        let settings = &self.attempt.managed.settings;
        // One that another directory issued is served until it is replaced, but is not renewed there.
        let issuer = row.directory.clone();
        let issuer = issuer.and_then(|url| settings.directory(&url));
        let served = self.attempt.managed.slot.current();
        let about = served.filter(|_| issuer.is_some());
        let about = about.as_ref().map(|served| served.about());
        if let (Some(about), Some(issuer)) = (about, issuer) {
            self.look(issuer, about, row).await;
            if !row.asked && super::now() < due(row) {
                self.set_next(row);
                return Ok(());
            }
        }
        // Nothing is ordered with a `state` that cannot be written.
        let Attempt { store, place, .. } = self.attempt;
        store.keep_row(place, row).await?;
        let now = super::now();
        row.held.retain(|_, until| *until > now);
        let mut passed: Vec<(String, Failure)> = Vec::new();
        for directory in &settings.directories {
            let url = directory.url.whole();
            if let Some(until) = row.held.get(&url).filter(|_| !row.asked) {
                let wait = Some(until.saturating_sub(now));
                let text = format!("{} asked to wait", directory.url);
                let failure = Failure {
                    retry_after: wait,
                    ..Failure::own(text)
                };
                passed.push((url, failure));
                continue;
            }
            // Named only where the directory that issued it has renewal information.
            let replaces = about.and_then(|about| about.id.as_deref());
            let replaces = replaces.filter(|_| row.window.is_some() && issuer == Some(directory));
            let ordered = self.order_at(directory, row, replaces).await;
            let counts = &self.attempt.managed.counts;
            counts.count_order(&url, outcome_of(&ordered));
            match ordered {
                Ok(arrived) => {
                    if row.window.is_some() && !row.asked {
                        row.by_window = super::now();
                    }
                    return self.keep(directory, arrived, row).await;
                }
                Err(failure) if failure.kind == Kind::Elsewhere => {
                    if settings.directories.len() > 1 {
                        tracing::info!(
                            certificate = place.name,
                            directory = %directory.url,
                            "the next directory is tried: {}",
                            failure.text
                        );
                        if let Some(wait) = failure.retry_after {
                            row.held
                                .insert(url.clone(), super::now().saturating_add(wait));
                        }
                    }
                    passed.push((url, failure));
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(together(passed))
    }

    /// Orders from one directory; first from its staging directory, where a validation failed.
    async fn order_at(
        &self,
        directory: &AcmeDirectory,
        row: &mut Row,
        replaces: Option<&str>,
    ) -> Result<Arrived, Failure> {
        let rehearsal = directory.staging.as_ref().filter(|_| row.rehearses);
        if let Some(staging) = rehearsal {
            let rehearsed = AcmeDirectory {
                url: staging.clone(),
                staging: None,
                ca: directory.ca.clone(),
                eab: None,
            };
            let client = self.client(&rehearsed).await?;
            self.order(&client, row, None).await?;
            tracing::info!(
                certificate = self.attempt.place.name,
                directory = %staging,
                "validation succeeded at the staging directory"
            );
            row.rehearses = false;
            row.refused = 0;
            self.attempt.give_up(row).await?;
        }
        let client = self.client(directory).await?;
        let outcome = self.order(&client, row, replaces).await;
        if let Err(failure) = &outcome
            && failure.kind == Kind::Validation
        {
            row.rehearses = directory.staging.is_some();
        }
        outcome
    }

    async fn client(&self, directory: &AcmeDirectory) -> Result<Client, Failure> {
        let ca = directory.ca.clone();
        // The system's roots are read from its files.
        let tls = spawn_blocking(move || match ca {
            Some(pem) => ClientTls::with_ca(&pem),
            None => ClientTls::system(),
        });
        let tls = tls.await.map_err(|error| Failure::own(error.to_string()))?;
        let tls = tls.map_err(|fault| Failure::own(fault.to_string()))?;
        let eab = directory.eab.as_ref();
        Ok(Client::new(&directory.url, eab, tls, self.dialer))
    }

    async fn account(&self, client: &Client) -> Result<Account, Failure> {
        let Attempt {
            accounts,
            store,
            managed,
            ..
        } = self.attempt;
        let email = managed.settings.email.as_deref();
        accounts.get(store, client, email).await
    }

    /// Gets a certificate; where the directory has forgotten the account, it is registered again, once.
    async fn order(
        &self,
        client: &Client,
        row: &mut Row,
        replaces: Option<&str>,
    ) -> Result<Arrived, Failure> {
        let account = self.account(client).await?;
        let outcome = self.attempt.run(client, &account, row, replaces).await;
        match outcome {
            Err(failure) if failure.kind == Kind::Account => {
                tracing::warn!(directory = %client.directory(), "the directory does not know the account: {}", failure.text);
                account::forget(&self.attempt.store, client).await?;
                let account = self.account(client).await?;
                self.attempt.run(client, &account, row, replaces).await
            }
            outcome => outcome,
        }
    }

    /// Keeps and serves a certificate.
    async fn keep(
        &self,
        directory: &AcmeDirectory,
        arrived: Arrived,
        row: &mut Row,
    ) -> Result<(), Failure> {
        let Arrived { issued, pem } = arrived;
        let Attempt {
            managed,
            place,
            store,
            ..
        } = self.attempt;
        let at = self.attempt.place_at(&directory.url);
        store.keep_certificate(&at, pem).await?;
        let about = issued.about().clone();
        managed.slot.replace(issued);
        let now = super::now();
        *row = Row {
            names: managed.names.clone(),
            directory: Some(directory.url.whole()),
            challenge: row.challenge.take(),
            ordered: row.ordered,
            by_window: row.by_window,
            yielded: row.yielded.take(),
            held: std::mem::take(&mut row.held),
            renew: renewal::by_life(
                seconds(about.begins),
                seconds(about.ends),
                renewal::random(),
            ),
            ends: seconds(about.ends),
            again: now,
            ..Row::default()
        };
        self.set_next(row);
        tracing::info!(
            certificate = place.name,
            names = managed.names.join(", "),
            directory = %directory.url,
            issuer = about.issuer,
            expires = httpdate::fmt_http_date(about.ends),
            "certificate issued"
        );
        if about.must_staple {
            tracing::warn!(
                certificate = place.name,
                "the certificate demands stapled OCSP responses, which the gateway does not send: strict clients refuse it"
            );
        }
        Ok(())
    }

    /// Asks for the window in which the directory suggests to renew a certificate (RFC 9773), where it is time to. That
    /// it cannot be had fails nothing.
    async fn look(&self, issuer: &AcmeDirectory, about: &About, row: &mut Row) {
        let now = super::now();
        let Some(id) = &about.id else {
            row.window = None;
            row.again = now + DAY;
            return;
        };
        if row.window.as_ref().is_some_and(|window| window.id != *id) {
            row.window = None;
            row.again = now;
        }
        if now < row.again {
            return;
        }
        let (client, account) = match self.with_account(issuer).await {
            Ok(both) => both,
            Err(failure) => {
                tracing::debug!(
                    certificate = self.attempt.place.name,
                    error = failure.text,
                    "no renewal information"
                );
                row.again = now + HOUR;
                return;
            }
        };
        let (key, serial) = id.split_once('.').unwrap_or((id, ""));
        let id_at = CertificateIdentifier {
            authority_key_identifier: key.into(),
            serial: serial.into(),
        };
        match account.renewal_info(&id_at).await {
            Ok((info, again)) => {
                let time = |unix: i64| u64::try_from(unix).unwrap_or(0);
                let suggested = (
                    time(info.suggested_window.start.unix_timestamp()),
                    time(info.suggested_window.end.unix_timestamp()),
                );
                let new = renewal::window(id, suggested, renewal::random());
                row.window = new.map(|new| renewal::updated(row.window.as_ref(), new));
                row.again = renewal::again(again.as_secs(), now);
                if let Some(page) = info.explanation_url.filter(|_| {
                    row.window
                        .as_ref()
                        .is_some_and(|window| window.chosen <= now)
                }) {
                    tracing::info!(
                        certificate = self.attempt.place.name,
                        why = page
                            .chars()
                            .filter(|it| !it.is_control())
                            .take(400)
                            .collect::<String>(),
                        "the directory suggests to renew the certificate"
                    );
                }
            }
            Err(error) if has_no_ari(&error) => {
                row.window = None;
                row.again = now + DAY;
            }
            Err(error) => {
                let failure = client.failure(&error);
                tracing::debug!(
                    certificate = self.attempt.place.name,
                    error = failure.text,
                    "no renewal information"
                );
                row.again = now + HOUR;
            }
        }
    }

    async fn with_account(&self, directory: &AcmeDirectory) -> Result<(Client, Account), Failure> {
        let client = self.client(directory).await?;
        let account = self.account(&client).await?;
        Ok((client, account))
    }

    /// The next look: at the renewal, or when renewal information is to be asked for again.
    fn set_next(&self, row: &mut Row) {
        row.next = due(row).min(row.again);
    }
}

/// Why no directory issued a certificate. Where all asked to wait, the first that may be asked again decides.
fn together(passed: Vec<(String, Failure)>) -> Failure {
    let waits: Option<Vec<u64>> = passed.iter().map(|(_, it)| it.retry_after).collect();
    let texts: Vec<String> = passed.into_iter().map(|(_, it)| it.text).collect();
    Failure {
        kind: Kind::Elsewhere,
        text: texts.join("; "),
        retry_after: waits.and_then(|waits| waits.into_iter().min()),
    }
}

/// When a certificate is to be renewed.
pub(super) fn due(row: &Row) -> u64 {
    match &row.window {
        Some(window) => renewal::by_window(window, row.by_window).min(renewal::latest(row)),
        None => row.renew,
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_was_replaced_by_another_gateway_is_left_alone_for_a_while() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (old, new): (Vec<String>, Vec<String>) = (names(&["a", "b"]), names(&["a", "c"]));
        let row = Row {
            names: new,
            yielded: Some(YieldedRow {
                names: old.clone(),
                until: 100,
            }),
            ..Row::default()
        };
        assert_eq!(yields(&row, &old, 99), Some(100));
        assert_eq!(yields(&row, &old, 100), None);
        let other: Vec<String> = names(&["a", "d"]);
        assert_eq!(yields(&row, &other, 0), None, "this is a new configuration");
        assert_eq!(yields(&Row::default(), &old, 0), None);
    }
}
