//! `KeySet`: the keys of one verifier, each bound to its algorithms when it is loaded, and the choice of the key that
//! verifies a token's signature. Claims are checked in `verify`; keys at a URL come from `remote`.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::errors::ErrorKind;

use super::algorithm::{Algorithm, AlgorithmSet};
use super::jwk::{self, Jwk, Material};
use super::jws::Jws;
use super::key_fault::{KeyFault, KeyProblem};
use super::pem;
use super::provider::{self, SignatureVerifier};
use crate::message::reject::TokenFault;

/// How many keys are tried where the token does not name one.
pub(crate) const MAX_TRIES: usize = 4;

/// How many keys a set at a URL may have.
const MAX_PUBLISHED: usize = 1000;

/// The source of a key; the bytes are those of the file.
#[derive(Clone, Eq, PartialEq)]
pub(crate) enum KeySource {
    /// A shared secret.
    Secret(Vec<u8>),
    /// A PEM file with one public key or certificate, and its name.
    Pem {
        /// The name by which a token's `kid` refers to it.
        kid: Option<String>,
        /// The file.
        bytes: Vec<u8>,
    },
    /// A key set (RFC 7517), from a local file.
    Jwks(Vec<u8>),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::Pem { .. } => "Pem",
            Self::Jwks(_) => "Jwks",
        })
    }
}

/// One usable key and its algorithms.
struct Key {
    kid: Option<String>,
    /// `x5t` and `x5t#S256` (RFC 7517 sections 4.8 and 4.9).
    thumbprints: Vec<String>,
    algorithms: AlgorithmSet,
    /// Prepared for each of its algorithms.
    ready: Vec<(Algorithm, SignatureVerifier)>,
    /// Equal for the same name, algorithms and key; tells whether a set still contains the key.
    fingerprint: [u8; 32],
    /// Which of several secrets it is, from 1; 0 for every other key.
    nth_secret: usize,
}

impl Key {
    /// Whether the token names this key by `kid` or by its certificate.
    fn is_named_by(&self, jws: &Jws<'_>) -> bool {
        match &jws.kid {
            Some(kid) => self.kid.as_ref() == Some(kid),
            None => jws
                .thumbprints()
                .any(|thumbprint| self.thumbprints.iter().any(|own| own == thumbprint)),
        }
    }
}

/// The keys of one verifier.
pub(crate) struct KeySet {
    keys: Vec<Key>,
    /// The algorithms that any of the keys supports.
    algorithms: AlgorithmSet,
    /// The keys that were skipped, and why.
    left_out: Vec<LeftOut>,
}

/// A key of a set that is not used.
struct LeftOut {
    kid: Option<String>,
    problem: KeyProblem,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "KeySet of {} keys for {}",
            self.keys.len(),
            self.algorithms
        )
    }
}

/// How secrets that are shorter than the hash are handled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ShortSecrets {
    /// They are refused.
    Refuse,
    /// They are accepted, with a warning.
    Allow,
}

/// Collects keys, faults and warnings.
struct Loader {
    /// The algorithms of the configuration; `None` where it names none.
    configured: Option<AlgorithmSet>,
    short: ShortSecrets,
    keys: Vec<Key>,
    left_out: Vec<LeftOut>,
    faults: Vec<KeyFault>,
    warnings: Vec<String>,
    /// How many secrets the configuration has named so far.
    secrets: usize,
}

