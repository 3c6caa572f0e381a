//! What a listener demands of its connections and its socket, beside its address and TLS.

use super::Compiler;
use crate::config::parsed::{self, ListenAddress};
use crate::net::client::TrustedProxies;
use crate::snapshot::SocketAccess;

/// The mode of a Unix socket that says nothing else: its owner's alone, since whoever connects is believed.
const MODE: u32 = 0o600;
/// The permission bit with which any user may connect.
const OTHERS_CONNECT: u32 = 0o002;

impl Compiler<'_> {
    /// Whether connections begin with a PROXY header. Reports a TCP listener where no peer may send one.
    pub(super) fn proxy_protocol(
        &mut self,
        listener: &parsed::Listener,
        trusted: &TrustedProxies,
    ) -> bool {
        let is_on = listener.proxy_protocol.value;
        if is_on
            && trusted.networks.is_empty()
            && matches!(listener.address.value, ListenAddress::Tcp(_))
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
        if !matches!(listener.address.value, ListenAddress::Unix(_)) {
            let mode = mode.map(|mode| ("mode", mode.place));
            let group = group.map(|group| ("group", group.place));
            for (key, place) in mode.into_iter().chain(group) {
                let problem = format!("`{key}` is for Unix sockets");
                self.errors
                    .at(place, problem)
                    .hint("a TCP listener has no file; a firewall decides who connects");
            }
            return SocketAccess::default();
        }
        let access = SocketAccess {
            mode: mode.map_or(MODE, |mode| mode.value),
            owner: None,
            group: group
                .and_then(|group| self.group(group))
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
