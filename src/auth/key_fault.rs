//! `KeyFault`: why the keys of a verifier are refused, as messages for the operator. No message contains a byte of a
//! key.

use super::algorithm::{Algorithm, AlgorithmSet};

/// Why the keys of a verifier are refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum KeyFault {
    /// No key at all.
    #[error(
        "the verifier has no key; give it a secret, PEM files, a key set, or an issuer that is a URL"
    )]
    NoKey,
    /// Algorithms that none of the keys supports.
    #[error("no key is for {0}; remove it from `algorithms`, or add the key")]
    IdleAlgorithms(AlgorithmSet),
    /// Algorithms of secrets together with keys at a URL.
    #[error("{0} goes with a secret, and a key set at a URL has public keys alone")]
    SecretAtUrl(AlgorithmSet),
    /// One of the sources cannot be used; `key` is its index.
    #[error("{problem}")]
    Source {
        /// The index into `keys`.
        key: usize,
        /// The problem.
        problem: KeyProblem,
    },
    /// A key of a set cannot be used; `key` is the set's index, `at` the index of the key, from 0.
    #[error("key {} of the set{}: {problem}", at + 1, kid.as_ref().map(|kid| format!(" (kid {kid:?})")).unwrap_or_default())]
    InSet {
        /// The index into `keys`.
        key: usize,
        /// The index inside the set.
        at: usize,
        /// The name of the key in the set.
        kid: Option<String>,
        /// The problem.
        problem: KeyProblem,
    },
}

impl KeyFault {
    /// The index of the source at fault; `None` where it is none of them.
    pub(crate) fn key(&self) -> Option<usize> {
        match self {
            Self::NoKey | Self::IdleAlgorithms(_) | Self::SecretAtUrl(_) => None,
            Self::Source { key, .. } | Self::InSet { key, .. } => Some(*key),
        }
    }
}

/// A problem with a key, and how to correct it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum KeyProblem {
    /// A secret or a PEM file without `algorithms`.
    #[error("`algorithms` is needed beside a secret or a PEM file, for example [HS256] or [RS256]")]
    NoAlgorithms,
    /// None of the algorithms fits the key.
    #[error("{kind} is for {fits}, and `algorithms` names none of them")]
    Algorithms {
        /// The type of the key.
        kind: &'static str,
        /// The algorithms that it supports.
        fits: AlgorithmSet,
    },
    /// The secret is empty or white space.
    #[error("the secret is blank; use a random one of 32 bytes or more")]
    BlankSecret,
    /// The secret is shorter than the hash (RFC 7518 section 3.2).
    #[error(
        "the secret has {bytes} bytes, and {algorithm} needs {needed}; make a longer one, or let \
         an old one in with `weak_secret: allow`"
    )]
    ShortSecret {
        /// The length of the secret.
        bytes: usize,
        /// The algorithm that needs a longer one.
        algorithm: Algorithm,
        /// The length that it needs.
        needed: usize,
    },
    /// A secret that is a PEM file.
    #[error("this secret is a PEM file, which is not a secret; give it as a key file")]
    SecretIsPem,
    /// Not a PEM file of a known kind.
    #[error(
        "not a PEM file with a public key; it begins with `-----BEGIN PUBLIC KEY-----`, \
         `-----BEGIN RSA PUBLIC KEY-----` or `-----BEGIN CERTIFICATE-----`"
    )]
    NotPem,
    /// A private key where a public one is expected.
    #[error("this is a private key; verifying needs only its public part; use that")]
    PrivateKey,
    /// More than one key in a PEM file.
    #[error("the PEM file has several parts; give each key a file of its own")]
    SeveralKeys,
    /// A type of key that is not supported.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The key is damaged.
    #[error("the key is malformed: {0}")]
    Malformed(&'static str),
    /// A member of a JWK is missing or invalid.
    #[error("`{0}` is missing or malformed")]
    Member(&'static str),
    /// An RSA key of fewer than 2048 bits.
    #[error("the RSA key has {0} bits; at least 2048 are required")]
    WeakRsa(usize),
    /// An RSA key from a broken generator.
    #[error(
        "the RSA key was made by a generator that is known to be broken (CVE-2017-15361); make a new one"
    )]
    Roca,
    /// Not a key set.
    #[error(
        "not a key set; it is a JSON object with a list `keys` (RFC 7517), without duplicate members"
    )]
    NotJwks,
    /// A set without a usable key.
    #[error(
        "no key of the set can be used: they are not for verifying, of unknown types, or for \
         algorithms that `algorithms` does not name"
    )]
    NoUsableKey,
    /// A set without a usable key, and why the first one cannot be used.
    #[error("no key of the set can be used: {0}")]
    NoneUsable(String),
    /// A set at a URL that has more keys than any issuer needs.
    #[error("the set has more than {0} keys")]
    TooMany(usize),
    /// A secret that is published at a URL.
    #[error("a published secret (`oct`) is not secret, and is never used")]
    PublishedSecret,
    /// Secrets and public keys in one set.
    #[error("the set mixes secrets and public keys; a set is of one kind")]
    MixedSet,
    /// A key for another use than verifying signatures.
    #[error("its `{name}` is {value}, and only keys for \"{wanted}\" are used")]
    OtherUse {
        /// The member.
        name: &'static str,
        /// Its value.
        value: String,
        /// The value that it should have.
        wanted: &'static str,
    },
    /// An unknown type, curve or algorithm (RFC 7517 section 5).
    #[error("its `{name}` {value} is unknown")]
    Unknown {
        /// The member.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A key for algorithms that the configuration does not name.
    #[error("it is for {0}, which `algorithms` does not name")]
    NotWanted(AlgorithmSet),
    /// More keys of one name than are tried.
    #[error(
        "more than {0} keys have this name; of those for one algorithm the first {0} are tried"
    )]
    CrowdedName(usize),
}

impl KeyProblem {
    /// Whether a set may contain such a key: it is not meant for the gateway (RFC 7517 section 5).
    pub(crate) fn is_passed_over(&self) -> bool {
        matches!(
            self,
            Self::OtherUse { .. }
                | Self::Unknown { .. }
                | Self::NotWanted(_)
                | Self::CrowdedName(_)
        )
    }

    /// Whether it need not be logged: most issuers publish keys for encryption beside the others.
    pub(crate) fn is_usual(&self) -> bool {
        matches!(self, Self::OtherUse { name: "use", value, .. } if value == "\"enc\"")
    }
}
