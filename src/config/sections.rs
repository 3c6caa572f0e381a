//! Decodes the sections of gateway.yaml except `jwt`, `upstreams` and the routes.

use super::decode::Decoder;
use super::keys;
use super::node::{Kind, Node};
use super::parsed::{
    AccessLog, Account, Gateway, Level, Limits, Listener, Log, LogFormat, Spanned, Timeouts, Tls,
    Workers,
};
use super::place::Place;
use super::value;
use crate::net::tls::UnknownName;

impl Decoder<'_> {
    /// The whole configuration, with all files merged in one tree.
    pub(crate) fn gateway(&mut self, node: &Node) -> Option<Gateway> {
        let fields = self.fields(node, "a map", &keys::TOP)?;
        for key in ["listeners", "routes"] {
            if fields.get(key).is_none() {
                self.errors
                    .at(Place::default(), format!("`{key}` is missing"))
                    .hint("nothing to serve");
            }
        }
        let workers = self.value(fields, "workers", Self::workers);
        let user = self.optional(fields, "user", Self::user);
        let before = self.errors.count();
        let listeners = self.optional(fields, "listeners", |it, node| {
            it.filled_list(node, "a list of listeners", Self::listener)
        });
        if self.errors.count() > before {
            self.errors.leave_unread("listeners");
        }
        let trusted = self.value(fields, "trusted_proxies", |it, node| {
            it.list(node, "a list of networks", |it, node| {
                it.scalar(
                    node,
                    "a network or `unix`",
                    "networks are 10.0.0.0/8, 10.0.0.1; `unix` is every peer on a Unix socket",
                    value::trusted_peers,
                )
            })
        });
        let limits = self.value(fields, "limits", Self::limits);
        let timeouts = self.value(fields, "timeouts", Self::timeouts);
        let jwt = self.optional(fields, "jwt", |it, node| {
            it.named(node, "a map of verifiers", Self::verifier)
        });
        let tokens = self.optional(fields, "tokens", Self::tokens);
        let state = self.optional(fields, "state", Self::state);
        let upstreams = self.optional(fields, "upstreams", |it, node| {
            it.named(node, "a map of upstreams", Self::upstream)
        });
        let defaults = self.optional(fields, "defaults", Self::defaults);
        let routes = self.optional(fields, "routes", |it, node| {
            it.filled_list(node, "a list of routes", Self::route)
        });
        let tests = self.optional(fields, "tests", Self::policy_tests);
        let errors = self.optional(fields, "errors", Self::error_pages);
        let compressed = self.value(fields, "compressed", |it, node| {
            let fields = it.fields(node, "a map", &keys::COMPRESSED)?;
            it.value(fields, "memory", Self::size)
        });
        let log = self.value(fields, "log", Self::log);
        let admin = self.optional(fields, "admin", Self::admin);
        let metrics_routes = self.value(fields, "metrics", |it, node| {
            let fields = it.fields(node, "a map", &keys::METRICS)?;
            it.value(fields, "routes", |it, node| it.integer(node, 0, 100_000))
        });
        for (section, read) in [
            ("jwt", jwt.is_some()),
            ("upstreams", upstreams.is_some()),
            ("tokens", tokens.is_some()),
            ("state", state.is_some()),
            ("defaults", defaults.is_some()),
        ] {
            if fields.get(section).is_some() && !read {
                self.errors.leave_unread(section);
            }
        }
        Some(Gateway {
            workers: workers?,
            user,
            listeners: listeners.unwrap_or_default(),
            trusted_proxies: trusted.unwrap_or_default(),
            limits: limits?,
            timeouts: timeouts?,
            jwt: jwt.unwrap_or_default(),
            tokens,
            state,
            upstreams: upstreams.unwrap_or_default(),
            defaults: defaults.unwrap_or_default(),
            routes: routes.unwrap_or_default(),
            tests: tests.unwrap_or_default(),
            errors,
            compressed: compressed?,
            log: log?,
            admin,
            metrics_routes: metrics_routes?,
        })
    }

    /// `user`: a name, or a map.
    fn user(&mut self, node: &Node) -> Option<Account> {
        if let Kind::Scalar(_) = node.kind {
            let name = self.filled_text(node)?;
            return Some(Account { name, group: None });
        }
        let fields = self.fields(node, "a user's name, or a map", &keys::USER)?;
        let name = self.required(fields, "name", Self::filled_text);
        let group = self.optional(fields, "group", Self::filled_text);
        Some(Account { name: name?, group })
    }

    fn workers(&mut self, node: &Node) -> Option<Spanned<Workers>> {
        self.scalar(node, "`auto` or a number from 1 to 1024", "", |text| {
            if text == "auto" {
                return Ok(Workers::Auto);
            }
            let number = u16::try_from(value::integer(text)?).ok();
            number
                .filter(|it| (1..=1024).contains(it))
                .map(Workers::Count)
                .ok_or_else(String::new)
        })
    }

    fn listener(&mut self, node: &Node) -> Option<Listener> {
        let before = self.errors.count();
        let fields = self.fields(node, "a map", &keys::LISTENER)?;
        let directory = self.directory;
        let address = self.optional(fields, "address", |it, node| {
            it.scalar(node, "an address", value::ADDRESSES, |text| {
                value::listen_address(text, directory)
            })
        });
        let inherited = self.optional(fields, "socket_activation", |it, node| {
            let what = "the name of a systemd socket";
            it.scalar(node, what, value::SOCKET_NAMES, value::socket_name)
        });
        let places = ["address", "socket_activation"].map(|key| fields.place_of(key));
        match places {
            [None, None] => {
                let draft = self.errors.at(fields.place, "`address` is missing");
                draft.hint("or `socket_activation`, where systemd passes the sockets");
            }
            [Some(_), Some(place)] => {
                let problem = "a listener has an `address` or a `socket_activation`, not both";
                self.errors.at(place, problem);
            }
            [Some(_), None] | [None, Some(_)] => {}
        }
        let mode = self.optional(fields, "mode", Self::socket_mode);
        let group = self.optional(fields, "group", Self::filled_text);
        let redirect_to_https = self.value(fields, "redirect_to_https", |it, node| {
            let what = "`true`, `false` or a port";
            it.scalar(node, what, "", value::redirect_to_https)
        });
        let proxy_protocol = self.value(fields, "proxy_protocol", Self::boolean);
        let tls = self.optional(fields, "tls", Self::tls);
        let broken = self.errors.count() > before;
        Some(Listener {
            place: fields.place,
            broken,
            address: address.or(inherited)?,
            mode,
            group,
            redirect_to_https: redirect_to_https?,
            proxy_protocol: proxy_protocol?,
            tls,
        })
    }

    fn tls(&mut self, node: &Node) -> Option<Tls> {
        let fields = self.fields(node, "a map", &keys::TLS)?;
        let certificates = self.optional(fields, "certificates", |it, node| {
            it.filled_list(node, "a list of certificates", Self::certificate)
        });
        if fields.get("certificates").is_none() && fields.get("acme").is_none() {
            self.errors
                .at(fields.place, "`certificates` is missing")
                .hint("or `acme: {}`, which orders them");
        }
        let acme = self.optional(fields, "acme", Self::acme);
        let unknown_name = self.optional(fields, "unknown_name", |it, node| {
            it.choice(
                node,
                "what an unknown name gets",
                &[
                    ("refuse", UnknownName::Refuse),
                    ("first", UnknownName::First),
                ],
            )
        });
        let min_version = self.value(fields, "min_version", Self::min_version);
        let client_auth = self.optional(fields, "client_auth", Self::client_auth);
        Some(Tls {
            place: fields.place,
            client_auth,
            certificates: certificates.unwrap_or_default(),
            acme,
            unknown_name,
            min_version: min_version?,
            http2: true,
        })
    }

    /// The permission bits of a socket. In quotes, or from a variable: a bare 0660 is 432 for some YAML readers.
    fn socket_mode(&mut self, node: &Node) -> Option<Spanned<u32>> {
        let bare = matches!(&node.kind, Kind::Scalar(it) if !it.quoted && it.written.is_none());
        let what = "an octal mode in quotes";
        self.scalar(node, what, value::MODES, |text| {
            match value::socket_mode(text) {
                Ok(_) if bare => Err(format!("write \"{text}\", in quotes")),
                mode => mode,
            }
        })
    }

    fn limits(&mut self, node: &Node) -> Option<Limits> {
        let fields = self.fields(node, "a map", &keys::LIMITS)?;
        let from_one = |it: &mut Self, node: &Node| it.integer(node, 1, u32::MAX);
        Some(Limits {
            connections: self.value(fields, "connections", from_one)?,
            connections_per_ip: self.value(fields, "connections_per_ip", from_one)?,
            header_bytes: self.value(fields, "header_bytes", Self::size)?,
            header_count: self.value(fields, "header_count", from_one)?,
            uri_bytes: self.value(fields, "uri_bytes", Self::size)?,
            body_bytes: self.value(fields, "body_bytes", Self::size_or_off)?,
        })
    }

    fn timeouts(&mut self, node: &Node) -> Option<Timeouts> {
        let fields = self.fields(node, "a map", &keys::TIMEOUTS)?;
        Some(Timeouts {
            header_read: self.value(fields, "header_read", Self::duration)?,
            body_read: self.value(fields, "body_read", Self::duration)?,
            send: self.value(fields, "send", Self::duration)?,
            keep_alive: self.value(fields, "keep_alive", Self::duration)?,
            tls_handshake: self.value(fields, "tls_handshake", Self::duration)?,
            shutdown: self.value(fields, "shutdown", Self::duration_or_zero)?,
            shutdown_streams: self.value(fields, "shutdown_streams", Self::duration_or_zero)?,
            shutdown_delay: self.value(fields, "shutdown_delay", Self::duration_or_zero)?,
        })
    }

    fn log(&mut self, node: &Node) -> Option<Log> {
        let fields = self.fields(node, "a map", &keys::LOG)?;
        let levels = [
            ("error", Level::Error),
            ("warn", Level::Warn),
            ("info", Level::Info),
            ("debug", Level::Debug),
        ];
        let level = self.value(fields, "level", |it, node| {
            it.choice(node, "a level", &levels)
        });
        Some(Log {
            level: level?,
            access: self.value(fields, "access", Self::access_log)?,
        })
    }

    fn access_log(&mut self, node: &Node) -> Option<AccessLog> {
        if matches!(node.kind, Kind::Scalar(_)) {
            let off = self.scalar(node, "`off` or a map", "", |text| match text {
                "off" => Ok(()),
                word if value::is_off(word) => Err("write `off`".to_owned()),
                word if value::boolean_of_yaml_1_1(word) == Some(true) => {
                    Err("leave the key out, or write {to: stdout, format: json}".to_owned())
                }
                _ => Err("write `off`, or {to: stdout, format: json}".to_owned()),
            });
            return off.map(|_| AccessLog::Off);
        }
        let fields = self.fields(node, "`off` or a map", &keys::ACCESS_LOG)?;
        let directory = self.directory;
        let to = self.value(fields, "to", |it, node| {
            it.scalar(node, "stdout, stderr or a file", "", |text| {
                value::log_target(text, directory)
            })
        });
        let format = self.value(fields, "format", |it, node| {
            it.choice(
                node,
                "a format",
                &[("json", LogFormat::Json), ("combined", LogFormat::Combined)],
            )
        });
        let user = self.optional(fields, "user", Self::filled_text);
        Some(AccessLog::On {
            to: to?,
            format: format?,
            user,
        })
    }
}
