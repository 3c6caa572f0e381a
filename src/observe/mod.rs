//! What is told of requests and of the gateway: access records, and the operator's log.
//! Who is told what of a refusal is said in `message::reject`.

pub(crate) mod access_log;
pub(crate) mod log;
