//! Decodes `defaults` and `routes`.

use http::HeaderName;

use super::client_certificates::Forwarded;
use super::decode::{Decoder, Fields};
use super::keys;
use super::node::{Key, Kind, Node};
use super::parsed::{
    ApiKeyRule, AskRule, Auth, Defaults, Forwards, HeaderChanges, Headers, JwtRule, ProxyTo,
    Redirect, Respond, Rewrite, Route, Spanned,
};
use super::value;
use crate::auth::KeyPlace;
use crate::edits::Written;
use crate::message::method;
use crate::net::tls::Part;
use crate::proxy::{ends_loops, frames};

impl Decoder<'_> {
    /// `defaults`.
    pub(crate) fn defaults(&mut self, node: &Node) -> Option<Defaults> {
        let fields = self.fields(node, "a map", &keys::DEFAULTS)?;
        let auth = self.optional(fields, "auth", Self::auth);
        if fields.get("auth").is_some() && auth.is_none() {
            self.errors.leave_unread("defaults");
        }
        let headers = self.optional(fields, "headers", Self::header_rules);
        Some(Defaults {
            auth,
            headers: headers.unwrap_or_default(),
            compress: self.optional(fields, "compress", Self::compress),
            limiting: self.limiting(fields),
        })
    }

    /// One of `routes`; `None` where it has no path.
    pub(crate) fn route(&mut self, node: &Node) -> Option<Route> {
        let before = self.errors.count();
        let fields = self.fields(node, "a map", &keys::ROUTE)?;
        let name = self.optional(fields, "name", Self::filled_text);
        let hosts = self.optional(fields, "host", |it, node| {
            it.one_or_more(node, "a host or a list of hosts", |it, node| {
                it.scalar(
                    node,
                    "a host",
                    "hosts are www.example.com, *.example.com",
                    value::host_pattern,
                )
            })
        });
        let methods = self.optional(fields, "methods", |it, node| {
            it.filled_list(node, "a list of methods", Self::method)
        });
        let path = self.required(fields, "path", Self::route_path);
        let files = self.optional(fields, "static", Self::files);
        let proxy = self.optional(fields, "proxy", Self::proxy_to);
        let redirect = self.optional(fields, "redirect", Self::redirect);
        let respond = self.optional(fields, "respond", Self::respond);
        let auth = self.optional(fields, "auth", Self::auth);
        let limiting = self.limiting(fields);
        let cors = self.optional(fields, "cors", Self::cors);
        let rewrite = self.optional(fields, "rewrite", Self::rewrite);
        let headers = self.optional(fields, "headers", Self::header_rules);
        let errors = self.optional(fields, "errors", Self::error_pages);
        let body_bytes = self.optional(fields, "body_bytes", Self::size_or_off);
        let times = self.optional(fields, "timeouts", |it, node| {
            let fields = it.fields(node, "a map", &keys::ROUTE_TIMEOUTS)?;
            let response = it.optional(fields, "response", Self::duration_or_off);
            let idle = it.optional(fields, "idle", Self::duration);
            Some((response, idle, it.optional(fields, "total", Self::duration)))
        });
        let (response, idle, total) = times.unwrap_or_default();
        let compress = self.optional(fields, "compress", Self::compress);
        let accel = self.optional(fields, "accel", Self::accel);
        Some(Route {
            place: fields.place,
            broken: self.errors.count() > before,
            name,
            hosts: hosts.unwrap_or_default(),
            methods: methods.unwrap_or_default(),
            path: path?,
            files,
            proxy,
            redirect,
            respond,
            auth,
            limiting,
            cors,
            rewrite,
            headers: headers.unwrap_or_default(),
            errors,
            body_bytes,
            response,
            idle,
            total,
            compress,
            accel: accel.unwrap_or_default(),
        })
    }

    pub(super) fn method(&mut self, node: &Node) -> Option<Spanned<String>> {
        let hint = "methods are GET, POST and so on, in capitals";
        let read = self.scalar(node, "a method", hint, |text| {
            let capitals = text.to_ascii_uppercase();
            match text {
                text if method::is_name(text) => Ok(text.to_owned()),
                _ if method::is_name(&capitals) => Err(format!("write `{capitals}`")),
                "CONNECT" | "TRACE" => Err("the gateway serves no such requests".to_owned()),
                _ => Err(hint.to_owned()),
            }
        })?;
        let near = super::decode::nearest(&read.value, method::usual());
        if let Some(near) = near.filter(|near| *near != read.value) {
            let warning = format!(
                "{} is a custom method; did you mean `{near}`?",
                read.shown()
            );
            self.errors.warn(read.place, &warning);
        }
        Some(read)
    }

    pub(super) fn proxy_to(&mut self, node: &Node) -> Option<Spanned<ProxyTo>> {
        let node = self.without_password(node)?;
        let directory = self.directory;
        self.scalar(
            node,
            "an upstream's name or a server's URL",
            value::SERVERS,
            |text| {
                if value::is_url(text) {
                    return value::server(text, directory).map(ProxyTo::Server);
                }
                if text.is_empty() {
                    return Err("it may not be empty".to_owned());
                }
                if text.contains([':', '/']) {
                    return Err(format!("write `http://{text}` if a server is meant"));
                }
                Ok(ProxyTo::Upstream(text.to_owned()))
            },
        )
    }

    fn redirect(&mut self, node: &Node) -> Option<Redirect> {
        let fields = self.fields(node, "a map", &keys::REDIRECT)?;
        let to = self.required(fields, "to", Self::filled_text);
        let status = self.value(fields, "status", |it, node| {
            let known = [
                ("301", 301),
                ("302", 302),
                ("303", 303),
                ("307", 307),
                ("308", 308),
            ];
            it.choice(node, "a redirect's status", &known)
        });
        Some(Redirect {
            place: fields.place,
            to: to?,
            status: status?,
        })
    }

    fn respond(&mut self, node: &Node) -> Option<Respond> {
        let fields = self.fields(node, "a map", &keys::RESPOND)?;
        let status = self.value(fields, "status", |it, node| {
            it.scalar(node, "a status from 200 to 599", "", |text| {
                let status = u16::try_from(value::integer(text)?).ok();
                status
                    .filter(|it| (200..=599).contains(it))
                    .ok_or_else(String::new)
            })
        });
        let body = self.optional(fields, "body", Self::text);
        let ready = self.value(fields, "ready", Self::boolean)?;
        if let (true, Some(place)) = (ready.value, fields.place_of("status")) {
            self.errors
                .at(
                    place,
                    "`ready` decides the status: 200, or 503 while the gateway drains",
                )
                .hint("leave one of them out");
        }
        Some(Respond {
            place: fields.place,
            status: status?,
            body,
            ready,
        })
    }

    fn rewrite(&mut self, node: &Node) -> Option<Spanned<Rewrite>> {
        let fields = self.fields(node, "a map", &keys::REWRITE)?;
        let strip = self.optional(fields, "strip_prefix", Self::route_path);
        let path = self.optional(fields, "path", Self::url_path);
        if let (Some(_), Some(second)) = (fields.get("strip_prefix"), fields.place_of("path")) {
            self.errors.at(second, "`strip_prefix` or `path`, not both");
            return None;
        }
        if fields
            .get("strip_prefix")
            .or_else(|| fields.get("path"))
            .is_none()
        {
            self.errors
                .at(fields.place, "`strip_prefix` or `path` is missing");
        }
        let spanned = |text: Spanned<String>, wrap: fn(String) -> Rewrite| Spanned {
            place: text.place,
            private: text.private,
            value: wrap(text.value),
        };
        strip
            .map(|it| spanned(it, Rewrite::StripPrefix))
            .or_else(|| path.map(|it| spanned(it, Rewrite::Path)))
    }

    /// `auth`: `none`, a verifier's name, or a map.
    fn auth(&mut self, node: &Node) -> Option<Auth> {
        let has = |entries: &[(Key, Node)], name| entries.iter().any(|(key, _)| key.text == name);
        let map;
        let node = match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "none" => {
                return Some(Auth::Public(node.place));
            }
            Kind::Scalar(_) => {
                map = node.clone().behind("jwt", false);
                &map
            }
            Kind::Map(entries) if has(entries, "basic") => return self.basic_auth(node),
            Kind::Map(entries) if has(entries, "ask") => return self.ask(node),
            Kind::Map(entries)
                if has(entries, "certificate")
                    && !has(entries, "jwt")
                    && !has(entries, "api_key") =>
            {
                return self.certificate_alone(node);
            }
            Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Broken => node,
        };
        let what = "`none`, a verifier's name or a map";
        let keys_alone = matches!(&node.kind, Kind::Map(entries)
            if has(entries, "api_key") && !has(entries, "jwt"));
        let section = match keys_alone {
            true => &keys::API_KEY_RULE,
            false => &keys::JWT_RULE,
        };
        let fields = self.fields(node, what, section)?;
        let api_key = self.optional(fields, "api_key", Self::api_key_rule);
        if fields.get("api_key").is_some() && api_key.is_none() {
            return None;
        }
        let names = |it: &mut Self, node: &Node| {
            let what = "a verifier's name or a list of names";
            it.one_or_more(node, what, Self::verifier_name)
        };
        let verifiers = match keys_alone {
            true => None,
            false => self.required(fields, "jwt", names),
        };
        let certificate = self.optional(fields, "certificate", Self::accepted_certificate);
        let optional = self.value(fields, "optional", Self::boolean);
        let require = self.optional(fields, "require", Self::require);
        let (claims, parts) = self.forwards(fields);
        let strip_token = self.value(fields, "strip_token", Self::boolean);
        let only_reports = self.value(fields, "enforce", Self::only_reports);
        let ends_with_token = match keys_alone {
            true => Some(Spanned::default_of(false)),
            false => self.value(fields, "on_expiry", |it, node| {
                let known = [("close", true), ("keep", false)];
                it.choice(node, "`close` or `keep`", &known)
            }),
        };
        if let (Some(close), Some(_)) = (&ends_with_token, &api_key)
            && close.value
        {
            self.errors
                .at(
                    close.place,
                    "a stream that an API key opened does not end with it",
                )
                .hint("leave `on_expiry` out, or give programs a route of their own");
        }
        Some(Auth::Jwt(Box::new(JwtRule {
            place: node.place,
            verifiers: verifiers.unwrap_or_default(),
            api_key,
            basic: None,
            optional: optional?,
            require,
            certificate,
            forward: claims,
            forward_certificate: parts,
            strip_token: strip_token?,
            only_reports: only_reports?,
            ends_with_token: ends_with_token?,
        })))
    }

    /// `forward` of `auth`: the headers that carry claims, and those that carry parts of the certificate.
    pub(super) fn forwards(&mut self, fields: Fields<'_>) -> (Forwards<String>, Forwards<Part>) {
        let forward = self.optional(fields, "forward", |it, node| {
            it.headers(node, "a map from headers to claims", Self::forwarded)
        });
        let (mut claims, mut parts) = (Vec::new(), Vec::new());
        for (name, forwarded) in forward.unwrap_or_default() {
            match forwarded {
                Forwarded::Claim(claim) => claims.push((name, claim)),
                Forwarded::Part(part) => parts.push((name, part)),
            }
        }
        (claims, parts)
    }

    /// `api_key` of `auth`.
    fn api_key_rule(&mut self, node: &Node) -> Option<ApiKeyRule> {
        let fields = self.fields(node, "a map", &keys::API_KEYS)?;
        let file = self.required(fields, "file", Self::file);
        let from = self.value(fields, "from", |it, node| {
            it.one_or_more(node, "a place or a list of places", |it, node| {
                let general = "known here: header:NAME, query:NAME";
                it.scalar(node, "where keys are", general, |text| {
                    match text.split_once(':') {
                        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
                            .map(KeyPlace::Header)
                            .map_err(|_| "such as header:X-Api-Key".to_owned()),
                        Some(("query", name)) => {
                            value::cookie_name(name).map(|name| KeyPlace::Query(name.to_owned()))
                        }
                        Some(_) | None => Err(general.to_owned()),
                    }
                })
            })
        });
        Some(ApiKeyRule {
            file: file?,
            from: from?,
        })
    }

    /// `auth: {ask: URL, copy: [..]}`.
    fn ask(&mut self, node: &Node) -> Option<Auth> {
        let fields = self.fields(node, "a map", &keys::ASK_RULE)?;
        let directory = self.directory;
        let url = self.required(fields, "ask", |it, node| {
            let node = it.without_password(node)?;
            it.scalar(node, "the URL of a server that is asked", "", |text| {
                value::server_and_target(text, directory)
            })
        });
        let copy = self.value(fields, "copy", |it, node| {
            it.list(node, "a list of header names", Self::header_name)
        });
        let certificate = self.optional(fields, "certificate", Self::accepted_certificate);
        let forward = self.optional(fields, "forward", Self::certificate_parts);
        Some(Auth::Ask(Box::new(AskRule {
            url: url?,
            copy: copy?,
            certificate,
            forward: forward.unwrap_or_default(),
        })))
    }

    /// `enforce`: whether refusals are only reported.
    pub(super) fn only_reports(&mut self, node: &Node) -> Option<Spanned<bool>> {
        let known = [("report", true), ("refuse", false)];
        self.choice(node, "`refuse` or `report`", &known)
    }

    /// The claims that a token must have.
    pub(super) fn require(&mut self, node: &Node) -> Option<Node> {
        match &node.kind {
            Kind::Map(entries) if !entries.is_empty() => Some(node.clone()),
            Kind::List(items) if !items.is_empty() => Some(node.clone()),
            Kind::Map(_) | Kind::List(_) => {
                self.errors
                    .at(node.place, "rules that ask for nothing")
                    .hint("leave `require` out");
                None
            }
            Kind::Null | Kind::Scalar(_) | Kind::Broken => {
                self.unexpected(node, "a map of claims or a list of such maps", "");
                None
            }
        }
    }

    fn verifier_name(&mut self, node: &Node) -> Option<Spanned<String>> {
        self.scalar(node, "a verifier's name", "", |text| match text {
            "" => Err("it may not be empty".to_owned()),
            "none" => Err("`none` stands alone: `auth: none`".to_owned()),
            text => match value::boolean_of_yaml_1_1(text) {
                Some(_) => Err("write `none` if everybody may come in".to_owned()),
                None => Ok(text.to_owned()),
            },
        })
    }

    /// `headers`.
    fn header_rules(&mut self, node: &Node) -> Option<Headers> {
        let fields = self.fields(node, "a map", &keys::HEADERS)?;
        let request = self.optional(fields, "request", Self::header_changes);
        let response = self.optional(fields, "response", Self::header_changes);
        for (_, value) in response.iter().flat_map(|changes| &changes.set) {
            if value.value.has_claims() {
                self.errors
                    .at(value.place, "a header of a response cannot carry a claim")
                    .hint("claims are for the app: under `request`");
            }
        }
        let request = request.unwrap_or_default();
        let set = request.set.iter().map(|(name, _)| name);
        for name in set.chain(&request.remove) {
            // This header detects request loops through an upstream.
            if ends_loops(&name.value) {
                let problem = format!(
                    "`{}` of requests can be neither set nor removed",
                    name.value
                );
                self.errors.at(name.place, problem).hint(
                    "it ends loops: a request that comes back with it is 508 `loop_detected`",
                );
            }
        }
        Some(Headers {
            request,
            response: response.unwrap_or_default(),
            security: self.optional(fields, "security", Self::boolean),
        })
    }

    /// A header's value, with placeholders. Private values are marked sensitive.
    fn written_value(&mut self, node: &Node) -> Option<Spanned<Written>> {
        let general = "it has no control characters, and only ASCII";
        let mut found = self.scalar(node, "a header's value", general, |text| {
            let legal = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
            if !legal {
                return Err(general.to_owned());
            }
            Written::parse(text)
        })?;
        found.value.set_sensitive(found.private);
        Some(found)
    }

    fn header_changes(&mut self, node: &Node) -> Option<HeaderChanges> {
        let fields = self.fields(node, "a map", &keys::CHANGES)?;
        let set = self.optional(fields, "set", |it, node| {
            it.headers(node, "a map of headers", Self::written_value)
        });
        for (name, _) in set.iter().flatten() {
            if frames(&name.value) {
                let problem = format!("`{}` is a header that the gateway itself sets", name.value);
                self.errors
                    .at(name.place, problem)
                    .hint("it controls the framing of a message, or its connection");
            }
        }
        let remove = self.value(fields, "remove", |it, node| {
            it.list(node, "a list of header names", Self::header_name)
        });
        Some(HeaderChanges {
            set: set.unwrap_or_default(),
            remove: remove.unwrap_or_default(),
        })
    }
}
