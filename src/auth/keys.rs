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
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{
        KEYS, OTHER, SECRET, encode, jwk, jwk_of, jwks, mint, pem, raw, source, spki,
    };
    use super::*;

    fn load(sources: &[KeySource], algorithms: &[Algorithm]) -> Result<KeySet, Vec<KeyFault>> {
        KeySet::load(sources, algorithms, ShortSecrets::Refuse).map(|(keys, _)| keys)
    }

    fn verify(keys: &KeySet, token: &str) -> Result<(), TokenFault> {
        keys.verify(&Jws::parse(token)?, AlgorithmSet::ALL)
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "rows read better without references"
    )]
    fn with(mut key: Value, more: Value) -> Value {
        key.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        key
    }

    fn named_pem(kid: Option<&str>, bytes: Vec<u8>) -> KeySource {
        KeySource::Pem {
            kid: kid.map(str::to_owned),
            bytes,
        }
    }

    #[track_caller]
    fn refuses(source: KeySource, algorithms: &[Algorithm], expected: &KeyProblem) {
        let faults = load(&[source], algorithms).unwrap_err();
        let problems: Vec<&KeyProblem> = faults
            .iter()
            .map(|fault| match fault {
                KeyFault::Source { key: 0, problem }
                | KeyFault::InSet {
                    key: 0, problem, ..
                } => problem,
                KeyFault::NoKey
                | KeyFault::IdleAlgorithms(_)
                | KeyFault::SecretAtUrl(_)
                | KeyFault::Source { .. }
                | KeyFault::InSet { .. } => {
                    panic!("{fault}")
                }
            })
            .collect();
        assert_eq!(problems, [expected], "{faults:?}");
    }

    #[test]
    fn every_algorithm_verifies_with_every_form_of_its_key() {
        for algorithm in Algorithm::ALL {
            let token = mint(algorithm, &json!({}));
            let as_jwk = jwks(&[with(jwk(algorithm), json!({"alg": algorithm.name()}))]);
            for (source, algorithms) in [
                (source(algorithm), [algorithm].as_slice()),
                (jwks(&[jwk(algorithm)]), &[algorithm]),
                (jwks(&[jwk(algorithm)]), &[]),
                (as_jwk, &[]),
            ] {
                let keys = load(&[source], algorithms).unwrap();
                assert_eq!(verify(&keys, &token), Ok(()), "{algorithm}");
            }
        }
    }

    #[test]
    fn tampered_tokens_are_refused_with_every_algorithm() {
        for algorithm in Algorithm::ALL {
            let keys = load(&[source(algorithm)], &[algorithm]).unwrap();
            let token = mint(algorithm, &json!({"sub": "a"}));
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let other = mint(algorithm, &json!({"sub": "b"}));
            let (other_signed, _) = other.rsplit_once('.').unwrap();
            let first = if signature.starts_with('A') { "B" } else { "A" };
            let (_, others) = signature.split_at(1);
            // Whole groups of four characters, so that it is still base64url.
            let (shorter, _) = signature.split_at(signature.len() / 8 * 4);
            // The all-zero signature, which some libraries accepted for every key.
            let psychic = encode(vec![0; signature.len() * 3 / 4]);
            for (tampered, fault) in [
                (format!("{signed}.{psychic}"), TokenFault::Signature),
                (format!("{other_signed}.{signature}"), TokenFault::Signature),
                (format!("{signed}.{first}{others}"), TokenFault::Signature),
                (format!("{signed}."), TokenFault::Signature),
                (format!("{signed}.{shorter}"), TokenFault::Signature),
                (format!("{signed}.{signature}="), TokenFault::Malformed),
                (format!("{signed}.{signature}+"), TokenFault::Malformed),
            ] {
                assert_eq!(
                    verify(&keys, &tampered),
                    Err(fault),
                    "{algorithm} {tampered}"
                );
            }
        }
    }

    #[test]
    fn another_algorithm_than_the_keys_own_is_refused() {
        for own in Algorithm::ALL {
            let keys = load(&[source(own)], &[own]).unwrap();
            for other in Algorithm::ALL.into_iter().filter(|other| *other != own) {
                let token = mint(other, &json!({}));
                assert_eq!(
                    verify(&keys, &token),
                    Err(TokenFault::Algorithm),
                    "{own} {other}"
                );
            }
            // Signed correctly, but with a wrong name.
            for name in ["none", "None", "NONE", "nOnE", "", "HS1", "RS256 ", "hs256"] {
                let token = raw(own, &format!(r#"{{"alg":"{name}"}}"#), "{}");
                assert_eq!(
                    verify(&keys, &token),
                    Err(TokenFault::Algorithm),
                    "{own} {name:?}"
                );
                let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
                assert_eq!(
                    verify(&keys, &unsigned),
                    Err(TokenFault::Algorithm),
                    "{own} {name:?}"
                );
            }
        }
    }

    #[test]
    fn a_public_key_is_never_a_secret() {
        let file = pem("PUBLIC KEY", &spki(&KEYS, Algorithm::RS256));
        refuses(
            KeySource::Secret(file.clone()),
            &[Algorithm::HS256],
            &KeyProblem::SecretIsPem,
        );
        // A verifier that accepts both kinds does not confuse them.
        let keys = load(
            &[source(Algorithm::HS256), named_pem(None, file.clone())],
            &[Algorithm::HS256, Algorithm::RS256],
        )
        .unwrap();
        let der = spki(&KEYS, Algorithm::RS256);
        for secret in [file, der] {
            let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode("{}"));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
            let mac = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
            let token = format!("{signed}.{}", encode(mac));
            assert_eq!(verify(&keys, &token), Err(TokenFault::Signature));
        }
        assert_eq!(verify(&keys, &mint(Algorithm::HS256, &json!({}))), Ok(()));
        assert_eq!(verify(&keys, &mint(Algorithm::RS256, &json!({}))), Ok(()));
    }

    fn kid_token(kid: Option<&str>, algorithm: Algorithm) -> String {
        let mut header = json!({"alg": algorithm.name()});
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        raw(algorithm, &header.to_string(), "{}")
    }

    #[test]
    fn the_kid_chooses_the_key() {
        let right = || pem("PUBLIC KEY", &spki(&KEYS, Algorithm::RS256));
        let wrong = || pem("PUBLIC KEY", &spki(&OTHER, Algorithm::RS256));
        let check = |sources: &[KeySource], kid: Option<&str>, expected: Result<(), TokenFault>| {
            let algorithms: &[_] = match sources {
                [KeySource::Pem { kid: Some(kid), .. }, ..] if kid == "e" => {
                    &[Algorithm::RS256, Algorithm::ES256]
                }
                _ => &[Algorithm::RS256],
            };
            let keys = load(sources, algorithms).unwrap();
            assert_eq!(
                verify(&keys, &kid_token(kid, Algorithm::RS256)),
                expected,
                "{kid:?}"
            );
        };
        let named = [named_pem(Some("a"), wrong()), named_pem(Some("b"), right())];
        check(&named, Some("b"), Ok(()));
        check(&named, Some("a"), Err(TokenFault::Signature));
        check(&named, Some("c"), Err(TokenFault::UnknownKey));
        check(&named, None, Ok(()));
        // One key without a name: a kid does not matter.
        check(&[named_pem(None, right())], Some("c"), Ok(()));
        let mixed = [named_pem(Some("a"), wrong()), named_pem(None, right())];
        check(&mixed, Some("c"), Ok(()));
        check(&mixed, Some("a"), Err(TokenFault::Signature));
        // The name refers to a key of another type.
        let types = [
            KeySource::Pem {
                kid: Some("e".to_owned()),
                bytes: pem("PUBLIC KEY", &spki(&KEYS, Algorithm::ES256)),
            },
            named_pem(None, right()),
        ];
        check(&types, Some("e"), Err(TokenFault::UnknownKey));
    }

    #[test]
    fn an_algorithm_that_no_key_can_do_is_a_mistake() {
        let faults = load(
            &[source(Algorithm::HS256)],
            &[Algorithm::HS256, Algorithm::RS256, Algorithm::EDDSA],
        )
        .unwrap_err();
        let idle = AlgorithmSet::of(Algorithm::RS256).or(AlgorithmSet::of(Algorithm::EDDSA));
        assert_eq!(faults, [KeyFault::IdleAlgorithms(idle)]);
        assert!(
            load(
                &[source(Algorithm::HS256)],
                &[Algorithm::HS256, Algorithm::HS384]
            )
            .is_ok()
        );
        // A set may get such a key later.
        assert!(
            load(
                &[jwks(&[jwk(Algorithm::RS256)])],
                &[Algorithm::RS256, Algorithm::EDDSA]
            )
            .is_ok()
        );
    }

    #[test]
    fn a_fetched_set_leaves_out_what_it_cannot_use_and_every_secret() {
        let named = |key, kid: &str| with(key, json!({"kid": kid}));
        let fetched =
            |keys: &[Value]| KeySet::fetched(json!({"keys": keys}).to_string().as_bytes());
        let (set, said) = fetched(&[
            named(jwk(Algorithm::HS256), "s"),
            json!({"kty": "RSA", "kid": "short", "n": encode([0xff; 128]), "e": "AQAB"}),
            named(jwk(Algorithm::RS256), "a"),
            named(jwk(Algorithm::RS256), "a"),
            named(jwk(Algorithm::ES256), "a"),
        ])
        .unwrap();
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(set.names().collect::<Vec<_>>(), [Some("a"), Some("a")]);
        assert_eq!(
            verify(&set, &kid_token(Some("a"), Algorithm::RS256)),
            Ok(())
        );
        assert_eq!(
            verify(&set, &kid_token(Some("a"), Algorithm::ES256)),
            Ok(())
        );
        assert_eq!(
            verify(&set, &kid_token(Some("s"), Algorithm::HS256)),
            Err(TokenFault::Algorithm)
        );
        for none in [
            vec![],
            vec![named(jwk(Algorithm::HS256), "s")],
            vec![json!({"kty": "new"})],
        ] {
            assert!(fetched(&none).is_err());
        }
        assert_eq!(KeySet::fetched(b"<html>").unwrap_err(), KeyProblem::NotJwks);
        // Keys of an older set may be removed, added or changed.
        let (smaller, _) = fetched(&[named(jwk(Algorithm::RS256), "a")]).unwrap();
        assert!(smaller.is_within(&set) && !set.is_within(&smaller));
        let (renamed, _) = fetched(&[named(jwk(Algorithm::RS256), "b")]).unwrap();
        assert!(!smaller.is_within(&renamed));
        let (narrower, _) = fetched(&[with(
            jwk(Algorithm::RS256),
            json!({"kid": "a", "alg": "RS512"}),
        )])
        .unwrap();
        assert!(!smaller.is_within(&narrower));
    }

    #[test]
    fn keys_of_one_name_are_all_tried_and_equal_ones_are_one() {
        let own = |algorithm| with(jwk(algorithm), json!({"kid": "a"}));
        let other = |algorithm| {
            let key = jwk_of(&OTHER, algorithm);
            with(key, json!({"kid": "a", "alg": algorithm.name()}))
        };
        for algorithm in [Algorithm::RS256, Algorithm::ES256] {
            let token = kid_token(Some("a"), algorithm);
            for set in [
                vec![own(algorithm), other(algorithm)],
                vec![other(algorithm), own(algorithm)],
                vec![own(algorithm), own(algorithm)],
            ] {
                let (keys, said) = KeySet::load(&[jwks(&set)], &[], ShortSecrets::Refuse).unwrap();
                assert_eq!(verify(&keys, &token), Ok(()));
                assert!(said.is_empty(), "{said:?}");
                let document = json!({"keys": set}).to_string();
                let (keys, said) = KeySet::fetched(document.as_bytes()).unwrap();
                assert_eq!(verify(&keys, &token), Ok(()));
                assert!(said.is_empty(), "{said:?}");
                let distinct = if set.first() == set.last() { 1 } else { 2 };
                assert_eq!(keys.names().count(), distinct);
            }
            let strangers = load(&[jwks(&[other(algorithm)])], &[]).unwrap();
            assert_eq!(verify(&strangers, &token), Err(TokenFault::Signature));
        }
        // At most four of one name, with a warning.
        let many = |n: usize| {
            let numbered = (0..n).map(|_| {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
                let point = pair.public_key_raw().to_vec();
                json!({"kty": "EC", "crv": "P-256", "kid": "a", "x": encode(&point[1..33]), "y": encode(&point[33..])})
            });
            let document = json!({"keys": numbered.collect::<Vec<_>>()}).to_string();
            KeySet::fetched(document.as_bytes()).unwrap().1.len()
        };
        assert_eq!((many(4), many(5), many(9)), (0, 1, 1));
    }

    #[test]
    fn null_and_empty_members_of_a_key_count_as_absent() {
        for empty in [json!(null), json!(""), json!([]), json!({})] {
            for algorithm in [Algorithm::RS256, Algorithm::ES256] {
                let mut key = jwk(algorithm);
                for name in ["kid", "use", "key_ops", "alg", "x5t", "x5t#S256", "d"] {
                    key[name] = empty.clone();
                }
                let keys = load(&[jwks(&[key])], &[]).unwrap();
                assert_eq!(keys.names().collect::<Vec<_>>(), [None]);
                let token = kid_token(Some("any"), algorithm);
                assert_eq!(verify(&keys, &token), Ok(()), "{empty}");
            }
            let mut key = jwk(Algorithm::RS256);
            key["n"] = empty;
            refuses(jwks(&[key]), &[], &KeyProblem::Member("n"));
        }
        let marked = [
            b"\xef\xbb\xbf",
            json!({"keys": [jwk(Algorithm::RS256)]})
                .to_string()
                .as_bytes(),
        ]
        .concat();
        assert!(KeySet::fetched(&marked).is_ok());
        assert!(load(&[KeySource::Jwks(marked)], &[]).is_ok());
    }

    #[test]
    fn of_several_secrets_each_is_tried_and_each_is_strong() {
        let secret = |text: &str| KeySource::Secret(text.repeat(8).into_bytes());
        let own = || source(Algorithm::HS256);
        let token = mint(Algorithm::HS256, &json!({}));
        for (sources, nth) in [
            (
                vec![own(), secret("other-0"), secret("other-1")],
                Some((1, 3)),
            ),
            (
                vec![secret("other-0"), secret("other-1"), own()],
                Some((3, 3)),
            ),
            (vec![own()], None),
        ] {
            let keys = load(&sources, &[Algorithm::HS256]).unwrap();
            assert_eq!(verify(&keys, &token), Ok(()));
            assert_eq!(keys.secret_of(&Jws::parse(&token).unwrap()), nth);
        }
        let others = load(&[secret("other-0"), secret("other-1")], &[Algorithm::HS256]).unwrap();
        assert_eq!(verify(&others, &token), Err(TokenFault::Signature));
        assert_eq!(others.secret_of(&Jws::parse(&token).unwrap()), None);
        let short = || KeySource::Secret(b"short".to_vec());
        let faults = load(&[own(), short(), short()], &[Algorithm::HS256]).unwrap_err();
        let places: Vec<_> = faults.iter().map(KeyFault::key).collect();
        assert_eq!(places, [Some(1), Some(2)]);
        assert!(
            load(
                &[secret("other-0"), secret("ab-cde")],
                &[Algorithm::HS256, Algorithm::HS384]
            )
            .is_ok()
        );
        assert!(
            load(
                &[secret("other-0"), secret("ab-cd")],
                &[Algorithm::HS256, Algorithm::HS384]
            )
            .is_err()
        );
    }

    #[test]
    fn four_keys_are_tried_and_no_more() {
        let wrong = || {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            named_pem(None, pair.public_key_pem().into_bytes())
        };
        let right = || named_pem(None, pem("PUBLIC KEY", &spki(&KEYS, Algorithm::ES256)));
        let token = kid_token(None, Algorithm::ES256);
        let four = load(&[wrong(), wrong(), wrong(), right()], &[Algorithm::ES256]).unwrap();
        assert_eq!(verify(&four, &token), Ok(()));
        let five = load(
            &[wrong(), wrong(), wrong(), wrong(), right()],
            &[Algorithm::ES256],
        )
        .unwrap();
        assert_eq!(verify(&five, &token), Err(TokenFault::Signature));
    }

    #[test]
    fn secrets_are_as_long_as_the_hash() {
        for (algorithm, needed) in [
            (Algorithm::HS256, 32),
            (Algorithm::HS384, 48),
            (Algorithm::HS512, 64),
        ] {
            let secret = |bytes| KeySource::Secret(vec![b'x'; bytes]);
            assert!(load(&[secret(needed)], &[algorithm]).is_ok());
            let short = KeyProblem::ShortSecret {
                bytes: needed - 1,
                algorithm,
                needed,
            };
            refuses(secret(needed - 1), &[algorithm], &short);
            refuses(secret(needed - 1), &[Algorithm::HS256, algorithm], &short);
            let (_, warnings) =
                KeySet::load(&[secret(needed - 1)], &[algorithm], ShortSecrets::Allow).unwrap();
            assert_eq!(warnings.len(), 1);
            let (_, none) =
                KeySet::load(&[secret(needed)], &[algorithm], ShortSecrets::Allow).unwrap();
            assert!(none.is_empty());
        }
        for blank in [b"".as_slice(), b" \n", &[b' '; 64]] {
            let blank = || KeySource::Secret(blank.to_vec());
            refuses(blank(), &[Algorithm::HS256], &KeyProblem::BlankSecret);
            assert!(KeySet::load(&[blank()], &[Algorithm::HS256], ShortSecrets::Allow).is_err());
        }
        let unfit = KeyProblem::Algorithms {
            kind: "a secret",
            fits: AlgorithmSet::HMAC,
        };
        refuses(source(Algorithm::HS256), &[Algorithm::RS256], &unfit);
        refuses(source(Algorithm::HS256), &[], &KeyProblem::NoAlgorithms);
        assert_eq!(
            load(&[], &[Algorithm::HS256]).unwrap_err(),
            [KeyFault::NoKey]
        );
    }

    #[test]
    fn pem_files_are_public_keys_of_the_right_type() {
        let rsa = aws_lc_rs::signature::KeyPair::public_key(&KEYS.rsa).as_ref();
        let pkcs1 = || named_pem(None, pem("RSA PUBLIC KEY", rsa));
        let keys = load(&[pkcs1()], &[Algorithm::RS256]).unwrap();
        assert_eq!(verify(&keys, &mint(Algorithm::RS256, &json!({}))), Ok(()));
        refuses(pkcs1(), &[], &KeyProblem::NoAlgorithms);
        let unfit = |kind, fits| KeyProblem::Algorithms { kind, fits };
        refuses(
            pkcs1(),
            &[Algorithm::HS256],
            &unfit("an RSA key", AlgorithmSet::RSA),
        );
        refuses(
            source(Algorithm::ES256),
            &[Algorithm::ES384],
            &unfit("a P-256 key", AlgorithmSet::P256),
        );
        refuses(
            source(Algorithm::ES384),
            &[Algorithm::ES256, Algorithm::RS256],
            &unfit("a P-384 key", AlgorithmSet::P384),
        );
        for (file, problem) in [
            (b"".to_vec(), KeyProblem::NotPem),
            (b"\xff".to_vec(), KeyProblem::NotPem),
            (pem("PRIVATE KEY", b"x"), KeyProblem::PrivateKey),
            (pem("RSA PRIVATE KEY", b"x"), KeyProblem::PrivateKey),
            (pem("ENCRYPTED PRIVATE KEY", b"x"), KeyProblem::PrivateKey),
            (pem("X509 CRL", b"x"), KeyProblem::NotPem),
            (
                [pem("RSA PUBLIC KEY", rsa), pem("RSA PUBLIC KEY", rsa)].concat(),
                KeyProblem::SeveralKeys,
            ),
            (
                pem("PUBLIC KEY", rsa),
                KeyProblem::Malformed("the PEM file's content is damaged"),
            ),
            (
                pem("CERTIFICATE", rsa),
                KeyProblem::Malformed("the PEM file's content is damaged"),
            ),
            (
                pem("PUBLIC KEY", b""),
                KeyProblem::Malformed("the PEM file's content is damaged"),
            ),
        ] {
            refuses(named_pem(None, file), &[Algorithm::RS256], &problem);
        }
        let mut damaged = spki(&KEYS, Algorithm::ES256);
        *damaged.last_mut().unwrap() ^= 1;
        refuses(
            named_pem(None, pem("PUBLIC KEY", &damaged)),
            &[Algorithm::ES256],
            &KeyProblem::Malformed("its numbers are not a point on its curve"),
        );
    }

    #[test]
    fn a_certificate_gives_its_key() {
        for (algorithm, kind) in [
            (Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
            (Algorithm::EDDSA, &rcgen::PKCS_ED25519),
        ] {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let params = rcgen::CertificateParams::new(vec!["issuer.example".to_owned()]).unwrap();
            let certificate = params.self_signed(&pair).unwrap();
            let from_certificate = pem::public_key(certificate.pem().as_bytes()).unwrap();
            let from_key = pem::public_key(pair.public_key_pem().as_bytes()).unwrap();
            assert_eq!(from_certificate.key, from_key.key);
            assert_eq!(from_key.thumbprints, [""; 0]);
            let file = || named_pem(None, certificate.pem().into_bytes());
            assert!(load(&[file()], &[algorithm]).is_ok());

            // A token that names no key by `kid` may name it by its certificate.
            let other = named_pem(None, pem("PUBLIC KEY", &spki(&OTHER, algorithm)));
            let keys = load(&[other, file()], &[algorithm]).unwrap();
            let hash = |kind| encode(digest::digest(kind, certificate.der()));
            for (name, thumbprint) in [
                ("x5t", hash(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
                ("x5t#S256", hash(&digest::SHA256)),
            ] {
                let named = json!({"alg": algorithm.name(), name: thumbprint});
                let token = raw(algorithm, &named.to_string(), "{}");
                let jws = Jws::parse(&token).unwrap();
                assert!(keys.has_named_by(&jws), "{name}");
                assert_eq!(keys.candidates(&jws, algorithm).count(), 1, "{name}");
                let unknown = json!({"alg": algorithm.name(), name: "AAAA"});
                let token = raw(algorithm, &unknown.to_string(), "{}");
                let jws = Jws::parse(&token).unwrap();
                assert!(!keys.has_named_by(&jws), "{name}");
                assert_eq!(keys.candidates(&jws, algorithm).count(), 2, "{name}");
            }
        }
    }

    #[test]
    fn short_rsa_keys_are_refused() {
        let (mut n, e) = (vec![0xff; 128], [1, 0, 1]);
        let set =
            |n: &[u8], e: &[u8]| jwks(&[json!({"kty": "RSA", "n": encode(n), "e": encode(e)})]);
        refuses(set(&n, &e), &[], &KeyProblem::WeakRsa(1024));
        n = vec![0xff; 256];
        n[0] = 0x7f;
        refuses(set(&n, &e), &[], &KeyProblem::WeakRsa(2047));
        n[0] = 0xff;
        assert!(load(&[set(&n, &e)], &[]).is_ok());
        assert!(load(&[set(&[&[0, 0], n.as_slice()].concat(), &e)], &[]).is_ok());
        for bad in [[0].as_slice(), &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
            assert!(load(&[set(&n, bad)], &[]).is_err(), "exponent {bad:?}");
        }
        assert!(load(&[set(&[0xff; 1025], &e)], &[]).is_err());
    }

    #[test]
    fn sets_pass_over_what_they_cannot_use_and_refuse_what_is_wrong() {
        let rsa = |more| with(jwk(Algorithm::RS256), more);
        for passed in [
            rsa(json!({"use": "enc"})),
            rsa(json!({"use": "SIG"})),
            rsa(json!({"key_ops": ["encrypt"]})),
            rsa(json!({"alg": "RSA-OAEP"})),
            rsa(json!({"alg": "none"})),
            rsa(json!({"alg": "PS256"})),
            json!({"kty": "new"}),
            json!({"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}),
            json!({"kty": "OKP", "crv": "X25519", "x": ""}),
        ] {
            let faults =
                load(&[jwks(std::slice::from_ref(&passed))], &[Algorithm::RS256]).unwrap_err();
            let none = |fault: &KeyFault| {
                matches!(
                    fault,
                    KeyFault::Source {
                        problem: KeyProblem::NoneUsable(_),
                        ..
                    }
                )
            };
            assert!(faults.len() == 1 && faults.iter().all(none), "{faults:?}");
            let is_usual = passed.get("use") == Some(&json!("enc"));
            let passed = with(passed, json!({"kid": "p"}));
            let beside = jwks(&[
                passed,
                rsa(json!({"kid": "a", "use": "sig", "key_ops": ["verify"]})),
            ]);
            let (keys, said) =
                KeySet::load(&[beside], &[Algorithm::RS256], ShortSecrets::Refuse).unwrap();
            assert_eq!(
                verify(&keys, &kid_token(Some("a"), Algorithm::RS256)),
                Ok(())
            );
            assert_eq!(said.len(), usize::from(!is_usual), "{said:?}");
            assert!(
                said.iter()
                    .all(|it| it.starts_with("left out: key 1 of the set (kid \"p\"): "))
            );
            assert_eq!(keys.why_left_out("p").count(), 1);
            assert_eq!(keys.why_left_out("a").count(), 0);
        }
        let private = KeyProblem::PrivateKey;
        refuses(jwks(&[rsa(json!({"d": "AAAA"}))]), &[], &private);
        refuses(
            jwks(&[rsa(json!({"n": "A+"}))]),
            &[],
            &KeyProblem::Member("n"),
        );
        refuses(jwks(&[json!({"n": "AA"})]), &[], &KeyProblem::Member("kty"));
        refuses(
            jwks(&[jwk(Algorithm::HS256), jwk(Algorithm::RS256)]),
            &[],
            &KeyProblem::MixedSet,
        );
        refuses(jwks(&[]), &[], &KeyProblem::NoUsableKey);
        for document in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            refuses(KeySource::Jwks(document.into()), &[], &KeyProblem::NotJwks);
        }
        for alg in ["ES256", "HS256", "ES384"] {
            let wrong = jwks(&[rsa(json!({"alg": alg}))]);
            let problem = KeyProblem::Malformed("`alg` does not fit the key's type or curve");
            refuses(wrong, &[], &problem);
        }
    }

    #[test]
    fn every_fault_is_reported_with_its_place_and_none_shows_a_key() {
        let faults = load(
            &[
                KeySource::Secret(b"hunter2".to_vec()),
                source(Algorithm::RS256),
                named_pem(None, b"hunter2".to_vec()),
                jwks(&[json!({"kty": "oct", "k": encode("hunter2"), "kid": "weak"})]),
            ],
            &[Algorithm::HS256, Algorithm::RS256],
        )
        .unwrap_err();
        let places: Vec<_> = faults.iter().map(KeyFault::key).collect();
        assert_eq!(places, [Some(0), Some(2), Some(3)]);
        for fault in faults {
            let told = format!("{fault} {fault:?}");
            assert!(
                !told.contains("hunter2") && !told.contains(&encode("hunter2")),
                "{told}"
            );
        }
        assert!(!format!("{:?}", KeySource::Secret(SECRET.to_vec())).contains("0123"));
    }
}