impl KeySet {
    /// Loads the keys and binds each to those of `algorithms` that it supports; without algorithms, the keys of a set
    /// use their own. Also returns the warnings.
    ///
    /// # Errors
    /// Every problem with the keys.
    pub(crate) fn load(
        sources: &[KeySource],
        algorithms: &[Algorithm],
        short: ShortSecrets,
    ) -> Result<(Self, Vec<String>), Vec<KeyFault>> {
        let configured: AlgorithmSet = algorithms.iter().copied().collect();
        let mut loader = Loader::new((!algorithms.is_empty()).then_some(configured), short);
        if sources.is_empty() {
            loader.faults.push(KeyFault::NoKey);
        }
        for (at, source) in sources.iter().enumerate() {
            let loaded = match source {
                KeySource::Secret(secret) => loader.secret(secret),
                KeySource::Pem { kid, bytes } => loader.pem(kid.clone(), bytes),
                KeySource::Jwks(document) => loader.jwks(at, document),
            };
            if let Err(problem) = loaded {
                loader.faults.push(KeyFault::Source { key: at, problem });
            }
        }
        if !loader.faults.is_empty() {
            return Err(loader.faults);
        }
        let (set, warnings) = loader.finish();
        // The keys of a set may change; keys that are listed one by one are complete.
        let grows = |source: &KeySource| matches!(source, KeySource::Jwks(_));
        let idle = configured.without(set.algorithms);
        if !idle.is_empty() && !sources.iter().any(grows) {
            return Err(vec![KeyFault::IdleAlgorithms(idle)]);
        }
        Ok((set, warnings))
    }

    /// Loads a key set that was fetched from a URL: unusable keys are left out with a warning, and secrets are never
    /// used, whoever published them.
    ///
    /// # Errors
    /// Where it is not a key set, or none of its keys can be used.
    pub(crate) fn fetched(document: &[u8]) -> Result<(Self, Vec<String>), KeyProblem> {
        let mut loader = Loader::new(None, ShortSecrets::Refuse);
        let entries = jwk::read(document)?;
        if entries.len() > MAX_PUBLISHED {
            return Err(KeyProblem::TooMany(MAX_PUBLISHED));
        }
        for (at, entry) in entries.into_iter().enumerate() {
            let (kid, problem) = match entry {
                Ok(Jwk {
                    kid,
                    material: Material::Secret(_),
                    ..
                }) => (kid, KeyProblem::PublishedSecret),
                Ok(key) => {
                    let kid = key.kid.clone();
                    match loader.entry(key) {
                        Ok(()) => continue,
                        Err(problem) => (kid, problem),
                    }
                }
                Err(mistake) => (mistake.kid, mistake.problem),
            };
            loader.leave_out(0, at, kid, problem);
        }
        if loader.keys.is_empty() {
            return Err(loader.none_usable());
        }
        Ok(loader.finish())
    }

    /// Why keys of this name were skipped, to explain why a token's key is unknown.
    pub(crate) fn why_left_out<'a>(&'a self, kid: &'a str) -> impl Iterator<Item = String> + 'a {
        let named = |left: &&LeftOut| left.kid.as_deref() == Some(kid);
        let left = self.left_out.iter().filter(named);
        left.map(|left| left.problem.to_string())
    }

    /// Which of several secrets of the configuration, from 1, and of how many, signed a token whose signature is
    /// valid; `None` where there is only one, or another kind of key signed it.
    pub(crate) fn secret_of(&self, jws: &Jws<'_>) -> Option<(usize, usize)> {
        let all = self.keys.iter().map(|key| key.nth_secret).max()?;
        let signed_by = self.signed_by(jws, AlgorithmSet::ALL).ok()?;
        (all > 1 && signed_by.nth_secret > 0).then_some((signed_by.nth_secret, all))
    }

    /// Whether a key fits the token's algorithm, which is one of `allowed`, and its `kid`.
    pub(crate) fn fits(&self, jws: &Jws<'_>, allowed: AlgorithmSet) -> bool {
        jws.algorithm
            .filter(|algorithm| allowed.contains(*algorithm))
            .is_some_and(|algorithm| self.candidates(jws, algorithm).next().is_some())
    }

    /// Whether the set has the key that the token names. If not, a newer set may have it.
    pub(crate) fn has_named_by(&self, jws: &Jws<'_>) -> bool {
        self.keys.iter().any(|key| key.is_named_by(jws))
    }

