//! Authentication and authorization of requests: `Guard` is what a route requires, `Permit` the proof that the
//! requirement was met. No upstream connection or file is opened without a `Permit`.

mod algorithm;
mod api_key;
mod ask;
mod basic;
mod binding;
mod certificate;
mod challenge;
mod claims;
mod explain;
mod guard;
mod hashing;
mod json;
mod jwk;
mod jws;
mod jwt_guard;
mod key_fault;
mod keys;
mod lease;
mod number;
mod password;
mod pem;
mod permit;
mod policy;
mod principal;
mod provider;
mod public_key;
mod remembered;
mod remote;
mod revoked;
mod signing;
mod token;
mod verify;
mod witness;

#[cfg(any(test, fuzzing))]
mod properties;
#[cfg(test)]
mod rfc_examples;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof;

pub(crate) use self::algorithm::Algorithm;
pub(crate) use self::api_key::{ApiKey, ApiKeys, KeyHash, KeyMap, KeyPlace, hash_of, hex, new_key};
pub(crate) use self::ask::{AskGuard, Word, is_credential};
pub(crate) use self::basic::{BasicUsers, Passwords};
pub(crate) use self::binding::Cnf;
pub(crate) use self::certificate::{CertificateRule, Certified, Demand, NamePattern};
pub(crate) use self::claims::{ClaimPath, Claims};
pub(crate) use self::explain::faults_of;
pub(crate) use self::guard::{Guard, Scheme};
pub(crate) use self::hashing::{Checked, Hashing, Unchecked};
pub(crate) use self::json::{parse_object, read_number};
#[cfg(any(test, fuzzing))]
pub(crate) use self::jws::token_holds;
pub(crate) use self::jwt_guard::{JwtGuard, JwtGuardSettings};
pub(crate) use self::keys::{KeySet, KeySource, MAX_TRIES};
pub(crate) use self::lease::Lease;
pub(crate) use self::number::whole;
pub(crate) use self::password::{
    Verdict, hash as hash_password, is_htpasswd as is_htpasswd_hash, is_known as is_known_hash,
    is_todays as is_todays_hash,
};
pub(crate) use self::permit::Permit;
pub(crate) use self::policy::Requirement;
pub(crate) use self::principal::Principal;
#[cfg(any(test, fuzzing))]
pub(crate) use self::properties::keys_hold;
pub(crate) use self::remembered::Remembered;
pub(crate) use self::remote::{
    Fetched, Location, NotFetched, RemoteKeys, RemoteSettings, jwks_uri,
};
pub(crate) use self::revoked::{Admitted, LiveRevoked, Revoked};
pub(crate) use self::signing::SigningKey;
pub(crate) use self::token::{TokenSource, cookies_named, remove_cookie, tokens_of_cookies};
pub(crate) use self::verify::{Audience, Ended, Verifier, VerifierSettings};
pub(crate) use self::witness::{Says, Witness};
