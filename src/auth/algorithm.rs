//! `Algorithm`: the accepted signature algorithms of RFC 7518 and RFC 8037, by name, and small sets of them. Knows
//! nothing of keys.

use std::fmt;

use jsonwebtoken::Algorithm as Jwt;

/// A signature algorithm of JWS (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Algorithm {
    /// One that jsonwebtoken supports.
    Jwt(Jwt),
    /// ECDSA on P-521 with SHA-512, until jsonwebtoken supports it
    /// (<https://github.com/Keats/jsonwebtoken/issues/250>).
    Es512,
}

impl Algorithm {
    /// HMAC with SHA-256.
    pub(crate) const HS256: Self = Self::Jwt(Jwt::HS256);
    /// HMAC with SHA-384.
    pub(crate) const HS384: Self = Self::Jwt(Jwt::HS384);
    /// HMAC with SHA-512.
    pub(crate) const HS512: Self = Self::Jwt(Jwt::HS512);
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    pub(crate) const RS256: Self = Self::Jwt(Jwt::RS256);
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    pub(crate) const RS384: Self = Self::Jwt(Jwt::RS384);
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    pub(crate) const RS512: Self = Self::Jwt(Jwt::RS512);
    /// RSASSA-PSS with SHA-256.
    pub(crate) const PS256: Self = Self::Jwt(Jwt::PS256);
    /// RSASSA-PSS with SHA-384.
    pub(crate) const PS384: Self = Self::Jwt(Jwt::PS384);
    /// RSASSA-PSS with SHA-512.
    pub(crate) const PS512: Self = Self::Jwt(Jwt::PS512);
    /// ECDSA on P-256 with SHA-256.
    pub(crate) const ES256: Self = Self::Jwt(Jwt::ES256);
    /// ECDSA on P-384 with SHA-384.
    pub(crate) const ES384: Self = Self::Jwt(Jwt::ES384);
    /// ECDSA on P-521 with SHA-512.
    pub(crate) const ES512: Self = Self::Es512;
    /// Ed25519.
    pub(crate) const EDDSA: Self = Self::Jwt(Jwt::EdDSA);