    /// Whether every key of this set is in the other one, for the same use.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.keys.iter().all(|key| {
            let twin = |other: &Key| other.fingerprint == key.fingerprint;
            other.keys.iter().any(twin)
        })
    }

    /// The names of its keys, to explain why a token's key is unknown.
    pub(crate) fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.keys.iter().map(|key| key.kid.as_deref())
    }

    /// The algorithms that its keys support.
    pub(crate) fn algorithms(&self) -> AlgorithmSet {
        self.algorithms
    }

    /// Checks the signature of a token whose algorithm is one of `allowed`.
    ///
    /// # Errors
    /// `Algorithm` where no key has the token's algorithm, `UnknownKey` where none has its `kid`,
    /// `Malformed` where the signature is not base64url, `Signature` where it does not match.
    pub(crate) fn verify(&self, jws: &Jws<'_>, allowed: AlgorithmSet) -> Result<(), TokenFault> {
        self.signed_by(jws, allowed).map(drop)
    }

    fn signed_by(&self, jws: &Jws<'_>, allowed: AlgorithmSet) -> Result<&Key, TokenFault> {
        let algorithm = jws.algorithm.ok_or(TokenFault::Algorithm)?;
        if !self.algorithms.and(allowed).contains(algorithm) {
            return Err(TokenFault::Algorithm);
        }
        let mut candidates = self
            .candidates(jws, algorithm)
            .take(MAX_TRIES)
            .flat_map(|key| key.ready.iter().map(move |ready| (key, ready)))
            // The algorithm is one that the key was bound to when it was loaded.
            .filter(|(_, (bound, _))| *bound == algorithm)
            .map(|(key, (_, ready))| (key, ready))
            .peekable();
        if candidates.peek().is_none() {
            return Err(TokenFault::UnknownKey);
        }
        let signature = jws.signature()?;
        let message = jws.signed.as_bytes();
        candidates
            .find(|(_, ready)| ready.verify(message, &signature).is_ok())
            .map(|(key, _)| key)
            .ok_or(TokenFault::Signature)
    }

    /// The keys that may have signed a token with this algorithm: those that it names, or else those without a name. A
    /// token that names none may be signed by any key.
    fn candidates(&self, jws: &Jws<'_>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        // A name that some key has refers to that key, whatever its algorithm.
        let named = self.has_named_by(jws);
        self.keys.iter().filter(move |key| {
            let meant = if named {
                key.is_named_by(jws)
            } else {
                jws.kid.is_none() || key.kid.is_none()
            };
            meant && key.algorithms.contains(algorithm)
        })
    }
}

impl Loader {
    fn new(configured: Option<AlgorithmSet>, short: ShortSecrets) -> Self {
        Self {
            configured,
            short,
            keys: Vec::new(),
            left_out: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            secrets: 0,
        }
    }

    fn finish(mut self) -> (KeySet, Vec<String>) {
        self.say_crowded();
        let all = |all: AlgorithmSet, key: &Key| all.or(key.algorithms);
        let set = KeySet {
            algorithms: self.keys.iter().fold(AlgorithmSet::default(), all),
            keys: self.keys,
            left_out: self.left_out,
        };
        (set, self.warnings)
    }

    /// Records that a key of a set is not used, and why.
    fn leave_out(&mut self, set: usize, at: usize, kid: Option<String>, problem: KeyProblem) {
        let fault = KeyFault::InSet {
            key: set,
            at,
            kid: kid.clone(),
            problem: problem.clone(),
        };
        if !problem.is_usual() {
            self.warnings.push(format!("left out: {fault}"));
        }
        self.left_out.push(LeftOut { kid, problem });
    }

    /// Why none of the keys of a set can be used.
    fn none_usable(&self) -> KeyProblem {
        let first = self.left_out.first();
        first.map_or(KeyProblem::NoUsableKey, |left| {
            let kid = left.kid.as_ref();
            let kid = kid.map_or_else(|| "a key".to_owned(), |kid| format!("the key {kid:?}"));
            KeyProblem::NoneUsable(format!("of {kid}, {}", left.problem))
        })
    }

