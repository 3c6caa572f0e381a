//! Hints for terms from other programs' configurations: keys, regular expressions in paths, and whole files. Only used
//! in error messages; none of it is accepted.

use super::node::{Key, Kind, Node};

/// A foreign key, its program (empty where several use it), and its equivalent here.
type Row = (&'static str, &'static str, &'static str);

const BODY: &str = "`limits.body_bytes`, or `body_bytes` of a route";
const ROOT: &str = "`static.root` of a route";
const FALLBACK: &str = "`static.fallback` of a route, for what is no file";
const PROXY: &str = "`proxy` of a route";
const PATH: &str = "`path` of a route";
const HOST: &str = "`host` of a route";
const ADDRESS: &str = "`listeners[].address`";
const ADDRESSES: &str = "`addresses: {allow: [...]}` of a route";
const CERT: &str = "`listeners[].tls.certificates[].cert`";
const KEY: &str = "`listeners[].tls.certificates[].key`";
const CLIENT_CA: &str = "`listeners[].tls.client_auth.ca`";
const CLIENT_REQUIRED: &str = "`listeners[].tls.client_auth.required`";
const CLIENT_CRL: &str = "`listeners[].tls.client_auth.crl`";
const RESPONSE: &str = "`timeouts.response` of a route, or of an upstream";
const CONNECT: &str = "`upstreams.NAME.timeouts.connect`";
const REQUEST_SET: &str = "`headers.request.set` of a route, or of `defaults`";
const RESPONSE_SET: &str = "`headers.response.set` of a route, or of `defaults`";
const STRIP: &str = "`rewrite.strip_prefix` of a route";
const BASIC: &str = "`auth: {basic: FILE}` of a route";
const ASK: &str = "`auth.ask` of a route";
const HEALTH: &str = "`upstreams.NAME.health`";
const SERVERS: &str = "`upstreams.NAME.servers`";
const LEVEL: &str = "`log.level`; the log goes to the standard error";

/// The keys, in the spelling of [`plain`].
const KEYS: &[Row] = &[
    // Files.
    ("root", "nginx's", ROOT),
    ("alias", "nginx's", ROOT),
    ("file_server", "Caddy's", "`static` of a route"),
    ("index", "nginx's", "`static.index` of a route"),
    ("autoindex", "nginx's", "`static.listing` of a route"),
    ("browse", "Caddy's", "`static.listing` of a route"),
    ("try_files", "nginx's", FALLBACK),
    ("error_page", "nginx's", "`errors: {404: pages/404.html}`"),
    ("proxy_intercept_errors", "nginx's", "`errors.intercept`"),
    ("handle_errors", "Caddy's", "`errors`"),
    ("errorfile", "HAProxy's", "`errors`"),
    ("expires", "nginx's", "`static.cache_control` of a route"),
    (
        "gzip_static",
        "nginx's",
        "`static.precompressed` of a route",
    ),
    (
        "brotli_static",
        "nginx's",
        "`static.precompressed` of a route",
    ),
    (
        "precompressed",
        "Caddy's",
        "`static.precompressed` of a route",
    ),
    ("types", "nginx's", "`static.types` of a route"),
    ("charset", "nginx's", "`static.charset` of a route"),
    // Routes.
    ("location", "nginx's", PATH),
    ("handle", "Caddy's", PATH),
    (
        "handle_path",
        "Caddy's",
        "`path` and `rewrite.strip_prefix` of a route",
    ),
    (
        "rule",
        "Traefik's",
        "`host`, `path` and `methods` of a route",
    ),
    (
        "acl",
        "HAProxy's",
        "`host`, `path` and `methods` of a route",
    ),
    ("routers", "Traefik's", "`routes`"),
    (
        "server",
        "nginx's",
        "a route with its `host`, or one of `upstreams.NAME.servers`",
    ),
    ("server_name", "nginx's", HOST),
    ("server_names", "nginx's", HOST),
    ("hosts", "", HOST),
    ("domain", "", HOST),
    ("return", "nginx's", "`redirect` or `respond` of a route"),
    ("redir", "Caddy's", "`redirect` of a route"),
    (
        "redirect_scheme",
        "Traefik's",
        "`listeners[].redirect_to_https`",
    ),
    ("redirect_regex", "Traefik's", "`redirect` of a route"),
    // Apps.
    ("proxy_pass", "nginx's", PROXY),
    ("reverse_proxy", "Caddy's", PROXY),
    ("default_backend", "HAProxy's", PROXY),
    ("use_backend", "HAProxy's", PROXY),
    ("service", "Traefik's", PROXY),
    ("services", "Traefik's", "`upstreams`"),
    ("backend", "HAProxy's", "`upstreams.NAME`"),
    ("frontend", "HAProxy's", "`listeners` and `routes`"),
    ("load_balancer", "Traefik's", SERVERS),
    (
        "least_conn",
        "nginx's",
        "`upstreams.NAME.balance: least_requests`",
    ),
    ("lb_policy", "Caddy's", "`upstreams.NAME.balance`"),
    ("health_uri", "Caddy's", HEALTH),
    ("health_check", "", HEALTH),
    ("healthcheck", "Traefik's", HEALTH),
    ("httpchk", "HAProxy's", HEALTH),
    ("max_conns", "nginx's", "`max` of a server in an upstream"),
    (
        "keepalive",
        "nginx's",
        "`upstreams.NAME.connections.keep_alive`",
    ),
    ("proxy_buffering", "nginx's", "`upstreams.NAME.buffer`"),
    ("strip_prefix", "Traefik's", STRIP),
    ("strip_path", "", STRIP),
    ("replace_path", "Traefik's", "`rewrite.path` of a route"),
    // Header fields.
    ("proxy_set_header", "nginx's", REQUEST_SET),
    ("header_up", "Caddy's", REQUEST_SET),
    ("custom_request_headers", "Traefik's", REQUEST_SET),
    ("add_header", "nginx's", RESPONSE_SET),
    ("header", "Caddy's", RESPONSE_SET),
    ("header_down", "Caddy's", RESPONSE_SET),
    ("custom_response_headers", "Traefik's", RESPONSE_SET),
    (
        "proxy_hide_header",
        "nginx's",
        "`headers.response.remove` of a route",
    ),
    // Cross-origin requests.
    ("allow_origins", "", "`cors.origins`"),
    ("allow_origin", "", "`cors.origins`"),
    ("allowed_origins", "", "`cors.origins`"),
    ("access_control_allow_origin", "", "`cors.origins`"),
    (
        "access_control_allow_origin_list",
        "Traefik's",
        "`cors.origins`",
    ),
    ("allow_methods", "", "`cors.methods`"),
    (
        "access_control_allow_methods",
        "Traefik's",
        "`cors.methods`",
    ),
    ("allow_headers", "", "`cors.headers`"),
    (
        "access_control_allow_headers",
        "Traefik's",
        "`cors.headers`",
    ),
    ("expose_headers", "", "`cors.expose`"),
    ("allow_credentials", "", "`cors.credentials`"),
    (
        "access_control_allow_credentials",
        "Traefik's",
        "`cors.credentials`",
    ),
    ("access_control_max_age", "Traefik's", "`cors.max_age`"),
    // Access.
    ("auth_basic", "nginx's", BASIC),
    ("auth_basic_user_file", "nginx's", BASIC),
    ("basic_auth", "Caddy's and Traefik's", BASIC),
    ("auth_request", "nginx's", ASK),
    ("forward_auth", "Traefik's and Caddy's", ASK),
    (
        "auth_jwt",
        "nginx's",
        "`auth` of a route, with a verifier of `jwt`",
    ),
    ("auth_jwt_key_file", "nginx's", "`jwt.NAME.jwks`"),
    ("jwks_uri", "", "`jwks`"),
    ("jwks_url", "", "`jwks`"),
    ("public_key", "", "`keys`"),
    ("iss", "", "`issuer`"),
    ("aud", "", "`audience`"),
    ("set_real_ip_from", "nginx's", "`trusted_proxies`"),
    (
        "real_ip_header",
        "nginx's",
        "`trusted_proxies`; its `X-Forwarded-For` is read",
    ),
    ("trusted_ips", "Traefik's", "`trusted_proxies`"),
    (
        "accept_proxy",
        "HAProxy's",
        "`listeners[].proxy_protocol`, with `trusted_proxies`",
    ),
    (
        "listener_wrappers",
        "Caddy's",
        "`listeners[].proxy_protocol`, with `trusted_proxies`",
    ),
    // Listeners.
    ("listen", "nginx's", ADDRESS),
    ("bind", "HAProxy's", ADDRESS),
    ("port", "", ADDRESS),
    ("entry_points", "Traefik's", "`listeners`"),
    ("ssl", "", "`listeners[].tls`"),
    ("ssl_certificate", "nginx's", CERT),
    ("cert_file", "Traefik's", CERT),
    ("ssl_certificate_key", "nginx's", KEY),
    ("key_file", "Traefik's", KEY),
    ("ssl_protocols", "nginx's", "`listeners[].tls.min_version`"),
    ("ssl_client_certificate", "nginx's", CLIENT_CA),
    ("ca_files", "Traefik's", CLIENT_CA),
    ("trust_pool", "Caddy's", CLIENT_CA),
    ("ssl_verify_client", "nginx's", CLIENT_REQUIRED),
    ("client_auth_type", "Traefik's", CLIENT_REQUIRED),
    ("verify", "HAProxy's", CLIENT_REQUIRED),
    ("ssl_crl", "nginx's", CLIENT_CRL),
    ("crl_file", "HAProxy's", CLIENT_CRL),
    (
        "ssl_reject_handshake",
        "nginx's",
        "`listeners[].tls.unknown_name: refuse`",
    ),
    // Limits.
    ("client_max_body_size", "nginx's", BODY),
    ("max_body_size", "", BODY),
    ("max_size", "Caddy's", BODY),
    ("max_request_body_bytes", "Traefik's", BODY),
    (
        "large_client_header_buffers",
        "nginx's",
        "`limits.header_bytes`",
    ),
    ("worker_connections", "nginx's", "`limits.connections`"),
    ("maxconn", "HAProxy's", "`limits.connections`"),
    ("limit_conn", "nginx's", "`in_flight: {by: ip, max: 20}`"),
    ("limit_req", "nginx's", "`rate_limit: {by: ip, rate: 10/s}`"),
    ("ip_allow_list", "Traefik's", ADDRESSES),
    ("in_flight_req", "Traefik's", "`in_flight`"),
    ("worker_processes", "nginx's", "`workers`"),
    ("nbthread", "HAProxy's", "`workers`"),
    ("client_header_timeout", "nginx's", "`timeouts.header_read`"),
    ("client_body_timeout", "nginx's", "`timeouts.body_read`"),
    (
        "timeout_client",
        "HAProxy's",
        "`timeouts.body_read` and `timeouts.send`",
    ),
    ("send_timeout", "nginx's", "`timeouts.send`"),
    ("keepalive_timeout", "nginx's", "`timeouts.keep_alive`"),
    ("proxy_read_timeout", "nginx's", RESPONSE),
    ("timeout_server", "HAProxy's", RESPONSE),
    ("proxy_connect_timeout", "nginx's", CONNECT),
    ("timeout_connect", "HAProxy's", CONNECT),
    // Other keys.
    ("access_log", "nginx's", "`log.access`"),
    ("error_log", "nginx's", LEVEL),
    ("import", "Caddy's", "`include`"),
];

/// A key in the table's spelling: `maxRequestBodyBytes` and `http-request` become `max_request_body_bytes` and
/// `http_request`.
fn plain(key: &str) -> String {
    let mut plain = String::with_capacity(key.len() + 4);
    let mut small = false;
    for char in key.chars() {
        if char.is_uppercase() && small {
            plain.push('_');
        }
        small = char.is_lowercase();
        match char {
            '-' | ' ' => plain.push('_'),
            char => plain.extend(char.to_lowercase()),
        }
    }
    plain
}

/// The equivalent of another program's key, as a hint.
pub(crate) fn key(key: &str) -> Option<String> {
    let word = plain(key);
    let (_, whose, ours) = KEYS.iter().find(|(known, ..)| *known == word)?;
    Some(match *whose {
        "" => format!("what `{key}` says elsewhere is {ours} here"),
        whose => format!("{whose} `{key}` is {ours} here"),
    })
}

/// Another program's file, and the line, from 1, that identifies it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Theirs {
    /// The program, as a problem.
    pub(crate) problem: &'static str,
    /// What to write instead.
    pub(crate) hint: &'static str,
    /// The line.
    pub(crate) line: u32,
}

