//! What a message is made of: bytes, paths, methods, fields, bodies, ids, and the reasons for which one is refused.
//! How it is framed on a connection is said in `wire`, who may send it in `auth`.

pub(crate) mod alphabet;
pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod fields;
pub(crate) mod method;
pub(crate) mod path;
pub(crate) mod reject;
pub(crate) mod request_id;
