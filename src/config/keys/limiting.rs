//! The keys of what keeps load away from a route: `rate_limit`, `in_flight`, `addresses`.

use super::{FROM_ONE, Key, Kind, Section, key};

const SOURCE: Kind = Kind::Form(
    "ip, header:NAME, cookie:NAME, claim:PATH or path:PARAMETER",
    "claim:sub",
);
const NETWORK: Kind = Kind::Form("network or `unix`", "10.0.0.0/8");

/// `rate_limit`, of a route or of `defaults`.
pub(super) const RATE_LIMITS: Kind = Kind::Either(&[
    Kind::Word(&["off"]),
    Kind::Section(&RATE_LIMIT),
    Kind::Filled(&Kind::Section(&RATE_LIMIT)),
]);

/// `in_flight`, of a route or of `defaults`.
pub(super) const IN_FLIGHTS: Kind = Kind::Either(&[
    Kind::Word(&["off"]),
    Kind::Section(&IN_FLIGHT),
    Kind::Filled(&Kind::Section(&IN_FLIGHT)),
]);

/// `addresses`, of a route or of `defaults`.
pub(super) const ADDRESS_LISTS: Kind =
    Kind::Either(&[Kind::Word(&["off"]), Kind::Section(&ADDRESSES)]);

const NAME: Key = key(
    "name",
    Kind::Form("name", "user"),
    "Name in responses, logs and messages.",
)
.without("that of the route; `defaults` there");
const BY: Key = key(
    "by",
    Kind::OneOrMore(&SOURCE),
    "What is counted apart; of a list, all together.",
)
.without("everybody together");
const EXCEPT: Key = key(
    "except",
    Kind::OneOrMore(&NETWORK),
    "Clients that are not counted.",
);
const PREFIX: Key = key(
    "prefix",
    Kind::Section(&PREFIXES),
    "How much of an address counts.",
)
.or_its_keys();
const ENFORCE: Key = key(
    "enforce",
    Kind::Word(&["refuse", "report"]),
    "`report` logs what would be refused, and allows it.",
)
.or("refuse");

/// One of `rate_limit`.
pub(crate) static RATE_LIMIT: Section = Section {
    short: None,
    keys: &[
        NAME,
        BY,
        key("rate", Kind::Rate, "Requests in a time.").required(),
        key("burst", FROM_ONE, "Requests that may come at once.").without("those of `rate`"),
        key(
            "count",
            Kind::Word(&["all", "refused"]),
            "`refused` counts only requests that the gateway answers with 401 or 403.",
        )
        .or("all"),
        EXCEPT,
        PREFIX,
        key(
            "keys",
            Kind::Whole(8, 16_777_216),
            "Clients that are remembered, in 16 bytes each.",
        )
        .or("65536"),
        key(
            "fields",
            Kind::Boolean,
            "Responses have `RateLimit` and `RateLimit-Policy`.",
        )
        .or("true"),
        ENFORCE,
    ],
};

/// One of `in_flight`.
pub(crate) static IN_FLIGHT: Section = Section {
    short: None,
    keys: &[
        NAME,
        BY,
        key(
            "max",
            Kind::Whole(1, 1_000_000),
            "Requests at the same time.",
        )
        .required(),
        EXCEPT,
        PREFIX,
        ENFORCE,
    ],
};

/// `prefix` of a limit.
pub(crate) static PREFIXES: Section = Section {
    short: None,
    keys: &[
        key("v4", Kind::Whole(0, 32), "Bits of an IPv4 address.").or("32"),
        key("v6", Kind::Whole(0, 128), "Bits of an IPv6 address.").or("64"),
    ],
};

/// `addresses`.
pub(crate) static ADDRESSES: Section = Section {
    short: None,
    keys: &[
        key(
            "allow",
            Kind::OneOrMore(&NETWORK),
            "Clients that are allowed; with it, all others are refused.",
        ),
        key(
            "deny",
            Kind::OneOrMore(&NETWORK),
            "Clients that are refused; the longest network of both lists decides.",
        ),
    ],
};
