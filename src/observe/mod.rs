//! Observability: access records and the operator's log. The texts for clients and operators about a refusal are in
//! `message::reject`.

pub(crate) mod access_log;
pub(crate) mod log;
