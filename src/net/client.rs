//! The client's address, and which forwarded addresses are trusted.

mod forwarded;

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use self::forwarded::Hop;

/// `trusted_proxies`: the peers whose `X-Forwarded-*` and `Forwarded` are trusted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TrustedProxies {
    /// Networks of addresses.
    pub(crate) networks: Vec<IpNet>,
    /// Whether peers on Unix sockets are trusted.
    pub(crate) unix: bool,
}

impl TrustedProxies {
    /// Whether the peer is trusted; `None` is a peer on a Unix socket.
    pub(crate) fn trusts(&self, peer: Option<IpAddr>) -> bool {
        let Some(ip) = peer else { return self.unix };
        if self.networks.is_empty() {
            return false;
        }
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// The client of a request with these headers: the peer, or where it is trusted, the client that it names.
    ///
    /// Most proxies write `X-Forwarded-*` and pass a client's own `Forwarded` through unchanged, so `Forwarded` is read
    /// only where there is no `X-Forwarded-For`. In either, the client is the last hop that is not a trusted proxy; an
    /// entry that is not an address ends the search.
    pub(crate) fn client(&self, peer: &Peer, headers: &HeaderMap) -> Client {
        if !self.trusts(peer.ip) {
            return Client {
                ip: peer.ip,
                secure: peer.is_secure(),
                told: None,
            };
        }
        let plainly = headers.contains_key("x-forwarded-for");
        let hops: Vec<Hop<'_>> = if plainly {
            forwarded::by_x_forwarded_for(headers).collect()
        } else {
            forwarded::by_forwarded(headers).collect()
        };
        // The index of the client's hop, and its address or that of the last trustworthy proxy.
        let (mut at, mut ip) = (0, peer.ip);
        for (index, hop) in hops.iter().enumerate() {
            at = index;
            match hop.ip {
                None => break,
                found => ip = found,
            }
            if !self.trusts(ip) {
                break;
            }
        }
        let of = |name| {
            let all: Vec<&str> = forwarded::from_the_right(headers, name).collect();
            // Proxies that append write one value per hop; otherwise the nearest proxy's value applies.
            let own = if all.len() == hops.len() { at } else { 0 };
            all.get(own).copied().filter(|text| !text.is_empty())
        };
        let hop = hops.get(at);
        let proto = of("x-forwarded-proto").or_else(|| hop?.proto.as_deref());
        let secure = proto
            .and_then(is_secure)
            .unwrap_or_else(|| peer.is_secure());
        let host = of("x-forwarded-host").or_else(|| hop?.host.as_deref());
        let host = host.filter(|host| is_authority(host));
        let port = of("x-forwarded-port").filter(|port| port.parse::<u16>().is_ok());
        let header = |text: &str| HeaderValue::from_str(text).ok();
        let text = match ip {
            ip if ip == peer.ip => None,
            ip => ip.and_then(|ip| header(&ip.to_string())),
        };
        let chain = if plainly {
            chain_of_lines(headers, peer)
        } else {
            chain_of_hops(hops.get(..=at).unwrap_or_default(), peer)
        };
        Client {
            ip,
            secure,
            told: Some(Box::new(Told {
                text: text.unwrap_or_else(|| peer.text.clone()),
                chain: chain.unwrap_or_else(|| peer.text.clone()),
                host: host.and_then(header),
                port: port.and_then(header),
            })),
        }
    }
}

/// `X-Forwarded-For` as received, with the peer's address appended where it has one.
fn chain_of_lines(headers: &HeaderMap, peer: &Peer) -> Option<HeaderValue> {
    let lines = headers.get_all("x-forwarded-for").iter();
    let mut chain: Vec<&[u8]> = lines.map(|line| line.as_bytes().trim_ascii()).collect();
    chain.retain(|line| !line.is_empty());
    chain.extend(peer.ip.map(|_| peer.text.as_bytes()));
    HeaderValue::from_bytes(&chain.join(b", ".as_slice()))
        .ok()
        .filter(|chain| !chain.is_empty())
}

/// The hops of `Forwarded` in the form of `X-Forwarded-For`. `hops` starts with the nearest.
fn chain_of_hops(hops: &[Hop<'_>], peer: &Peer) -> Option<HeaderValue> {
    let named = |hop: &Hop<'_>| {
        hop.ip
            .map_or_else(|| "unknown".to_owned(), |ip| ip.to_string())
    };
    let mut chain: Vec<String> = hops.iter().rev().map(named).collect();
    chain.extend(peer.name().map(str::to_owned));
    let chain = chain.join(", ");
    HeaderValue::try_from(chain)
        .ok()
        .filter(|it| !it.is_empty())
}

