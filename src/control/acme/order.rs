//! One attempt to get a certificate (RFC 8555 section 7.4): an order, proofs of control, and the certificate. Whatever a
//! directory sends is checked; whatever must outlive a kill is kept before the next step.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    Identifier, NewOrder, Order, OrderStatus,
};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::account::Accounts;
use super::client::{Client, Failure, Kind, is_bad_nonce};
use super::hook;
use super::request;
use super::rows::{OrderRow, Pem, Place, Row};
use super::shared::Shown;
use super::store::Store;
use crate::clock;
use crate::net::tls::{CertificatePair, Challenges, Issued, Posted};
use crate::net::url::Url;
use crate::snapshot::{ChallengeKind, Managed};

/// How often a call is repeated for a bad nonce, beside instant-acme's own three times.
const NONCES: u32 = 8;
/// How long a directory may take to validate, and to issue. Later attempts go on with the same order.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long other gateways may take to see a challenge; they look once a second.
const SEEN: Duration = Duration::from_secs(2);
/// The first and the longest pause between two looks at an order, where the directory does not say.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Repeats a call that fails for its nonce alone; other errors become failures.
macro_rules! patiently {
    ($client:expr, $call:expr) => {{
        let mut tries = 0;
        loop {
            match $call.await {
                Err(error) if is_bad_nonce(&error) && tries < NONCES => tries += 1,
                outcome => break outcome.map_err(|error| $client.failure(&error)),
            }
        }
    }};
}

/// What an attempt works with.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The certificate.
    pub(super) managed: Arc<Managed>,
    /// Where it is kept.
    pub(super) place: Place,
    /// Where its rows are kept.
    pub(super) store: Store,
    /// Where challenges are answered.
    pub(super) challenges: Arc<Challenges>,
    /// The accounts.
    pub(super) accounts: Accounts,
}

/// A certificate that was issued, with its chain as the directory sent it, and its key.
pub(super) struct Arrived {
    pub(super) issued: Issued,
    pub(super) pem: Pem,
}

impl Attempt {
    /// Gets a certificate, by the order in progress where there is one. `replaces` is the certificate that it is to
    /// replace, for directories with renewal information. The certificate is not kept yet.
    ///
    /// # Errors
    /// Why there is none. `row` then says with which order to go on.
    pub(super) async fn run(
        &self,
        client: &Client,
        account: &Account,
        row: &mut Row,
        replaces: Option<&str>,
    ) -> Result<Arrived, Failure> {
        let mut order = self.order(client, account, row, replaces).await?;
        let outcome = self.finish(client, &mut order, row).await;
        if let Err(failure) = &outcome {
            let over = matches!(order.state().status, OrderStatus::Invalid)
                || matches!(failure.kind, Kind::Validation | Kind::Gone);
            if over {
                self.give_up(row).await?;
            }
        }
        outcome
    }

    /// Forgets the order in progress, and its key.
    pub(super) async fn give_up(&self, row: &mut Row) -> Result<(), Failure> {
        let order = row.order.take();
        self.store.keep_row(&self.place, row).await?;
        match order.and_then(|order| Url::parse(&order.directory).ok()) {
            Some(directory) => self.store.drop_next_key(&self.place_at(&directory)).await,
            None => Ok(()),
        }
    }

    /// Where the certificates of a directory are kept.
    pub(super) fn place_at(&self, directory: &Url) -> Place {
        Place {
            host: Place::new(directory.authority(), "").host,
            name: self.place.name.clone(),
        }
    }

