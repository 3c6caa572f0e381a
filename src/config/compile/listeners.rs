//! What a listener demands of its connections and its socket, beside its address and TLS.

use super::Compiler;
use crate::config::parsed;
use crate::net::client::TrustedProxies;

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
            && matches!(listener.address.value, parsed::ListenAddress::Tcp(_))
        {
            let problem = "nobody may speak it: `trusted_proxies` names no network";
            self.errors
                .at(listener.proxy_protocol.place, problem)
                .hint("name the load balancer's addresses in `trusted_proxies`");
        }
        is_on
    }
}
