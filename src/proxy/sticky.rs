//! Cookies that keep a client at its server. They hold a keyed hash of the server's address: nothing of it can be read from
//! them, and nobody can make one.

use std::fmt::{Debug, Formatter};
use std::hash::Hasher as _;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::endpoint::Address;
use crate::auth::{cookies_named, remove_cookie};

/// `sticky` of an upstream.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct StickySettings {
    /// The cookie's name.
    pub(crate) cookie: String,
    /// What its values are made with.
    pub(crate) key: [u8; 16],
    /// Whether the key lasts only as long as the process.
    pub(crate) is_random: bool,
    /// How long browsers keep it; without it, until they are closed.
    pub(crate) max_age: Option<Duration>,
}

impl Debug for StickySettings {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("StickySettings")
            .field("cookie", &self.cookie)
            .field("is_random", &self.is_random)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

/// The values of an upstream's servers.
#[derive(Debug)]
pub(crate) struct Sticky {
    cookie: String,
    max_age: Option<Duration>,
    /// By the index of the server.
    values: Box<[String]>,
}

impl Sticky {
    /// For these servers.
    pub(super) fn new<'a>(
        settings: &StickySettings,
        servers: impl Iterator<Item = &'a Address>,
    ) -> Self {
        let value = |address: &Address| {
            let mut hasher = SipHasher24::new_with_key(&settings.key);
            hasher.write(address.to_string().as_bytes());
            format!("{:032x}", hasher.finish128().as_u128())
        };
        Self {
            cookie: settings.cookie.clone(),
            max_age: settings.max_age,
            values: servers.map(value).collect(),
        }
    }

    /// The index of the server that the request's cookie names. The cookie is taken out of the request: the app never sees
    /// it.
    pub(crate) fn take(&self, headers: &mut HeaderMap) -> Option<usize> {
        let mut said = cookies_named(headers, &self.cookie);
        let first = said.next()?;
        // With two, none counts: they may have come from different places.
        let found = self.values.iter().position(|it| it.as_bytes() == first);
        let found = found.filter(|_| said.next().is_none());
        drop(said);
        remove_cookie(headers, &self.cookie);
        found
    }

    /// The cookie that keeps a client at the server of this index.
    pub(crate) fn set(&self, server: usize, is_secure: bool) -> Option<HeaderValue> {
        let value = self.values.get(server)?;
        let mut line = format!("{}={value}; Path=/", self.cookie);
        if let Some(age) = self.max_age {
            line.push_str(&format!("; Max-Age={}", age.as_secs()));
        }
        line.push_str("; HttpOnly; SameSite=Lax");
        if is_secure {
            line.push_str("; Secure");
        }
        HeaderValue::try_from(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(key: u8) -> Sticky {
        let settings = StickySettings {
            cookie: "app_server".to_owned(),
            key: [key; 16],
            is_random: false,
            max_age: Some(Duration::from_secs(3600)),
        };
        let servers = [
            Address::Tcp("10.0.0.1".to_owned(), 80),
            Address::Unix("/run/x".into()),
        ];
        Sticky::new(&settings, servers.iter())
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("cookie", line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_for_its_server_and_for_nobody_else_to_read_or_make() {
        let (one, other) = (sticky(1), sticky(2));
        for at in [0, 1] {
            let line = one.set(at, false).unwrap();
            let line = line.to_str().unwrap();
            let (pair, rest) = line.split_once("; ").unwrap();
            assert_eq!(rest, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
            assert_eq!(one.take(&mut headers(&[pair])), Some(at));
            assert_eq!(other.take(&mut headers(&[pair])), None, "another key");
            let shorter = pair.strip_suffix(|_: char| true).unwrap();
            assert_eq!(one.take(&mut headers(&[shorter])), None);
            assert_eq!(one.take(&mut headers(&[pair, pair])), None, "two are none");
            assert!(!line.contains("10.0.0.1") && !line.contains("run"));
        }
        let secure = one.set(0, true).unwrap();
        assert!(secure.to_str().unwrap().ends_with("; SameSite=Lax; Secure"));
        assert_eq!(one.set(2, true), None);
        let debugged = format!("{one:?}");
        assert!(!debugged.contains("[1, 1"), "{debugged}");
    }

    #[test]
    fn the_app_gets_the_other_cookies_alone() {
        let sticky = sticky(1);
        let mut all = headers(&["a=1; app_server=x; b=2", "app_server=y", "c=3"]);
        assert_eq!(sticky.take(&mut all), None);
        let left: Vec<_> = all.get_all("cookie").iter().collect();
        assert_eq!(left, ["a=1; b=2", "c=3"]);
        let mut none = headers(&["a=1"]);
        assert_eq!(sticky.take(&mut none), None);
        assert_eq!(none.len(), 1);
    }
}