    /// Warns about names that more keys share than are tried.
    fn say_crowded(&mut self) {
        let mut names: Vec<&String> = self.keys.iter().filter_map(|it| it.kid.as_ref()).collect();
        names.sort();
        let crowded: BTreeSet<String> = names
            .windows(MAX_TRIES + 1)
            .filter(|several| several.first() == several.last())
            .filter_map(|several| several.first().map(|kid| (*kid).clone()))
            .collect();
        for kid in crowded {
            let problem = KeyProblem::CrowdedName(MAX_TRIES);
            self.warnings.push(format!("kid {kid:?}: {problem}"));
        }
    }

    fn secret(&mut self, secret: &[u8]) -> Result<(), KeyProblem> {
        self.secrets += 1;
        let configured = self.configured.ok_or(KeyProblem::NoAlgorithms)?;
        let allowed = configured.and(AlgorithmSet::HMAC);
        if allowed.is_empty() {
            return Err(KeyProblem::Algorithms {
                kind: "a secret",
                fits: AlgorithmSet::HMAC,
            });
        }
        // Every configured algorithm must work; none is left out silently.
        if let Some((algorithm, needed)) = too_short(secret, allowed).last()
            && self.short == ShortSecrets::Refuse
            && !is_blank(secret)
        {
            let bytes = secret.len();
            return Err(KeyProblem::ShortSecret {
                bytes,
                algorithm,
                needed,
            });
        }
        let before = self.keys.len();
        self.hmac(None, secret, allowed)?;
        for key in self.keys.iter_mut().skip(before) {
            key.nth_secret = self.secrets;
        }
        Ok(())
    }

    /// Adds a secret, for those of the algorithms that it is long enough for.
    fn hmac(
        &mut self,
        kid: Option<String>,
        secret: &[u8],
        mut allowed: AlgorithmSet,
    ) -> Result<(), KeyProblem> {
        if is_blank(secret) {
            return Err(KeyProblem::BlankSecret);
        }
        if pem::is_pem(secret) {
            return Err(KeyProblem::SecretIsPem);
        }
        let bytes = secret.len();
        let short: Vec<_> = too_short(secret, allowed).collect();
        if self.short == ShortSecrets::Refuse {
            let long_enough =
                allowed.without(short.iter().map(|(algorithm, _)| *algorithm).collect());
            if let (true, Some((algorithm, needed))) = (long_enough.is_empty(), short.first()) {
                let (algorithm, needed) = (*algorithm, *needed);
                return Err(KeyProblem::ShortSecret {
                    bytes,
                    algorithm,
                    needed,
                });
            }
            allowed = long_enough;
        } else {
            self.warnings
                .extend(short.into_iter().map(|(algorithm, needed)| {
                format!(
                    "the secret has {bytes} bytes, and {algorithm} needs {needed}: whoever has one \
                     token can guess it; it is let in by `weak_secret: allow`"
                )
            }));
        }
        let key = DecodingKey::from_secret(secret);
        self.add(kid, Vec::new(), allowed, secret, &key)
    }

    fn pem(&mut self, kid: Option<String>, file: &[u8]) -> Result<(), KeyProblem> {
        let configured = self.configured.ok_or(KeyProblem::NoAlgorithms)?;
        let pem::Found { key, thumbprints } = pem::public_key(file)?;
        let fits = key.algorithms();
        let allowed = fits.and(configured);
        if allowed.is_empty() {
            return Err(KeyProblem::Algorithms {
                kind: key.kind(),
                fits,
            });
        }
        key.check()?;
        let bytes = key.bytes();
        self.add(kid, thumbprints, allowed, &bytes, &key.decoding_key())
    }

