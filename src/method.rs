//! `MethodSet`: a few methods in one word, for routes and for `Allow`.

use http::{HeaderValue, Method};

/// The methods that a route may name: those of IANA's registry that are served, and those of caches and UPnP.
const KNOWN: [&str; 44] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "MKCALENDAR",
    "QUERY",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "LABEL",
    "LINK",
    "MERGE",
    "MKACTIVITY",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "ORDERPATCH",
    "REBIND",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "PURGE",
    "BAN",
    "REFRESH",
    "NOTIFY",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "M-SEARCH",
];

/// What is longer is no method that anybody registered (RFC 9110 section 16.1).
const LONGEST: usize = 32;

/// Whether requests with this method are served at all. Method names are case-sensitive (RFC 9110 section 9.1), but apps
/// that write them in capitals read `post` as POST: such a name would pass a rule for POST. The gateway is no forward
/// proxy (CONNECT), and echoes nobody's credentials (TRACE).
pub(crate) fn is_served(method: &Method) -> bool {
    match *method {
        Method::GET | Method::HEAD | Method::POST => true,
        Method::CONNECT | Method::TRACE => false,
        _ => {
            let name = method.as_str();
            name.len() <= LONGEST && !name.bytes().any(|byte| byte.is_ascii_lowercase())
        }
    }
}

/// A set of methods. A set with `GET` holds `HEAD` too (RFC 9110 section 9.3.2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct MethodSet(u64);

impl MethodSet {
    /// What static files have.
    pub(crate) const READ: Self = Self(0b11);
    /// GET, HEAD, POST, PUT, PATCH and DELETE.
    pub(crate) const COMMON: Self = Self(0b11_1111);

    /// The set with one more method, by its name in capitals; `None` for a name that is not known.
    pub(crate) fn with(self, name: &str) -> Option<Self> {
        let at = KNOWN.iter().position(|known| *known == name)?;
        let head = if at == 0 { 0b10 } else { 0 };
        Some(Self(self.0 | 1_u64 << at | head))
    }

    /// Whether the set holds the method.
    pub(crate) fn contains(self, method: &Method) -> bool {
        match *method {
            Method::GET => self.0 & 1 != 0,
            Method::HEAD => self.0 & 2 != 0,
            _ => KNOWN
                .iter()
                .position(|known| *known == method.as_str())
                .is_some_and(|at| self.0 & 1_u64 << at != 0),
        }
    }

    /// Whether the sets share a method.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names, in a fixed order.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        KNOWN
            .iter()
            .enumerate()
            .filter(move |(at, _)| self.0 & 1_u64 << at != 0)
            .map(|(_, name)| *name)
    }

    /// The value of `Allow` (RFC 9110 section 10.2.1).
    pub(crate) fn allow(self) -> HeaderValue {
        let names: Vec<&str> = self.names().collect();
        HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_served_in_capitals_and_up_to_32_bytes() {
        let longest = "A".repeat(LONGEST);
        for name in [
            "GET",
            "HEAD",
            "POST",
            "DELETE",
            "PROPFIND",
            "VERSION-CONTROL",
            "M-SEARCH",
            "X_1",
            &longest,
        ] {
            assert!(
                is_served(&Method::from_bytes(name.as_bytes()).unwrap()),
                "{name}"
            );
        }
        let longer = "A".repeat(LONGEST + 1);
        for name in [
            "get", "post", "Post", "DELETe", "PROPFINd", "x", "CONNECT", "TRACE", &longer,
        ] {
            assert!(
                !is_served(&Method::from_bytes(name.as_bytes()).unwrap()),
                "{name}"
            );
        }
    }

    #[test]
    fn get_brings_head() {
        let set = MethodSet::default().with("GET").unwrap();
        assert_eq!(set, MethodSet::READ);
        assert_eq!(set.allow(), "GET, HEAD");
        assert_eq!(
            MethodSet::COMMON.allow(),
            "GET, HEAD, POST, PUT, PATCH, DELETE"
        );
        assert!(set.contains(&Method::HEAD));
        assert!(!set.contains(&Method::POST));
    }

    #[test]
    fn names_are_known_and_in_capitals() {
        assert_eq!(MethodSet::default().with("get"), None);
        assert_eq!(MethodSet::default().with("BREW"), None);
        let set = MethodSet::default().with("PROPFIND").unwrap();
        assert!(set.contains(&Method::from_bytes(b"PROPFIND").unwrap()));
        assert!(!set.contains(&Method::from_bytes(b"BREW").unwrap()));
        for name in KNOWN {
            let set = MethodSet::default().with(name).unwrap();
            assert!(
                set.contains(&Method::from_bytes(name.as_bytes()).unwrap()),
                "{name}"
            );
            assert!(set.names().any(|known| known == name), "{name}");
        }
    }
}
