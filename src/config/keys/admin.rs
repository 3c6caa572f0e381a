//! The keys of `admin` and `metrics`.

use super::{CERTIFICATE, Kind, Section, key};

/// `admin`.
pub(crate) static ADMIN: Section = Section {
    short: None,
    keys: &[
        key(
            "address",
            Kind::Form("address", "127.0.0.1:9000"),
            "IP address and port of the admin listener, or `unix:` and the path of a socket.",
        )
        .without("only the control socket"),
        key(
            "token",
            Kind::Text,
            "Token that may read and change, at least 24 characters; required unless only this machine can reach the address.",
        ),
        key(
            "read_token",
            Kind::Text,
            "Token that may read and never change, for Prometheus.",
        ),
        key(
            "hosts",
            Kind::List(&Kind::Form("name", "gateway.internal")),
            "Names that the admin listener answers to, beside IP addresses and `localhost`.",
        )
        .or_items(&[]),
        key(
            "tls",
            Kind::Section(&ADMIN_TLS),
            "Serves the admin listener over TLS.",
        )
        .without("plain HTTP"),
        key(
            "socket",
            Kind::File,
            "Path of the control socket, which only root and the user that serves may use.",
        )
        .without("in the directory that systemd makes, or the user's own"),
    ],
};

/// `tls` of `admin`.
pub(crate) static ADMIN_TLS: Section = Section {
    short: None,
    keys: &[
        key(
            "certificates",
            Kind::Filled(&Kind::Section(&CERTIFICATE)),
            "Certificates, chosen as those of a listener are.",
        )
        .required(),
        key(
            "min_version",
            Kind::Word(&["1.2", "1.3"]),
            "Oldest TLS version that is accepted.",
        )
        .or("1.2"),
    ],
};

/// `metrics`.
pub(crate) static METRICS: Section = Section {
    short: None,
    keys: &[key(
        "routes",
        Kind::Whole(0, 100_000),
        "How many routes have series of their own, the first ones that are used; the others are counted together.",
    )
    .or("1000")],
};