const NGINX: (&str, &str) = (
    "this looks like nginx's configuration",
    "gateway.yaml is YAML: `location /api/ { proxy_pass http://127.0.0.1:8000; }` is `routes: [{path: /api/*, proxy: \"http://127.0.0.1:8000\", auth: none}]`",
);
const CADDY: (&str, &str) = (
    "this looks like a Caddyfile",
    "gateway.yaml is YAML: `reverse_proxy /api/* 127.0.0.1:8000` is `routes: [{path: /api/*, proxy: \"http://127.0.0.1:8000\", auth: none}]`",
);
const HAPROXY: (&str, &str) = (
    "this looks like haproxy.cfg",
    "gateway.yaml is YAML: `bind` is `listeners`, `frontend` and `acl` are `routes`, and `backend` is `upstreams`",
);
const TRAEFIK: (&str, &str) = (
    "this looks like Traefik's configuration",
    "`entryPoints` are `listeners` here, `routers` are `routes`, `services` are `upstreams`, and middlewares are keys of a route",
);

/// The program whose file this seems to be, where it is not YAML or not a map.
pub(crate) fn file(text: &str) -> Option<Theirs> {
    let lines = || {
        let numbered = text.lines().zip(1_u32..);
        numbered
            .map(|(line, number)| (line.trim(), number, line.starts_with([' ', '\t'])))
            .filter(|(line, ..)| !line.is_empty() && !line.starts_with('#'))
    };
    let first = |line: &str| {
        line.split([' ', '\t'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let opens = |line: &str| line.contains('{');
    let found = |(problem, hint), line| {
        Some(Theirs {
            problem,
            hint,
            line,
        })
    };

    let statements = lines().any(|(line, ..)| line.ends_with(';') || line.ends_with("; }"));
    let nginx = ["server", "http", "events", "upstream", "location", "stream"];
    let block = lines().find(|(line, ..)| {
        let word = first(line);
        let word = word.trim_end_matches('{');
        opens(line) && nginx.contains(&word)
    });
    if let (Some((_, line, _)), true) = (block, statements) {
        return found(NGINX, line);
    }
    let caddy = [
        "reverse_proxy",
        "file_server",
        "php_fastcgi",
        "handle_path",
        "encode",
        "redir",
    ];
    let directive = lines().find(|(line, ..)| caddy.contains(&first(line).as_str()));
    if let (Some((_, line, _)), false) = (directive, statements) {
        return found(CADDY, line);
    }
    let haproxy = ["frontend", "backend", "listen", "global", "defaults"];
    let section = lines().find(|(line, _, indented)| {
        !indented && !line.contains(':') && haproxy.contains(&first(line).as_str())
    });
    let inside = [
        "bind",
        "mode",
        "server",
        "timeout",
        "use_backend",
        "default_backend",
        "maxconn",
    ];
    let speaks = lines().any(|(line, ..)| inside.contains(&first(line).as_str()));
    if let (Some((_, line, _)), true, false) = (section, speaks, statements) {
        return found(HAPROXY, line);
    }
    None
}

/// Whether a YAML map is Traefik's configuration, and the key that identifies it.
pub(crate) fn traefiks(entries: &[(Key, Node)]) -> Option<(&Key, &'static str, &'static str)> {
    if entries
        .iter()
        .any(|(key, _)| key.text == "routes" || key.text == "listeners")
    {
        return None;
    }
    let theirs = |(key, node): &&(Key, Node)| match key.text.as_str() {
        "entryPoints" | "certificatesResolvers" => true,
        "http" => matches!(&node.kind, Kind::Map(below)
            if below.iter().any(|(key, _)| ["routers", "services", "middlewares"].contains(&key.text.as_str()))),
        _ => false,
    };
    let (problem, hint) = TRAEFIK;
    entries
        .iter()
        .find(theirs)
        .map(|(key, _)| (key, problem, hint))
}

/// What to write for a regular expression in a path; `None` where it is not one.
pub(crate) fn expression(text: &str) -> Option<String> {
    let bare = text.trim_start_matches(['~', '*', '=', ' ']).trim();
    let signs = [".*", ".+", "\\d", "\\w", "\\.", "\\/", "\\-", "(?", "[^"];
    let class = bare.contains('[') && ["a-z", "A-Z", "0-9"].iter().any(|sign| bare.contains(sign));
    let is_one = text.starts_with(['~', '^'])
        || bare.starts_with('^')
        || (bare.len() > 1 && bare.ends_with('$'))
        || (bare.contains('(') && bare.contains('|'))
        || class
        || signs.iter().any(|sign| bare.contains(sign));
    let general = "paths have no regular expressions; write `/api/*` for all that is below, `/users/{id}` for any one segment, and a route for each of several";
    if !is_one {
        return None;
    }
    Some(match translated(bare) {
        Some(path) => format!("paths have no regular expressions; write `{path}`"),
        None => general.to_owned(),
    })
}

/// A path pattern that matches the same as the expression, or slightly more in one segment.
fn translated(expression: &str) -> Option<String> {
    let body = expression.trim_start_matches('^').trim_end_matches('$');
    let body = body
        .replace("\\/", "/")
        .replace("\\.", ".")
        .replace("\\-", "-");
    let body = body.strip_prefix('/')?;
    // Alternatives need separate routes.
    if body.contains('|') || body.is_empty() {
        return None;
    }
    let mut path = String::new();
    let mut names = Vec::new();
    let mut segments = body.split('/').peekable();
    while let Some(segment) = segments.next() {
        let rest = ["", ".*", ".+", "(.*)", "(.+)", "?(.*)", "?"];
        if segments.peek().is_none() && rest.contains(&segment) {
            // `^/api/` matches everything with this prefix.
            path.push_str("/*");
            return Some(path);
        }
        let special = |char: char| "()[]{}*+?\\|^$<>".contains(char);
        if !segment.contains(special) {
            path.push('/');
            path.push_str(segment);
            continue;
        }
        // A pattern cannot match a part of a segment.
        let whole = segment.starts_with(['(', '[', '\\', '.']);
        let all = segment.ends_with([')', '+', '*', '}', ']', 'd', 'w']);
        if !(whole && all) {
            return None;
        }
        let name = segment
            .split_once('<')
            .and_then(|(_, rest)| Some(rest.split_once('>')?.0));
        let name = match name {
            Some(name)
                if !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                name.to_owned()
            }
            _ if names.is_empty() => "id".to_owned(),
            _ => format!("id{}", names.len() + 1),
        };
        path.push_str(&format!("/{{{name}}}"));
        names.push(name);
    }
    // Without its `$` an expression matches a prefix.
    if !expression.ends_with('$') && expression.starts_with('^') {
        path.push_str("/*");
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_however_they_are_written() {
        for (theirs, ours) in [
            (
                "client_max_body_size",
                "nginx's `client_max_body_size` is `limits.body_bytes`, or `body_bytes` of a route here",
            ),
            (
                "proxy-pass",
                "nginx's `proxy-pass` is `proxy` of a route here",
            ),
            (
                "stripPrefix",
                "Traefik's `stripPrefix` is `rewrite.strip_prefix` of a route here",
            ),
            (
                "allow_origins",
                "what `allow_origins` says elsewhere is `cors.origins` here",
            ),
            (
                "trustedIPs",
                "Traefik's `trustedIPs` is `trusted_proxies` here",
            ),
            (
                "timeout connect",
                "HAProxy's `timeout connect` is `upstreams.NAME.timeouts.connect` here",
            ),
        ] {
            assert_eq!(key(theirs).as_deref(), Some(ours));
        }
        assert_eq!(key("prox"), None);
    }

    #[test]
    fn each_key_stands_in_the_table_once_and_can_be_found() {
        for (at, (word, ..)) in KEYS.iter().enumerate() {
            assert_eq!(plain(word), *word);
            assert!(
                !KEYS.iter().skip(at + 1).any(|(other, ..)| other == word),
                "{word}"
            );
        }
        assert!(KEYS.len() >= 40);
    }

    #[track_caller]
    fn check(expression: &str, path: Option<&str>) {
        let hint = super::expression(expression).unwrap_or_default();
        match path {
            Some(path) => assert_eq!(
                hint,
                format!("paths have no regular expressions; write `{path}`"),
                "{expression}"
            ),
            None => assert!(hint.contains("a route for each"), "{expression}: {hint}"),
        }
    }

    #[test]
    fn regular_expressions_become_paths() {
        check("^/api/.*$", Some("/api/*"));
        check("~ ^/api/", Some("/api/*"));
        check("^/api", Some("/api/*"));
        check("^/api$", Some("/api"));
        check("/api/(.*)", Some("/api/*"));
        check("/.*", Some("/*"));
        check("^/users/\\d+/orders$", Some("/users/{id}/orders"));
        // The slash of its class takes it apart.
        check("/users/(?P<user>[^/]+)", None);
        check(
            "^/users/(?P<user>\\w+)/orders/([0-9]+)$",
            Some("/users/{user}/orders/{id2}"),
        );
        check("~* \\.(png|jpg)$", None);
        check("/(a|b)/", None);
        for path in [
            "/api/*",
            "/users/{id}",
            "/$metadata",
            "/a(b)",
            "/v1.2/a-z",
            "/0-9",
            "/~user/*",
            "/a+b",
            "/",
        ] {
            assert_eq!(expression(path), None, "{path}");
        }
    }

    #[test]
    fn files_of_others_are_known() {
        let nginx =
            "# a\nserver {\n  listen 80;\n  location / {\n    proxy_pass http://a;\n  }\n}\n";
        let caddy = "example.com {\n  reverse_proxy localhost:8000\n}\n";
        let haproxy = "global\n  maxconn 100\nfrontend web\n  bind :80\n  default_backend app\n";
        for (text, problem, line) in [
            (nginx, NGINX.0, 2),
            ("location /a { return 204; }", NGINX.0, 1),
            (caddy, CADDY.0, 2),
            ("example.com\nreverse_proxy :9000\n", CADDY.0, 2),
            (haproxy, HAPROXY.0, 1),
        ] {
            let theirs = file(text);
            assert_eq!(
                theirs.map(|it| (it.problem, it.line)),
                Some((problem, line)),
                "{text}"
            );
        }
        for text in [
            "routes: [a, b]\n",
            "- a\n- b\n",
            "",
            "server: {a: b}\n",
            "a {",
        ] {
            assert_eq!(file(text), None, "{text}");
        }
    }
}
