//! Header edits of the configuration: fields to set and to remove, with placeholders for values of the request.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::auth::{ClaimPath, Permit};
use crate::message::fields::NameSet;
use crate::message::reject::Reject;
use crate::message::request_id::RequestId;

/// Headers to set and to remove.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HeaderEdits {
    /// Replaces all values of the field.
    pub(crate) set: Vec<(HeaderName, Written)>,
    /// Fields to remove.
    pub(crate) remove: Vec<HeaderName>,
    /// Whether responses get the usual security fields, where they do not have them.
    security: bool,
    /// All of these names, in every spelling: such fields of a client are never forwarded.
    pub(crate) names: NameSet,
}

impl HeaderEdits {
    /// Sets these fields and removes those.
    pub(crate) fn new(set: Vec<(HeaderName, Written)>, remove: Vec<HeaderName>) -> Self {
        let names = set.iter().map(|(name, _)| name).chain(&remove);
        Self {
            names: NameSet::new(names.cloned()),
            set,
            remove,
            security: false,
        }
    }

    /// The same, and the usual security fields.
    pub(crate) fn with_security(self, security: bool) -> Self {
        Self { security, ..self }
    }

    /// Removes, then sets. `facts` is called only where a value has placeholders; a value that cannot be built is left
    /// out.
    pub(crate) fn apply<'f>(&self, headers: &mut HeaderMap, facts: impl Fn() -> Facts<'f>) {
        if self.security {
            secure(headers, facts().secure);
        }
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            match value {
                Written::Fixed(value) => drop(headers.insert(name, value.clone())),
                Written::Made(template) => match template.fill(&facts()) {
                    Ok(Some(value)) => drop(headers.insert(name, value)),
                    Ok(None) | Err(_) => drop(headers.remove(name)),
                },
            }
        }
    }
}

/// The usual security fields. There is no Content-Security-Policy among them: only the app knows what its pages load.
const SECURITY: [(HeaderName, HeaderValue); 4] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("strict-origin-when-cross-origin"),
    ),
    (
        header::X_FRAME_OPTIONS,
        HeaderValue::from_static("SAMEORIGIN"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];
/// A year (RFC 6797), for this host alone: an entry for subdomains or in a preload list is hard to revoke.
const TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the security fields that a response does not have.
fn secure(headers: &mut HeaderMap, is_tls: bool) {
    for (name, value) in SECURITY {
        headers.entry(name).or_insert(value);
    }
    if is_tls {
        let field = headers.entry(header::STRICT_TRANSPORT_SECURITY);
        field.or_insert(TRANSPORT);
    }
}

/// The value of a header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Written {
    /// The same for all requests.
    Fixed(HeaderValue),
    /// Built for each request.
    Made(Box<Template>),
}

/// A value with placeholders.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    sensitive: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    /// The client's address.
    Client,
    /// The requested host, in lower case and without a port.
    Host,
    /// `http` or `https`.
    Scheme,
    /// The request's id.
    Id,
    Claim(ClaimPath),
}

/// The values of placeholders for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The client's address.
    pub(crate) client: &'a HeaderValue,
    /// Host and port as the client wrote them.
    pub(crate) host: &'a [u8],
    /// Whether the client uses TLS.
    pub(crate) secure: bool,
    /// The request's id.
    pub(crate) id: RequestId,
    /// The permit, where claims are known.
    pub(crate) permit: Option<&'a Permit>,
}

