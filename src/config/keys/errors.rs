//! The keys of `errors`: pages by status.

use super::{Key, Kind, Section, key};

const STATUSES: Kind = Kind::Filled(&Kind::Form("status or class", "5xx"));

const fn page(status: &'static str) -> Key {
    key(status, Kind::File, "Page for this status.")
}

/// `errors`, of a route or of the whole site.
pub(crate) static ERRORS: Section = Section {
    short: None,
    keys: &[
        key("4xx", Kind::File, "Page for all statuses from 400 to 499."),
        key("5xx", Kind::File, "Page for all statuses from 500 to 599."),
        page("400"),
        page("401"),
        page("403"),
        page("404"),
        page("405"),
        page("408"),
        page("409"),
        page("410"),
        page("412"),
        page("413"),
        page("414"),
        page("415"),
        page("416"),
        page("422"),
        page("429"),
        page("431"),
        page("451"),
        page("500"),
        page("501"),
        page("502"),
        page("503"),
        page("504"),
        page("505"),
        page("508"),
        key(
            "intercept",
            STATUSES,
            "Statuses of apps' responses to navigations that are replaced by the page, too.",
        )
        .without("none; of a route: those of the site"),
    ],
};
