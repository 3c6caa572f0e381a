//! `PublicKey`: the numbers of a public key, checked for strength. `pem` and `jwk` parse its encodings; `keys`
//! verifies signatures with it.

use jsonwebtoken::DecodingKey;

use super::algorithm::AlgorithmSet;
use super::key_fault::KeyProblem;

/// A public key of a type that can verify tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point on P-256 (SEC 1 section 2.3.3).
    P256(Vec<u8>),
    /// A point on P-384 (SEC 1 section 2.3.3).
    P384(Vec<u8>),
    /// A point on P-521 (SEC 1 section 2.3.3).
    P521(Vec<u8>),
    /// A key of Ed25519 (RFC 8032 section 5.1.5).
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// An RSA key of these numbers, with or without leading zeros.
    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Self {
        Self::Rsa {
            n: trimmed(n).to_vec(),
            e: trimmed(e).to_vec(),
        }
    }

    /// The algorithms that the key can be used with.
    pub(crate) fn algorithms(&self) -> AlgorithmSet {
        match self {
            Self::Rsa { .. } => AlgorithmSet::RSA,
            Self::P256(_) => AlgorithmSet::P256,
            Self::P384(_) => AlgorithmSet::P384,
            Self::P521(_) => AlgorithmSet::P521,
            Self::Ed25519(_) => AlgorithmSet::ED25519,
        }
    }

    /// Its name in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "an RSA key",
            Self::P256(_) => "a P-256 key",
            Self::P384(_) => "a P-384 key",
            Self::P521(_) => "a P-521 key",
            Self::Ed25519(_) => "an Ed25519 key",
        }
    }

    /// The key's numbers, concatenated.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Rsa { n, e } => [n.as_slice(), b"/", e].concat(),
            Self::P256(key) | Self::P384(key) | Self::P521(key) | Self::Ed25519(key) => key.clone(),
        }
    }

    /// The key as a jsonwebtoken type. jsonwebtoken has no algorithm for P-521, but the type holds any point.
    pub(crate) fn decoding_key(&self) -> DecodingKey {
        match self {
            Self::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Self::P256(point) | Self::P384(point) | Self::P521(point) => {
                DecodingKey::from_ec_der(point)
            }
            Self::Ed25519(key) => DecodingKey::from_ed_der(key),
        }
    }

    /// Checks the strength of the key. `provider` checks whether its numbers are a valid key.
    ///
    /// # Errors
    /// Where an RSA key is too short, too long, or made by a generator known to be broken.
    pub(crate) fn check(&self) -> Result<(), KeyProblem> {
        match self {
            Self::Rsa { n, e } => check_rsa(n, e),
            Self::P256(_) | Self::P384(_) | Self::P521(_) | Self::Ed25519(_) => Ok(()),
        }
    }
}

fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyProblem> {
    let spare = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = n.len() * 8 - spare;
    if bits < 2048 {
        return Err(KeyProblem::WeakRsa(bits));
    }
    if bits > 8192 {
        return Err(KeyProblem::Malformed(
            "RSA keys of more than 8192 bits are not supported",
        ));
    }
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    if !odd(n) || !odd(e) || e == [1] || e.len() > 4 {
        return Err(KeyProblem::Malformed(
            "the modulus of an RSA key is odd, and its exponent an odd number from 3 to 2^32",
        ));
    }
    if made_by_roca(n) {
        return Err(KeyProblem::Roca);
    }
    Ok(())
}

/// Whether the modulus has the fingerprint of CVE-2017-15361: modulo each of these primes it is a power of 65537.
/// Fewer than one in a hundred million other keys match.
fn made_by_roca(n: &[u8]) -> bool {
    const PRIMES: [u32; 17] = [
        11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
    ];
    PRIMES.into_iter().all(|prime| {
        let residue = n
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        for _ in 0..prime {
            if power == residue {
                return true;
            }
            power = power * (65537 % prime) % prime;
        }
        false
    })
}