/// Whether a scheme uses TLS; `None` where it is not an HTTP scheme.
fn is_secure(scheme: &str) -> Option<bool> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => Some(true),
        "http" | "ws" => Some(false),
        _ => None,
    }
}

/// Whether a text has the form of a host, with or without a port.
fn is_authority(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    text.len() <= 261 && text.bytes().all(fits)
}

/// The client of a request, as far as trusted proxies report it. Built once per request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The address; `None` on a Unix socket where no proxy reports one.
    pub(crate) ip: Option<IpAddr>,
    /// Whether the client uses TLS, to the gateway or to the trusted proxy that says so. The only rule for redirects,
    /// cookies, and what apps and clients are told.
    pub(crate) secure: bool,
    /// What a trusted proxy reported; `None` where the peer is not trusted.
    pub(crate) told: Option<Box<Told>>,
}

impl Client {
    /// The address as sent to apps; `unknown` where there is none.
    pub(crate) fn text<'c>(&'c self, peer: &'c Peer) -> &'c HeaderValue {
        self.told.as_ref().map_or(&peer.text, |told| &told.text)
    }
}

/// What a trusted proxy reported about a client, in the form sent to apps.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The client's address.
    pub(crate) text: HeaderValue,
    /// `X-Forwarded-For`, with the peer's address at its end.
    pub(crate) chain: HeaderValue,
    /// The host that the client requested, where the proxy reports it.
    pub(crate) host: Option<HeaderValue>,
    /// The port that the client connected to, where the proxy reports it.
    pub(crate) port: Option<HeaderValue>,
}

/// What limits, throttles and the spool count as one client: an IPv4 address, an IPv6 /64 (one holder usually has all
/// of its 2^64 addresses), or all clients on Unix sockets without a reported address.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Counted(Option<IpAddr>);

impl Counted {
    /// The counted client of this address; `None` where the address is unknown.
    pub(crate) fn of(client: Option<IpAddr>) -> Self {
        Self(client.map(|ip| match ip.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        }))
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(ip) => ip.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// What is known about a connection before its first request; built once, read by every request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The address at the other end, or the one that a PROXY header names; `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// The address as a header value.
    pub(crate) text: HeaderValue,
    /// Whether the connection to the gateway uses TLS.
    pub(crate) tls: bool,
    /// What else a PROXY header says; `None` without one.
    pub(crate) introduction: Option<Box<Introduction>>,
}

/// What a PROXY header says about a connection besides its client's address.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    /// The address that the client connected to.
    pub(crate) destination: Option<IpAddr>,
    /// The port that the client connected to.
    pub(crate) port: Option<HeaderValue>,
    /// Whether the client uses TLS.
    pub(crate) secure: bool,
    /// The sender's id of the connection.
    pub(crate) id: Option<Box<str>>,
}

