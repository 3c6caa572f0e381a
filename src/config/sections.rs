//! The sections of gateway.yaml but `jwt` and the routes: which keys there are, and what stands behind each.

use std::time::Duration;

use super::decode::Decoder;
use super::node::{Kind, Node};
use super::parsed::{
    AccessLog, Balance, Buffer, Buffering, Certificate, Gateway, Level, Limits, Listener, Log,
    LogFormat, LogTarget, Server, Spanned, Timeouts, Tls, TlsVersion, Upstream, Workers,
};
use super::place::Place;
use super::value;
use crate::proxy::UpstreamSettings;

/// The keys of the file itself. `include` is read before, and is gone by now.
pub(crate) const TOP: [&str; 14] = [
    "include",
    "workers",
    "listeners",
    "trusted_proxies",
    "limits",
    "timeouts",
    "jwt",
    "tokens",
    "state",
    "upstreams",
    "defaults",
    "routes",
    "tests",
    "log",
];

impl Decoder<'_> {
    /// The whole configuration, all files in one tree.
    pub(crate) fn gateway(&mut self, node: &Node) -> Option<Gateway> {
        let fields = self.fields(node, "a map", &TOP)?;
        for key in ["listeners", "routes"] {
            if fields.get(key).is_none() {
                self.errors
                    .at(Place::default(), format!("`{key}` is missing"))
                    .hint("nothing to serve");
            }
        }
        let workers = self.optional(fields, "workers", Self::workers);
        let before = self.errors.count();
        let listeners = self.optional(fields, "listeners", |it, node| {
            it.filled_list(node, "a list of listeners", Self::listener)
        });
        if self.errors.count() > before {
            self.errors.leave_unread("listeners");
        }
        let trusted = self.optional(fields, "trusted_proxies", |it, node| {
            it.list(node, "a list of networks", |it, node| {
                it.scalar(
                    node,
                    "a network or `unix`",
                    "networks are 10.0.0.0/8, 10.0.0.1; `unix` is every peer on a Unix socket",
                    value::trusted_peers,
                )
            })
        });
        let limits = self.optional(fields, "limits", Self::limits);
        let timeouts = self.optional(fields, "timeouts", Self::timeouts);
        let jwt = self.optional(fields, "jwt", |it, node| {
            it.named(node, "a map of verifiers", |it, node| {
                Some(it.verifier(node))
            })
        });
        let tokens = self.optional(fields, "tokens", Self::tokens);
        let state = self.optional(fields, "state", Self::state);
        let upstreams = self.optional(fields, "upstreams", |it, node| {
            it.named(node, "a map of upstreams", |it, node| {
                Some(it.upstream(node))
            })
        });
        let defaults = self.optional(fields, "defaults", Self::defaults);
        let routes = self.optional(fields, "routes", |it, node| {
            it.filled_list(node, "a list of routes", Self::route)
        });
        let tests = self.optional(fields, "tests", Self::policy_tests);
        let log = self.optional(fields, "log", Self::log);
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
            workers: workers.unwrap_or_else(|| Spanned::default_of(Workers::Auto)),
            listeners: listeners.unwrap_or_default(),
            trusted_proxies: trusted.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
            timeouts: timeouts.unwrap_or_default(),
            jwt: jwt.unwrap_or_default(),
            tokens,
            state,
            upstreams: upstreams.unwrap_or_default(),
            defaults: defaults.unwrap_or_default(),
            routes: routes.unwrap_or_default(),
            tests: tests.unwrap_or_default(),
            log: log.unwrap_or_default(),
        })
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
        let fields = self.fields(node, "a map", &["address", "redirect_to_https", "tls"])?;
        let folder = self.folder;
        let address = self.required(fields, "address", |it, node| {
            it.scalar(node, "an address", value::ADDRESSES, |text| {
                value::listen_address(text, folder)
            })
        });
        let mut redirect_to_https = Spanned::default_of(false);
        self.set(
            fields,
            "redirect_to_https",
            &mut redirect_to_https,
            Self::boolean,
        );
        let tls = self.optional(fields, "tls", Self::tls);
        let broken = self.errors.count() > before;
        Some(Listener {
            place: fields.place,
            broken,
            address: address?,
            redirect_to_https,
            tls,
        })
    }

    fn tls(&mut self, node: &Node) -> Option<Tls> {
        let fields = self.fields(node, "a map", &["certificates", "min_version"])?;
        let certificates = self.required(fields, "certificates", |it, node| {
            it.filled_list(node, "a list of certificates", |it, node| {
                let fields = it.fields(node, "a map", &["cert", "key"])?;
                let cert = it.required(fields, "cert", Self::file);
                let key = it.required(fields, "key", Self::file);
                Some(Certificate {
                    cert: cert?,
                    key: key?,
                })
            })
        });
        let mut min_version = Spanned::default_of(TlsVersion::V1_2);
        self.set(fields, "min_version", &mut min_version, |it, node| {
            it.choice(
                node,
                "a TLS version",
                &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)],
            )
        });
        Some(Tls {
            place: fields.place,
            certificates: certificates.unwrap_or_default(),
            min_version,
        })
    }

    fn limits(&mut self, node: &Node) -> Option<Limits> {
        let known = [
            "connections",
            "connections_per_ip",
            "header_bytes",
            "header_count",
            "uri_bytes",
            "body_bytes",
        ];
        let fields = self.fields(node, "a map", &known)?;
        let mut limits = Limits::default();
        let from_one = |it: &mut Self, node: &Node| it.integer(node, 1, u32::MAX);
        self.set(fields, "connections", &mut limits.connections, from_one);
        self.set(
            fields,
            "connections_per_ip",
            &mut limits.connections_per_ip,
            from_one,
        );
        self.set(fields, "header_bytes", &mut limits.header_bytes, Self::size);
        self.set(fields, "header_count", &mut limits.header_count, from_one);
        self.set(fields, "uri_bytes", &mut limits.uri_bytes, Self::size);
        self.set(
            fields,
            "body_bytes",
            &mut limits.body_bytes,
            Self::size_or_off,
        );
        Some(limits)
    }

    fn timeouts(&mut self, node: &Node) -> Option<Timeouts> {
        let known = [
            "header_read",
            "body_read",
            "send",
            "keep_alive",
            "tls_handshake",
            "shutdown",
            "shutdown_streams",
        ];
        let fields = self.fields(node, "a map", &known)?;
        let mut timeouts = Timeouts::default();
        self.set(
            fields,
            "header_read",
            &mut timeouts.header_read,
            Self::duration,
        );
        self.set(fields, "body_read", &mut timeouts.body_read, Self::duration);
        self.set(fields, "send", &mut timeouts.send, Self::duration);
        self.set(
            fields,
            "keep_alive",
            &mut timeouts.keep_alive,
            Self::duration,
        );
        self.set(
            fields,
            "tls_handshake",
            &mut timeouts.tls_handshake,
            Self::duration,
        );
        self.set(
            fields,
            "shutdown",
            &mut timeouts.shutdown,
            Self::duration_or_zero,
        );
        self.set(
            fields,
            "shutdown_streams",
            &mut timeouts.shutdown_streams,
            Self::duration_or_zero,
        );
        Some(timeouts)
    }

    fn upstream(&mut self, node: &Node) -> Upstream {
        let before = self.errors.count();
        let seconds = |n| Spanned::default_of(Duration::from_secs(n));
        let mut upstream = Upstream {
            place: node.place,
            broken: false,
            servers: Vec::new(),
            balance: Spanned::default_of(Balance::RoundRobin),
            connect: seconds(2),
            response: seconds(60),
            idle: seconds(60),
            keep_alive: Spanned::default_of(UpstreamSettings::KEEP_ALIVE),
            fresh: Spanned::default_of(UpstreamSettings::FRESH),
            buffer: Buffering::Default,
            underscores: Spanned::default_of(false),
        };
        let known = [
            "servers",
            "balance",
            "timeouts",
            "connections",
            "buffer",
            "underscores",
        ];
        if matches!(node.kind, Kind::Scalar(_)) {
            upstream.servers.extend(self.server(node));
        } else if let Some(fields) = self.fields(node, "a URL or a map", &known) {
            let servers = self.required(fields, "servers", |it, node| {
                it.filled_list(node, "a list of servers", Self::server_or_map)
            });
            upstream.servers = servers.unwrap_or_default();
            self.set(fields, "balance", &mut upstream.balance, |it, node| {
                it.choice(
                    node,
                    "a way to balance",
                    &[("round_robin", Balance::RoundRobin)],
                )
            });
            let times = fields.get("timeouts");
            let times =
                times.and_then(|it| self.fields(it, "a map", &["connect", "response", "idle"]));
            if let Some(times) = times {
                self.set(times, "connect", &mut upstream.connect, Self::duration);
                let response = &mut upstream.response;
                self.set(times, "response", response, Self::duration_or_off);
                self.set(times, "idle", &mut upstream.idle, Self::duration);
            }
            let known = ["keep_alive", "fresh"];
            let connections = fields.get("connections");
            let connections = connections.and_then(|it| self.fields(it, "a map", &known));
            if let Some(fields) = connections {
                let keep_alive = &mut upstream.keep_alive;
                self.set(fields, "keep_alive", keep_alive, |it, node| {
                    it.integer(node, 0, 65_535)
                });
                let fresh = &mut upstream.fresh;
                self.set(fields, "fresh", fresh, Self::duration_or_zero);
            }
            self.set(fields, "buffer", &mut upstream.buffer, Self::buffer);
            self.set(
                fields,
                "underscores",
                &mut upstream.underscores,
                |it, node| {
                    it.choice(
                        node,
                        "what becomes of header names with `_`",
                        &[("remove", false), ("pass", true)],
                    )
                },
            );
        }
        upstream.broken = self.errors.count() > before;
        upstream
    }

    fn server_or_map(&mut self, node: &Node) -> Option<Spanned<Server>> {
        if matches!(node.kind, Kind::Scalar(_)) {
            return self.server(node);
        }
        let fields = self.fields(node, "a URL or a map", &["url"])?;
        self.required(fields, "url", Self::server)
    }

    fn buffer(&mut self, node: &Node) -> Option<Buffering> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off") {
            return Some(Buffering::Off);
        }
        let fields = self.fields(
            node,
            "`off` or a map",
            &["request", "response", "spool", "spool_bytes"],
        )?;
        let mut buffer = Buffer {
            place: fields.place,
            request: Spanned::default_of(64 << 10),
            response: Spanned::default_of(64 << 10),
            spool: None,
            spool_bytes: Spanned::default_of(1 << 30),
        };
        self.set(fields, "request", &mut buffer.request, Self::size_or_zero);
        self.set(fields, "response", &mut buffer.response, Self::size_or_zero);
        buffer.spool = self.optional(fields, "spool", Self::file);
        self.set(fields, "spool_bytes", &mut buffer.spool_bytes, Self::size);
        Some(Buffering::Own(buffer))
    }

    fn log(&mut self, node: &Node) -> Option<Log> {
        let fields = self.fields(node, "a map", &["level", "access"])?;
        let mut log = Log::default();
        let levels = [
            ("error", Level::Error),
            ("warn", Level::Warn),
            ("info", Level::Info),
            ("debug", Level::Debug),
        ];
        self.set(fields, "level", &mut log.level, |it, node| {
            it.choice(node, "a level", &levels)
        });
        self.set(fields, "access", &mut log.access, Self::access_log);
        Some(log)
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
        let fields = self.fields(node, "`off` or a map", &["to", "format", "user"])?;
        let mut to = Spanned::default_of(LogTarget::Stdout);
        let mut format = Spanned::default_of(LogFormat::Json);
        let folder = self.folder;
        self.set(fields, "to", &mut to, |it, node| {
            it.scalar(node, "stdout, stderr or a file", "", |text| {
                value::log_target(text, folder)
            })
        });
        self.set(fields, "format", &mut format, |it, node| {
            it.choice(
                node,
                "a format",
                &[("json", LogFormat::Json), ("combined", LogFormat::Combined)],
            )
        });
        let user = self.optional(fields, "user", Self::filled_text);
        Some(AccessLog::On { to, format, user })
    }
}
