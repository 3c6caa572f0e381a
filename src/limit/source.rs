//! What a limit counts by: the client's address, a header field, a cookie, a claim, a parameter of the path, or several
//! of them. Whoever leaves one of them out is counted by address instead, in a space of its own.

use std::borrow::Cow;
use std::hash::Hasher as _;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use siphasher::sip::SipHasher13;

use crate::auth::{ClaimPath, Permit, cookies_named};
use crate::message::path::RequestPath;

/// One part of what a limit counts by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// The client's address.
    Ip,
    /// The value of a header field.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// A claim of the client's token.
    Claim(ClaimPath),
    /// A parameter of the path, by the index of its segment.
    Path(usize),
}

/// What a limit counts by; nothing for everybody together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct By {
    /// Its parts.
    pub(crate) sources: Box<[Source]>,
    /// How much of an IPv4 address counts, in bits.
    pub(crate) v4: u8,
    /// How much of an IPv6 address counts, in bits.
    pub(crate) v6: u8,
}

/// A request, as far as limits look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'r> {
    /// The client's address; `None` on a Unix socket where nobody reports one.
    pub(crate) client: Option<IpAddr>,
    /// The request's header fields.
    pub(crate) headers: &'r HeaderMap,
    /// The request's path.
    pub(crate) path: &'r RequestPath,
    /// The client's permit, once it has one.
    pub(crate) permit: Option<&'r Permit>,
}

/// Marks of the parts, so that no value of one kind is that of another.
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;

impl Source {
    /// What the request has of it; `None` for an address, which counts by its prefix.
    fn value<'s>(&self, sender: &Sender<'s>) -> Option<Cow<'s, [u8]>> {
        match self {
            Self::Ip => None,
            Self::Header(name) => {
                let all = sender.headers.get_all(name).iter();
                only(all.map(HeaderValue::as_bytes)).map(Cow::Borrowed)
            }
            Self::Cookie(name) => only(cookies_named(sender.headers, name)).map(Cow::Borrowed),
            Self::Claim(path) => sender.permit.and_then(|permit| permit.claim_text(path)),
            Self::Path(at) => {
                let mut segments = sender.path.resolved().segments();
                segments.nth(*at).map(Cow::Borrowed)
            }
        }
    }
}

impl By {
    /// What the request has of the first part: the address, as far as it counts, or a value; `None` if it has none.
    pub(crate) fn first<'s>(&self, sender: &Sender<'s>) -> Option<Cow<'s, [u8]>> {
        match self.sources.first()? {
            Source::Ip => {
                sender.client?;
                Some(Cow::Owned(self.address(sender.client).to_vec()))
            }
            source @ (Source::Header(_)
            | Source::Cookie(_)
            | Source::Claim(_)
            | Source::Path(_)) => source.value(sender),
        }
    }

    /// Whether the client must be known first.
    pub(crate) fn has_claims(&self) -> bool {
        self.sources
            .iter()
            .any(|source| matches!(source, Source::Claim(_)))
    }

    /// Whether a segment of the path is part of it.
    pub(crate) fn has_segment(&self, at: usize) -> bool {
        self.sources.contains(&Source::Path(at))
    }

    /// The hash of this client under a key.
    pub(crate) fn hash(&self, key: &[u8; 16], sender: &Sender<'_>) -> u64 {
        if *self.sources == [Source::Ip] {
            return SipHasher13::new_with_key(key).hash(&self.address(sender.client));
        }
        let mut hasher = SipHasher13::new_with_key(key);
        for source in &self.sources {
            match source.value(sender) {
                Some(value) => {
                    hasher.write_u8(PRESENT);
                    hasher.write_u64(value.len() as u64);
                    hasher.write(&value);
                }
                None => {
                    hasher.write_u8(ABSENT);
                    hasher.write(&self.address(sender.client));
                }
            }
        }
        hasher.finish()
    }

    /// The part of an address that counts. IPv4 is told from IPv6, and from clients without an address.
    fn address(&self, client: Option<IpAddr>) -> [u8; 17] {
        let (family, bits) = match client.map(|ip| ip.to_canonical()) {
            None => (0, 0),
            Some(IpAddr::V4(v4)) => {
                let rest = 32_u32.saturating_sub(u32::from(self.v4));
                let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
                (4, u128::from(v4.to_bits() & mask))
            }
            Some(IpAddr::V6(v6)) => {
                let rest = 128_u32.saturating_sub(u32::from(self.v6));
                let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
                (6, v6.to_bits() & mask)
            }
        };
        let mut bytes = [family; 17];
        if let Some((_, behind)) = bytes.split_first_mut() {
            behind.copy_from_slice(&bits.to_be_bytes());
        }
        bytes
    }
}

