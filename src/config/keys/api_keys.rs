//! The keys of `api_key`: of `auth`, and of the file that it names.

use super::{CERTIFICATES, Key, Kind, Section, key};

/// `api_key` of `auth`.
pub(crate) static API_KEYS: Section = Section {
    short: None,
    keys: &[
        key(
            "file",
            Kind::File,
            "Hashes and claims of the keys; `portcullis apikey` writes it.",
        )
        .required(),
        key(
            "from",
            Kind::OneOrMore(&Kind::Form("header:NAME or query:NAME", "header:X-Api-Key")),
            "Where requests have their key.",
        )
        .or_items(&["header:X-Api-Key"]),
    ],
};

/// `auth` by API keys alone.
pub(crate) static API_KEY_RULE: Section = Section {
    short: None,
    keys: &[
        key(
            "api_key",
            Kind::Section(&API_KEYS),
            "API keys, one of which is needed.",
        )
        .required(),
        key(
            "certificate",
            CERTIFICATES,
            "Client certificate that is needed besides.",
        ),
        OPTIONAL,
        key(
            "require",
            Kind::Any,
            "Rules for the key's claims: a map, or a list of maps of which one must hold.",
        ),
        key(
            "forward",
            Kind::Map(&Kind::Text),
            "Header fields that the app gets, with the claims or the `certificate:PART` that they carry.",
        ),
        key(
            "strip_token",
            Kind::Boolean,
            "Removes the key before the request is forwarded.",
        )
        .or("false"),
        key(
            "enforce",
            Kind::Word(&["refuse", "report"]),
            "`report` logs what would be refused, and allows it.",
        )
        .or("refuse"),
    ],
};

const OPTIONAL: Key = key("optional", Kind::Boolean, "Allows requests without a key.").or("false");

/// An entry of the file of API keys.
pub(crate) static API_KEY: Section = Section {
    short: None,
    keys: &[
        key(
            "sha256",
            Kind::Form("64 hexadecimal digits", "9f86d0..."),
            "Hash of the key.",
        )
        .required(),
        key(
            "expires",
            Kind::Form("time", "2027-03-01T00:00:00Z"),
            "When the key expires.",
        ),
        key(
            "claims",
            Kind::Map(&Kind::Any),
            "Claims of its bearer; `sub` is the name unless it is here.",
        ),
    ],
};
