//! What `cert list` and `cert renew` read and write in `state`, from a process other than the gateway's.

use std::time::{SystemTime, UNIX_EPOCH};

use super::budget::Budget;
use super::kept::{fits, issued, place, places};
use super::store::Store;
use super::work::due;
use crate::net::resolve::Names;
use crate::net::tls::Issued;
use crate::snapshot::Acme;

/// A certificate that the gateway orders, as `state` has it.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Its names.
    pub(crate) names: Vec<String>,
    /// The directory that issued it, or is asked first.
    pub(crate) directory: String,
    /// Who issued it, and the end of its validity; `None` where there is none yet.
    pub(crate) there: Option<(String, SystemTime)>,
    /// When it is renewed, or the next attempt is made; `None` is at once.
    pub(crate) next: Option<SystemTime>,
    /// How many attempts failed in a row, and why the last one did.
    pub(crate) failed: Option<(u32, String)>,
}

/// All certificates of a configuration.
///
/// # Errors
/// `state` cannot be read.
pub(crate) async fn listed(acme: &Acme, names: &Names) -> Result<Vec<Listed>, String> {
    let store =
        Store::new(&acme.state, names, &Budget::default()).map_err(|failure| failure.text)?;
    let mut all = Vec::with_capacity(acme.managed.len());
    for managed in &acme.managed {
        let place = place(managed);
        let row = store.row(&place).await;
        let row = row.map_err(|failure| failure.text)?;
        let mut newest: Option<Issued> = None;
        for place in places(managed) {
            let pem = store.certificate(&place, fits).await;
            let pem = pem.map_err(|failure| failure.text)?;
            let found = pem.and_then(|pem| issued(&pem).ok());
            let begins = |issued: &Issued| issued.about().begins;
            let is_newer = |found: &Issued| newest.as_ref().map(begins) < Some(begins(found));
            if let Some(found) = found.filter(is_newer) {
                newest = Some(found);
            }
        }
        let about = newest.as_ref().map(|issued| issued.about());
        let issuer = row.directory.clone();
        let issuer = issuer.filter(|url| managed.settings.directory(url).is_some());
        let ours = issuer.is_some() && row.covers(&managed.names) && !row.asked;
        let first = managed.settings.directories.first();
        let directory = issuer.or_else(|| first.map(|first| first.url.whole()));
        let next = match (row.failures, ours) {
            (0, true) => Some(due(&row)),
            (0, false) => None,
            (_, _) => Some(row.next),
        };
        all.push(Listed {
            names: managed.names.clone(),
            directory: directory.unwrap_or_default(),
            there: about.map(|about| (about.issuer.clone(), about.ends)),
            next: next.and_then(|at| UNIX_EPOCH.checked_add(std::time::Duration::from_secs(at))),
            failed: row.error.map(|why| (row.failures, why)),
        });
    }
    Ok(all)
}

/// Asks the running gateway to renew the certificate with this name; `false` where the configuration orders none.
///
/// # Errors
/// `state` cannot be written.
pub(crate) async fn ask_renewal(acme: &Acme, names: &Names, name: &str) -> Result<bool, String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let found = (acme.managed.iter()).find(|managed| managed.names.contains(&name));
    let Some(managed) = found else {
        return Ok(false);
    };
    let store =
        Store::new(&acme.state, names, &Budget::default()).map_err(|failure| failure.text)?;
    let asked = store.ask_renewal(&place(managed)).await;
    asked.map(|()| true).map_err(|failure| failure.text)
}