/// The only value. With several, an app might read another one than the limit does, so none counts; nor does an empty one.
fn only<'v>(mut values: impl Iterator<Item = &'v [u8]>) -> Option<&'v [u8]> {
    let first = values.next()?;
    (values.next().is_none() && !first.is_empty()).then_some(first)
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;

    use super::*;

    fn by(sources: Vec<Source>) -> By {
        By {
            sources: sources.into(),
            v4: 32,
            v6: 64,
        }
    }

    fn hash(by: &By, client: &str, fields: &[(&'static str, &str)], path: &str) -> u64 {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let path = RequestPath::parse(&PathAndQuery::try_from(path).unwrap()).unwrap();
        let sender = Sender {
            client: client.parse().ok(),
            headers: &headers,
            path: &path,
            permit: None,
        };
        by.hash(&[9; 16], &sender)
    }

    #[test]
    fn addresses_count_by_their_prefix() {
        let ip = by(vec![Source::Ip]);
        let of = |client| hash(&ip, client, &[], "/");
        assert_eq!(of("2001:db8::1"), of("2001:db8:0:0:ffff::2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        let all = [
            "10.0.0.1",
            "10.0.0.2",
            "2001:db8::",
            "2001:db8:0:1::",
            "::",
            "unix",
            "0.0.0.0",
        ];
        let mut seen: Vec<u64> = all.into_iter().map(of).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all.len());
        let wide = By {
            v4: 24,
            v6: 56,
            ..ip
        };
        let of = |client| hash(&wide, client, &[], "/");
        assert_eq!(of("10.0.0.1"), of("10.0.0.255"));
        assert_ne!(of("10.0.0.1"), of("10.0.1.1"));
        assert_eq!(of("2001:db8::"), of("2001:db8:0:ff::"));
        assert_ne!(of("2001:db8::"), of("2001:db8:0:100::"));
        let all = By {
            v4: 0,
            v6: 0,
            ..wide
        };
        assert_eq!(
            hash(&all, "10.0.0.1", &[], "/"),
            hash(&all, "1.2.3.4", &[], "/")
        );
    }

    #[test]
    fn nobody_slips_out_by_leaving_something_out_or_by_saying_it_twice() {
        let header = by(vec![Source::Header("x-key".parse().unwrap())]);
        let cookie = by(vec![Source::Cookie("sid".to_owned())]);
        for (by, one, other) in [
            (&header, ("x-key", "a"), ("x-key", "b")),
            (&cookie, ("cookie", "sid=a"), ("cookie", "x=1; sid=b")),
        ] {
            let (one, other) = (&[one][..], &[other][..]);
            let of = |client, fields: &[_]| hash(by, client, fields, "/");
            assert_eq!(
                of("10.0.0.1", one),
                of("10.0.0.2", one),
                "by the value alone"
            );
            assert_ne!(of("10.0.0.1", one), of("10.0.0.1", other));
            let absent = of("10.0.0.1", &[]);
            assert_ne!(absent, of("10.0.0.2", &[]), "by address without it");
            assert_eq!(
                absent,
                of("10.0.0.1", &[one, other].concat()),
                "two are none"
            );
            assert_ne!(
                absent,
                hash(&self::by(vec![Source::Ip]), "10.0.0.1", &[], "/")
            );
        }
        let empty = hash(&header, "10.0.0.1", &[("x-key", "")], "/");
        assert_eq!(empty, hash(&header, "10.0.0.1", &[], "/"));
    }

    #[test]
    fn parts_are_not_run_together() {
        let both = by(vec![
            Source::Header("x-a".parse().unwrap()),
            Source::Header("x-b".parse().unwrap()),
        ]);
        let of = |a, b| hash(&both, "10.0.0.1", &[("x-a", a), ("x-b", b)], "/");
        assert_ne!(of("ab", "c"), of("a", "bc"));
        let path = by(vec![Source::Path(1)]);
        assert_eq!(
            hash(&path, "10.0.0.1", &[], "/users/7/a"),
            hash(&path, "10.0.0.2", &[], "/users/%37/b")
        );
        assert_ne!(
            hash(&path, "10.0.0.1", &[], "/users/7"),
            hash(&path, "10.0.0.1", &[], "/users/8")
        );
    }
}
