//! Password hashes: argon2id, and those that migrated users bring along, bcrypt and Django's pbkdf2_sha256. Where the
//! hashes are stored is not known here.

use std::num::NonZeroU32;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use aws_lc_rs::{digest, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The result of a password check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The password is correct.
    Right,
    /// The password is correct, and its hash is of an older kind.
    RightAndOld,
    /// The password is wrong.
    Wrong,
}

/// More iterations of PBKDF2 than anyone configures.
const MOST_ITERATIONS: u32 = 10_000_000;

/// A hash that no password matches, for checking the passwords of unknown users.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$7cqhHWfp5QWJ1qE7LyZK4Wm4qVvHPaZQvWPIXXpJcOM";

/// Hashes a password: argon2id with a random salt, as a PHC string.
///
/// # Errors
/// Where the system has no random numbers.
pub(crate) fn hash(password: &str) -> Result<String, String> {
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

/// Whether a text is a hash that each request may be checked with: bcrypt or argon2id, of bounded cost.
pub(crate) fn is_htpasswd(hash: &str) -> bool {
    /// 2 to the power of this many rounds, which take some seconds.
    const MOST_COST: u32 = 16;
    match kind(hash) {
        Some(Kind::Argon2(phc)) if is_todays(phc) => is_known(phc),
        Some(Kind::Bcrypt(text)) => {
            let parts = text.parse::<bcrypt::HashParts>();
            parts.is_ok_and(|parts| parts.get_cost() <= MOST_COST)
        }
        Some(Kind::Argon2(_) | Kind::BcryptSha256(_) | Kind::Pbkdf2 { .. }) | None => false,
    }
}

/// Whether a text is a hash of a known kind.
pub(crate) fn is_known(hash: &str) -> bool {
    match kind(hash) {
        Some(Kind::Argon2(phc)) => PasswordHash::new(phc).is_ok_and(|hash| is_bounded(&hash)),
        Some(Kind::Bcrypt(text) | Kind::BcryptSha256(text)) => text.len() == 60,
        Some(Kind::Pbkdf2 {
            iterations, hash, ..
        }) => hash.len() == digest::SHA256_OUTPUT_LEN && iterations.get() <= MOST_ITERATIONS,
        None => false,
    }
}

/// Whether a hash is of the kind that new hashes have.
pub(crate) fn is_todays(hash: &str) -> bool {
    hash.starts_with("$argon2id$")
}

/// Whether checking this hash takes no more memory and time than a login may.
fn is_bounded(hash: &PasswordHash) -> bool {
    /// In KiB.
    const MOST_MEMORY: u32 = 256 * 1024;
    const MOST_PASSES: u32 = 64;
    let number = |name| hash.params.get_decimal(name);
    number("m").is_none_or(|memory| memory <= MOST_MEMORY)
        && number("t").is_none_or(|passes| passes <= MOST_PASSES)
}

/// Checks a password; `None` for a user that does not exist, which takes as long.
pub(crate) fn check(hash: Option<&str>, password: &str) -> Verdict {
    let Some(hash) = hash else {
        // The same work, and never a match.
        let _took_its_time = is_right(NOBODY, password);
        return Verdict::Wrong;
    };
    match (is_right(hash, password), kind(hash)) {
        (false, _) => Verdict::Wrong,
        (true, Some(Kind::Argon2(phc))) if is_todays(phc) => Verdict::Right,
        (true, _) => Verdict::RightAndOld,
    }
}

enum Kind<'h> {
    /// A PHC string.
    Argon2(&'h str),
    /// `$2b$…`.
    Bcrypt(&'h str),
    /// The same with the hexadecimal SHA-256 of the password as input, as in Django.
    BcryptSha256(&'h str),
    /// Django's `pbkdf2_sha256$ITERATIONS$SALT$HASH`.
    Pbkdf2 {
        iterations: NonZeroU32,
        salt: &'h str,
        hash: Vec<u8>,
    },
}

fn kind(hash: &str) -> Option<Kind<'_>> {
    if let Some(phc) = hash.strip_prefix("argon2$argon2") {
        // Django writes the name of its hasher before the PHC string, with a single `$` between them.
        return hash
            .get(hash.len() - phc.len() - "$argon2".len()..)
            .map(Kind::Argon2);
    }
    if hash.starts_with("$argon2") {
        return Some(Kind::Argon2(hash));
    }
    if let Some(text) = hash.strip_prefix("bcrypt_sha256$") {
        return Some(Kind::BcryptSha256(text));
    }
    let bare = hash.strip_prefix("bcrypt$").unwrap_or(hash);
    if ["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .any(|it| bare.starts_with(it))
    {
        return Some(Kind::Bcrypt(bare));
    }
    let mut parts = hash.strip_prefix("pbkdf2_sha256$")?.splitn(3, '$');
    let (iterations, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Kind::Pbkdf2 {
        iterations: iterations.parse().ok()?,
        salt,
        hash: STANDARD.decode(hash).ok()?,
    })
}

fn is_right(hash: &str, password: &str) -> bool {
    match kind(hash) {
        Some(Kind::Argon2(phc)) => PasswordHash::new(phc).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        }),
        Some(Kind::Bcrypt(text)) => bcrypt::verify(password, text).unwrap_or(false),
        Some(Kind::BcryptSha256(text)) => {
            let sum = digest::digest(&digest::SHA256, password.as_bytes());
            let sum: String = sum
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            bcrypt::verify(sum, text).unwrap_or(false)
        }
        Some(Kind::Pbkdf2 {
            iterations,
            salt,
            hash,
        }) => pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt.as_bytes(),
            password.as_bytes(),
            &hash,
        )
        .is_ok(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_hash_is_checked() {
        let fresh = hash("correct horse").unwrap();
        assert!(fresh.starts_with("$argon2id$v=19$"));
        assert_eq!(check(Some(&fresh), "correct horse"), Verdict::Right);
        assert_eq!(check(Some(&fresh), "correct horsf"), Verdict::Wrong);
        // In the format of Django 5.2.
        let django = "pbkdf2_sha256$1000$saltsalt$qQDPSZa3Ormyy9oK1Pu0ZLLwP2Svzmx3yu8OvDdq/J0=";
        let bcrypt = bcrypt::hash("correct horse", 4).unwrap();
        let old = Argon2::new(
            argon2::Algorithm::Argon2i,
            argon2::Version::V0x13,
            argon2::Params::default(),
        );
        let old = old.hash_password(b"correct horse").unwrap().to_string();
        for hash in [
            django,
            bcrypt.as_str(),
            &format!("bcrypt${bcrypt}"),
            &old,
            &format!("argon2{old}"),
        ] {
            assert!(is_known(hash), "{hash}");
            assert_eq!(
                check(Some(hash), "correct horse"),
                Verdict::RightAndOld,
                "{hash}"
            );
            assert_eq!(check(Some(hash), "wrong"), Verdict::Wrong, "{hash}");
        }
        let django_fresh = format!("argon2{fresh}");
        assert_eq!(check(Some(&django_fresh), "correct horse"), Verdict::Right);
        for unknown in [
            "",
            "plain",
            "md5$a$b",
            "!",
            "pbkdf2_sha256$0$a$b",
            // Only the first bytes, which many passwords share.
            "pbkdf2_sha256$1000$saltsalt$qQ==",
            "pbkdf2_sha256$1000$saltsalt$",
            "pbkdf2_sha256$10000001$saltsalt$qQDPSZa3Ormyy9oK1Pu0ZLLwP2Svzmx3yu8OvDdq/J0=",
            "$2b$",
        ] {
            assert!(!is_known(unknown), "{unknown}");
            assert_eq!(check(Some(unknown), unknown), Verdict::Wrong, "{unknown}");
        }
        assert!(is_known(NOBODY));
        assert_eq!(check(None, "correct horse"), Verdict::Wrong);
    }
}
