//! The keys of `basic` of `auth`.

use super::{CERTIFICATES, Kind, Section, key};

/// `basic` of `auth`.
pub(crate) static BASIC: Section = Section {
    short: Some("users"),
    keys: &[
        key(
            "users",
            Kind::File,
            "Names and hashes, as `htpasswd -B` writes them.",
        )
        .required(),
        key("realm", Kind::Text, "What browsers show beside the prompt.")
            .without("the route's name"),
        key(
            "pass",
            Kind::Boolean,
            "Forwards `Authorization` with the password.",
        )
        .or("false"),
    ],
};

/// `auth` by name and password.
pub(crate) static BASIC_RULE: Section = Section {
    short: None,
    keys: &[
        key(
            "basic",
            Kind::Section(&BASIC),
            "Users whose name and password each request must have.",
        )
        .required(),
        key(
            "certificate",
            CERTIFICATES,
            "Client certificate that is needed besides.",
        ),
        key(
            "require",
            Kind::Any,
            "Rules for the only claim, `sub`: a map, or a list of maps of which one must hold.",
        ),
        key(
            "forward",
            Kind::Map(&Kind::Text),
            "Header fields that the app gets, with `sub` or the `certificate:PART` that they carry.",
        ),
    ],
};
