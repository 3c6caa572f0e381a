//! What keeps load away from an explained request: the addresses of its route, and the limits that would count it.

use std::net::IpAddr;

use http::HeaderMap;

use super::Decision;
use crate::limit::Sender;
use crate::message::path::RequestPath;
use crate::message::reject::Reject;
use crate::route::Route;

impl Decision {
    /// Whether the client's address is allowed, and which limits would count its request. Nothing is counted.
    ///
    /// # Errors
    /// `AddressRefused`.
    pub(super) fn limiting(
        &mut self,
        route: &Route,
        client: Option<IpAddr>,
        headers: &HeaderMap,
        path: &RequestPath,
    ) -> Result<(), Reject> {
        if let Some(addresses) = &route.addresses {
            let shown = client.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
            let allowed = addresses.allows(client);
            let word = if allowed { "allowed" } else { "not allowed" };
            self.say("addresses", format!("{shown} is {word}"));
            if !allowed {
                return Err(Reject::AddressRefused);
            }
        }
        let sender = Sender {
            client,
            headers,
            path,
            permit: None,
        };
        for line in route.limits.iter().flat_map(|it| it.explain(&sender)) {
            self.say("limit", line);
        }
        Ok(())
    }
}
