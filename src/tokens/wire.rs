//! Reads requests and writes responses of the endpoints: simplejwt's wire format, and RFC 7009's for `revoke`. Which
//! response a request gets is decided by the service.

use std::io::Cursor;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use multer::Multipart;
use serde_json::{Map, Value, json};

use crate::message::body::Body;

/// The maximum number of parts of a form.
const MOST_PARTS: usize = 100;

/// The fields of a request, by name.
pub(crate) type Fields = Map<String, Value>;

/// A complete response: its status, its body, and its headers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u64>,
    /// The reason code for the access log, where it is an error.
    pub(crate) reason: Option<&'static str>,
    /// `Set-Cookie`, one line each.
    pub(crate) cookies: Vec<HeaderValue>,
}

impl Answer {
    /// 200 with this body.
    pub(crate) fn ok(body: Value) -> Self {
        Self {
            status: StatusCode::OK,
            body,
            retry_after: None,
            reason: None,
            cookies: Vec::new(),
        }
    }

    fn refusal(status: StatusCode, reason: &'static str, body: Value) -> Self {
        Self {
            status,
            body,
            retry_after: None,
            reason: Some(reason),
            cookies: Vec::new(),
        }
    }

    /// The request is malformed.
    pub(crate) fn malformed(what: &str) -> Self {
        let body = json!({ "detail": what });
        Self::refusal(StatusCode::BAD_REQUEST, "token_request_malformed", body)
    }

    /// The media type of the body is not supported.
    pub(crate) fn unsupported(kind: &str) -> Self {
        let what = format!("Unsupported media type \"{kind}\" in request.");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::refusal(status, "token_request_malformed", json!({ "detail": what }))
    }

    /// Invalid fields.
    pub(crate) fn fields(faults: Vec<(&str, &str)>) -> Self {
        let faults: Map<String, Value> = faults
            .into_iter()
            .map(|(name, fault)| (name.to_owned(), json!([fault])))
            .collect();
        let body = Value::Object(faults);
        Self::refusal(StatusCode::BAD_REQUEST, "token_request_malformed", body)
    }

    /// Another method than POST.
    pub(crate) fn method(method: &http::Method) -> Self {
        let what = format!("Method \"{method}\" not allowed.");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::refusal(status, "method_not_allowed", json!({ "detail": what }))
    }

    /// The user or the password is wrong, or the account is inactive: the response does not say which.
    pub(crate) fn no_account() -> Self {
        let body = json!({"detail": "No active account found with the given credentials"});
        Self::refusal(StatusCode::UNAUTHORIZED, "login_failed", body)
    }

    /// The account of a refresh token was removed or is inactive.
    pub(crate) fn account_gone() -> Self {
        let body = json!({"detail": "No active account found for the given token."});
        Self::refusal(StatusCode::UNAUTHORIZED, "login_failed", body)
    }

    /// An invalid token.
    pub(crate) fn invalid(detail: &str, reason: &'static str) -> Self {
        let body = json!({"detail": detail, "code": "token_not_valid"});
        Self::refusal(StatusCode::UNAUTHORIZED, reason, body)
    }

    /// A token of a session that has ended, or one that was already used.
    pub(crate) fn blacklisted(reason: &'static str) -> Self {
        Self::invalid("Token is blacklisted", reason)
    }

    /// A token with our signature but without the claims of our tokens.
    pub(crate) fn not_ours() -> Self {
        Self::invalid("Token is invalid", "token_malformed")
    }

    /// A token that cannot be revoked (RFC 7009 section 2.2.1).
    pub(crate) fn unsupported_token() -> Self {
        let body = json!({"error": "unsupported_token_type"});
        Self::refusal(StatusCode::BAD_REQUEST, "token_of_no_session", body)
    }

    /// A page whose origin may not use the cookies.
    pub(crate) fn other_origin(origin: &str) -> Self {
        let shown: String = origin
            .chars()
            .filter(|c| !c.is_control())
            .take(80)
            .collect();
        let what = if shown.is_empty() {
            "CSRF Failed: the request has neither Origin nor Sec-Fetch-Site.".to_owned()
        } else {
            format!("CSRF Failed: {shown} is not an origin that may use the cookies.")
        };
        let body = json!({ "detail": what });
        Self::refusal(StatusCode::FORBIDDEN, "other_origin", body)
    }

    /// Too many attempts.
    pub(crate) fn throttled(seconds: u64) -> Self {
        let what = format!("Request was throttled. Expected available in {seconds} seconds.");
        Self {
            retry_after: Some(seconds),
            ..Self::refusal(
                StatusCode::TOO_MANY_REQUESTS,
                "throttled",
                json!({ "detail": what }),
            )
        }
    }

