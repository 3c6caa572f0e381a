//! Transport: streams, TLS, names and addresses, limits, and the gateway's own small requests. It knows nothing of
//! routes, tokens or the configuration.

pub(crate) mod addresses;
pub(crate) mod client;
pub(crate) mod der;
pub(crate) mod dial;
pub(crate) mod fetch;
pub(crate) mod limits;
pub(crate) mod resolve;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod url;
