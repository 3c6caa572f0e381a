//! What is done about one certificate when its time has come: look whether it is to be renewed, order it, and keep the
//! outcome, or keep why there is none and when to try again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::{Account, CertificateIdentifier};

use super::account;
use super::client::{Client, Failure, Kind};
use super::order::{Arrived, Attempt, has_no_ari};
use super::renewal;
use super::rows::Row;
use crate::net::dial::Dialer;
use crate::net::tls::{About, ClientTls};
use crate::net::url::Url;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
/// When to look again where `state` cannot be read, in seconds.
const UNREAD: u64 = 60;

/// Does what is due about a certificate; `asked` renews it whatever its time. Returns when to look again, in seconds
/// since 1970.
pub(super) async fn work(attempt: Attempt, dialer: Dialer, asked: bool) -> u64 {
    let mut row = match attempt.store.row(&attempt.place).await {
        Ok(row) => row,
        Err(failure) => return unusable(&attempt, &failure),
    };
    if row.names != attempt.managed.names {
        row = Row {
            names: attempt.managed.names.clone(),
            ordered: row.ordered,
            ..Row::default()
        };
    }
    if asked {
        row.asked = true;
        row.rehearses = false;
        let noted = attempt.store.keep_row(&attempt.place, &row).await;
        let noted = match noted {
            Ok(()) => attempt.store.end_renewal(&attempt.place).await,
            failed => failed,
        };
        if let Err(failure) = noted {
            return unusable(&attempt, &failure);
        }
    }
    let outcome = Work {
        attempt: &attempt,
        dialer: &dialer,
    }
    .run(&mut row)
    .await;
    if let Err(failure) = outcome {
        failed(&attempt, &mut row, &failure);
    }
    if let Err(failure) = attempt.store.keep_row(&attempt.place, &row).await {
        tracing::error!(certificate = attempt.place.name, "{}", failure.text);
    }
    row.next.max(super::now() + 1)
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

/// Notes a failure, and when to try again.
fn failed(attempt: &Attempt, row: &mut Row, failure: &Failure) {
    row.failures = row.failures.saturating_add(1);
    if failure.kind == Kind::Validation {
        row.refused = row.refused.saturating_add(1);
        row.rehearses |= attempt.managed.settings.staging.is_some();
    }
    let pause = renewal::pause(row.failures, failure.retry_after, renewal::random());
    row.next = super::now().saturating_add(pause);
    row.error = Some(failure.text.clone());
    let again_in = Duration::from_secs(pause);
    let served = attempt.managed.slot.current();
    let expires = served.map(|served| httpdate::fmt_http_date(served.about().ends));
    tracing::warn!(
        certificate = attempt.place.name,
        directory = %attempt.managed.settings.directory,
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
        let client = self.client(&settings.directory)?;
        let served = self.attempt.managed.slot.current();
        // One that another directory issued is served until it is replaced, but is not renewed there.
        let ours = row.directory.as_deref() == Some(&settings.directory.whole());
        let about = served.filter(|_| ours);
        let about = about.as_ref().map(|served| served.about());
        if let Some(about) = about {
            self.look(&client, about, row).await;
            if !row.asked && super::now() < due(row) {
                self.set_next(row);
                return Ok(());
            }
        }
        self.attempt
            .store
            .keep_row(&self.attempt.place, row)
            .await?;
        if let Some(staging) = settings.staging.as_ref().filter(|_| row.rehearses) {
            let rehearsal = self.client(staging)?;
            self.order(&rehearsal, row, None).await?;
            tracing::info!(
                certificate = self.attempt.place.name,
                directory = %staging,
                "validation succeeded at the staging directory"
            );
            row.rehearses = false;
            row.refused = 0;
            self.attempt.give_up(row).await?;
        }
        // Named only where the directory has renewal information.
        let replaces = about.and_then(|about| about.id.as_deref());
        let replaces = replaces.filter(|_| row.window.is_some());
        let arrived = self.order(&client, row, replaces).await?;
        if row.window.is_some() && !row.asked {
            row.by_window = super::now();
        }
        self.keep(arrived, row).await
    }

    fn client(&self, directory: &Url) -> Result<Client, Failure> {
        let tls = match &self.attempt.managed.settings.ca {
            Some(pem) => ClientTls::with_ca(pem),
            None => ClientTls::system(),
        };
        let tls = tls.map_err(|fault| Failure::own(fault.to_string()))?;
        Ok(Client::new(directory, tls, self.dialer))
    }

    async fn account(&self, client: &Client) -> Result<Account, Failure> {
        let settings = &self.attempt.managed.settings;
        account::account(&self.attempt.store, client, settings).await
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
                let settings = &self.attempt.managed.settings;
                account::forget(&self.attempt.store, client, settings).await?;
                let account = self.account(client).await?;
                self.attempt.run(client, &account, row, replaces).await
            }
            outcome => outcome,
        }
    }

    /// Keeps and serves a certificate.
    async fn keep(&self, arrived: Arrived, row: &mut Row) -> Result<(), Failure> {
        let Arrived { issued, chain } = arrived;
        let Attempt {
            managed,
            place,
            store,
            ..
        } = self.attempt;
        store.keep_certificate(place, chain.as_bytes()).await?;
        let about = issued.about().clone();
        managed.slot.replace(issued);
        let now = super::now();
        *row = Row {
            names: managed.names.clone(),
            directory: Some(managed.settings.directory.whole()),
            challenge: row.challenge.take(),
            ordered: row.ordered,
            by_window: row.by_window,
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
    async fn look(&self, client: &Client, about: &About, row: &mut Row) {
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
        let account = match self.account(client).await {
            Ok(account) => account,
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

    /// The next look: at the renewal, or when renewal information is to be asked for again.
    fn set_next(&self, row: &mut Row) {
        row.next = due(row).min(row.again);
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
