//! Decodes `upstreams`: app servers, and how requests are sent to them.

use super::decode::Decoder;
use super::keys;
use super::node::{Kind, Node};
use super::parsed::{Balance, Buffer, Buffering, Upstream, UpstreamServer};

impl Decoder<'_> {
    /// One of `upstreams`; a URL alone is short for a map with `servers`.
    pub(crate) fn upstream(&mut self, node: &Node) -> Option<Upstream> {
        let before = self.errors.count();
        let alone = matches!(node.kind, Kind::Scalar(_));
        let servers = if alone {
            self.server_of(node).map(|server| vec![server])
        } else {
            let fields = self.fields(node, "a URL or a map", &keys::UPSTREAM);
            fields.and_then(|fields| {
                self.required(fields, "servers", |it, node| {
                    it.filled_list(node, "a list of servers", Self::server_of)
                })
            })
        };
        let map = node.as_map();
        let fields = self.known_fields(&map, &keys::UPSTREAM)?;
        let balance = self.value(fields, "balance", |it, node| {
            let known = [
                ("round_robin", Balance::RoundRobin),
                ("least_requests", Balance::LeastRequests),
                ("random_two", Balance::RandomTwo),
            ];
            it.choice(node, "a way to balance", &known)
        });
        let (connect, response, idle) = self.value(fields, "timeouts", |it, node| {
            let fields = it.fields(node, "a map", &keys::UPSTREAM_TIMEOUTS)?;
            Some((
                it.value(fields, "connect", Self::duration)?,
                it.value(fields, "response", Self::duration_or_off)?,
                it.value(fields, "idle", Self::duration)?,
            ))
        })?;
        let (keep_alive, fresh) = self.value(fields, "connections", |it, node| {
            let fields = it.fields(node, "a map", &keys::CONNECTIONS)?;
            let keep_alive = |it: &mut Self, node: &Node| it.integer(node, 0, 65_535);
            Some((
                it.value(fields, "keep_alive", keep_alive)?,
                it.value(fields, "fresh", Self::duration_or_zero)?,
            ))
        })?;
        let buffer = self.optional(fields, "buffer", Self::buffer);
        let underscores = self.value(fields, "underscores", |it, node| {
            let known = [("remove", false), ("pass", true)];
            it.choice(node, "how header names with `_` are treated", &known)
        });
        Some(Upstream {
            place: node.place,
            broken: self.errors.count() > before,
            servers: servers.unwrap_or_default(),
            balance: balance?,
            connect,
            response,
            idle,
            keep_alive,
            fresh,
            buffer: buffer.unwrap_or(Buffering::Default),
            underscores: underscores?,
        })
    }

    /// One of `servers`; a URL alone is short for a map with `url`.
    fn server_of(&mut self, node: &Node) -> Option<UpstreamServer> {
        let alone = matches!(node.kind, Kind::Scalar(_));
        let url = if alone {
            self.server(node)
        } else {
            let fields = self.fields(node, "a URL or a map", &keys::UPSTREAM_SERVER)?;
            self.required(fields, "url", Self::server)
        };
        let map = node.as_map();
        let fields = self.known_fields(&map, &keys::UPSTREAM_SERVER)?;
        let weight = self.value(fields, "weight", |it, node| it.integer(node, 0, 256));
        let backup = self.value(fields, "backup", Self::boolean);
        Some(UpstreamServer {
            url: url?,
            weight: weight?,
            backup: backup?,
        })
    }

    fn buffer(&mut self, node: &Node) -> Option<Buffering> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off") {
            return Some(Buffering::Off);
        }
        let fields = self.fields(node, "`off` or a map", &keys::BUFFER)?;
        Some(Buffering::Own(Buffer {
            place: fields.place,
            request: self.value(fields, "request", Self::size_or_zero)?,
            response: self.value(fields, "response", Self::size_or_zero)?,
            spool: self.optional(fields, "spool", Self::file),
            spool_bytes: self.value(fields, "spool_bytes", Self::size)?,
        }))
    }
}
