//! `rate_limit`, `in_flight` and `addresses`, as types.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::super::place::Place;
use super::{Spanned, TrustedPeers};

/// What keeps load away from a route, or from all routes that do not say so themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limiting {
    /// `rate_limit`; empty for `off`.
    pub(crate) rate_limit: Option<Vec<RateLimit>>,
    /// `in_flight`; empty for `off`.
    pub(crate) in_flight: Option<Vec<InFlight>>,
    /// `addresses`.
    pub(crate) addresses: Option<AddressLists>,
}

/// `addresses`.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressLists {
    /// Whether it is `off`.
    pub(crate) is_off: bool,
    /// Who is allowed.
    pub(crate) allow: Vec<Spanned<TrustedPeers>>,
    /// Who is refused.
    pub(crate) deny: Vec<Spanned<TrustedPeers>>,
}

/// What limits of both kinds have.
#[derive(Clone, Debug)]
pub(crate) struct LimitRule {
    /// Its place.
    pub(crate) place: Place,
    /// Its name.
    pub(crate) name: Option<Spanned<String>>,
    /// What it counts by; empty for everybody together.
    pub(crate) by: Vec<Spanned<LimitSource>>,
    /// Clients that are not counted.
    pub(crate) except: Vec<Spanned<TrustedPeers>>,
    /// The bits of an IPv4 address that count.
    pub(crate) v4: Spanned<u32>,
    /// The bits of an IPv6 address that count.
    pub(crate) v6: Spanned<u32>,
    /// Whether refusals are only reported; false by default.
    pub(crate) only_reports: Spanned<bool>,
}

/// One of `rate_limit`.
#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    /// For whom.
    pub(crate) rule: LimitRule,
    /// Requests, and the time.
    pub(crate) rate: Spanned<(NonZeroU32, Duration)>,
    /// Requests that may come at once; those of the rate without it.
    pub(crate) burst: Option<Spanned<u32>>,
    /// Whether only refused requests count; false by default.
    pub(crate) only_refused: Spanned<bool>,
    /// How many clients are remembered.
    pub(crate) keys: Spanned<u32>,
    /// Whether responses tell of it; true by default.
    pub(crate) fields: Spanned<bool>,
}

/// One of `in_flight`.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    /// For whom.
    pub(crate) rule: LimitRule,
    /// Requests at the same time.
    pub(crate) max: Spanned<u32>,
}

/// What a limit counts by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum LimitSource {
    /// `ip`.
    Ip,
    /// `header:NAME`.
    Header(HeaderName),
    /// `cookie:NAME`.
    Cookie(String),
    /// `claim:PATH`, not parsed.
    Claim(String),
    /// `path:PARAMETER`.
    Path(String),
}

impl std::fmt::Display for LimitSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Claim(path) => write!(f, "claim:{path}"),
            Self::Path(name) => write!(f, "path:{name}"),
        }
    }
}
