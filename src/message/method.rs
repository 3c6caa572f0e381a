//! `MethodSet`: a set of methods in one word, for routes and for `Allow`.

use std::sync::OnceLock;

use http::{HeaderValue, Method};

/// The usual methods. Others that the configuration names are kept in [`OTHERS`].
const USUAL: [&str; 18] = [
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
];

/// The limit for other methods: a set is one 64-bit word.
pub(crate) const MOST_OTHERS: usize = 64 - USUAL.len();

/// The other methods, in the order in which configurations of this process first named them. None is ever removed, so
/// that a set means the same in every configuration.
static OTHERS: [OnceLock<Box<str>>; MOST_OTHERS] = [const { OnceLock::new() }; MOST_OTHERS];

/// No registered method is longer (RFC 9110 section 16.1).
const LONGEST: usize = 32;

/// Whether requests with this method are served at all. Method names are case-sensitive (RFC 9110 section 9.1), but
/// apps that upper-case them read `post` as POST: such a name would bypass a rule for POST. The gateway is not a
/// forward proxy (CONNECT) and does not echo credentials (TRACE).
pub(crate) fn is_served(method: &Method) -> bool {
    match *method {
        Method::GET | Method::HEAD | Method::POST => true,
        Method::CONNECT | Method::TRACE => false,
        _ => is_in_capitals(method.as_str()),
    }
}

fn is_in_capitals(name: &str) -> bool {
    name.len() <= LONGEST && !name.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Whether a route may name this method: a token (RFC 9110 section 9.1) that is served.
pub(crate) fn is_name(name: &str) -> bool {
    Method::from_bytes(name.as_bytes()).is_ok_and(|method| is_served(&method))
        && is_in_capitals(name)
}

/// The usual methods, to suggest one for a misspelt name.
pub(crate) fn usual() -> impl Iterator<Item = &'static str> + Clone {
    USUAL.into_iter()
}

/// The index of a method among the usual and the other ones.
fn place(name: &str) -> Option<usize> {
    let usual = USUAL.iter().position(|known| *known == name);
    usual.or_else(|| {
        let mut named = OTHERS.iter().map_while(OnceLock::get);
        named
            .position(|known| **known == *name)
            .map(|at| USUAL.len() + at)
    })
}

/// The index of a method, adding it where it is new; `None` where no index is left.
fn place_for(name: &str) -> Option<usize> {
    place(name).or_else(|| {
        // Another thread may take a free slot first, possibly for the same name.
        let taken = |slot: &OnceLock<Box<str>>| **slot.get_or_init(|| name.into()) == *name;
        OTHERS.iter().position(taken).map(|at| USUAL.len() + at)
    })
}

/// A set of methods. A set with `GET` contains `HEAD` too (RFC 9110 section 9.3.2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct MethodSet(u64);

impl MethodSet {
    /// The methods of static files.
    pub(crate) const READ: Self = Self(0b11);
    /// GET, HEAD, POST, PUT, PATCH and DELETE.
    pub(crate) const COMMON: Self = Self(0b11_1111);

    /// The set with one more method, by its name in capitals; `None` where [`is_name`] is false, or where there are
    /// more than [`MOST_OTHERS`] unusual methods.
    pub(crate) fn with(self, name: &str) -> Option<Self> {
        let at = is_name(name).then(|| place_for(name))??;
        let head = if at == 0 { 0b10 } else { 0 };
        Some(Self(self.0 | 1_u64 << at | head))
    }

    /// Whether the set contains the method.
    pub(crate) fn contains(self, method: &Method) -> bool {
        match *method {
            Method::GET => self.0 & 1 != 0,
            Method::HEAD => self.0 & 2 != 0,
            _ => place(method.as_str()).is_some_and(|at| self.0 & 1_u64 << at != 0),
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
        let others = OTHERS.iter().map_while(OnceLock::get).map(|name| &**name);
        USUAL
            .into_iter()
            .chain(others)
            .enumerate()
            .filter(move |(at, _)| self.0 & 1_u64 << at != 0)
            .map(|(_, name)| name)
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
    fn a_name_is_any_token_in_capitals() {
        for name in [
            "get",
            "Get",
            "",
            "A B",
            "A,B",
            "CONNECT",
            "TRACE",
            "\u{c4}",
            &"A".repeat(33),
        ] {
            assert_eq!(MethodSet::default().with(name), None, "{name}");
        }
        for name in USUAL
            .into_iter()
            .chain(["BREW", "M-SEARCH", "VERSION-CONTROL", "X_1"])
        {
            let set = MethodSet::default().with(name).unwrap();
            assert!(
                set.contains(&Method::from_bytes(name.as_bytes()).unwrap()),
                "{name}"
            );
            assert!(!set.contains(&Method::from_bytes(b"WHEN").unwrap()));
            assert!(set.names().any(|known| known == name), "{name}");
            assert!(set.overlaps(MethodSet::default().with(name).unwrap()));
        }
        assert_eq!(MethodSet::default().with("GET").unwrap().names().count(), 2);
    }
}
