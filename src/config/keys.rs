//! The keys of the configuration: one description of each section, with the kind, the default and a sentence for each key.
//! Decoding, the hints for unknown keys, `check --print`, the JSON schema and the list in docs/ read it from here.
//! `decode` and `value` parse the values; `compile` decides what they mean.

mod admin;
mod api_keys;
mod basic;
mod errors;
mod limiting;
mod upstreams;

pub(crate) use self::admin::{ADMIN, ADMIN_TLS, METRICS};
pub(crate) use self::api_keys::{API_KEY, API_KEY_RULE, API_KEYS};
pub(crate) use self::basic::{BASIC, BASIC_RULE};
pub(crate) use self::errors::ERRORS;
use self::limiting::{ADDRESS_LISTS, IN_FLIGHTS, RATE_LIMITS};
pub(crate) use self::limiting::{ADDRESSES, IN_FLIGHT, PREFIXES, RATE_LIMIT};
pub(crate) use self::upstreams::{
    BUFFER, CONNECTIONS, EJECT, HEALTH, RETRIES, STICKY, UPSTREAM, UPSTREAM_SERVER,
    UPSTREAM_TIMEOUTS,
};

/// A map of the configuration with fixed keys.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its keys, in the order in which they are shown.
    pub(crate) keys: &'static [Key],
    /// The key for which a value alone stands, where one may.
    pub(crate) short: Option<&'static str>,
}

/// One key of a section.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// What stands behind it.
    pub(crate) kind: Kind,
    /// What holds without it.
    pub(crate) default: Default,
    /// The version in which it came.
    pub(crate) since: &'static str,
    /// What it does, in one sentence.
    pub(crate) says: &'static str,
}

/// What holds where a key is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Default {
    /// It must be there.
    Required,
    /// This value.
    Value(&'static str),
    /// This list.
    Items(&'static [&'static str]),
    /// The section with the defaults of its own keys.
    Section,
    /// Nothing of its own; what holds instead, in words.
    None(&'static str),
}

