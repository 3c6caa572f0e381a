//! What is kept of the certificates of a configuration: where each is, and how it is read and served.

use super::client::Failure;
use super::rows::{Pem, Place, Row};
use super::store::Store;
use crate::net::tls::{CertificatePair, Issued, TlsFault};
use crate::snapshot::{Acme, Managed};

/// Reads all certificates of a configuration before it serves.
pub(super) async fn load_all(store: &Store, acme: &Acme) -> Result<(), Failure> {
    for managed in &acme.managed {
        load(store, managed).await?;
    }
    Ok(())
}

/// Reads a certificate and its row, and serves the certificate, unless a newer one is served already. In a directory, what
/// cannot be read is logged, and counts as none.
///
/// # Errors
/// Servers do not answer.
pub(super) async fn load(store: &Store, managed: &Managed) -> Result<Row, Failure> {
    let is_shared = matches!(store, Store::Shared(_));
    let own = place(managed);
    let row = match store.row(&own).await {
        Err(failure) if is_shared => return Err(failure),
        Err(failure) => {
            tracing::error!(certificate = own.name, "{}", failure.text);
            Row::default()
        }
        Ok(row) => row,
    };
    for place in places(managed) {
        match store.certificate(&place, fits).await {
            Ok(Some(pem)) => serve(managed, &place, &pem),
            Ok(None) => {}
            Err(failure) if is_shared => return Err(failure),
            Err(failure) => tracing::error!(certificate = place.name, "{}", failure.text),
        }
    }
    Ok(row)
}

/// Serves a certificate from `state`, unless it is served already.
fn serve(managed: &Managed, place: &Place, pem: &Pem) {
    match issued(pem) {
        Ok(issued) => {
            let known = managed.slot.current();
            if known.is_none_or(|known| is_better(&issued, &known, &managed.names)) {
                managed.slot.replace(issued);
            }
        }
        Err(fault) => tracing::error!(
            certificate = place.name,
            "the certificate in `state` cannot be used: {fault}"
        ),
    }
}

/// Whether a certificate that was read is to be served instead of another: for more of these names, since other gateways may
/// have other names in it, or not older, since one may arrive while this was read.
fn is_better(one: &Issued, other: &Issued, names: &[String]) -> bool {
    let (all, before) = (one.has_all(names), other.has_all(names));
    all && !before || all == before && one.about().begins >= other.about().begins
}

/// Reads a certificate and its key.
pub(super) fn issued(pem: &Pem) -> Result<Issued, TlsFault> {
    CertificatePair::from_pem(&pem.chain, &pem.key)?.issued()
}

/// Whether a certificate and a key belong together.
pub(super) fn fits(pem: &Pem) -> bool {
    issued(pem).is_ok()
}

/// Where what is known about a certificate is kept, and the certificate itself where its first directory issued it.
pub(super) fn place(managed: &Managed) -> Place {
    let all = places(managed).next();
    all.unwrap_or_else(|| Place::new("", ""))
}

/// Where a certificate may be kept: one place for each directory.
pub(super) fn places(managed: &Managed) -> impl Iterator<Item = Place> {
    let name = managed.names.first().map_or("", String::as_str);
    let directories = managed.settings.directories.iter();
    directories.map(move |directory| Place::new(directory.url.authority(), name))
}