    /// Every algorithm, in the order in which messages list them.
    pub(crate) const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EDDSA,
    ];

    /// The algorithm with this name, as written in a configuration.
    ///
    /// # Errors
    /// A sentence that says which names are valid.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        if let Some(known) = Self::named(name) {
            return Ok(known);
        }
        if name.eq_ignore_ascii_case("none") {
            return Err(
                "a token without a signature is never accepted; name an algorithm such as \
                        RS256"
                    .to_owned(),
            );
        }
        if let Some(known) = Self::ALL
            .into_iter()
            .find(|all| all.name().eq_ignore_ascii_case(name))
        {
            return Err(format!(
                "names of algorithms are case-sensitive: write {known}"
            ));
        }
        Err(
            "not an algorithm; the algorithms are HS256, HS384, HS512, RS256, RS384, RS512, \
             PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA"
                .to_owned(),
        )
    }

    /// The algorithm that `alg` of a token or of a JWK names; case-sensitive, as RFC 7515 section 4.1.1 says. `none`
    /// is not an algorithm.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "ES512" => Some(Self::ES512),
            // RFC 9864 calls EdDSA with Ed25519 `Ed25519`; it is the same algorithm.
            "Ed25519" => Some(Self::EDDSA),
            _ => {
                let known = name.parse().ok().map(Self::Jwt);
                // A newer jsonwebtoken may support more.
                known.filter(|known| AlgorithmSet::ALL.contains(*known))
            }
        }
    }

    /// The name as RFC 7518 writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EDDSA => "EdDSA",
            Self::Jwt(_) => "an unknown algorithm",
        }
    }

    /// The minimum length of a secret (RFC 7518 section 3.2); `None` for anything but HMAC.
    pub(crate) fn secret_bytes(self) -> Option<usize> {
        match self {
            Self::HS256 => Some(32),
            Self::HS384 => Some(48),
            Self::HS512 => Some(64),
            Self::Jwt(_) | Self::Es512 => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of algorithms, as a bit mask.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct AlgorithmSet(u16);

impl AlgorithmSet {
    /// Every algorithm.
    pub(crate) const ALL: Self = Self(0b1_1111_1111_1111);
    /// The algorithms of a shared secret.
    pub(crate) const HMAC: Self = Self(0b111);
    /// The algorithms of an RSA key.
    pub(crate) const RSA: Self = Self(0b1_1111_1000);
    /// The algorithms of a key on P-256.
    pub(crate) const P256: Self = Self::of(Algorithm::ES256);
    /// The algorithms of a key on P-384.
    pub(crate) const P384: Self = Self::of(Algorithm::ES384);
    /// The algorithms of a key on P-521.
    pub(crate) const P521: Self = Self::of(Algorithm::ES512);
    /// The algorithms of an Ed25519 key.
    pub(crate) const ED25519: Self = Self::of(Algorithm::EDDSA);

    /// The set of this one algorithm.
    pub(crate) const fn of(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::HS256 => 1,
            Algorithm::HS384 => 1 << 1,
            Algorithm::HS512 => 1 << 2,
            Algorithm::RS256 => 1 << 3,
            Algorithm::RS384 => 1 << 4,
            Algorithm::RS512 => 1 << 5,
            Algorithm::PS256 => 1 << 6,
            Algorithm::PS384 => 1 << 7,
            Algorithm::PS512 => 1 << 8,
            Algorithm::ES256 => 1 << 9,
            Algorithm::ES384 => 1 << 10,
            Algorithm::ES512 => 1 << 11,
            Algorithm::EDDSA => 1 << 12,
            // In no set.
            Algorithm::Jwt(_) => 0,
        })
    }

    /// Whether the algorithm is in the set.
    pub(crate) fn contains(self, algorithm: Algorithm) -> bool {
        self.0 & Self::of(algorithm).0 != 0
    }

    /// The intersection of both sets.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The union of both sets.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The algorithms of this set that are not in the other.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set is empty.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The algorithms in the set.
    pub(crate) fn iter(self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL
            .into_iter()
            .filter(move |algorithm| self.contains(*algorithm))
    }
}

impl FromIterator<Algorithm> for AlgorithmSet {
    fn from_iter<I: IntoIterator<Item = Algorithm>>(algorithms: I) -> Self {
        algorithms
            .into_iter()
            .fold(Self::default(), |set, one| set.or(Self::of(one)))
    }
}

impl fmt::Display for AlgorithmSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, algorithm) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            f.write_str(algorithm.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.name()), Ok(algorithm));
        }
        assert_eq!(Algorithm::parse("Ed25519"), Ok(Algorithm::EDDSA));
    }

    #[test]
    fn other_names_are_refused_with_what_would_be_right() {
        for (name, word) in [
            ("none", "never"),
            ("NoNe", "never"),
            ("ES521", "the algorithms are"),
            ("rs256", "write RS256"),
            ("HS1", "the algorithms are"),
            ("", "the algorithms are"),
        ] {
            let fault = Algorithm::parse(name).unwrap_err();
            assert!(fault.contains(word), "{name}: {fault}");
        }
    }

    #[test]
    fn the_families_do_not_overlap_and_are_complete() {
        let families = [
            AlgorithmSet::HMAC,
            AlgorithmSet::RSA,
            AlgorithmSet::P256,
            AlgorithmSet::P384,
            AlgorithmSet::P521,
            AlgorithmSet::ED25519,
        ];
        for algorithm in Algorithm::ALL {
            let holding = families
                .iter()
                .filter(|family| family.contains(algorithm))
                .count();
            assert_eq!(holding, 1, "{algorithm}");
        }
        assert_eq!(AlgorithmSet::HMAC.to_string(), "HS256, HS384, HS512");
        assert_eq!(AlgorithmSet::RSA.iter().count(), 6);
    }
}