    /// The order in progress, or a new one, whose URL is kept.
    async fn order(
        &self,
        client: &Client,
        account: &Account,
        row: &mut Row,
        replaces: Option<&str>,
    ) -> Result<Order, Failure> {
        let directory = client.directory().whole();
        if let Some(known) = row.order.clone() {
            let ours = known.directory == directory && known.account == account.id();
            if ours {
                let found = patiently!(client, account.order(known.url.clone()));
                match found {
                    Ok(mut order) => {
                        if order.state().status != OrderStatus::Invalid {
                            tracing::debug!(
                                certificate = self.place.name,
                                order = known.url,
                                "an order is resumed"
                            );
                            return Ok(order);
                        }
                    }
                    Err(failure) if failure.kind == Kind::Elsewhere => return Err(failure),
                    Err(failure) => {
                        tracing::debug!(
                            certificate = self.place.name,
                            error = failure.text,
                            "the order is not there any more"
                        );
                    }
                }
            }
            self.give_up(row).await?;
        }
        self.store.count_order(&directory).await?;
        let names = self.managed.names.iter();
        let names: Vec<Identifier> = names.map(|name| Identifier::Dns(name.clone())).collect();
        let placed = self.place_order(client, account, &names, replaces).await;
        let order = match placed {
            // Another order has replaced it (RFC 9773 section 5), or the directory does not take it in.
            Err(failure) if replaces.is_some() && failure.kind == Kind::AlreadyReplaced => {
                self.place_order(client, account, &names, None).await?
            }
            placed => placed?,
        };
        row.ordered = super::now();
        row.order = Some(OrderRow {
            url: order.url().to_owned(),
            directory,
            account: account.id().to_owned(),
        });
        self.store.keep_row(&self.place, row).await?;
        Ok(order)
    }

    async fn place_order(
        &self,
        client: &Client,
        account: &Account,
        names: &[Identifier],
        replaces: Option<&str>,
    ) -> Result<Order, Failure> {
        let mut new = NewOrder::new(names);
        if let Some(profile) = &self.managed.settings.profile {
            // Directories without profiles take the field in silence.
            if !account.profiles().any(|known| known.name == profile) {
                let mut known: Vec<&str> = account.profiles().map(|known| known.name).collect();
                known.sort_unstable();
                let known = match known.as_slice() {
                    [] => "none".to_owned(),
                    known => known.join(", "),
                };
                return Err(Failure::own(format!(
                    "the directory has no profile {profile:?}; it has {known}"
                )));
            }
            new = new.profile(profile);
        }
        if let Some((key, serial)) = replaces.and_then(|id| id.split_once('.')) {
            new = new.replaces(CertificateIdentifier {
                authority_key_identifier: key.into(),
                serial: serial.into(),
            });
        }
        let placed = patiently!(client, account.new_order(&new));
        placed.map_err(|failure| {
            // What instant-acme says where the directory does not confirm the field.
            let unconfirmed = failure.text.contains("replaces field mismatch");
            let unsupported = failure.text.contains("ACME renewal information");
            if unconfirmed || unsupported {
                let kind = Kind::AlreadyReplaced;
                return Failure { kind, ..failure };
            }
            failure
        })
    }

    /// Leads an order to its certificate.
    async fn finish(
        &self,
        client: &Client,
        order: &mut Order,
        row: &mut Row,
    ) -> Result<Arrived, Failure> {
        if order.state().status == OrderStatus::Pending {
            let mut answers = Answers::default();
            let proven = self.prove(client, order, row, &mut answers).await;
            let ready = match proven {
                Ok(()) => wait(client, order, |status| status != OrderStatus::Pending).await,
                Err(failure) => Err(failure),
            };
            // The answers stay until the directory has decided.
            self.clean_up(answers).await;
            ready?;
            if order.state().status == OrderStatus::Invalid {
                return Err(self.why_invalid(client, order).await);
            }
        }
        let began = Instant::now();
        while order.state().status == OrderStatus::Ready {
            let key = self.key(client, row).await?;
            let csr = request::request(&self.managed.names, &key)
                .map_err(|error| Failure::own(format!("no certificate request: {error}")))?;
            let finalized = patiently!(client, order.finalize_csr(&csr));
            match finalized {
                // RFC 8555 section 7.4: it will be.
                Err(failure) if failure.kind == Kind::NotReady && began.elapsed() < PATIENCE => {
                    sleep(Duration::from_secs(
                        failure.retry_after.unwrap_or(1).clamp(1, 60),
                    ))
                    .await;
                    patiently!(client, order.refresh()).map(drop)?;
                }
                Err(failure) => {
                    // Another request may be taken.
                    if failure.kind != Kind::Elsewhere {
                        self.give_up(row).await?;
                    }
                    return Err(failure);
                }
                Ok(()) => {}
            }
        }
        wait(client, order, |status| status != OrderStatus::Processing).await?;
        match order.state().status {
            OrderStatus::Valid => {}
            OrderStatus::Invalid => return Err(self.why_invalid(client, order).await),
            status @ (OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing) => {
                return Err(Failure::own(format!("the order is {status:?}, not valid")));
            }
        }
        let chain = patiently!(client, order.certificate())?
            .ok_or_else(|| Failure::own("the order is valid, but has no certificate"))?;
        self.arrived(client, chain, row).await
    }

