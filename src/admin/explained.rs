//! What `explain` says, for programs: on the command line with `--json`, and from the admin listener about the
//! configuration in force.

use http::{HeaderName, HeaderValue, header};
use serde_json::{Value, json};

use crate::auth::{Claims, parse_object};
use crate::clock;
use crate::config::{self, AllLines, Lines};
use crate::explain::{self, Decision, Outcome, Question};
use crate::route::Target;
use crate::snapshot::Snapshot;

/// The lines of the configuration's files that decided.
pub(crate) fn lines_of<'l>(
    decision: &Decision,
    snapshot: &Snapshot,
    lines: &'l AllLines,
) -> Vec<(&'static str, &'l Lines)> {
    let Some(index) = decision.route else {
        return Vec::new();
    };
    let route = snapshot.routes.get(index);
    match route.map(|route| &route.target) {
        Some(Target::Tokens { .. }) => lines.of_tokens().into_iter().collect(),
        Some(Target::ResourceMetadata) | None => Vec::new(),
        Some(_) => lines.of_route(index),
    }
}

/// The same text as for a reader, and the values behind it.
pub(crate) fn as_json(decision: &Decision, snapshot: &Snapshot, lines: &AllLines) -> Value {
    let (status, reason) = decision.answer();
    let outcome = match &decision.outcome {
        Outcome::Refused(_) => "refused",
        Outcome::Answered(_) => "answered",
        Outcome::Forwarded => "forwarded",
        Outcome::NoConnection => "no_connection",
        Outcome::Asked => "asked",
        Outcome::Unproven => "unproven",
    };
    let route = decision.route.and_then(|index| snapshot.routes.get(index));
    let lines = lines_of(decision, snapshot, lines);
    let lines = lines.into_iter().map(|(of, lines)| {
        json!({"of": of, "file": lines.file, "first": lines.first, "last": lines.last})
    });
    let steps = decision
        .steps()
        .map(|(step, text)| json!({"step": step, "text": text}));
    let seen = decision
        .seen()
        .map(|(name, value)| json!({"name": name, "value": value}));
    json!({
        "allowed": decision.is_allowed(),
        "outcome": outcome,
        "status": status.map(|status| status.as_u16()),
        "reason": reason,
        "route": route.map(|route| &route.name),
        "upstream": decision.upstream,
        "lines": lines.collect::<Vec<_>>(),
        "steps": steps.collect::<Vec<_>>(),
        "app_sees": seen.collect::<Vec<_>>(),
    })
}

/// Explains the request that a JSON object describes: `{method, url, headers, token, claims, from}`, of which only `url`
/// must be there.
///
/// # Errors
/// What is wrong with it.
pub(super) fn explain(
    asked: &[u8],
    snapshot: &Snapshot,
    lines: &AllLines,
) -> Result<Value, String> {
    let asked = parse_object(asked).map_err(|error| format!("a JSON object is needed: {error}"))?;
    const KEYS: [&str; 6] = ["method", "url", "headers", "token", "claims", "from"];
    if let Some(unknown) = asked.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!(
            "unknown key `{unknown}`; known are {}",
            KEYS.join(", ")
        ));
    }
    let text = |name: &str| match asked.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("`{name}` is a text")),
    };
    let method = text("method")?.unwrap_or("GET");
    let url = text("url")?.ok_or("`url` is missing")?;
    let (mut request, secure) = config::request(&format!("{method} {url}"))?;
    let mut add = |name: &str, value: &str| {
        let known = HeaderName::try_from(name)
            .ok()
            .zip(HeaderValue::from_str(value).ok());
        let (name, value) = known.ok_or_else(|| format!("`{name}` is no header field"))?;
        if name == header::HOST {
            request.headers_mut().remove(header::HOST);
        }
        request.headers_mut().append(name, value);
        Ok::<_, String>(())
    };
    match asked.get("headers") {
        None | Some(Value::Null) => {}
        Some(Value::Object(headers)) => {
            for (name, value) in headers {
                let value = value.as_str().ok_or("`headers` is a map of texts")?;
                add(name, value)?;
            }
        }
        Some(_) => return Err("`headers` is a map of texts".to_owned()),
    }
    if let Some(token) = text("token")?.filter(|token| !token.is_empty()) {
        add("authorization", &format!("Bearer {token}"))?;
    }
    let claims = match asked.get("claims") {
        None | Some(Value::Null) => None,
        Some(Value::Object(claims)) => Some(Claims::new(claims.clone())),
        Some(_) => return Err("`claims` is an object".to_owned()),
    };
    let from = config::client(text("from")?.unwrap_or("127.0.0.1"));
    let from = from.map_err(|why| format!("`from` is an address: {why}"))?;
    let decision = explain::explain(
        snapshot,
        &Question {
            request: &request,
            secure,
            claims: claims.as_ref(),
            certificate: None,
            any_time: false,
            from,
            now: clock::now(),
        },
    );
    Ok(as_json(&decision, snapshot, lines))
}
