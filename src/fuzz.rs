//! The targets of `fuzz/`: each makes a case from its bytes and calls the property that `cargo test` checks, too. Not
//! a public API.

use http::Method;

use crate::message::path;
use crate::net::tls;
use crate::{auth, config, files, proxy, route, server, wire};

/// The settings of a case, which are its first bytes, and the rest. In the seeds they are digits.
fn settings<const COUNT: usize>(input: &[u8]) -> Option<([u8; COUNT], &[u8])> {
    let (settings, rest) = input.split_first_chunk()?;
    Some((*settings, rest))
}

/// An app's response: method, end and splits, then its bytes.
pub fn answer(input: &[u8]) {
    let Some(([request, end, seed], bytes)) = settings(input) else {
        return;
    };
    let method = match request % 3 {
        0 => Method::GET,
        1 => Method::HEAD,
        _ => Method::POST,
    };
    proxy::answer_holds(&method, bytes, seed, end % 2 == 0, end % 8 == 7);
}

/// A client's request: end and splits, then its bytes.
pub fn request(input: &[u8]) {
    if let Some(([end, seed], bytes)) = settings(input) {
        wire::properties::request_holds(bytes, seed, end % 2 == 0);
    }
}

/// The decisions of an HTTP/2 client.
pub fn client(input: &[u8]) {
    wire::client_holds(input);
}

/// A request's path and query.
pub fn path(input: &[u8]) {
    path::holds(input);
    route::properties::target_holds(input);
}

/// The length of a file, in eight digits, then a `Range` field.
pub fn range(input: &[u8]) {
    if let Some((digits, value)) = settings::<8>(input) {
        let len = digits.iter().fold(0_u64, |len, digit| {
            len.wrapping_mul(10).wrapping_add(u64::from(digit & 15))
        });
        files::range_holds(value, len);
    }
}

/// The beginning of a connection that a PROXY header precedes.
pub fn preamble(input: &[u8]) {
    server::preamble::properties::preamble_holds(input);
}

/// A token.
pub fn token(input: &[u8]) {
    auth::token_holds(input);
}

/// A session ticket: how it is damaged and where, then what is in it.
pub fn ticket(input: &[u8]) {
    tls::ticket_holds(input);
}

/// A file of certificates, revocation lists or keys: which kind, then what is in it.
pub fn material(input: &[u8]) {
    tls::material_holds(input);
    auth::keys_hold(input);
}

/// A configuration file.
pub fn config(input: &[u8]) {
    config::text_holds(input);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_seeds_hold() {
        for name in [
            "answer", "request", "client", "preamble", "path", "range", "token", "ticket",
            "material", "config",
        ] {
            let target = match name {
                "answer" => answer,
                "request" => request,
                "client" => client,
                "preamble" => preamble,
                "path" => path,
                "range" => range,
                "token" => token,
                "ticket" => ticket,
                "material" => material,
                _ => config,
            };
            let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("fuzz/seeds")
                .join(name);
            let seeds: Vec<_> = fs::read_dir(directory).unwrap().collect();
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                target(&fs::read(seed.unwrap().path()).unwrap());
            }
        }
    }
}