    /// Checks what arrived. A certificate that cannot be used ends its order.
    async fn arrived(
        &self,
        client: &Client,
        chain: String,
        row: &mut Row,
    ) -> Result<Arrived, Failure> {
        let mut why = "its key is not in `state` any more".to_owned();
        let place = self.place_at(client.directory());
        for key in self.store.keys(&place).await?.into_iter().flatten() {
            let pair = CertificatePair::from_pem(chain.as_bytes(), &key);
            match pair.and_then(CertificatePair::issued) {
                Ok(issued) => match issued.check(&self.managed.names, clock::now()) {
                    Ok(()) => {
                        let chain = chain.into_bytes();
                        return Ok(Arrived {
                            issued,
                            pem: Pem { chain, key },
                        });
                    }
                    Err(wrong) => why = wrong,
                },
                Err(fault) => why = fault.to_string(),
            }
        }
        self.give_up(row).await?;
        Err(Failure::own(format!(
            "the directory sent a certificate that cannot be used: {why}"
        )))
    }

    /// The key of the order, which is kept before the directory sees its public half.
    async fn key(&self, client: &Client, row: &mut Row) -> Result<String, Failure> {
        let place = self.place_at(client.directory());
        let [next, _] = self.store.keys(&place).await?;
        if let Some(next) = next.and_then(|key| String::from_utf8(key).ok()) {
            // A key that is damaged is replaced.
            if request::request(&self.managed.names, &next).is_ok() {
                return Ok(next);
            }
        }
        let kind = self.managed.settings.key;
        let made = spawn_blocking(move || request::new_key(kind)).await;
        let key = made
            .map_err(|error| error.to_string())
            .and_then(|made| made.map_err(|error| error.to_string()))
            .map_err(|error| Failure::own(format!("no key can be made: {error}")))?;
        self.store.keep_next_key(&place, key.as_bytes()).await?;
        self.store.keep_row(&self.place, row).await?;
        Ok(key)
    }

    /// Answers a challenge for each name that is not authorised yet, and tells the directory once all can be seen.
    async fn prove(
        &self,
        client: &Client,
        order: &mut Order,
        row: &mut Row,
        answers: &mut Answers,
    ) -> Result<(), Failure> {
        let kinds = self.kinds(row);
        let mut answered = Vec::new();
        for at in 0..order.state().authorizations.len() {
            let mut tries = 0;
            let kind = loop {
                match self.answer(client, order, at, &kinds, answers).await {
                    Err(Unproven::Nonce) if tries < NONCES => tries += 1,
                    Err(Unproven::Nonce) => {
                        return Err(Failure::own("the directory refuses every nonce"));
                    }
                    Err(Unproven::Failure(failure)) => return Err(failure),
                    Ok(kind) => break kind,
                }
            };
            if let Some(kind) = kind {
                row.challenge = Some(kind.name().to_owned());
                answered.push((at, kind));
            }
        }
        for shown in std::mem::take(&mut answers.to_show) {
            answers.shown.extend(self.store.show(&shown).await?);
        }
        if !answers.shown.is_empty() {
            sleep(SEEN).await;
        }
        if let (Some(dns), false) = (&self.managed.settings.dns, answers.dns.is_empty()) {
            sleep(dns.wait).await;
        }
        for (at, kind) in answered {
            self.ready(client, order, at, kind).await?;
        }
        Ok(())
    }

