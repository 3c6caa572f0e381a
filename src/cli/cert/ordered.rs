//! `portcullis cert list` and `renew`: the certificates that the gateway orders from an ACME directory. Both work on `state`,
//! and ask nobody: a running gateway looks there every second.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cli::tokens::Ended;
use crate::clock;
use crate::config::{self, Verdict};
use crate::control::acme::{Listed, ask_renewal, listed};
use crate::net::resolve::Names;
use crate::observe::log;
use crate::snapshot::Acme;

/// How `cert list` prints.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(in crate::cli) enum Format {
    /// A line each, with tabs.
    #[default]
    Text,
    /// One object.
    Json,
}

/// Shows the certificates of a configuration.
pub(super) fn list(format: Format, config: &Path) -> Result<String, Ended> {
    let (acme, names) = acme(config)?;
    let all = run(listed(&acme, &names))?;
    Ok(match format {
        Format::Text => all.iter().map(line).collect(),
        Format::Json => {
            let all: Vec<Value> = all.iter().map(object).collect();
            format!("{:#}\n", json!({"certificates": all}))
        }
    })
}

/// Asks the running gateway to renew the certificate with this name.
pub(super) fn renew(name: &str, config: &Path) -> Result<String, Ended> {
    let (acme, names) = acme(config)?;
    if run(ask_renewal(&acme, &names, name))? {
        return Ok(format!(
            "{name}: the gateway renews it within a second, where it runs\n"
        ));
    }
    let known = acme.managed.iter().flat_map(|managed| &managed.names);
    let known: Vec<&str> = known.map(String::as_str).collect();
    let why = format!("{name} is not ordered; these are: {}", known.join(", "));
    Err(Ended::Failed(why))
}

/// Waits for what needs a runtime.
fn run<T>(asked: impl Future<Output = Result<T, String>>) -> Result<T, Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Ended::Failed(error.to_string()))?;
    runtime.block_on(asked).map_err(Ended::Failed)
}

/// The certificates that a configuration orders.
fn acme(config: &Path) -> Result<(Arc<Acme>, Names), Ended> {
    log::plainly();
    let loaded = config::load(config, &[], &|_| Verdict::default())
        .map_err(|refused| Ended::Refused(refused.errors))?;
    let names = loaded.snapshot.dialer.names().clone();
    let acme = loaded.snapshot.acme;
    let acme =
        acme.ok_or_else(|| Ended::Config("the configuration has no `tls.acme`".to_owned()))?;
    Ok((acme, names))
}

/// Names, issuer, expiry, next renewal, last error, with tabs between them.
fn line(listed: &Listed) -> String {
    let (issuer, expires) = match &listed.there {
        Some((issuer, ends)) => (issuer.as_str(), time(*ends)),
        None => ("none yet", "-".to_owned()),
    };
    let next = listed.next.map_or_else(|| "at once".to_owned(), time);
    let failed = match &listed.failed {
        Some((failures, why)) => format!("{failures} failed: {why}"),
        None => "-".to_owned(),
    };
    let names = listed.names.join(",");
    format!("{names}\t{issuer}\t{expires}\t{next}\t{failed}\n")
}

fn object(listed: &Listed) -> Value {
    json!({
        "names": listed.names,
        "directory": listed.directory,
        "issuer": listed.there.as_ref().map(|(issuer, _)| issuer),
        "expires": listed.there.as_ref().map(|(_, ends)| time(*ends)),
        "next": listed.next.map(time),
        "failures": listed.failed.as_ref().map_or(0, |(failures, _)| *failures),
        "error": listed.failed.as_ref().map(|(_, why)| why),
    })
}

/// RFC 3339, in UTC.
fn time(at: SystemTime) -> String {
    let (year, month, day, hour, minute, second) = clock::civil(clock::since_epoch(at).0);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
