//! Decodes `tests`: requests and their expected outcomes. `explain` runs them.

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};

use super::decode::Decoder;
use super::error::Errors;
use super::json::json;
use super::keys;
use super::node::{Kind, Node};
use super::parsed::{Spanned, Test};
use super::source::{Loader, why};
use super::value;
use crate::auth::Claims;
use crate::net::tls::ShownChain;
use crate::snapshot::{Expectation, PolicyTest};

impl Decoder<'_> {
    /// A file of tests: a list, or a map with `tests`.
    pub(crate) fn test_file(&mut self, node: &Node) -> Vec<Spanned<Test>> {
        if matches!(node.kind, Kind::List(_)) {
            return self.policy_tests(node).unwrap_or_default();
        }
        let Some(fields) = self.fields(node, "a list of tests", &keys::TEST_FILE) else {
            return Vec::new();
        };
        self.required(fields, "tests", Self::policy_tests)
            .unwrap_or_default()
    }

    /// `tests`.
    pub(crate) fn policy_tests(&mut self, node: &Node) -> Option<Vec<Spanned<Test>>> {
        self.list(node, "a list of tests", Self::policy_test)
    }

    fn policy_test(&mut self, node: &Node) -> Option<Spanned<Test>> {
        let fields = self.fields(node, "a map", &keys::TEST)?;
        let request = self.required(fields, "request", |it, node| {
            it.scalar(node, "a request", "write it as `GET /path`", |text| {
                request(text).map(|parts| (text.to_owned(), parts))
            })
        });
        let headers = self.optional(fields, "headers", |it, node| {
            it.headers(node, "a map of headers", Self::header_value)
        });
        let claims = self.optional(fields, "claims", |it, node| {
            if !matches!(node.kind, Kind::Map(_)) {
                it.unexpected(node, "a map of claims", "");
                return None;
            }
            let claims = json(node, it.errors)?;
            claims.as_object().cloned().map(Claims::new)
        });
        let certificate = self.optional(fields, "certificate", Self::file);
        let from = self.value(fields, "from", |it, node| {
            it.scalar(node, "an address, or `unix`", "", value::client)
        });
        let expect = self.required(fields, "expect", Self::expectation);
        let unread = |name, read: bool| fields.get(name).is_some() && !read;
        if unread("claims", claims.is_some()) || unread("certificate", certificate.is_some()) {
            return None;
        }
        let (text, (mut request, secure)) = request?.value;
        for (name, value) in headers.unwrap_or_default() {
            if name.value == header::HOST {
                request.headers_mut().remove(header::HOST);
            }
            request.headers_mut().append(name.value, value.value);
        }
        Some(Spanned {
            value: Test {
                test: PolicyTest {
                    place: self.errors.name(node.place),
                    text,
                    request,
                    secure,
                    claims,
                    certificate: None,
                    from: from?.value,
                    expect: expect?,
                },
                certificate,
            },
            place: node.place,
            private: false,
        })
    }

    fn expectation(&mut self, node: &Node) -> Option<Expectation> {
        let fields = self.fields(node, "a map", &keys::EXPECT)?;
        if matches!(&node.kind, Kind::Map(entries) if entries.is_empty()) {
            self.errors
                .at(node.place, "this expects nothing")
                .hint("such as {status: 401}, or {route: NAME} of a request that is let pass");
            return None;
        }
        let status = self.optional(fields, "status", |it, node| {
            it.scalar(node, "a status from 100 to 599", "", |text| {
                let status = u16::try_from(value::integer(text)?).ok();
                status
                    .filter(|status| *status <= 599)
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .ok_or_else(String::new)
            })
        });
        let reason = self.optional(fields, "reason", Self::filled_text);
        let route = self.optional(fields, "route", Self::filled_text);
        let upstream = self.optional(fields, "upstream", Self::filled_text);
        let headers = self.optional(fields, "headers", |it, node| {
            it.headers(node, "a map of headers", |it, node| match node.kind {
                Kind::Null => Some(Spanned::default_of(None)),
                Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) | Kind::Broken => {
                    let text = it.text(node)?;
                    Some(Spanned {
                        value: Some(text.value),
                        place: text.place,
                        private: text.private,
                    })
                }
            })
        });
        let headers: Vec<(HeaderName, Option<String>)> = headers
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name.value, value.value))
            .collect();
        Some(Expectation {
            status: status.map(|it| it.value),
            reason: reason.map(|it| it.value),
            route: route.map(|it| it.value),
            upstream: upstream.map(|it| it.value),
            headers,
        })
    }
}

/// The test with the certificate that its client shows.
pub(crate) fn with_certificate(test: Test, loader: &Loader<'_>, errors: &mut Errors) -> PolicyTest {
    let Test {
        mut test,
        certificate,
    } = test;
    let Some(file) = certificate else { return test };
    let path = file.value.display();
    match loader.read(&file.value).map(|file| ShownChain::read(&file)) {
        Ok(Ok(shown)) => test.certificate = Some(shown),
        Ok(Err(wrong)) => {
            let remedy = wrong.remedy_for(&file.value);
            errors.at(file.place, wrong.problem).hint(remedy);
        }
        Err(error) => {
            let problem = format!("`{path}` cannot be read: {}", why(&error));
            errors.at(file.place, problem);
        }
    }
    test
}

/// A request without headers but `Host`, where its target names one, from `METHOD /path` or `METHOD https://host/path`, and
/// whether it comes over TLS.
pub(crate) fn request(text: &str) -> Result<(Request<()>, Option<bool>), String> {
    const FORM: &str = "write it as `GET /path` or `GET https://host/path`";
    let (method, target) = text.trim().split_once(' ').ok_or(FORM)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| FORM)?;
    if method
        .as_str()
        .bytes()
        .any(|byte| byte.is_ascii_lowercase())
    {
        return Err(format!("write `{}`", method.as_str().to_ascii_uppercase()));
    }
    let uri: Uri = target.trim().parse().map_err(|_| FORM)?;
    let secure = match uri.scheme_str() {
        None if target.trim().starts_with('/') => None,
        Some("https") => Some(true),
        Some("http") => Some(false),
        None | Some(_) => return Err(FORM.to_owned()),
    };
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.map(HeaderValue::from_str).transpose();
    let host = host.map_err(|_| FORM)?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok((request, secure))
}