    /// No token can be issued now.
    pub(crate) fn down() -> Self {
        let body = json!({"detail": "Tokens cannot be issued at the moment."});
        Self {
            retry_after: Some(5),
            ..Self::refusal(StatusCode::SERVICE_UNAVAILABLE, "token_store_down", body)
        }
    }

    /// The app that decides on logins returned no decision.
    pub(crate) fn undecided() -> Self {
        Self {
            reason: Some("login_undecided"),
            ..Self::down()
        }
    }

    /// The HTTP response, and the reason code for the access log.
    pub(crate) fn with_reason(self) -> (Response<Body>, Option<&'static str>) {
        let reason = self.reason;
        (self.response(), reason)
    }

    /// The HTTP response; it must not be cached (RFC 6749 section 5.1).
    pub(crate) fn response(self) -> Response<Body> {
        let body = if self.body.is_null() {
            Body::Empty
        } else {
            Body::full(self.body.to_string())
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !self.body.is_null() {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"api\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        for line in self.cookies {
            headers.append(header::SET_COOKIE, line);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The fields of a body: JSON, or a form of either kind.
///
/// # Errors
/// The response that says why it cannot be parsed.
pub(crate) async fn fields(headers: &HeaderMap, body: &Bytes) -> Result<Fields, Answer> {
    if body.is_empty() {
        return Ok(Fields::new());
    }
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let pairs = form_urlencoded::parse(body);
        let pairs = pairs.map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())));
        return Ok(pairs.collect());
    }
    if essence.eq_ignore_ascii_case("multipart/form-data") {
        return multipart(kind, body).await;
    }
    if !essence.eq_ignore_ascii_case("application/json") {
        let harmless: String = kind
            .chars()
            .filter(|c| !c.is_control() && *c != '"')
            .collect();
        return Err(Answer::unsupported(&harmless));
    }
    crate::auth::parse_object(body).map_err(|_| {
        let is_json = serde_json::from_slice::<Value>(body).is_ok_and(|it| !it.is_object());
        if is_json {
            let what = "Invalid data. Expected a dictionary.";
            Answer::fields(vec![("non_field_errors", what)])
        } else {
            Answer::malformed("JSON parse error")
        }
    })
}

/// The fields of a multipart form (RFC 7578), of which the last of a name counts; a file is not a text.
async fn multipart(kind: &str, body: &Bytes) -> Result<Fields, Answer> {
    let malformed = || Answer::malformed("Multipart form parse error");
    let boundary = multer::parse_boundary(kind).map_err(|_| malformed())?;
    // The whole body is in memory, and limited: no part is longer.
    let mut parts = Multipart::with_reader(Cursor::new(body.clone()), boundary);
    let mut fields = Fields::new();
    let mut seen = 0;
    while let Some(part) = parts.next_field().await.map_err(|_| malformed())? {
        seen += 1;
        let name = part.name().map(str::to_owned);
        let is_file = part.file_name().is_some();
        let content = part.bytes().await.map_err(|_| malformed())?;
        let (Some(name), true) = (name, seen <= MOST_PARTS) else {
            return Err(malformed());
        };
        let value = if is_file {
            Value::Array(Vec::new())
        } else {
            let text = std::str::from_utf8(&content).map_err(|_| malformed())?;
            Value::from(text)
        };
        fields.insert(name, value);
    }
    Ok(fields)
}

/// The texts of these fields.
///
/// # Errors
/// The response that names every field that is missing or not a text.
pub(crate) fn texts<const N: usize>(
    fields: &Fields,
    names: [&str; N],
) -> Result<[String; N], Answer> {
    let mut faults = Vec::new();
    let texts = names.map(|name| match text(fields.get(name)) {
        Ok(text) => text,
        Err(fault) => {
            faults.push((name, fault));
            String::new()
        }
    });
    if faults.is_empty() {
        Ok(texts)
    } else {
        Err(Answer::fields(faults))
    }
}

/// A boolean field; a missing one is false. Forms and JSON write it as REST framework reads it.
///
/// # Errors
/// The response that names the field.
pub(crate) fn boolean(fields: &Fields, name: &'static str) -> Result<bool, Answer> {
    let text = match fields.get(name) {
        None => return Ok(false),
        Some(Value::Bool(yes)) => return Ok(*yes),
        Some(Value::String(text)) => text.as_str(),
        Some(Value::Number(number)) if number.as_u64() == Some(1) => "1",
        Some(Value::Number(number)) if number.as_u64() == Some(0) => "0",
        Some(Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_)) => "?",
    };
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err(Answer::fields(vec![(name, "Must be a valid boolean.")])),
    }
}

