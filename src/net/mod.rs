//! What messages travel on: streams, TLS, names and addresses, limits, and the gateway's own small requests.
//! Knows no route, no token and no configuration.

pub(crate) mod client;
pub(crate) mod der;
pub(crate) mod dial;
pub(crate) mod fetch;
pub(crate) mod limits;
pub(crate) mod resolve;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod url;