/// What stands behind a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// Any value or list of values.
    Any,
    /// A path of a URL, with its slash before it.
    Path,
    /// The path of a file.
    File,
    /// The path of a directory.
    Directory,
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds.
    Whole(u32, u32),
    /// A number of bytes.
    Size(Zero),
    /// A duration.
    Duration(Zero),
    /// A number of attempts in a time.
    Rate,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A text of a form that has a name and an example.
    Form(&'static str, &'static str),
    /// One of these.
    Either(&'static [Self]),
    /// A list.
    List(&'static Self),
    /// A list that is not empty.
    Filled(&'static Self),
    /// A value, or a list that is not empty.
    OneOrMore(&'static Self),
    /// A map from names of the user's own.
    Map(&'static Self),
    /// A map with fixed keys.
    Section(&'static Section),
}

/// What becomes of zero in a size or a duration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Zero {
    /// It is an error.
    Refused,
    /// It is a value like others.
    Allowed,
    /// It is an error; `off` is no bound.
    Off,
}

impl Section {
    /// The names of the keys.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }

    /// The key of a name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Whether a list stands behind a key, and nothing else may.
    pub(crate) fn takes_list(&self, name: &str) -> bool {
        let key = self.key(name);
        key.is_some_and(|key| matches!(key.kind, Kind::List(_) | Kind::Filled(_)))
    }
}

/// A key that is in the first version, and has no default.
const fn key(name: &'static str, kind: Kind, says: &'static str) -> Key {
    Key {
        name,
        kind,
        default: Default::None("none"),
        since: "0.1",
        says,
    }
}

impl Key {
    const fn required(self) -> Self {
        self.default(Default::Required)
    }

    const fn or(self, value: &'static str) -> Self {
        self.default(Default::Value(value))
    }

    const fn or_items(self, items: &'static [&'static str]) -> Self {
        self.default(Default::Items(items))
    }

    const fn or_its_keys(self) -> Self {
        self.default(Default::Section)
    }

    const fn without(self, words: &'static str) -> Self {
        self.default(Default::None(words))
    }

    const fn default(self, default: Default) -> Self {
        Self { default, ..self }
    }
}

const SIZE: Kind = Kind::Size(Zero::Refused);
const DURATION: Kind = Kind::Duration(Zero::Refused);
const DURATION_OR_ZERO: Kind = Kind::Duration(Zero::Allowed);
const FROM_ONE: Kind = Kind::Whole(1, u32::MAX);
const METHOD: Kind = Kind::Form("method", "GET");
const HEADER: Kind = Kind::Form("header name", "X-User-Id");
const ORIGIN: Kind = Kind::Form("origin", "https://app.example.com");
const SERVER: Kind = Kind::Form("server", "http://127.0.0.1:8000");
const SERVER_PATH: Kind = Kind::Form("URL", "http://127.0.0.1:8000/check");
const DOMAIN: Kind = Kind::Form("name", "www.example.com");
const CERTIFICATE_PART: Kind = Kind::Form("certificate:PART", "certificate:subject");
const ALGORITHM: Kind = Kind::Word(&ALGORITHMS);

/// The algorithms that tokens may be signed with (RFC 7518 section 3.1, RFC 8037).
pub(crate) const ALGORITHMS: [&str; 13] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "ES512", "EdDSA",
];

/// The file itself.
pub(crate) static TOP: Section = Section {
    short: None,
    keys: &[
        key(
            "include",
            Kind::List(&Kind::Form("file or pattern", "conf.d/*.yaml")),
            "More files; their maps and lists are merged into this one.",
        ),
        key(
            "workers",
            Kind::Either(&[Kind::Word(&["auto"]), Kind::Whole(1, 1024)]),
            "Number of worker threads; `auto` is one for each processor.",
        )
        .or("auto"),
        key(
            "user",
            Kind::Section(&USER),
            "User that serves: root starts the gateway, binds its sockets and becomes this user for good.",
        )
        .without("whoever starts it"),
        key(
            "listeners",
            Kind::Filled(&Kind::Section(&LISTENER)),
            "Where connections are accepted.",
        )
        .required(),
        key(
            "trusted_proxies",
            Kind::List(&Kind::Form("network or `unix`", "10.0.0.0/8")),
            "Proxies whose `X-Forwarded-*` and `Forwarded` fields are trusted.",
        )
        .or_items(&[]),
        key(
            "limits",
            Kind::Section(&LIMITS),
            "How much clients may send and open.",
        )
        .or_its_keys(),
        key(
            "timeouts",
            Kind::Section(&TIMEOUTS),
            "How long clients and shutdown may take.",
        )
        .or_its_keys(),
        key(
            "jwt",
            Kind::Map(&Kind::Section(&VERIFIER)),
            "Verifiers of tokens, by name.",
        ),
        key(
            "tokens",
            Kind::Section(&TOKENS),
            "The gateway's own token service.",
        ),
        key(
            "state",
            Kind::Either(&[
                Kind::Directory,
                Kind::Form("Redis URL", "redis://10.0.0.5:6379"),
                Kind::List(&Kind::Form("Redis URL", "redis://10.0.0.5:6379")),
                Kind::Section(&STATE),
            ]),
            "Where sessions are stored: a directory, or Redis or Valkey.",
        ),
        key(
            "upstreams",
            Kind::Map(&Kind::Section(&UPSTREAM)),
            "Groups of app servers, by name.",
        ),
        key(
            "defaults",
            Kind::Section(&DEFAULTS),
            "What applies to every route that does not say otherwise.",
        ),
        key(
            "routes",
            Kind::Filled(&Kind::Section(&ROUTE)),
            "What is served for which host, path and method.",
        )
        .required(),
        key(
            "tests",
            Kind::List(&Kind::Section(&TEST)),
            "Requests and what is expected of them; a configuration whose tests fail is refused.",
        ),
        key(
            "errors",
            Kind::Section(&ERRORS),
            "Pages for refusals that browsers show, by status.",
        )
        .without("the built-in page"),
        key(
            "compressed",
            Kind::Section(&COMPRESSED),
            "Files that the gateway has compressed.",
        )
        .or_its_keys(),
        key("log", Kind::Section(&LOG), "What is logged, and where.").or_its_keys(),
        key(
            "admin",
            Kind::Section(&ADMIN),
            "Admin listener and control socket: metrics, health, state, reload.",
        )
        .without("only the control socket"),
        key("metrics", Kind::Section(&METRICS), "What is counted.").or_its_keys(),
    ],
};

/// `compressed`.
pub(crate) static COMPRESSED: Section = Section {
    short: None,
    keys: &[key(
        "memory",
        SIZE,
        "Memory for compressed files, of all routes together.",
    )
    .or("32MiB")],
};

/// `user`.
pub(crate) static USER: Section = Section {
    short: Some("name"),
    keys: &[
        key(
            "name",
            Kind::Form("user", "www-data"),
            "Name of a user in `/etc/passwd`.",
        )
        .required(),
        key(
            "group",
            Kind::Form("group", "www-data"),
            "Name of a group in `/etc/group`.",
        )
        .without("the user's own"),
    ],
};

/// One of `listeners`.
pub(crate) static LISTENER: Section = Section {
    short: None,
    keys: &[
        key(
            "address",
            Kind::Form("address", "0.0.0.0:8080"),
            "IP address and port, or `unix:` and the path of a socket.",
        )
        .without("required, or `socket_activation`"),
        key(
            "socket_activation",
            Kind::Form("name", "https"),
            "Sockets that systemd passes under this name (`FileDescriptorName`), in place of `address`.",
        ),
        key(
            "mode",
            Kind::Form("octal mode in quotes", "\"0660\""),
            "Who may connect to a Unix socket.",
        )
        .without("`\"0600\"`"),
        key(
            "group",
            Kind::Form("group", "www-data"),
            "Group of a Unix socket.",
        )
        .without("the process's own"),
        key(
            "redirect_to_https",
            Kind::Either(&[Kind::Boolean, Kind::Whole(1, 65_535)]),
            "Redirects every request to the first TLS listener, or to this port.",
        )
        .or("false"),
        key(
            "proxy_protocol",
            Kind::Boolean,
            "Every connection begins with a PROXY header that names the client; for peers in `trusted_proxies`.",
        )
        .or("false"),
        key("tls", Kind::Section(&TLS), "Serves TLS, with HTTP/2.").without("plain HTTP"),
    ],
};

/// `tls` of a listener.
pub(crate) static TLS: Section = Section {
    short: None,
    keys: &[
        key(
            "certificates",
            Kind::Filled(&Kind::Section(&CERTIFICATE)),
            "Certificates, chosen by the server name that the client asks for and the signatures that it can verify.",
        )
        .without("required without `acme`"),
        key(
            "acme",
            Kind::Section(&ACME),
            "Orders certificates from an ACME directory and renews them; `{}` orders one for each `host` of the routes.",
        ),
        key(
            "unknown_name",
            Kind::Word(&["refuse", "first"]),
            "What a client gets that asks for a name without a certificate, or for none: an alert, or the first certificate.",
        )
        .without("`first`; `refuse` without `certificates`"),
        key(
            "min_version",
            Kind::Word(&["1.2", "1.3"]),
            "Oldest TLS version that is accepted.",
        )
        .or("1.2"),
        key(
            "client_auth",
            Kind::Section(&CLIENT_AUTH),
            "Client certificates that are asked for.",
        ),
    ],
};

/// `client_auth` of a listener's `tls`.
pub(crate) static CLIENT_AUTH: Section = Section {
    short: None,
    keys: &[
        key(
            "ca",
            Kind::File,
            "Certificate authorities whose clients are let in, a PEM file.",
        )
        .required(),
        key(
            "required",
            Kind::Boolean,
            "Refuses clients without a certificate.",
        )
        .or("true"),
        key(
            "crl",
            Kind::OneOrMore(&Kind::File),
            "Certificate revocation lists of these authorities, PEM or DER.",
        ),
    ],
};

/// `acme` of `tls`.
pub(crate) static ACME: Section = Section {
    short: None,
    keys: &[
        key(
            "domains",
            Kind::Filled(&Kind::Either(&[DOMAIN, Kind::Filled(&DOMAIN)])),
            "Names, each with a certificate of its own; those of an inner list share one.",
        )
        .without("the exact `host` of every route"),
        key(
            "directory",
            Kind::OneOrMore(&Kind::Either(&[
                Kind::Word(&["letsencrypt", "letsencrypt-staging", "zerossl", "google"]),
                Kind::Form("URL", "https://ca.example.com/acme/directory"),
            ])),
            "ACME directories; of a list, the next is tried where one cannot be reached, fails or limits rates.",
        )
        .or_items(&["letsencrypt"]),
        key(
            "ca",
            Kind::File,
            "Root certificates for the directory's server, a PEM file.",
        )
        .without("the system's roots"),
        key(
            "email",
            Kind::Form("address", "ops@example.com"),
            "Contact that the directory is told.",
        ),
        key(
            "eab",
            Kind::Section(&EAB),
            "External account that the directory's account belongs to; `zerossl` and `google` need it.",
        ),
        key(
            "challenges",
            Kind::Filled(&Kind::Word(&["tls-alpn-01", "http-01", "dns-01"])),
            "Challenges that may be used, tried in turn.",
        )
        .without("`tls-alpn-01`, `http-01` where there is a plain listener, `dns-01` with `dns`"),
        key(
            "dns",
            Kind::Section(&DNS),
            "Program that changes the DNS for `dns-01`; names with a star need it.",
        ),
        key(
            "profile",
            Kind::Text,
            "Profile of the directory, such as `shortlived`.",
        )
        .without("the directory's own"),
        key(
            "key",
            Kind::Word(&["p256", "p384", "rsa2048"]),
            "Kind of the certificates' keys.",
        )
        .or("p256"),
    ],
};

/// `dns` of `acme`.
pub(crate) static DNS: Section = Section {
    short: None,
    keys: &[
        key(
            "hook",
            Kind::File,
            "Program, called with `present` or `cleanup`, a name and a value.",
        )
        .required(),
        key(
            "wait",
            DURATION_OR_ZERO,
            "How long a change takes until all servers of the zone have it.",
        )
        .or("60s"),
    ],
};

/// `eab` of `acme`.
pub(crate) static EAB: Section = Section {
    short: None,
    keys: &[
        key("kid", Kind::Text, "Key id, from the directory's page.").required(),
        key(
            "hmac",
            Kind::Text,
            "HMAC key, base64url, from the same page.",
        )
        .required(),
    ],
};

/// One of `certificates`.
pub(crate) static CERTIFICATE: Section = Section {
    short: None,
    keys: &[
        key("cert", Kind::File, "Certificate chain, a PEM file.").required(),
        key("key", Kind::File, "Private key, a PEM file.").required(),
    ],
};

/// `limits`.
pub(crate) static LIMITS: Section = Section {
    short: None,
    keys: &[
        key("connections", FROM_ONE, "Client connections in all.").or("100000"),
        key(
            "connections_per_ip",
            FROM_ONE,
            "Client connections of one IPv4 address or one IPv6 /64.",
        )
        .or("1000"),
        key("header_bytes", SIZE, "Size of a request's head.").or("32KiB"),
        key(
            "header_count",
            FROM_ONE,
            "Number of header fields of a request.",
        )
        .or("100"),
        key("uri_bytes", SIZE, "Size of a request's target.").or("8KiB"),
        key(
            "body_bytes",
            Kind::Size(Zero::Off),
            "Size of a request's body; `off` is no limit.",
        )
        .or("10MiB"),
    ],
};

/// `timeouts`.
pub(crate) static TIMEOUTS: Section = Section {
    short: None,
    keys: &[
        key("header_read", DURATION, "For reading a request's head.").or("10s"),
        key(
            "body_read",
            DURATION,
            "Between two reads of a request's body.",
        )
        .or("30s"),
        key(
            "send",
            DURATION,
            "For a client that takes nothing of a response.",
        )
        .or("60s"),
        key("keep_alive", DURATION, "For an idle client connection.").or("75s"),
        key("tls_handshake", DURATION, "For a TLS handshake.").or("10s"),
        key(
            "shutdown",
            DURATION_OR_ZERO,
            "For requests in flight at shutdown; zero closes at once.",
        )
        .or("30s"),
        key(
            "shutdown_streams",
            DURATION_OR_ZERO,
            "For tunnels and event streams at shutdown, within `shutdown`.",
        )
        .or("3s"),
        key(
            "shutdown_delay",
            DURATION_OR_ZERO,
            "Between the signal to stop, from which on the gateway is not ready, and the drain.",
        )
        .or("0s"),
    ],
};

/// One of `jwt`.
pub(crate) static VERIFIER: Section = Section {
    short: None,
    keys: &[
        key(
            "algorithms",
            Kind::Filled(&ALGORITHM),
            "Algorithms that are accepted; required with `secret` and `keys`.",
        )
        .without("by the key set"),
        key(
            "secret",
            Kind::OneOrMore(&Kind::Text),
            "Shared secret of HS algorithms; of a list each is tried.",
        ),
        key(
            "keys",
            Kind::Filled(&Kind::Section(&KEY_FILE)),
            "Public keys or certificates, PEM files.",
        ),
        key(
            "jwks",
            Kind::Either(&[
                Kind::File,
                Kind::Form("URL", "https://id.example.com/jwks.json"),
            ]),
            "Key set, a file or a URL.",
        )
        .without("found by discovery from `issuer`"),
        key(
            "jwks_refresh",
            Kind::Form("duration from 10s to 24h", "5m"),
            "How long a key set at a URL is used before it is fetched again.",
        )
        .without("as its response's `Cache-Control` says"),
        key(
            "stale_for",
            DURATION_OR_ZERO,
            "How long a key set is used beyond that while the issuer cannot be reached.",
        )
        .or("1h"),
        key(
            "ca",
            Kind::File,
            "Root certificates for the issuer's server, a PEM file.",
        )
        .without("the system's roots"),
        key("revoked", Kind::File, "Revoked tokens, a YAML file."),
        key(
            "issuer",
            Kind::OneOrMore(&Kind::Text),
            "Accepted `iss`, one or more.",
        )
        .without("any"),
        key(
            "audience",
            Kind::OneOrMore(&Kind::Text),
            "Accepted `aud`; `any` also takes tokens for others.",
        )
        .without("tokens without `aud`"),
        key(
            "leeway",
            DURATION_OR_ZERO,
            "Difference of clocks that is tolerated.",
        )
        .or("30s"),
        key("require_exp", Kind::Boolean, "Requires `exp`.").or("true"),
        key(
            "max_lifetime",
            DURATION,
            "Longest accepted time from `iat` to `exp`.",
        )
        .without("no limit"),
        key("typ", Kind::Text, "Required `typ` of the token's header.").without("any"),
        key(
            "claims",
            Kind::Map(&Kind::Any),
            "Claims that every token must have, with these values.",
        ),
        key(
            "cnf",
            Kind::Word(&["check", "require", "ignore"]),
            "Tokens that are bound to a client certificate (RFC 8705); `require` takes no others.",
        )
        .or("check"),
        key(
            "from",
            Kind::OneOrMore(&Kind::Form(
                "header, cookie:NAME, query:NAME, websocket or basic",
                "cookie:access_token",
            )),
            "Where a request carries its token.",
        )
        .or_items(&["header"]),
        key(
            "weak_secret",
            Kind::Word(&["allow"]),
            "Accepts a secret that is too short for its algorithm.",
        )
        .without("refused"),
    ],
};

/// One of `keys`.
pub(crate) static KEY_FILE: Section = Section {
    short: Some("file"),
    keys: &[
        key("kid", Kind::Text, "Name of the key in token headers.").without("any"),
        key("file", Kind::File, "PEM file.").required(),
    ],
};

/// `tokens`.
pub(crate) static TOKENS: Section = Section {
    short: None,
    keys: &[
        key("path", Kind::Path, "Prefix of the endpoints.").or("/api/token"),
        key("issuer", Kind::Text, "`iss` of the tokens.").without("no `iss`"),
        key(
            "algorithm",
            ALGORITHM,
            "Algorithm that tokens are signed with.",
        )
        .or("ES256"),
        key(
            "keys",
            Kind::Directory,
            "Signing keys; made if there are none.",
        )
        .required(),
        key(
            "access_lifetime",
            DURATION,
            "Lifetime of access tokens, whole seconds.",
        )
        .or("5m"),
        key(
            "refresh_lifetime",
            DURATION,
            "Lifetime of refresh tokens, whole seconds.",
        )
        .or("24h"),
        key(
            "rotate_refresh",
            Kind::Boolean,
            "A refresh token is good once, and replaced by each refresh.",
        )
        .or("true"),
        key(
            "refresh_grace",
            DURATION_OR_ZERO,
            "Time during which a used refresh token returns the same replacement once.",
        )
        .or("10s"),
        key(
            "rotate_keys_after",
            DURATION,
            "How long a new signing key is published before it signs, whole seconds.",
        )
        .or("5m"),
        key(
            "users",
            Kind::File,
            "Users and password hashes, a YAML file.",
        )
        .without("`login` is required"),
        key(
            "login",
            SERVER_PATH,
            "App that checks passwords, asked by POST.",
        )
        .without("`users` is required"),
        key(
            "username_field",
            Kind::Text,
            "Field of a login that holds the user name.",
        )
        .or("username"),
        key(
            "cookies",
            Kind::Section(&COOKIES),
            "Hands tokens out as cookies, too.",
        )
        .without("no cookies"),
        key(
            "cors",
            Kind::Section(&CORS),
            "Cross-origin policy of all token endpoints.",
        )
        .without("same origin only"),
        key(
            "claims",
            Kind::Map(&Kind::Any),
            "More claims of access tokens; `\"{user.NAME}\"` is from `users`.",
        ),
        key(
            "throttle",
            Kind::Either(&[Kind::Word(&["off"]), Kind::Section(&THROTTLE)]),
            "Limits of password attempts.",
        )
        .or_its_keys(),
    ],
};

/// `cookies` of `tokens`.
pub(crate) static COOKIES: Section = Section {
    short: None,
    keys: &[
        key(
            "access",
            Kind::Form("cookie name", "access_token"),
            "Name of the access token's cookie.",
        )
        .or("access_token"),
        key(
            "refresh",
            Kind::Form("cookie name", "refresh_token"),
            "Name of the refresh token's cookie.",
        )
        .or("refresh_token"),
        key(
            "same_site",
            Kind::Word(&["lax", "strict"]),
            "`SameSite` of the cookies.",
        )
        .or("lax"),
        key(
            "domain",
            Kind::Form("domain", "example.com"),
            "`Domain` of the cookies.",
        )
        .without("the host alone"),
        key(
            "origins",
            Kind::List(&ORIGIN),
            "Other origins whose pages may use the cookies.",
        )
        .or_items(&[]),
    ],
};

/// `throttle` of `tokens`.
pub(crate) static THROTTLE: Section = Section {
    short: None,
    keys: &[
        key(
            "per_ip",
            Kind::Rate,
            "Attempts of one IPv4 address or one IPv6 /64.",
        )
        .or("10/m"),
        key("per_user", Kind::Rate, "Attempts for one user name.").or("5/m"),
    ],
};

/// `state` as a map.
pub(crate) static STATE: Section = Section {
    short: None,
    keys: &[
        key(
            "redis",
            Kind::OneOrMore(&Kind::Form("Redis URL", "redis://10.0.0.5:6379")),
            "Server, or nodes of a cluster.",
        )
        .required(),
        key("username", Kind::Text, "User name at Redis."),
        key("password", Kind::Text, "Password at Redis."),
        key(
            "ca",
            Kind::File,
            "Root certificates for rediss://, a PEM file.",
        )
        .without("the system's roots"),
        key(
            "key",
            Kind::OneOrMore(&Kind::Form("32 bytes in base64", "${STATE_KEY}")),
            "Seals what is secret there; of a list the first seals and all open. `tls.acme` needs it.",
        ),
    ],
};

/// `defaults`.
pub(crate) static DEFAULTS: Section = Section {
    short: None,
    keys: &[
        key(
            "auth",
            AUTH,
            "Access to routes without `auth` of their own.",
        ),
        key(
            "headers",
            Kind::Section(&HEADERS),
            "Header fields of all routes; a route's own override them.",
        ),
        key(
            "compress",
            COMPRESSES,
            "Compression of responses, of all routes without their own.",
        )
        .without("files only"),
        key(
            "addresses",
            ADDRESS_LISTS,
            "Addresses that have access to routes without `addresses` of their own.",
        ),
        key(
            "rate_limit",
            RATE_LIMITS,
            "How often clients may send requests to routes without `rate_limit`, all of these together.",
        ),
        key(
            "in_flight",
            IN_FLIGHTS,
            "How many requests clients may have in flight at routes without `in_flight`, at all of these together.",
        ),
    ],
};

/// What may stand behind `auth`.
const AUTH: Kind = Kind::Either(&[
    Kind::Word(&["none"]),
    Kind::Section(&ASK_RULE),
    Kind::Section(&JWT_RULE),
    Kind::Section(&API_KEY_RULE),
    Kind::Section(&BASIC_RULE),
    Kind::Section(&CERTIFICATE_RULE),
]);

/// What may stand behind `certificate` of `auth`.
const CERTIFICATES: Kind =
    Kind::Either(&[Kind::Word(&["any"]), Kind::Section(&ACCEPTED_CERTIFICATE)]);

/// What may stand behind `compress`.
const COMPRESSES: Kind = Kind::Either(&[
    Kind::Boolean,
    Kind::Word(&["off"]),
    Kind::Filled(&CODING),
    Kind::Section(&COMPRESS),
]);
const CODING: Kind = Kind::Word(&["zstd", "br", "gzip"]);

/// `compress`.
pub(crate) static COMPRESS: Section = Section {
    short: None,
    keys: &[
        key(
            "codings",
            Kind::Filled(&CODING),
            "Codings, the first preferred where a client likes several equally.",
        )
        .or_items(&["zstd", "br", "gzip"]),
        key(
            "min",
            Kind::Size(Zero::Allowed),
            "Shorter responses are sent as they are.",
        )
        .or("1KiB"),
        key(
            "level",
            Kind::Word(&["fast", "default", "small"]),
            "Whether to save processor time or bytes.",
        )
        .or("default"),
        key(
            "types",
            Kind::Filled(&Kind::Form("media type", "text/*")),
            "Media types that are compressed: `text/*`, `application/json`, `+json`.",
        )
        .without("text, JSON, JavaScript, XML, SVG, WebAssembly, fonts that are not WOFF"),
        key(
            "private",
            Kind::Word(&["same_origin", "always", "never"]),
            "Whether an app's responses to requests with cookies and other ambient credentials are compressed.",
        )
        .or("same_origin"),
    ],
};

/// One of `routes`.
pub(crate) static ROUTE: Section = Section {
    short: None,
    keys: &[
        key("name", Kind::Text, "Name in logs, tests and messages.").without("host and path"),
        key(
            "host",
            Kind::OneOrMore(&Kind::Form("host", "*.example.com")),
            "Hosts that the route is for.",
        )
        .without("all"),
        key(
            "methods",
            Kind::Filled(&METHOD),
            "Methods that the route is for.",
        )
        .without("all"),
        key(
            "path",
            Kind::Path,
            "Path; `/*` at its end takes everything below, `{name}` takes a segment.",
        )
        .required(),
        key(
            "static",
            Kind::Section(&STATIC),
            "Serves files from a directory.",
        ),
        key(
            "proxy",
            Kind::Form("upstream or server", "http://127.0.0.1:8000"),
            "Forwards to an upstream or a server.",
        ),
        key("redirect", Kind::Section(&REDIRECT), "Redirects."),
        key(
            "respond",
            Kind::Section(&RESPOND),
            "Responds with a fixed text.",
        ),
        key("auth", AUTH, "Who has access.").without("that of `defaults`; required with `proxy`"),
        key(
            "addresses",
            ADDRESS_LISTS,
            "Addresses of clients that have access; `off` ends those of `defaults`.",
        )
        .without("those of `defaults`"),
        key(
            "rate_limit",
            RATE_LIMITS,
            "How often clients may send requests; `off` ends those of `defaults`.",
        )
        .without("those of `defaults`"),
        key(
            "in_flight",
            IN_FLIGHTS,
            "How many requests clients may have in flight; `off` ends those of `defaults`.",
        )
        .without("those of `defaults`"),
        key(
            "cors",
            Kind::Section(&CORS),
            "Cross-origin policy of the route.",
        )
        .without("same origin only"),
        key(
            "rewrite",
            Kind::Section(&REWRITE),
            "Changes the path on its way to the app.",
        )
        .without("the client's own path"),
        key(
            "headers",
            Kind::Section(&HEADERS),
            "Header fields that are set or removed.",
        ),
        key(
            "errors",
            Kind::Section(&ERRORS),
            "Pages for refusals that browsers show, by status.",
        )
        .without("those of the site"),
        key(
            "body_bytes",
            Kind::Size(Zero::Off),
            "Size of a request's body; `off` is no limit.",
        )
        .without("that of `limits`"),
        key(
            "timeouts",
            Kind::Section(&ROUTE_TIMEOUTS),
            "How long the app may take.",
        )
        .without("those of the upstream"),
        key("compress", COMPRESSES, "Compression of responses.")
            .without("that of `defaults`, else files only"),
        key(
            "accel",
            Kind::Either(&[Kind::Directory, Kind::Map(&Kind::Directory)]),
            "Directories whose files the app may name in `X-Accel-Redirect` or `X-Sendfile`, by the beginning of the path.",
        ),
    ],
};

/// `static` of a route.
pub(crate) static STATIC: Section = Section {
    short: Some("root"),
    keys: &[
        key(
            "root",
            Kind::OneOrMore(&Kind::Directory),
            "Directories that are served; the first that has a file serves it.",
        )
        .required(),
        key(
            "index",
            Kind::List(&Kind::Form("file name", "index.html")),
            "Files that are served for a directory.",
        )
        .or_items(&["index.html"]),
        key(
            "fallback",
            Kind::Path,
            "Page for paths that have no file, for single-page apps.",
        )
        .without("404"),
        key(
            "cache_control",
            Kind::Either(&[Kind::Text, Kind::Map(&Kind::Text)]),
            "`Cache-Control` of the files, one value for all or by pattern; `immutable` alone is a year.",
        )
        .without("a year for names with a hash, else `no-cache`"),
        key(
            "precompressed",
            Kind::List(&Kind::Word(&["br", "zstd", "gzip"])),
            "Codings of compressed files (`FILE.br`, `.zst`, `.gz`) that are sent in place of the file beside them.",
        )
        .or_items(&["br", "zstd", "gzip"]),
        key(
            "types",
            Kind::Map(&Kind::Form("media type", "model/gltf-binary")),
            "Media types by the end of the name (`.glb`), beside the usual ones.",
        ),
        key(
            "charset",
            Kind::Form("charset or `none`", "utf-8"),
            "Charset of text types.",
        )
        .or("utf-8"),
        key(
            "download",
            Kind::Either(&[
                Kind::Boolean,
                Kind::OneOrMore(&Kind::Form("pattern", "*.csv")),
            ]),
            "Files that browsers store instead of showing them.",
        )
        .or("false"),
        key(
            "untrusted",
            Kind::Boolean,
            "Users upload to the directory: nothing in it may act in the site's name.",
        )
        .or("false"),
        key(
            "listing",
            Kind::Boolean,
            "Lists directories that have no index.",
        )
        .or("false"),
        key(
            "else",
            Kind::Form("upstream or server", "http://127.0.0.1:8000"),
            "Forwards what is no file to an upstream or a server.",
        ),
    ],
};

/// `redirect` of a route.
pub(crate) static REDIRECT: Section = Section {
    short: None,
    keys: &[
        key("to", Kind::Text, "Target; may hold `{name}` and `{rest}`.").required(),
        key(
            "status",
            Kind::Word(&["301", "302", "303", "307", "308"]),
            "Status of the response.",
        )
        .or("308"),
    ],
};

/// `respond` of a route.
pub(crate) static RESPOND: Section = Section {
    short: None,
    keys: &[
        key("status", Kind::Whole(200, 599), "Status of the response.").or("200"),
        key("body", Kind::Text, "Body of the response, plain text.").without("empty"),
        key(
            "ready",
            Kind::Boolean,
            "503 while the gateway drains, for health checks of load balancers.",
        )
        .or("false"),
    ],
};

/// `auth` with a verifier.
pub(crate) static JWT_RULE: Section = Section {
    short: Some("jwt"),
    keys: &[
        key(
            "jwt",
            Kind::OneOrMore(&Kind::Form("verifier's name", "app")),
            "Verifiers, any of which may accept the token.",
        )
        .required(),
        key(
            "api_key",
            Kind::Section(&API_KEYS),
            "API keys that are accepted, too.",
        ),
        key(
            "certificate",
            CERTIFICATES,
            "Client certificate that is needed besides.",
        ),
        key(
            "optional",
            Kind::Boolean,
            "Allows requests without a token.",
        )
        .or("false"),
        key(
            "require",
            Kind::Any,
            "Rules for claims: a map, or a list of maps of which one must hold.",
        ),
        key(
            "forward",
            Kind::Map(&Kind::Text),
            "Header fields that the app gets, with the claims or the `certificate:PART` that they carry.",
        ),
        key(
            "strip_token",
            Kind::Boolean,
            "Removes the token before the request is forwarded.",
        )
        .or("false"),
        key(
            "enforce",
            Kind::Word(&["refuse", "report"]),
            "`report` logs what would be refused, and allows it.",
        )
        .or("refuse"),
        key(
            "on_expiry",
            Kind::Word(&["keep", "close"]),
            "Tunnels and streams when the token expires or is revoked.",
        )
        .or("keep"),
    ],
};

/// `auth` by another server.
pub(crate) static ASK_RULE: Section = Section {
    short: None,
    keys: &[
        key(
            "ask",
            SERVER_PATH,
            "Server that is asked; 2xx allows the request.",
        )
        .required(),
        key(
            "certificate",
            CERTIFICATES,
            "Client certificate that is needed besides.",
        ),
        key(
            "forward",
            Kind::Map(&CERTIFICATE_PART),
            "Header fields that the app gets, with parts of the client certificate.",
        ),
        key(
            "copy",
            Kind::List(&HEADER),
            "Header fields of its response that the app gets.",
        )
        .or_items(&[]),
    ],
};

/// `auth` by a client certificate alone.
pub(crate) static CERTIFICATE_RULE: Section = Section {
    short: None,
    keys: &[
        key(
            "certificate",
            CERTIFICATES,
            "Client certificate that is needed.",
        )
        .required(),
        key(
            "forward",
            Kind::Map(&CERTIFICATE_PART),
            "Header fields that the app gets, with parts of the client certificate.",
        ),
        key(
            "enforce",
            Kind::Word(&["refuse", "report"]),
            "`report` logs what would be refused, and allows it.",
        )
        .or("refuse"),
    ],
};

/// `certificate` of `auth`: where both keys are there, both must hold.
pub(crate) static ACCEPTED_CERTIFICATE: Section = Section {
    short: None,
    keys: &[
        key(
            "san",
            Kind::OneOrMore(&Kind::Form(
                "dns:, uri:, email: or ip: and a name",
                "dns:till.example.org",
            )),
            "Subject alternative names, of which the certificate has one.",
        )
        .without("any"),
        key(
            "fingerprint",
            Kind::OneOrMore(&Kind::Form("SHA-256 in hex or base64url", "AB:CD:...")),
            "Certificates themselves, of which it is one.",
        )
        .without("any"),
    ],
};

/// `cors` of a route, or of `tokens`.
pub(crate) static CORS: Section = Section {
    short: None,
    keys: &[
        key(
            "origins",
            Kind::OneOrMore(&Kind::Form("origin or `*`", "https://app.example.com")),
            "Origins whose pages may read responses.",
        )
        .required(),
        key(
            "credentials",
            Kind::Boolean,
            "Allows cookies and `Authorization`; never with `*`.",
        )
        .or("false"),
        key(
            "methods",
            Kind::Filled(&METHOD),
            "Methods that pages may send.",
        )
        .without("those of the route"),
        key(
            "headers",
            Kind::List(&HEADER),
            "Header fields that pages may send, or `*`.",
        )
        .or_items(&["Authorization", "Content-Type"]),
        key(
            "expose",
            Kind::List(&HEADER),
            "Header fields that pages may read, or `*`.",
        )
        .or_items(&[
            "WWW-Authenticate",
            "Retry-After",
            "RateLimit",
            "RateLimit-Policy",
        ]),
        key(
            "max_age",
            DURATION_OR_ZERO,
            "How long browsers cache a preflight, whole seconds.",
        )
        .or("10m"),
    ],
};

/// `rewrite` of a route; exactly one of them.
pub(crate) static REWRITE: Section = Section {
    short: None,
    keys: &[
        key("strip_prefix", Kind::Path, "Prefix that is removed."),
        key(
            "path",
            Kind::Path,
            "New path; may hold `{name}` and `{rest}`.",
        ),
    ],
};

/// `headers`.
pub(crate) static HEADERS: Section = Section {
    short: None,
    keys: &[
        key(
            "request",
            Kind::Section(&CHANGES),
            "Of requests, on their way to the app.",
        ),
        key(
            "response",
            Kind::Section(&CHANGES),
            "Of responses, on their way to the client.",
        ),
        key(
            "security",
            Kind::Boolean,
            "Sets the usual security fields in responses that do not have them.",
        )
        .without("that of `defaults`; `false` there"),
    ],
};

/// Changes of header fields in one direction.
pub(crate) static CHANGES: Section = Section {
    short: None,
    keys: &[
        key(
            "set",
            Kind::Map(&Kind::Text),
            "Replaces every field of that name; may hold `{client}`, `{host}`, `{scheme}`, `{id}`, `{claim:PATH}`.",
        ),
        key(
            "remove",
            Kind::List(&HEADER),
            "Removes every field of that name.",
        )
        .or_items(&[]),
    ],
};

/// `timeouts` of a route.
pub(crate) static ROUTE_TIMEOUTS: Section = Section {
    short: None,
    keys: &[
        key(
            "response",
            Kind::Duration(Zero::Off),
            "For the head of a response; `off` waits without end.",
        )
        .without("that of the upstream"),
        key("idle", DURATION, "Between two reads of a response.").without("that of the upstream"),
        key(
            "total",
            DURATION,
            "From the head of a request to the end of its response.",
        )
        .without("that of the upstream"),
    ],
};

/// One of `tests`.
pub(crate) static TEST: Section = Section {
    short: None,
    keys: &[
        key(
            "request",
            Kind::Form("request", "GET /orders"),
            "Method and path, or method and URL.",
        )
        .required(),
        key(
            "headers",
            Kind::Map(&Kind::Text),
            "Header fields of the request.",
        ),
        key(
            "claims",
            Kind::Map(&Kind::Any),
            "Claims of its token, which counts as correctly signed.",
        )
        .without("no token, or that of `headers`"),
        key(
            "certificate",
            Kind::File,
            "Certificate that the client shows, a PEM file.",
        )
        .without("none"),
        key(
            "from",
            Kind::Form("address or `unix`", "192.0.2.7"),
            "Address of the client.",
        )
        .or("127.0.0.1"),
        key("expect", Kind::Section(&EXPECT), "What is expected.").required(),
    ],
};

/// `expect` of a test.
pub(crate) static EXPECT: Section = Section {
    short: None,
    keys: &[
        key(
            "status",
            Kind::Whole(100, 599),
            "Status of the gateway's own response.",
        ),
        key("reason", Kind::Text, "Reason code of the refusal."),
        key("route", Kind::Text, "Name of the route."),
        key("upstream", Kind::Text, "Name of the upstream."),
        key(
            "headers",
            Kind::Map(&Kind::Any),
            "Header fields that the app gets; `null` for one that it must not get.",
        ),
    ],
};

/// A file of tests beside the configuration, as a map.
pub(crate) static TEST_FILE: Section = Section {
    short: None,
    keys: &[key(
        "tests",
        Kind::List(&Kind::Section(&TEST)),
        "Requests and what is expected of them.",
    )
    .required()],
};

/// An entry of a `revoked` file.
pub(crate) static REVOCATION: Section = Section {
    short: None,
    keys: &[
        key("jti", Kind::Text, "Id of a token."),
        key("sub", Kind::Text, "Subject whose tokens are revoked."),
        key(
            "before",
            Kind::Form("time", "2026-01-31T12:00:00Z"),
            "Only tokens issued before.",
        ),
    ],
};

/// `log`.
pub(crate) static LOG: Section = Section {
    short: None,
    keys: &[
        key(
            "level",
            Kind::Word(&["error", "warn", "info", "debug"]),
            "Level of the operator's log, on standard error.",
        )
        .or("info"),
        key(
            "access",
            Kind::Either(&[Kind::Word(&["off"]), Kind::Section(&ACCESS_LOG)]),
            "One record for each request; `off` writes none.",
        )
        .or_its_keys(),
    ],
};

/// `access` of `log`.
pub(crate) static ACCESS_LOG: Section = Section {
    short: None,
    keys: &[
        key(
            "to",
            Kind::Either(&[Kind::Word(&["stdout", "stderr"]), Kind::File]),
            "Where records are written.",
        )
        .or("stdout"),
        key(
            "format",
            Kind::Word(&["json", "combined"]),
            "JSON, or Apache's combined format.",
        )
        .or("json"),
        key("user", Kind::Text, "Claim that names the user in records.")
            .without("the first of `sub`, `user_id`, `client_id`"),
    ],
};
