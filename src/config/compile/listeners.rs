//! The listeners: which ports they redirect to, who may send PROXY headers, who may connect to Unix sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Compiler, acme};
use crate::config::parsed::{self, RedirectToHttps, Spanned};
use crate::net::client::TrustedProxies;
use crate::snapshot::{ListenAddress, Listener, SocketAccess};

/// The mode of a Unix socket that says nothing else: its owner's alone, since whoever connects is believed.
const MODE: u32 = 0o600;
/// The permission bit with which any user may connect.
const OTHERS_CONNECT: u32 = 0o002;

impl Compiler<'_> {
    /// The listeners. Reports those that cannot be told apart, or that ask for what they cannot have.
    pub(super) fn listeners(
        &mut self,
        gateway: &parsed::Gateway,
        trusted: &TrustedProxies,
        orders: &mut acme::Orders,
    ) -> Vec<Arc<Listener>> {
        let parsed = &gateway.listeners;
        let mut listeners: Vec<Arc<Listener>> = Vec::new();
        for listener in parsed.iter().filter(|listener| !listener.broken) {
            let address = match &listener.address.value {
                parsed::ListenAddress::Tcp(address) if address.port() == 0 => {
                    let others = listeners.iter().filter(|other| {
                        matches!(other.address, ListenAddress::AnyPort(ip, _) if ip == address.ip())
                    });
                    ListenAddress::AnyPort(address.ip(), others.count())
                }
                parsed::ListenAddress::Tcp(address) => ListenAddress::Tcp(*address),
                parsed::ListenAddress::Unix(path) => ListenAddress::Unix(path.clone()),
                parsed::ListenAddress::Inherited(name) => ListenAddress::Inherited(name.clone()),
            };
            if listeners.iter().any(|other| other.address == address) {
                let problem = format!("{address} has two listeners");
                self.errors.at(listener.address.place, problem);
                continue;
            }
            let redirect_to_https = self.redirect_to_https(listener, parsed);
            let proxy_protocol = self.proxy_protocol(listener, trusted);
            let access = self.access(listener);
            let tls = (listener.tls.as_ref()).map(|tls| self.tls(tls, gateway, orders));
            let mut kind = match (&tls, redirect_to_https) {
                (Some(Some(tls)), _) => match tls.clients() {
                    Some(clients) if clients.are_required() => {
                        "TLS, client certificates required".to_owned()
                    }
                    Some(_) => "TLS, client certificates".to_owned(),
                    None => "TLS".to_owned(),
                },
                (Some(None), _) => "TLS".to_owned(),
                (None, Some(port)) => format!("plain, redirects to https on port {port}"),
                (None, None) => "plain".to_owned(),
            };
            if proxy_protocol {
                kind.push_str(", PROXY protocol");
            }
            if matches!(address, ListenAddress::Unix(_)) {
                kind.push_str(&format!(", mode {:04o}", access.mode));
                let group = listener.group.iter();
                kind.extend(group.map(|group| format!(", group {}", group.value)));
            }
            self.summary.insert(format!("listener {address}"), kind);
            let tls = match tls {
                Some(None) => continue,
                Some(Some(tls)) => Some(tls),
                None => None,
            };
            listeners.push(Arc::new(Listener {
                address,
                tls,
                redirect_to_https,
                proxy_protocol,
                access,
            }));
        }
        self.same_port_twice(parsed);
        listeners
    }

    /// The TLS port that requests are redirected to. Reports a listener that has TLS itself, and where there is none.
    fn redirect_to_https(
        &mut self,
        listener: &parsed::Listener,
        all: &[parsed::Listener],
    ) -> Option<u16> {
        let Spanned { value, place, .. } = listener.redirect_to_https;
        if value == RedirectToHttps::Off {
            return None;
        }
        if listener.tls.is_some() {
            self.errors
                .at(place, "this listener already uses TLS")
                .hint("`redirect_to_https` is for a listener without `tls`");
            return None;
        }
        let port = match value {
            RedirectToHttps::Off => return None,
            RedirectToHttps::Port(port) => return Some(port),
            RedirectToHttps::FirstTls => {
                let tls = all.iter().filter(|listener| listener.tls.is_some());
                let mut ports = tls.filter_map(|listener| match &listener.address.value {
                    parsed::ListenAddress::Tcp(address) => Some(address.port()),
                    parsed::ListenAddress::Unix(_) | parsed::ListenAddress::Inherited(_) => None,
                });
                ports.next().filter(|port| *port != 0)
            }
        };
        if port.is_none() && !self.errors.is_unread("listeners") {
            self.errors
                .at(place, "there is no TLS listener to redirect to")
                .hint("add a listener with `tls` and a fixed port, or write the port that clients see: 443");
        }
        port
    }

    /// `[::]:80` accepts IPv4 too, and so conflicts with `0.0.0.0:80`.
    fn same_port_twice(&mut self, parsed: &[parsed::Listener]) {
        let tcp = |listener: &parsed::Listener| match listener.address.value {
            parsed::ListenAddress::Tcp(address) if address.port() != 0 => Some(address),
            parsed::ListenAddress::Tcp(_)
            | parsed::ListenAddress::Unix(_)
            | parsed::ListenAddress::Inherited(_) => None,
        };
        let addresses: Vec<SocketAddr> = parsed.iter().filter_map(tcp).collect();
        for listener in parsed {
            let Some(address) = tcp(listener).filter(SocketAddr::is_ipv4) else {
                continue;
            };
            let both = |other: &&SocketAddr| {
                other.is_ipv6() && other.ip().is_unspecified() && other.port() == address.port()
            };
            if let Some(other) = addresses.iter().find(both) {
                let problem = format!("{other} accepts IPv4 too, and so conflicts with {address}");
                self.errors
                    .at(listener.address.place, problem)
                    .hint("leave one of them out");
            }
        }
    }

    /// Whether connections begin with a PROXY header. Reports a TCP listener where no peer may send one.
    pub(super) fn proxy_protocol(
        &mut self,
        listener: &parsed::Listener,
        trusted: &TrustedProxies,
    ) -> bool {
        let is_on = listener.proxy_protocol.value;
        if is_on
            && trusted.networks.is_empty()
            && matches!(listener.address.value, parsed::ListenAddress::Tcp(_))
        {
            let problem = "nobody may speak it: `trusted_proxies` names no network";
            self.errors
                .at(listener.proxy_protocol.place, problem)
                .hint("name the load balancer's addresses in `trusted_proxies`");
        }
        is_on
    }

    /// Who may connect to a Unix socket. Reports settings for one on another listener.
    pub(super) fn access(&mut self, listener: &parsed::Listener) -> SocketAccess {
        let mode = listener.mode.as_ref();
        let group = listener.group.as_ref();
        if !matches!(listener.address.value, parsed::ListenAddress::Unix(_)) {
            let mode = mode.map(|mode| ("mode", mode.place));
            let group = group.map(|group| ("group", group.place));
            for (key, place) in mode.into_iter().chain(group) {
                let problem = format!("`{key}` is for Unix sockets that the gateway makes");
                let hint = match listener.address.value {
                    parsed::ListenAddress::Inherited(_) => {
                        "systemd makes this one: `SocketMode=` and `SocketGroup=` of its unit"
                    }
                    parsed::ListenAddress::Tcp(_) | parsed::ListenAddress::Unix(_) => {
                        "a TCP listener has no file; a firewall decides who connects"
                    }
                };
                self.errors.at(place, problem).hint(hint);
            }
            return SocketAccess::default();
        }
        let access = SocketAccess {
            mode: mode.map_or(MODE, |mode| mode.value),
            owner: self.user.as_ref().map(|user| user.uid),
            group: group
                .and_then(|group| self.group(group))
                .or_else(|| self.user.as_ref().map(|user| user.gid))
                .unwrap_or_else(|| rustix::process::getegid().as_raw()),
        };
        if let Some(mode) = mode.filter(|_| access.mode & OTHERS_CONNECT != 0)
            && listener.proxy_protocol.value
        {
            let warning = "every user of this machine may connect here, and name any address as the client: write \
                           mode: \"0660\", and the load balancer's `group`";
            self.errors.warn(mode.place, warning);
        }
        access
    }
}