    /// Answers a challenge of one authorization, unless it is authorised already.
    async fn answer(
        &self,
        client: &Client,
        order: &mut Order,
        at: usize,
        kinds: &[ChallengeKind],
        answers: &mut Answers,
    ) -> Result<Option<ChallengeKind>, Unproven> {
        let told = |error: Error| match is_bad_nonce(&error) {
            true => Unproven::Nonce,
            false => Unproven::Failure(client.failure(&error)),
        };
        let mut authorizations = order.authorizations();
        for _ in 0..at {
            if let Some(Err(error)) = authorizations.next().await {
                return Err(told(error));
            }
        }
        let Some(authorization) = authorizations.next().await else {
            return Ok(None);
        };
        let mut authorization = authorization.map_err(told)?;
        if authorization.status != AuthorizationStatus::Pending {
            return Ok(None);
        }
        let name = authorization.identifier().to_string().to_ascii_lowercase();
        if !self.managed.names.contains(&name) {
            return Err(Unproven::of(format!(
                "the directory asks for proof of {name:?}, which was not ordered"
            )));
        }
        let has_star = name.starts_with("*.");
        let offers = |kind: &ChallengeKind| {
            let mut offered = authorization.challenges.iter();
            let suits = !has_star || *kind == ChallengeKind::Dns01;
            suits && offered.any(|challenge| challenge.r#type == type_of(*kind))
        };
        let kind = kinds.iter().copied().find(offers);
        let offered: Vec<String> = (authorization.challenges.iter())
            .map(|challenge| format!("{:?}", challenge.r#type))
            .collect();
        let challenge = kind.and_then(|kind| Some((kind, authorization.challenge(type_of(kind))?)));
        let Some((kind, challenge)) = challenge else {
            return Err(Unproven::of(format!(
                "the directory offers no challenge for {name} that may be used here, but {}",
                offered.join(", ")
            )));
        };
        let proof = challenge.key_authorization();
        let show = |token: Option<&str>| Shown {
            host: name.clone(),
            token: token.map(str::to_owned),
            proof: proof.as_str().to_owned(),
            until: super::now() + 2 * PATIENCE.as_secs(),
        };
        match kind {
            ChallengeKind::Http01 => {
                let token = &challenge.token;
                answers.to_show.push(show(Some(token)));
                let posted = self.challenges.post_http(&name, token, proof.as_str());
                answers.posted.push(posted);
            }
            ChallengeKind::TlsAlpn01 => {
                answers.to_show.push(show(None));
                let made = request::challenge(&name, proof.digest().as_ref());
                let (certificate, key) =
                    made.map_err(|error| Unproven::of(format!("no challenge: {error}")))?;
                let posted = self.challenges.post_tls(&name, &certificate, &key);
                let posted = posted.map_err(|fault| Unproven::of(fault.to_string()))?;
                answers.posted.push(posted);
            }
            ChallengeKind::Dns01 => {
                let Some(dns) = &self.managed.settings.dns else {
                    return Err(Unproven::of("there is no `dns`".to_owned()));
                };
                let parent = name.trim_start_matches("*.");
                let record = format!("_acme-challenge.{parent}.");
                let value = proof.dns_value();
                // It is cleaned up even where this fails half-way.
                answers.dns.push((record.clone(), value.clone()));
                let present = hook::call(&dns.hook, "present", &record, &value);
                present.await.map_err(Unproven::Failure)?;
            }
        }
        Ok(Some(kind))
    }

    /// Tells the directory that it may look.
    async fn ready(
        &self,
        client: &Client,
        order: &mut Order,
        at: usize,
        kind: ChallengeKind,
    ) -> Result<(), Failure> {
        let mut authorizations = order.authorizations();
        let mut found = 0;
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| client.failure(&error))?;
            if found < at {
                found += 1;
                continue;
            }
            let Some(mut challenge) = authorization.challenge(type_of(kind)) else {
                break;
            };
            // One that is being validated, since before a restart, is not asked for twice.
            if challenge.status == ChallengeStatus::Pending {
                patiently!(client, challenge.set_ready())?;
            }
            break;
        }
        Ok(())
    }

    /// Takes back what was answered.
    async fn clean_up(&self, answers: Answers) {
        for id in answers.shown {
            if let Err(failure) = self.store.hide(&id).await {
                tracing::debug!(certificate = self.place.name, "{}", failure.text);
            }
        }
        let Some(dns) = &self.managed.settings.dns else {
            return;
        };
        for (record, value) in answers.dns {
            let cleaned = hook::call(&dns.hook, "cleanup", &record, &value).await;
            if let Err(failure) = cleaned {
                tracing::warn!(certificate = self.place.name, "{}", failure.text);
            }
        }
    }

    /// The challenges in the order in which they are tried: the one that last succeeded first; after failures the next.
    fn kinds(&self, row: &Row) -> Vec<ChallengeKind> {
        let mut kinds = self.managed.settings.challenges.clone();
        let known = |name: &String| kinds.iter().position(|kind| kind.name() == name);
        let first = row.challenge.as_ref().and_then(known).unwrap_or(0);
        let shift = first + usize::from(row.refused > 0);
        let count = kinds.len().max(1);
        kinds.rotate_left(shift % count);
        kinds
    }

    /// Why an order is invalid: the first validation that failed, in the directory's words.
    async fn why_invalid(&self, client: &Client, order: &mut Order) -> Failure {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let looked = patiently!(client, authorization.refresh()).map(drop);
            if looked.is_err() {
                break;
            }
            let mut challenges = authorization.challenges.iter();
            if let Some(problem) = challenges.find_map(|it| it.error.as_ref()) {
                return Failure::validation(problem);
            }
        }
        match &order.state().error {
            Some(problem) => Failure::validation(problem),
            None => Failure {
                kind: Kind::Validation,
                ..Failure::own("the order is invalid, and the directory does not say why")
            },
        }
    }
}

