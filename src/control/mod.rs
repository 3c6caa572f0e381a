//! The control side: what runs beside requests, on the main thread or on threads of its own.
//! Nothing here is waited for by a request.

pub(crate) mod issuers;
pub(crate) mod reload;
