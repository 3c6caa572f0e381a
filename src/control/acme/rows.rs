//! What ACME keeps in `state`: accounts, keys, certificates, orders in progress, and when to try again. How they are kept is
//! `folder`'s and `shared`'s matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An account at a directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct AccountRow {
    /// The directory's URL.
    pub(crate) directory: String,
    /// The private key, PKCS#8 in base64url.
    pub(crate) key: String,
    /// The account's URL; without one the directory has not confirmed it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// The contact that the directory was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
}

/// What is known about a certificate besides itself. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Row {
    /// Its names.
    pub(crate) names: Vec<String>,
    /// The URL of the directory that issued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<String>,
    /// When to try or to look again.
    pub(crate) next: u64,
    /// How many attempts failed in a row.
    pub(crate) failures: u32,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// How many validations failed in a row; decides which challenge is next.
    pub(crate) refused: u32,
    /// The challenge that last succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) challenge: Option<String>,
    /// Whether attempts go to the staging directory until one succeeds there.
    pub(crate) rehearses: bool,
    /// The order in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<OrderRow>,
    /// Until when directories asked to be left alone, by their URLs, where there are others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) held: BTreeMap<String, u64>,
    /// When the last order was placed.
    pub(crate) ordered: u64,
    /// The window in which the directory suggests to renew it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<WindowRow>,
    /// When to ask for a window again.
    pub(crate) again: u64,
    /// When a window last led to an order.
    pub(crate) by_window: u64,
    /// Whether somebody asked to renew it, and it is not yet.
    pub(crate) asked: bool,
    /// When to renew it without a window.
    pub(crate) renew: u64,
    /// When it expires.
    pub(crate) ends: u64,
    /// When the last attempt failed.
    pub(crate) tried: u64,
    /// Whose certificate it replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) yielded: Option<YieldedRow>,
}

/// A certificate that was replaced by one with other names.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct YieldedRow {
    /// Its names.
    pub(crate) names: Vec<String>,
    /// Until when gateways that still want these leave the other one alone.
    pub(crate) until: u64,
}

impl Row {
    /// Whether its certificate has all these names.
    pub(crate) fn covers(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

/// An order in progress.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct OrderRow {
    /// Its URL.
    pub(crate) url: String,
    /// The directory's URL.
    pub(crate) directory: String,
    /// The account's URL.
    pub(crate) account: String,
}

/// A window for renewal (RFC 9773).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct WindowRow {
    /// The certificate that it was fetched for.
    pub(crate) id: String,
    /// Its beginning.
    pub(crate) start: u64,
    /// Its end.
    pub(crate) end: u64,
    /// The time that was chosen in it.
    pub(crate) chosen: u64,
}

/// A certificate and its key, PEM.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Pem {
    /// The chain.
    pub(crate) chain: Vec<u8>,
    /// The private key.
    pub(crate) key: Vec<u8>,
}

/// Where a certificate is kept: below its directory's host, by its first name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Place {
    /// The directory's host, with its port where that is not 443.
    pub(crate) host: String,
    /// The first name; a wildcard's star is `_`.
    pub(crate) name: String,
}

impl Place {
    /// The place for a directory with this authority, and a certificate with this first name.
    pub(crate) fn new(authority: &str, name: &str) -> Self {
        Self {
            host: file_name(authority),
            name: file_name(name),
        }
    }
}

/// A name as a file's: letters, digits, dots and dashes stay, and anything else is `_`.
pub(super) fn file_name(name: &str) -> String {
    let plain = |letter: char| {
        let stays = letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
        if stays { letter } else { '_' }
    };
    let name: String = name.to_ascii_lowercase().chars().map(plain).collect();
    match name.strip_prefix('.') {
        // Neither `.`, `..`, nor a hidden file.
        Some(rest) => format!("_{rest}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        for (name, file) in [
            ("a.test", "a.test"),
            ("*.a.test", "_.a.test"),
            ("../../etc", "_._.._etc"),
            ("..", "_."),
            (".", "_"),
            ("[::1]:14000", "___1__14000"),
            ("A.Test", "a.test"),
        ] {
            assert_eq!(file_name(name), file, "{name}");
        }
    }
}
