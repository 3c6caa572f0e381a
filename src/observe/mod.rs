//! Observability: access records, the operator's log, counters. The texts for clients and operators about a refusal are in
//! `message::reject`.

pub(crate) mod access_log;
pub(crate) mod counts;
pub(crate) mod log;
