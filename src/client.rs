//! The client's address, and what trusted proxies may say about it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// `trusted_proxies`: the peers whose `X-Forwarded-*` and `Forwarded` are believed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TrustedProxies {
    /// Networks of addresses.
    pub(crate) networks: Vec<IpNet>,
}

impl TrustedProxies {
    /// Whether the peer is one of them; `None`, a peer on a Unix socket, is none.
    pub(crate) fn trusts(&self, peer: Option<IpAddr>) -> bool {
        if self.networks.is_empty() {
            return false;
        }
        peer.is_some_and(|ip| {
            let ip = ip.to_canonical();
            self.networks.iter().any(|network| network.contains(&ip))
        })
    }

    /// Whether the client came over TLS: to here, or, where the peer is trusted, to it.
    pub(crate) fn is_secure(&self, peer: &Peer, headers: &HeaderMap) -> bool {
        let said = || headers.get("x-forwarded-proto");
        peer.tls || (self.trusts(peer.ip) && said().is_some_and(|proto| proto == "https"))
    }

    /// The address of the client: the peer's own, or, where the peer is trusted, the last one in
    /// `X-Forwarded-For` that no trusted proxy has. An entry that is no address ends the search.
    pub(crate) fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.map(|ip| ip.to_canonical());
        if !self.trusts(peer) {
            return client;
        }
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        for line in lines.iter().rev() {
            let Ok(line) = line.to_str() else {
                return client;
            };
            for entry in line.rsplit(',') {
                let Some(ip) = parse_node(entry.trim()) else {
                    return client;
                };
                client = Some(ip);
                if !self.trusts(client) {
                    return client;
                }
            }
        }
        client
    }
}

/// What is known of a connection before its first request; made once, read by every request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The address at the other end; `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// The same as a header's value.
    pub(crate) text: HeaderValue,
    /// Whether it came over TLS.
    pub(crate) tls: bool,
    /// The port it came to, as a header's value; `None` on a Unix socket.
    pub(crate) port: Option<HeaderValue>,
}

impl Peer {
    /// A peer that connected to `port`.
    pub(crate) fn new(ip: Option<IpAddr>, port: Option<HeaderValue>, tls: bool) -> Self {
        let ip = ip.map(|ip| ip.to_canonical());
        let text = ip.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok());
        Self {
            ip,
            text: text.unwrap_or(HeaderValue::from_static("unknown")),
            tls,
            port,
        }
    }
}

impl Peer {
    /// Whether its connection is one of TCP, without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.ip.is_some() && !self.tls
    }

    /// The address as text; `None` on a Unix socket.
    pub(crate) fn name(&self) -> Option<&str> {
        self.ip.and_then(|_| self.text.to_str().ok())
    }
}

/// An address, with or without a port.
fn parse_node(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| {
            text.parse::<std::net::SocketAddr>()
                .ok()
                .map(|address| address.ip())
        })
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let trusted = TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
        };
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let seen = trusted.client(peer.parse().ok(), &headers);
        assert_eq!(seen.map(|ip| ip.to_string()).unwrap_or_default(), expected);
    }

    #[test]
    fn a_stranger_is_not_believed() {
        check("203.0.113.9", &["1.2.3.4"], "203.0.113.9");
        check("::ffff:203.0.113.9", &["1.2.3.4"], "203.0.113.9");
    }

    #[test]
    fn a_trusted_proxy_is_believed_from_the_right() {
        check("10.0.0.1", &["1.2.3.4"], "1.2.3.4");
        check("::ffff:10.0.0.1", &["1.2.3.4"], "1.2.3.4");
        check("10.0.0.1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4");
        check("10.0.0.1", &["6.6.6.6", "1.2.3.4, 10.9.9.9"], "1.2.3.4");
        check("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1");
        check("10.0.0.1", &["10.0.0.7"], "10.0.0.7");
        check("unix", &["1.2.3.4"], "");
    }

    #[test]
    fn junk_ends_the_search() {
        check("10.0.0.1", &["1.2.3.4, unknown"], "10.0.0.1");
        check("10.0.0.1", &["1.2.3.4, unknown, 10.0.0.5"], "10.0.0.5");
        check("10.0.0.1", &[], "10.0.0.1");
    }
}