fn text(value: Option<&Value>) -> Result<String, &'static str> {
    match value {
        None => Err("This field is required."),
        Some(Value::Null) => Err("This field may not be null."),
        Some(Value::String(text)) if text.trim().is_empty() => Err("This field may not be blank."),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => Err("Not a valid string."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> Result<Fields, Answer> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let body = Bytes::copy_from_slice(body.as_bytes());
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(fields(&headers, &body))
    }

    fn part(name: &str, more: &str, content: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{content}\r\n")
    }

    #[test]
    fn forms_in_parts_are_read_and_bounded() {
        let kind = "multipart/form-data; boundary=b";
        let whole = |parts: &[String]| parts.concat() + "--b--\r\n";
        let login = whole(&[
            part("username", "", "first"),
            part("password", "", "c&d\r\n+ "),
            part("username", "", "a b"),
        ]);
        let expected = json!({"username": "a b", "password": "c&d\r\n+ "});
        let quoted = "Multipart/Form-Data; charset=utf-8; boundary=\"b\"";
        for kind in [kind, quoted] {
            assert_eq!(read(kind, &login).unwrap(), *expected.as_object().unwrap());
        }
        let file = whole(&[part("username", "; filename=\"a\"", "alice")]);
        let answer = texts(&read(kind, &file).unwrap(), ["username"]).unwrap_err();
        assert_eq!(answer.body, json!({"username": ["Not a valid string."]}));
        assert!(read(kind, "--b--\r\n").unwrap().is_empty());
        let many: Vec<_> = (0..=MOST_PARTS)
            .map(|n| part(&n.to_string(), "", "x"))
            .collect();
        for (kind, body) in [
            ("multipart/form-data", login.as_str()),
            (kind, "username=a"),
            (kind, login.trim_end_matches("--\r\n")),
            (kind, &whole(&["--b\r\n\r\nx\r\n".to_owned()])),
            (kind, &whole(&many)),
        ] {
            let answer = read(kind, body).unwrap_err();
            assert_eq!(answer.status.as_u16(), 400, "{kind} {body}");
        }
    }

    #[test]
    fn json_and_forms_are_read() {
        let expected = json!({"username": "a b", "password": "c&d"});
        let expected = expected.as_object().unwrap();
        for (kind, body) in [
            ("application/json", r#"{"username":"a b","password":"c&d"}"#),
            (
                "Application/JSON; charset=utf-8",
                r#"{"username":"a b","password":"c&d"}"#,
            ),
            (
                "application/x-www-form-urlencoded",
                "username=a+b&password=c%26d",
            ),
        ] {
            assert_eq!(read(kind, body).unwrap(), *expected, "{kind}");
        }
        let status = |kind, body| read(kind, body).unwrap_err().status.as_u16();
        assert_eq!(status("text/plain", "{}"), 415);
        assert_eq!(read("text/plain", ""), Ok(Fields::new()));
        for bad in ["{", "[]", "1", "{}{}", r#"{"a":1,"a":2}"#] {
            assert_eq!(status("application/json", bad), 400, "{bad}");
        }
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let check = |fields: Value, expected: Value| {
            let fields = fields.as_object().unwrap();
            match texts(fields, ["username", "password"]) {
                Ok(texts) => assert_eq!(json!(texts), expected),
                Err(answer) => assert_eq!(answer.body, expected),
            }
        };
        check(json!({"username": "a", "password": 7}), json!(["a", "7"]));
        check(
            json!({}),
            json!({"username": ["This field is required."], "password": ["This field is required."]}),
        );
        check(
            json!({"username": null, "password": ""}),
            json!({"username": ["This field may not be null."], "password": ["This field may not be blank."]}),
        );
        check(
            json!({"username": true, "password": "a"}),
            json!({"username": ["Not a valid string."]}),
        );
    }

    #[test]
    fn yes_and_no_are_what_rest_framework_takes_for_them() {
        let read = |value: Value| boolean(json!({"a": value}).as_object().unwrap(), "a").ok();
        assert_eq!(boolean(&Map::new(), "a"), Ok(false));
        for yes in [
            json!(true),
            json!("true"),
            json!("On"),
            json!("1"),
            json!(1),
        ] {
            assert_eq!(read(yes.clone()), Some(true), "{yes}");
        }
        for no in [json!(false), json!("False"), json!("0"), json!(0)] {
            assert_eq!(read(no.clone()), Some(false), "{no}");
        }
        for odd in [json!("maybe"), json!(null), json!(2), json!([]), json!("")] {
            assert_eq!(read(odd.clone()), None, "{odd}");
        }
    }
}
