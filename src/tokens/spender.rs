//! `Spender`: the client that used a refresh token, as far as it can be recognised. The stores decide what follows
//! from it.

use std::net::IpAddr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::net::client::Counted;

/// The client that used a token: hashes, which reveal nothing to anyone who does not already know the values.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Spender {
    /// Of the client's address; for IPv6 of its /64.
    #[serde(default)]
    pub(super) address: String,
    /// Of the access token's cookie that was sent with it; empty without one.
    #[serde(default)]
    pub(super) cookie: String,
}

impl Spender {
    /// The client of a request of a session; `client` is `None` on a Unix socket, which counts as one client.
    pub(super) fn of(session: &str, client: Option<IpAddr>, cookie: Option<&str>) -> Self {
        Self {
            address: sum(session, &Counted::of(client).to_string()),
            cookie: cookie.map_or_else(String::new, |cookie| sum(session, cookie)),
        }
    }

    /// Whether this may be the same client: it has the same address or the same cookie.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        let same = |one: &str, other: &str| !one.is_empty() && one == other;
        same(&self.address, &other.address) || same(&self.cookie, &other.cookie)
    }
}

fn sum(session: &str, what: &str) -> String {
    let sum = digest::digest(&digest::SHA256, format!("{session}/{what}").as_bytes());
    URL_SAFE_NO_PAD.encode(sum.as_ref().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_again_by_its_network_or_its_cookie() {
        let of = |ip: &str, cookie| Spender::of("s", ip.parse().ok(), cookie);
        let spent = of("2001:db8::1", Some("a"));
        assert!(spent.may_be(&of("2001:db8::2", None)));
        assert!(spent.may_be(&of("10.0.0.1", Some("a"))));
        assert!(!spent.may_be(&of("2001:db8:0:1::1", Some("b"))));
        assert!(!of("10.0.0.1", None).may_be(&of("10.0.0.2", None)));
        assert!(Spender::of("s", None, None).may_be(&Spender::of("s", None, None)));
        // A row that was written before this field existed matches no client.
        assert!(!Spender::default().may_be(&Spender::default()));
        assert!(!Spender::of("t", "10.0.0.1".parse().ok(), None).may_be(&of("10.0.0.1", None)));
    }
}
