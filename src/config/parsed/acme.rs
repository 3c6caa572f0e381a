//! `acme` of a listener's `tls`, as types.

use std::path::PathBuf;
use std::time::Duration;

use super::{Secret, Spanned};
use crate::config::place::Place;
use crate::net::url::Url;
use crate::snapshot::{ChallengeKind, KeyKind};

/// `tls.acme`.
#[derive(Clone, Debug)]
pub(crate) struct Acme {
    /// Its place.
    pub(crate) place: Place,
    /// Whether an error was reported inside.
    pub(crate) broken: bool,
    /// The certificates' names, each in lower case; without them the hosts of all routes.
    pub(crate) domains: Option<Vec<Vec<Spanned<String>>>>,
    /// The directories, in the order in which they are tried; at least one.
    pub(crate) directories: Vec<Spanned<Directory>>,
    /// A PEM file with trusted roots for the directory's server.
    pub(crate) ca: Option<Spanned<PathBuf>>,
    /// The contact.
    pub(crate) email: Option<Spanned<String>>,
    /// The external account.
    pub(crate) eab: Option<Eab>,
    /// The challenges that may be used.
    pub(crate) challenges: Option<Vec<Spanned<ChallengeKind>>>,
    /// Who changes the DNS.
    pub(crate) dns: Option<Dns>,
    /// The directory's profile.
    pub(crate) profile: Option<Spanned<String>>,
    /// The kind of key; P-256.
    pub(crate) key: Spanned<KeyKind>,
}

/// `directory`: a word, or a URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Directory {
    /// Its URL.
    pub(crate) url: Url,
    /// Where to rehearse after a failed validation.
    pub(crate) staging: Option<Url>,
    /// Its word, if it has one.
    pub(crate) word: Option<&'static str>,
    /// Whether it needs an external account.
    pub(crate) needs_eab: bool,
}

/// `dns`.
#[derive(Clone, Debug)]
pub(crate) struct Dns {
    /// The program.
    pub(crate) hook: Spanned<PathBuf>,
    /// How long a change takes; 60 s.
    pub(crate) wait: Spanned<Duration>,
}

/// `eab`.
#[derive(Clone, Debug)]
pub(crate) struct Eab {
    /// The account's name.
    pub(crate) kid: Spanned<String>,
    /// Its key, base64url.
    pub(crate) hmac: Spanned<Secret>,
}
