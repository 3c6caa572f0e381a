//! Error pages of the site's own: HTML with placeholders, which are filled for each refusal. Who gets one is decided in
//! `gateway`; where the files are, in the configuration.

use std::sync::Arc;

use http::StatusCode;

use crate::message::request_id::RequestId;

/// The statuses that a page is for, or that an app's response is replaced for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Statuses {
    /// This status.
    One(StatusCode),
    /// All of a class: 4 or 5.
    Class(u16),
}

impl Statuses {
    /// Whether the status is one of them.
    pub(crate) fn have(self, status: StatusCode) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(class) => status.as_u16() / 100 == class,
        }
    }
}

/// A page with placeholders.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Page(Vec<Part>);

#[derive(Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Value(Value),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Value {
    Status,
    Title,
    Detail,
    Reason,
    Id,
}

/// The placeholders by name.
const VALUES: [(&str, Value); 5] = [
    ("{status}", Value::Status),
    ("{title}", Value::Title),
    ("{detail}", Value::Detail),
    ("{reason}", Value::Reason),
    ("{id}", Value::Id),
];

/// What a page is filled with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    /// The status of the response.
    pub(crate) status: StatusCode,
    /// Why the request was refused.
    pub(crate) detail: &'a str,
    /// The reason code; empty for a response of the app.
    pub(crate) reason: &'a str,
    /// The request's id.
    pub(crate) id: RequestId,
}

impl Page {
    /// The largest page, in bytes.
    pub(crate) const MOST: usize = 256 << 10;

    /// Reads a page. Braces that enclose no placeholder are text, as those of a style sheet are.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        let next = |rest: &str| {
            let found = VALUES.iter();
            let found =
                found.filter_map(|(name, value)| Some((rest.find(name)?, name.len(), *value)));
            found.min_by_key(|(at, ..)| *at)
        };
        while let Some((at, length, value)) = next(rest) {
            let (before, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Value(value));
            rest = after.get(length..).unwrap_or("");
        }
        parts.push(Part::Text(rest.to_owned()));
        Self(parts)
    }

    /// The page with its placeholders filled, escaped as HTML.
    pub(crate) fn fill(&self, told: &Told<'_>) -> String {
        let mut page = String::with_capacity(4096);
        for part in &self.0 {
            match part {
                Part::Text(text) => page.push_str(text),
                Part::Value(Value::Status) => page.push_str(told.status.as_str()),
                Part::Value(Value::Title) => {
                    page.push_str(told.status.canonical_reason().unwrap_or("Error"));
                }
                Part::Value(Value::Detail) => escape(told.detail, &mut page),
                Part::Value(Value::Reason) => escape(told.reason, &mut page),
                Part::Value(Value::Id) => page.push_str(&told.id.to_string()),
            }
        }
        page
    }
}

/// Appends a text, with what has a meaning in HTML escaped.
pub(crate) fn escape(text: &str, page: &mut String) {
    for char in text.chars() {
        match char {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            char => page.push(char),
        }
    }
}

/// The pages of a route, and those of the whole site for what it has none.
#[derive(Debug, Default)]
pub(crate) struct ErrorPages {
    /// Pages in the order in which they are looked for.
    pages: Vec<(Statuses, Arc<Page>)>,
    /// The statuses of an app's responses that are replaced.
    intercept: Vec<Statuses>,
}

impl ErrorPages {
    /// The pages of a route before those of the site; a page for one status goes before one for its class.
    pub(crate) fn new(
        own: &[(Statuses, Arc<Page>)],
        site: &[(Statuses, Arc<Page>)],
        intercept: Vec<Statuses>,
    ) -> Self {
        let mut pages: Vec<_> = own.iter().chain(site).cloned().collect();
        pages.sort_by_key(|(statuses, _)| matches!(statuses, Statuses::Class(_)));
        Self { pages, intercept }
    }

    /// The page for a status.
    pub(crate) fn page(&self, status: StatusCode) -> Option<&Page> {
        let mut pages = self.pages.iter();
        let found = pages.find(|(statuses, _)| statuses.have(status));
        found.map(|(_, page)| &**page)
    }

    /// Whether an app's response with this status is replaced.
    pub(crate) fn intercepts(&self, status: StatusCode) -> bool {
        self.intercept.iter().any(|statuses| statuses.have(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Told<'_> = Told {
        status: StatusCode::NOT_FOUND,
        detail: "<b> & \"it's\"",
        reason: "no_route",
        id: RequestId(7),
    };

    #[test]
    fn placeholders_are_filled_and_escaped_and_other_braces_stay() {
        let page =
            Page::parse("<style>a{b:c}</style>{status}{title}|{detail}|{reason}|{id}{}{idx}{");
        assert_eq!(
            page.fill(&TOLD),
            "<style>a{b:c}</style>404Not Found|&lt;b&gt; &amp; &quot;it&#39;s&quot;|no_route|0000000000000007{}{idx}{"
        );
        assert_eq!(Page::parse("").fill(&TOLD), "");
        assert_eq!(Page::parse("ä{{id}}").fill(&TOLD), "ä{0000000000000007}");
    }

    #[test]
    fn exact_goes_before_class_and_route_before_site() {
        let page = |text: &str| Arc::new(Page::parse(text));
        let (not_found, client) = (Statuses::One(StatusCode::NOT_FOUND), Statuses::Class(4));
        let own = [(client, page("own 4xx"))];
        let site = [(client, page("4xx")), (not_found, page("404"))];
        let pages = ErrorPages::new(&own, &site, vec![Statuses::Class(5)]);
        let filled = |status| pages.page(status).map(|page| page.fill(&TOLD));
        assert_eq!(filled(StatusCode::NOT_FOUND).as_deref(), Some("404"));
        assert_eq!(filled(StatusCode::FORBIDDEN).as_deref(), Some("own 4xx"));
        assert_eq!(filled(StatusCode::BAD_GATEWAY), None);
        assert!(pages.intercepts(StatusCode::BAD_GATEWAY));
        assert!(!pages.intercepts(StatusCode::NOT_FOUND));
    }
}
