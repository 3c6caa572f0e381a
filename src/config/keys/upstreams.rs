//! The keys of `upstreams`. What the kinds mean is said in `keys`.

use super::{DURATION, DURATION_OR_ZERO, Kind, SERVER, SIZE, Section, Zero, key};

/// One of `upstreams`.
pub(crate) static UPSTREAM: Section = Section {
    short: Some("servers"),
    keys: &[
        key(
            "servers",
            Kind::Filled(&Kind::Section(&UPSTREAM_SERVER)),
            "App servers; a URL alone stands for a list of one.",
        )
        .required(),
        key(
            "balance",
            Kind::Word(&["round_robin", "least_requests", "random_two"]),
            "How a server is chosen.",
        )
        .or("round_robin"),
        key(
            "timeouts",
            Kind::Section(&UPSTREAM_TIMEOUTS),
            "How long the servers may take.",
        )
        .or_its_keys(),
        key(
            "connections",
            Kind::Section(&CONNECTIONS),
            "Idle connections to the servers.",
        )
        .or_its_keys(),
        key(
            "buffer",
            Kind::Either(&[Kind::Word(&["off"]), Kind::Section(&BUFFER)]),
            "Buffering of bodies; `off` streams them.",
        )
        .without("64KiB each way, in memory"),
        key(
            "underscores",
            Kind::Word(&["remove", "pass"]),
            "Header fields with `_` in their name.",
        )
        .or("remove"),
    ],
};

/// One of `servers`.
pub(crate) static UPSTREAM_SERVER: Section = Section {
    short: Some("url"),
    keys: &[
        key(
            "url",
            SERVER,
            "`http://HOST:PORT`, or `unix:` and the path of a socket.",
        )
        .required(),
        key(
            "weight",
            Kind::Whole(0, 256),
            "Share of the requests, compared with the other servers'; 0 gets none.",
        )
        .or("1"),
        key(
            "backup",
            Kind::Boolean,
            "Used only while no other server is usable.",
        )
        .or("false"),
    ],
};

/// `timeouts` of an upstream.
pub(crate) static UPSTREAM_TIMEOUTS: Section = Section {
    short: None,
    keys: &[
        key("connect", DURATION, "For connecting to a server.").or("2s"),
        key(
            "response",
            Kind::Duration(Zero::Off),
            "For the head of a response; `off` waits without end.",
        )
        .or("60s"),
        key(
            "idle",
            DURATION,
            "Between two reads of a response, and for an idle connection.",
        )
        .or("60s"),
    ],
};

/// `connections` of an upstream.
pub(crate) static CONNECTIONS: Section = Section {
    short: None,
    keys: &[
        key(
            "keep_alive",
            Kind::Whole(0, 65_535),
            "Idle connections kept for each server and worker; 0 keeps none.",
        )
        .or("1024"),
        key(
            "fresh",
            DURATION_OR_ZERO,
            "How long a connection may have been idle for a request that cannot be repeated.",
        )
        .or("1s"),
    ],
};

/// `buffer` of an upstream.
pub(crate) static BUFFER: Section = Section {
    short: None,
    keys: &[
        key(
            "request",
            Kind::Size(Zero::Allowed),
            "Of a request's body in memory.",
        )
        .or("64KiB"),
        key(
            "response",
            Kind::Size(Zero::Allowed),
            "Of a response's body in memory.",
        )
        .or("64KiB"),
        key(
            "spool",
            Kind::Directory,
            "For what exceeds memory; such bodies are read whole first.",
        )
        .without("longer bodies are streamed"),
        key("spool_bytes", SIZE, "Size of all spooled bodies together.").or("1GiB"),
    ],
};
