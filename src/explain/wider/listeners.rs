//! Detects where a listener lets in more clients than before: without a certificate, with one of another authority, or with
//! one that was revoked.

use std::sync::Arc;

use crate::net::tls::Clients;
use crate::snapshot::{Listener, Snapshot};

/// Describes the clients that a listener of `new` lets in and the listener of the same address did not, or where there was
/// none, no listener.
pub(super) fn wider(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    // A listener that only redirects serves nobody.
    let serving = |of: &Snapshot| -> Vec<Arc<Listener>> {
        let all = of.listeners.iter();
        all.filter(|it| it.redirect_to_https.is_none())
            .cloned()
            .collect()
    };
    let before = serving(old);
    for listener in serving(new) {
        let address = &listener.address;
        let same = before.iter().find(|it| it.address == *address);
        let compared = same.map_or(before.as_slice(), std::slice::from_ref);
        if !compared.is_empty()
            && is_for_anybody(&listener)
            && !compared.iter().any(|it| is_for_anybody(it))
        {
            lines.push(match same {
                Some(_) => format!("listener {address} requires no client certificate any more"),
                None => format!(
                    "listener {address} lets in clients without a certificate, which no listener did"
                ),
            });
        }
        let Some(clients) = clients_of(&listener) else {
            continue;
        };
        let others: Vec<&Clients> = compared.iter().filter_map(|it| clients_of(it)).collect();
        if others.is_empty() {
            continue;
        }
        for name in clients.new_authorities(&others) {
            lines.push(format!(
                "listener {address} accepts client certificates of {name}, which it refused"
            ));
        }
        if let (Some(_), Some(others)) = (same, others.first()) {
            for (name, lost) in clients.no_longer_revoked(others) {
                lines.push(format!(
                    "listener {address} no longer revokes {lost} of the client certificates of {name} that it revoked"
                ));
            }
        }
    }
    lines
}

fn clients_of(listener: &Listener) -> Option<&Clients> {
    listener.tls.as_ref().and_then(|tls| tls.clients())
}

/// Whether clients without a certificate are let in.
fn is_for_anybody(listener: &Listener) -> bool {
    !clients_of(listener).is_some_and(Clients::are_required)
}
