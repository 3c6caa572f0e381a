//! `admin`: who may reach the admin listener, and with which token.

use std::sync::Arc;

use super::Compiler;
use super::acme::Orders;
use crate::config::parsed::{self, Spanned};
use crate::snapshot::{AdminSettings, ListenAddress, Listener};

/// The shortest token, in characters.
const SHORTEST: usize = 24;

impl Compiler<'_> {
    /// The admin listener and the control socket, where the configuration says something of them.
    pub(super) fn admin(
        &mut self,
        gateway: &parsed::Gateway,
        listeners: &[Arc<Listener>],
        orders: &mut Orders,
    ) -> Option<Arc<AdminSettings>> {
        let parsed = gateway.admin.as_ref().filter(|admin| !admin.broken)?;
        self.admin_tokens(parsed);
        let address = parsed.address.as_ref().map(|address| match &address.value {
            parsed::ListenAddress::Tcp(it) if it.port() == 0 => ListenAddress::AnyPort(it.ip(), 0),
            parsed::ListenAddress::Tcp(it) => ListenAddress::Tcp(*it),
            parsed::ListenAddress::Unix(path) => ListenAddress::Unix(path.clone()),
            parsed::ListenAddress::Inherited(name) => ListenAddress::Inherited(name.clone()),
        });
        if let (Some(written), Some(address)) = (&parsed.address, &address) {
            if listeners.iter().any(|it| is_taken(&it.address, address)) {
                self.errors
                    .at(written.place, "this address is a listener's too")
                    .hint("the admin listener has an address of its own");
            }
            self.admin_reach(parsed, written, address);
        }
        if let Some(socket) = &parsed.socket {
            let file = ListenAddress::Unix(socket.value.clone());
            let others = listeners.iter().map(|it| &it.address).chain(&address);
            if others.into_iter().any(|other| *other == file) {
                self.errors
                    .at(socket.place, "this path is a listener's too");
            }
        }
        let tls = match &parsed.tls {
            Some(tls) => Some(self.tls(tls, gateway, orders)?),
            None => None,
        };
        if let Some(address) = &address {
            let tokens = match (&parsed.token, &parsed.read_token) {
                (Some(_), Some(_)) => "two tokens",
                (Some(_), None) => "a token",
                (None, _) => "no token",
            };
            let plain = if tls.is_some() { "TLS" } else { "plain" };
            let words = format!("{address}, {plain}, {tokens}");
            self.summary.insert("admin".to_owned(), words);
        }
        let text = |token: &Option<Spanned<String>>| Some(token.as_ref()?.value.clone());
        Some(Arc::new(AdminSettings {
            address,
            token: text(&parsed.token),
            read_token: text(&parsed.read_token),
            hosts: parsed.hosts.iter().map(|it| it.value.clone()).collect(),
            tls,
            socket: parsed.socket.as_ref().map(|socket| socket.value.clone()),
        }))
    }

    /// Reports tokens that are too short, equal, or for nothing.
    fn admin_tokens(&mut self, parsed: &parsed::Admin) {
        let tokens = [("token", &parsed.token), ("read_token", &parsed.read_token)];
        for (key, token) in tokens {
            let Some(token) = token else { continue };
            if parsed.address.is_none() {
                let problem = format!("`{key}` is for the admin listener, which has no `address`");
                self.errors.at(token.place, problem).hint(
                    "the control socket needs none: only root and the user that serves may use it",
                );
            } else if token.value.chars().count() < SHORTEST {
                self.errors
                    .at(
                        token.place,
                        format!("a token has at least {SHORTEST} characters"),
                    )
                    .hint("openssl rand -base64 32");
            } else if !token.value.bytes().all(|byte| byte.is_ascii_graphic()) {
                self.errors.at(
                    token.place,
                    "a token is of ASCII without spaces: it is sent in a header field",
                );
            }
        }
        match (&parsed.token, &parsed.read_token) {
            (Some(token), Some(reads)) if token.value == reads.value => {
                self.errors
                    .at(reads.place, "`token` and `read_token` are equal")
                    .hint("whoever has the one that may read could change");
            }
            (None, Some(reads)) => {
                self.errors
                    .at(reads.place, "`read_token` needs a `token`")
                    .hint("without one anybody on this machine may change, and only some may read");
            }
            (Some(_) | None, _) => {}
        }
        if parsed.address.is_none() {
            let hosts = parsed.hosts.first().map(|host| ("hosts", host.place));
            let tls = parsed.tls.as_ref().map(|tls| ("tls", tls.place));
            for (key, place) in hosts.into_iter().chain(tls) {
                let problem = format!("`{key}` is for the admin listener, which has no `address`");
                self.errors.at(place, problem);
            }
        }
    }

    /// Reports an address that others can reach without a token, and warns of a token that others can read.
    fn admin_reach(
        &mut self,
        parsed: &parsed::Admin,
        written: &Spanned<parsed::ListenAddress>,
        address: &ListenAddress,
    ) {
        let ip = match address {
            ListenAddress::Tcp(address) => address.ip(),
            ListenAddress::AnyPort(ip, _) => *ip,
            ListenAddress::Unix(_) | ListenAddress::Inherited(_) => return,
        };
        if ip.is_loopback() {
            return;
        }
        if parsed.token.is_none() {
            self.errors
                .at(
                    written.place,
                    "anyone who can reach it could read and reload: `token` is missing",
                )
                .hint("add a `token`, or listen on 127.0.0.1");
        } else if parsed.tls.is_none() {
            let warning =
                "the admin listener's token is sent in plain text over the network: add `tls`";
            self.errors.warn(written.place, warning);
        }
    }
}

/// Whether a listener has this address, or all addresses of its port.
fn is_taken(listener: &ListenAddress, admin: &ListenAddress) -> bool {
    match (listener, admin) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            let any = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() == other.port() && (any || one.ip() == other.ip())
        }
        (ListenAddress::Unix(one), ListenAddress::Unix(other)) => one == other,
        (_, _) => false,
    }
}
