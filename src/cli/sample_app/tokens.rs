//! The sample app's users and tokens: HS256 with a shared secret and simplejwt's claims. A sample
//! identity provider, not the gateway's verifier.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// Someone who can sign in.
#[derive(Debug)]
pub(crate) struct User {
    /// simplejwt's `user_id`.
    pub(crate) id: u32,
    /// The name to sign in with, and the token's `sub`.
    pub(crate) name: &'static str,
    /// The password, in the clear: it is made at every start and lives as long as the process.
    pub(crate) password: String,
    /// The token's `roles`.
    pub(crate) roles: &'static [&'static str],
}

/// What a token may be used for, as simplejwt's `token_type` says it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Opens the app's routes.
    Access,
    /// Good for a new access token, and for nothing else.
    Refresh,
}

/// The claims of a sample token, named as in simplejwt, with a `sub` and `roles` beside them.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    token_type: Kind,
    exp: u64,
    iat: u64,
    jti: String,
    user_id: String,
    sub: String,
    roles: Vec<String>,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    /// The operating system gave no random bytes for the `jti`.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// The signature failed.
    #[error("cannot sign a token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Signs tokens with the demo's secret, and knows its own again.
pub(crate) struct Issuer {
    signing: EncodingKey,
    checking: DecodingKey,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer")
    }
}

impl Issuer {
    /// An issuer for HS256 with this secret, which is used as the bytes of its text.
    pub(crate) fn new(secret: &str) -> Self {
        Self {
            signing: EncodingKey::from_secret(secret.as_bytes()),
            checking: DecodingKey::from_secret(secret.as_bytes()),
        }
    }

    /// A token for `user` that begins at `now` and is good for `lifetime`.
    pub(crate) fn mint(
        &self,
        user: &User,
        kind: Kind,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, MintError> {
        let mut jti = [0; 16];
        getrandom::fill(&mut jti).map_err(MintError::Random)?;
        let iat = unix_seconds(now);
        let claims = Claims {
            token_type: kind,
            exp: iat.saturating_add(lifetime.as_secs()),
            iat,
            jti: hex(&jti),
            user_id: user.id.to_string(),
            sub: user.name.to_owned(),
            roles: user.roles.iter().map(|&role| role.to_owned()).collect(),
        };
        Ok(jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims,
            &self.signing,
        )?)
    }

    /// The name of the user whom this refresh token is for, if it is ours and good at `now`.
    pub(crate) fn refreshed(&self, token: &str, now: SystemTime) -> Option<String> {
        let mut validation = Validation::new(Algorithm::HS256);
        // `exp` is compared below: jsonwebtoken would read the clock itself.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &validation)
            .ok()?
            .claims;
        (claims.token_type == Kind::Refresh && claims.exp > unix_seconds(now)).then_some(claims.sub)
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whole seconds since 1970, as NumericDate counts them (RFC 7519 section 2).
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
