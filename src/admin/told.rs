//! What the admin thread tells as JSON: the state of the process, its reloads, upstreams, issuers and certificates. No
//! secret and no token is among it.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Outcome, Row, Shared};

/// A moment as RFC 3339 writes it, in whole seconds.
fn time(at: SystemTime) -> Value {
    let at = jiff::Timestamp::try_from(at).ok();
    let at = at.and_then(|at| at.round(jiff::Unit::Second).ok());
    at.map_or(Value::Null, |at| json!(at.to_string()))
}

fn digest(digest: u64) -> String {
    format!("{digest:016x}")
}

/// The state of the process.
pub(super) fn status(shared: &Shared) -> Value {
    let snapshot = shared.snapshot();
    let draining = shared.is_draining();
    let last = shared.history.rows();
    json!({
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "config": shared.config,
        "digest": digest(shared.in_force.borrow().digest),
        "started": time(shared.started),
        "ready": !draining,
        "draining": draining,
        "workers": snapshot.workers,
        "connections": shared.observer.connections(),
        "listeners": snapshot.listeners.iter().map(|it| it.address.to_string()).collect::<Vec<_>>(),
        "routes": snapshot.routes.len(),
        "log_level": shared.level.borrow().as_str().to_lowercase(),
        "last_reload": last.first().map(row),
    })
}

/// The last reloads, the latest first.
pub(super) fn reloads(shared: &Shared) -> Value {
    shared.history.rows().iter().map(row).collect()
}

/// One reload.
pub(super) fn row(row: &Row) -> Value {
    let (result, changes, mistakes) = match &row.outcome {
        Outcome::Good(changes) => ("good", changes.as_slice(), None),
        Outcome::Refused(mistakes) => ("refused", &[][..], Some(mistakes)),
    };
    let changes = changes
        .iter()
        .map(|change| json!({"text": change.text, "wider": change.wider}));
    json!({
        "time": time(row.time),
        "by": row.by.name(),
        "result": result,
        "digest": digest(row.digest),
        "changes": changes.collect::<Vec<_>>(),
        "mistakes": mistakes,
    })
}

/// Each server of each upstream.
pub(super) fn upstreams(shared: &Shared) -> Value {
    let snapshot = shared.snapshot();
    let servers = snapshot.upstreams.iter().flat_map(|upstream| {
        upstream.servers().map(move |server| {
            json!({
                "upstream": upstream.name,
                "server": server.name,
                "up": server.is_up,
                "idle": server.idle,
                "busy": server.busy,
                "ejections": server.ejections,
                "requests": server.codes,
                "failures": server.failures,
            })
        })
    });
    servers.collect()
}

/// Each issuer whose keys are at a URL.
pub(super) fn issuers(shared: &Shared) -> Value {
    let snapshot = shared.snapshot();
    let verifiers = snapshot.verifiers.iter();
    let remotes = verifiers.filter_map(|(settings, it)| Some((settings, it.remote()?)));
    let issuers = remotes.map(|(settings, remote)| {
        let fetched = remote.current();
        let expires = fetched.as_ref().map(|fetched| {
            let lasts = remote.good_until(fetched).duration_since(fetched.since);
            time(fetched.at + lasts)
        });
        json!({
            "verifier": settings.name,
            "url": remote.settings().location.to_string(),
            "keys": remote.names(),
            "fetched": fetched.map(|fetched| time(fetched.at)),
            "expires": expires,
            "failure": remote.failure().map(|failure| failure.to_string()),
        })
    });
    issuers.collect()
}

/// Each certificate that clients may get.
pub(super) fn certificates(shared: &Shared) -> Value {
    let snapshot = shared.snapshot();
    let listeners = snapshot.listeners.iter();
    let tls = listeners.filter_map(|it| Some((it.address.to_string(), it.tls.as_ref()?)));
    let all = tls.flat_map(|(listener, tls)| {
        let certificates: Vec<_> = tls.certificates().collect();
        certificates.into_iter().map(move |(name, ends)| {
            json!({"listener": listener, "name": name, "not_after": time(ends)})
        })
    });
    all.collect()
}
