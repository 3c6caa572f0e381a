//! The client's address, and what trusted proxies may say about it.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// `trusted_proxies`: the peers whose `X-Forwarded-*` and `Forwarded` are believed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TrustedProxies {
    /// Networks of addresses.
    pub(crate) networks: Vec<IpNet>,
    /// Whether the peers on Unix sockets are among them.
    pub(crate) unix: bool,
}

impl TrustedProxies {
    /// Whether the peer is one of them; `None` is a peer on a Unix socket.
    pub(crate) fn trusts(&self, peer: Option<IpAddr>) -> bool {
        let Some(ip) = peer else { return self.unix };
        if self.networks.is_empty() {
            return false;
        }
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
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

/// Whom limits, throttles and the spool count as one client: an address of IPv4, a /64 of IPv6, all of whose 2^64
/// addresses one holder has, or all who come over Unix sockets and whose addresses nobody tells.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Counted(Option<IpAddr>);

impl Counted {
    /// As whom a client with this address counts; `None` is one whose address is not known.
    pub(crate) fn of(client: Option<IpAddr>) -> Self {
        Self(client.map(|ip| match ip.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        }))
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
            unix: peer == "trusted unix",
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
        check("trusted unix", &["6.6.6.6, 1.2.3.4, 10.0.0.7"], "1.2.3.4");
        check("trusted unix", &[], "");
        check("trusted unix", &["unknown"], "");
    }

    #[test]
    fn who_has_many_addresses_is_one_client() {
        let counted = |ip: &str| Counted::of(ip.parse().ok());
        assert_eq!(counted("2001:db8::1"), counted("2001:db8::ffff:0:0:1"));
        assert_eq!(counted("2001:db8::1"), counted("2001:db8::"));
        assert_ne!(counted("2001:db8:0:1::1"), counted("2001:db8::1"));
        assert_eq!(counted("::ffff:10.0.0.1"), counted("10.0.0.1"));
        assert_ne!(counted("::ffff:10.0.0.1"), counted("::ffff:10.0.0.2"));
        assert_ne!(counted("10.0.0.1"), counted("10.0.0.2"));
        assert_eq!(counted("unix"), Counted::of(None));
        assert_ne!(counted("unix"), counted("::"));
    }

    #[test]
    fn junk_ends_the_search() {
        check("10.0.0.1", &["1.2.3.4, unknown"], "10.0.0.1");
        check("10.0.0.1", &["1.2.3.4, unknown, 10.0.0.5"], "10.0.0.5");
        check("10.0.0.1", &[], "10.0.0.1");
    }
}
