//! The parts of a message: bytes, paths, methods, fields, bodies, ids, and the reasons for refusing one. Framing on a
//! connection is in `wire`, access control in `auth`.

pub(crate) mod accept;
pub(crate) mod alphabet;
pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod error_pages;
pub(crate) mod fields;
pub(crate) mod method;
pub(crate) mod path;
pub(crate) mod reject;
pub(crate) mod request_id;
