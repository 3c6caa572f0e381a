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
            Kind::Either(&[
                Kind::Word(&["round_robin", "least_requests", "random_two"]),
                Kind::Form("hash of a value", "hash:ip"),
            ]),
            "How a server is chosen.",
        )
        .or("round_robin"),
        key(
            "slow_start",
            DURATION_OR_ZERO,
            "How long a server that comes back takes to get its whole share; at most 15m.",
        )
        .or("0s"),
        key(
            "sticky",
            Kind::Section(&STICKY),
            "A cookie that keeps each client at its server.",
        )
        .without("none"),
        key(
            "health",
            Kind::Either(&[Kind::Word(&["off", "tcp"]), Kind::Section(&HEALTH)]),
            "How the servers are checked: a path to request, or `tcp` to connect only.",
        )
        .without("no checks"),
        key(
            "eject",
            Kind::Either(&[Kind::Word(&["off"]), Kind::Section(&EJECT)]),
            "Which of several servers are taken out after failures; `off` takes none out.",
        )
        .or_its_keys(),
        key(
            "retries",
            Kind::Either(&[Kind::Word(&["off"]), Kind::Section(&RETRIES)]),
            "What is tried again when a server fails; `off` tries nothing again.",
        )
        .or_its_keys(),
        key(
            "timeouts",
            Kind::Section(&UPSTREAM_TIMEOUTS),
            "How long the servers may take.",
        )
        .or_its_keys(),
        key(
            "connections",
            Kind::Section(&CONNECTIONS),
            "Connections to the servers, and who waits for one.",
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
        key(
            "max",
            Kind::Whole(1, 1_000_000),
            "Requests at the same time, over all workers.",
        )
        .without("`connections.max`"),
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
        key(
            "total",
            DURATION,
            "From the head of a request to the end of its response.",
        ),
    ],
};

/// `sticky` of an upstream.
pub(crate) static STICKY: Section = Section {
    short: Some("cookie"),
    keys: &[
        key("cookie", Kind::Text, "The cookie's name.").required(),
        key(
            "secret",
            Kind::Text,
            "At least 32 bytes, from which its values are made.",
        )
        .without("the key of `state`, else random at each start"),
        key("max_age", DURATION, "How long browsers keep it.").without("until they are closed"),
    ],
};

/// `health` of an upstream.
pub(crate) static HEALTH: Section = Section {
    short: Some("path"),
    keys: &[
        key("path", Kind::Path, "What is requested."),
        key("tcp", Kind::Boolean, "Connects only.").or("false"),
        key(
            "method",
            Kind::Word(&["GET", "HEAD", "OPTIONS"]),
            "The method.",
        )
        .without("GET"),
        key("host", Kind::Text, "The `Host`.").without("the server's host and port"),
        key(
            "headers",
            Kind::Map(&Kind::Text),
            "More header fields of the request.",
        ),
        key("port", Kind::Whole(1, 65_535), "The port to connect to.").without("the server's"),
        key(
            "status",
            Kind::Filled(&Kind::Form("status or range", "200-399")),
            "The statuses that pass.",
        )
        .without("200-399"),
        key(
            "body",
            Kind::Text,
            "A text within the first 64 KiB of the body.",
        ),
        key(
            "interval",
            DURATION,
            "From one check to the next, 100ms to 1h.",
        )
        .or("5s"),
        key("timeout", DURATION, "How long a check may take.").without("1s, at most `interval`"),
        key(
            "unhealthy_after",
            Kind::Whole(1, 1000),
            "How many failures in a row take a server out.",
        )
        .or("3"),
        key(
            "healthy_after",
            Kind::Whole(1, 1000),
            "How many passes in a row bring it back.",
        )
        .or("2"),
        key(
            "all_down",
            Kind::Word(&["refuse", "try"]),
            "What requests get while all servers are out: 503, or any server.",
        )
        .or("refuse"),
    ],
};

/// `eject` of an upstream.
pub(crate) static EJECT: Section = Section {
    short: None,
    keys: &[
        key(
            "consecutive_failures",
            Kind::Whole(1, 1000),
            "How many failures in a row take a server out.",
        )
        .or("5"),
        key("for", DURATION, "How long it is out the first time.").or("10s"),
        key(
            "longest",
            DURATION,
            "How long at most; each time is twice the one before.",
        )
        .or("5m"),
        key(
            "most",
            Kind::Form("percentage", "50%"),
            "Share of the servers that may be out.",
        )
        .or("50%"),
        key(
            "on",
            Kind::Filled(&Kind::Word(&CONDITIONS)),
            "Which failures count.",
        )
        .or_items(&["connect_failure", "broken", "invalid", "timeout"]),
    ],
};

/// `retries` of an upstream.
pub(crate) static RETRIES: Section = Section {
    short: None,
    keys: &[
        key(
            "attempts",
            Kind::Whole(0, 10),
            "How many more times a request is tried.",
        )
        .or("2"),
        key(
            "on",
            Kind::Filled(&Kind::Word(&CONDITIONS)),
            "After which failures.",
        )
        .or_items(&["connect_failure"]),
        key(
            "budget",
            Kind::Form("percentage", "20%"),
            "Share of the requests that may be sent a second time.",
        )
        .or("20%"),
        key(
            "per_try",
            DURATION,
            "For the head of a response, of each try.",
        )
        .without("`timeouts.response` alone"),
        key(
            "hold",
            DURATION_OR_ZERO,
            "How long a request waits while no server can be connected to; at most 60s.",
        )
        .or("0s"),
        key(
            "non_idempotent",
            Kind::Boolean,
            "Whether POST and PATCH are sent a second time, too.",
        )
        .or("false"),
    ],
};

/// What may stand behind `on`.
const CONDITIONS: [&str; 8] = [
    "connect_failure",
    "broken",
    "timeout",
    "invalid",
    "429",
    "502",
    "503",
    "504",
];

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
        key(
            "max",
            Kind::Whole(1, 1_000_000),
            "Requests at the same time at each server, over all workers.",
        )
        .without("no limit"),
        key(
            "queue",
            Kind::Whole(0, 1_000_000),
            "How many requests wait for a server; only with `max` or `retries.hold`.",
        )
        .without("1024 with `max` or `retries.hold`"),
        key(
            "wait",
            DURATION,
            "How long a request waits at servers that have their `max`.",
        )
        .without("5s with `max`"),
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