fn type_of(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::Dns01 => ChallengeType::Dns01,
    }
}

/// What is answered for an order.
#[derive(Default)]
struct Answers {
    posted: Vec<Posted>,
    /// What other gateways are to answer, too.
    to_show: Vec<Shown>,
    /// The ids of what they answer.
    shown: Vec<String>,
    /// Names and values of DNS records.
    dns: Vec<(String, String)>,
}

/// Why a challenge is not answered.
enum Unproven {
    /// The nonce was refused.
    Nonce,
    /// Anything else.
    Failure(Failure),
}

impl Unproven {
    fn of(text: String) -> Self {
        Self::Failure(Failure::own(text))
    }
}

/// Looks at an order until its status is one of these.
async fn wait(
    client: &Client,
    order: &mut Order,
    done: fn(OrderStatus) -> bool,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut pause = LOOKS.0;
    while !done(order.state().status) {
        let asked = client.retry_after().map(Duration::from_secs);
        let wait = asked.unwrap_or(pause).max(LOOKS.0);
        if began.elapsed() + wait > PATIENCE {
            return Err(Failure {
                kind: Kind::Other,
                text: format!("the order is still {:?}", order.state().status).to_lowercase(),
                retry_after: asked.map(|asked| asked.as_secs()),
            });
        }
        sleep(wait).await;
        pause = (pause * 3 / 2).min(LOOKS.1);
        patiently!(client, order.refresh()).map(drop)?;
    }
    Ok(())
}

/// Whether an error says that the directory has no renewal information.
pub(super) fn has_no_ari(error: &Error) -> bool {
    matches!(error, Error::Unsupported(_))
}