impl Peer {
    /// A peer with this address.
    pub(crate) fn new(ip: Option<IpAddr>, tls: bool) -> Self {
        let ip = ip.map(|ip| ip.to_canonical());
        let text = ip.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok());
        Self {
            ip,
            text: text.unwrap_or(HeaderValue::from_static("unknown")),
            tls,
            introduction: None,
        }
    }

    /// The same peer, about whom a PROXY header says this.
    pub(crate) fn introduced(self, introduction: Introduction) -> Self {
        Self {
            introduction: Some(Box::new(introduction)),
            ..self
        }
    }

    /// Whether the client uses TLS, to the gateway or to the sender of the PROXY header.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls || self.introduction.as_ref().is_some_and(|it| it.secure)
    }

    /// The port that the client connected to, where a PROXY header says so.
    pub(crate) fn port(&self) -> Option<&HeaderValue> {
        self.introduction.as_ref()?.port.as_ref()
    }

    /// The id that a PROXY header gave the connection.
    pub(crate) fn proxy_id(&self) -> Option<&str> {
        self.introduction.as_ref()?.id.as_deref()
    }

    /// The address as text; `None` on a Unix socket.
    pub(crate) fn name(&self) -> Option<&str> {
        self.ip.and_then(|_| self.text.to_str().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client of a request over plain-text TCP or a Unix socket.
    fn client(peer: &str, fields: &[(&'static str, &str)]) -> (Peer, Client) {
        let trusted = TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            unix: peer == "trusted unix",
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = Peer::new(peer.parse().ok(), false);
        let client = trusted.client(&peer, &headers);
        (peer, client)
    }

    #[track_caller]
    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let lines: Vec<_> = forwarded
            .iter()
            .map(|line| ("x-forwarded-for", *line))
            .collect();
        let seen = client(peer, &lines).1.ip;
        assert_eq!(seen.map(|ip| ip.to_string()).unwrap_or_default(), expected);
    }

    /// Checks address, scheme, `X-Forwarded-For`, host and port as reported by a trusted proxy.
    #[track_caller]
    fn check_told(fields: &[(&'static str, &str)], expected: [&str; 5]) {
        for peer in ["10.0.0.1", "trusted unix"] {
            let (peer, client) = client(peer, fields);
            let told = client.told.unwrap();
            let text = |value: &Option<HeaderValue>| {
                let value = value.as_ref().map(|value| value.to_str().unwrap());
                value.unwrap_or_default().to_owned()
            };
            let chain = told.chain.to_str().unwrap();
            let chain = chain.strip_suffix(", 10.0.0.1").unwrap_or(chain);
            assert!(peer.ip.is_none() || told.chain.as_bytes().ends_with(b"10.0.0.1"));
            let seen = [
                told.text.to_str().unwrap().to_owned(),
                if client.secure { "https" } else { "http" }.to_owned(),
                chain.to_owned(),
                text(&told.host),
                text(&told.port),
            ];
            assert_eq!(seen, expected, "{fields:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_tells_all_of_a_client() {
        let for_and = |rest: &[(&'static str, &'static str)]| {
            [&[("x-forwarded-for", "1.2.3.4")], rest].concat()
        };
        check_told(
            &for_and(&[
                ("x-forwarded-proto", "HTTPS"),
                ("x-forwarded-host", "a.test:81"),
                ("x-forwarded-port", "81"),
            ]),
            ["1.2.3.4", "https", "1.2.3.4", "a.test:81", "81"],
        );
        // Invalid values are not passed on.
        check_told(
            &for_and(&[
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-host", "a b"),
                ("x-forwarded-port", "port"),
            ]),
            ["1.2.3.4", "http", "1.2.3.4", "", ""],
        );
        // One value for each hop, and one value for all.
        check_told(
            &[
                ("x-forwarded-for", "6.6.6.6, 1.2.3.4"),
                ("x-forwarded-for", "10.0.0.9"),
                ("x-forwarded-proto", "http, https, http"),
            ],
            ["1.2.3.4", "https", "6.6.6.6, 1.2.3.4, 10.0.0.9", "", ""],
        );
        check_told(
            &for_and(&[("x-forwarded-proto", "https, http")]),
            ["1.2.3.4", "http", "1.2.3.4", "", ""],
        );
    }

    #[test]
    fn forwarded_tells_the_same() {
        check_told(
            &[("forwarded", "for=1.2.3.4;proto=https;host=\"a.test:81\"")],
            ["1.2.3.4", "https", "1.2.3.4", "a.test:81", ""],
        );
        check_told(
            &[
                (
                    "forwarded",
                    "for=6.6.6.6;proto=http, for=\"[2001:db8::1]:9\";proto=https",
                ),
                ("forwarded", "for=10.0.0.9;proto=http"),
            ],
            ["2001:db8::1", "https", "2001:db8::1, 10.0.0.9", "", ""],
        );
        check_told(
            &[("forwarded", "for=1.2.3.4"), ("x-forwarded-proto", "https")],
            ["1.2.3.4", "https", "1.2.3.4", "", ""],
        );
        // A proxy that writes one of the headers passes the other through as the client wrote it.
        check_told(
            &[
                ("forwarded", "for=6.6.6.6;proto=https;host=evil.test"),
                ("x-forwarded-for", "1.2.3.4"),
            ],
            ["1.2.3.4", "http", "1.2.3.4", "", ""],
        );
        let hidden = client(
            "10.0.0.1",
            &[("forwarded", "for=1.1.1.1, for=_x;proto=https")],
        )
        .1;
        assert_eq!((hidden.ip, hidden.secure), ("10.0.0.1".parse().ok(), true));
        assert_eq!(hidden.told.unwrap().chain, "unknown, 10.0.0.1");
    }

    #[test]
    fn a_stranger_tells_nothing() {
        let fields = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.2.3.4;proto=https"),
        ];
        for (peer, ip) in [("203.0.113.9", "203.0.113.9".parse().ok()), ("unix", None)] {
            let client = client(peer, &fields).1;
            assert!(client.ip == ip && !client.secure && client.told.is_none());
        }
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