    fn jwks(&mut self, source: usize, document: &[u8]) -> Result<(), KeyProblem> {
        let before = (self.keys.len(), self.faults.len());
        let (mut secrets, mut public) = (false, false);
        for (at, entry) in jwk::read(document)?.into_iter().enumerate() {
            let fault = match entry {
                Ok(key) => {
                    let kid = key.kid.clone();
                    let is_secret = matches!(key.material, Material::Secret(_));
                    let fault = self.entry(key).err();
                    if !matches!(fault, Some(KeyProblem::NotWanted(_))) {
                        secrets |= is_secret;
                        public |= !is_secret;
                    }
                    fault.map(|problem| (kid, problem))
                }
                Err(mistake) => Some((mistake.kid, mistake.problem)),
            };
            match fault {
                None => {}
                Some((kid, problem)) if problem.is_passed_over() => {
                    self.leave_out(source, at, kid, problem);
                }
                Some((kid, problem)) => self.faults.push(KeyFault::InSet {
                    key: source,
                    at,
                    kid,
                    problem,
                }),
            }
        }
        if secrets && public {
            return Err(KeyProblem::MixedSet);
        }
        if before == (self.keys.len(), self.faults.len()) {
            return Err(self.none_usable());
        }
        Ok(())
    }

    /// Adds a key of a set, for its own algorithm or those of its type.
    fn entry(&mut self, key: Jwk) -> Result<(), KeyProblem> {
        let own = match &key.material {
            Material::Secret(_) => AlgorithmSet::HMAC,
            Material::Public(key) => key.algorithms(),
        };
        let own = key.algorithm.map_or(own, AlgorithmSet::of);
        let allowed = self
            .configured
            .map_or(own, |configured| own.and(configured));
        if allowed.is_empty() {
            return Err(KeyProblem::NotWanted(own));
        }
        match key.material {
            Material::Secret(secret) => self.hmac(key.kid, &secret, allowed)?,
            Material::Public(material) => {
                material.check()?;
                let (bytes, ready) = (material.bytes(), material.decoding_key());
                self.add(key.kid, key.thumbprints, allowed, &bytes, &ready)?;
            }
        }
        Ok(())
    }

    /// Adds a key. A duplicate of the same name, algorithms and key is one key; other keys of that name are tried
    /// beside it (RFC 7515 section 4.1.4 calls `kid` a hint).
    fn add(
        &mut self,
        kid: Option<String>,
        thumbprints: Vec<String>,
        algorithms: AlgorithmSet,
        bytes: &[u8],
        key: &DecodingKey,
    ) -> Result<(), KeyProblem> {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(format!("{kid:?} {algorithms} ").as_bytes());
        hash.update(bytes);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hash.finish().as_ref());
        let twin = |key: &&mut Key| key.fingerprint == fingerprint;
        if let Some(same) = self.keys.iter_mut().find(twin) {
            same.thumbprints.extend(thumbprints);
            return Ok(());
        }
        let ready: Result<Vec<_>, jsonwebtoken::errors::Error> = algorithms
            .iter()
            .map(|algorithm| Ok((algorithm, provider::verifier(algorithm, key)?)))
            .collect();
        self.keys.push(Key {
            kid,
            thumbprints,
            algorithms,
            ready: ready.map_err(|error| no_key(error.kind()))?,
            fingerprint,
            nth_secret: 0,
        });
        Ok(())
    }
}

/// Translates jsonwebtoken's error about a key for the author of the key.
fn no_key(error: &ErrorKind) -> KeyProblem {
    use ErrorKind::{InvalidEcdsaKey, InvalidEddsaKey, InvalidRsaKey};
    KeyProblem::Malformed(if matches!(error, InvalidRsaKey(_)) {
        "its numbers are not an RSA key"
    } else if matches!(error, InvalidEcdsaKey | InvalidEddsaKey) {
        "its numbers are not a point on its curve"
    } else {
        "its numbers are not a key"
    })
}

fn is_blank(secret: &[u8]) -> bool {
    secret.iter().all(|byte| byte.is_ascii_whitespace())
}

/// The algorithms whose hash is longer than the secret, with the number of bytes that they need.
fn too_short(secret: &[u8], allowed: AlgorithmSet) -> impl Iterator<Item = (Algorithm, usize)> {
    let bytes = secret.len();
    allowed
        .iter()
        .filter_map(|algorithm| Some((algorithm, algorithm.secret_bytes()?)))
        .filter(move |(_, needed)| bytes < *needed)
}

#[cfg(test)]
mod tests;