impl Written {
    /// Parses a value. `{client}`, `{host}`, `{scheme}`, `{id}` and `{claim:PATH}` are placeholders, `{{`, `}}` braces.
    ///
    /// # Errors
    /// A sentence that says what is expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const KNOWN: &str = "known here are {client}, {host}, {scheme}, {id} and {claim:PATH}; a brace itself is written twice, `{{` or `}}`";
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, brace)) = rest
            .find(['{', '}'])
            .and_then(|at| rest.split_at_checked(at))
        {
            plain.push_str(before);
            let twice = brace
                .strip_prefix("{{")
                .or_else(|| brace.strip_prefix("}}"));
            if let Some(behind) = twice {
                plain.extend(brace.chars().next());
                rest = behind;
                continue;
            }
            let inner = brace.strip_prefix('{');
            let Some((name, behind)) = inner.and_then(|inner| inner.split_once('}')) else {
                return Err(format!("a brace stands alone; {KNOWN}"));
            };
            let part = match (name, name.strip_prefix("claim:")) {
                ("client", _) => Part::Client,
                ("host", _) => Part::Host,
                ("scheme", _) => Part::Scheme,
                ("id", _) => Part::Id,
                (_, Some(path)) => Part::Claim(ClaimPath::parse(path)?),
                (_, None) => return Err(format!("`{{{name}}}` is no placeholder; {KNOWN}")),
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
            rest = behind;
        }
        plain.push_str(rest);
        if parts.is_empty() {
            let fixed = HeaderValue::from_str(&plain);
            return fixed.map(Self::Fixed).map_err(|_| String::new());
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self::Made(Box::new(Template {
            parts,
            sensitive: false,
        })))
    }

    /// Marks the value as secret.
    pub(crate) fn set_sensitive(&mut self, sensitive: bool) {
        match self {
            Self::Fixed(value) => value.set_sensitive(sensitive),
            Self::Made(template) => template.sensitive = sensitive,
        }
    }

    /// Whether it contains claims of the token.
    pub(crate) fn has_claims(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Made(template) => {
                let mut parts = template.parts.iter();
                parts.any(|part| matches!(part, Part::Claim(_)))
            }
        }
    }
}

impl Template {
    /// The value for a request; `None` where a claim is missing.
    ///
    /// # Errors
    /// `ClaimUnfit` where a claim is not valid in a header.
    pub(crate) fn fill(&self, facts: &Facts<'_>) -> Result<Option<HeaderValue>, Reject> {
        let mut value = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => value.extend_from_slice(text.as_bytes()),
                Part::Client => value.extend_from_slice(facts.client.as_bytes()),
                Part::Host => value.extend(name_of(facts.host).to_ascii_lowercase()),
                Part::Scheme if facts.secure => value.extend_from_slice(b"https"),
                Part::Scheme => value.extend_from_slice(b"http"),
                Part::Id => value.extend(facts.id.digits()),
                Part::Claim(path) => {
                    let claim = facts.permit.map(|permit| permit.claim(path)).transpose()?;
                    let Some(claim) = claim.flatten() else {
                        return Ok(None);
                    };
                    value.extend_from_slice(claim.as_bytes());
                }
            }
        }
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| Reject::ClaimUnfit)?;
        value.set_sensitive(self.sensitive);
        Ok(Some(value))
    }
}

/// The host of `host:port`.
fn name_of(host: &[u8]) -> &[u8] {
    let colon = memchr::memrchr(b':', host);
    match colon.and_then(|colon| host.split_at_checked(colon)) {
        Some((name, port)) if port.iter().skip(1).all(u8::is_ascii_digit) => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let written = Written::parse(text).unwrap();
        let permit = Permit::for_tests();
        let facts = Facts {
            client: &HeaderValue::from_static("192.0.2.1"),
            host: b"A.test:81",
            secure: true,
            id: RequestId(0xab),
            permit: Some(&permit),
        };
        let value = match &written {
            Written::Fixed(value) => Some(value.clone()),
            Written::Made(template) => template.fill(&facts).unwrap(),
        };
        let value = value.map_or_else(|| "(none)".to_owned(), |it| it.to_str().unwrap().to_owned());
        assert_eq!(value, expected, "{text}");
    }

    #[test]
    fn placeholders_stand_for_what_a_request_is() {
        check("plain", "plain");
        check("{client}", "192.0.2.1");
        check("for={client};proto={scheme}", "for=192.0.2.1;proto=https");
        check("{host}", "a.test");
        check("<{id}>", "<00000000000000ab>");
        check("{{\"a\": {{\"b\": 1}}}}", "{\"a\": {\"b\": 1}}");
        check("{{{scheme}}}", "{https}");
        // A missing claim leaves the header out.
        check("of {claim:sub}", "(none)");
    }

    #[test]
    fn other_braces_are_refused() {
        for text in [
            "{",
            "}",
            "{}",
            "{clien}",
            "{client",
            "client}",
            "{ client }",
            "{claim:}",
            "{claim}",
            "{claim:a..b}",
            "{\"a\": 1}",
            "${client}}",
        ] {
            assert!(Written::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_have_names() {
        for (host, name) in [
            ("a", "a"),
            ("a:1", "a"),
            ("[::1]", "[::1]"),
            ("[::1]:1", "[::1]"),
        ] {
            assert_eq!(name_of(host.as_bytes()), name.as_bytes());
        }
    }
}
