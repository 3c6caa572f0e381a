//! Users with a password that each request sends along (RFC 7617). Hashes are checked on threads of their own, and a
//! good pair of name and password is remembered for a while, so that a page with many pictures is not many hashes. How
//! the users' file is read is said in `config`; how many wrong passwords a client may send, in `limit`.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::hashing::{Hashing, Unchecked};
use super::password::{self, Verdict};
use super::remembered::{PairTag, Remembered};
use super::token;
use super::verify::Verified;
use crate::message::reject::Reject;

/// The longest credentials, in bytes: bcrypt uses 72 bytes of a password.
const LONGEST: usize = 1024;

/// The users of a file.
pub(crate) struct Passwords {
    users: HashMap<String, User>,
    /// A hash of the file, which is checked for names that it does not have.
    decoy: Option<String>,
    /// The file.
    pub(crate) file: PathBuf,
    /// The key of remembered pairs: another version of the file has another one.
    key: hmac::Key,
}

#[derive(Clone)]
struct User {
    hash: String,
    verified: Arc<Verified>,
}

impl fmt::Debug for Passwords {
    /// Hashes are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords of {}", self.file.display())
    }
}

impl Passwords {
    /// The users of a file, names with hashes of known kinds.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub(crate) fn new(file: PathBuf, users: Vec<(String, String)>) -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| error.to_string())?;
        let decoy = users.first().map(|(_, hash)| hash.clone());
        let users = users.into_iter().map(|(name, hash)| {
            let claims = Map::from_iter([("sub".to_owned(), Value::from(name.as_str()))]);
            let verified = Arc::new(Verified::of(Claims::new(claims)));
            (name, User { hash, verified })
        });
        Ok(Self {
            users: users.collect(),
            decoy,
            file,
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
        })
    }

    /// Whether it is of the same file with the same users.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let has = |(name, user): (&String, &User)| {
            let known = self.users.get(name);
            known.is_some_and(|known| known.hash == user.hash)
        };
        self.file == other.file
            && self.users.len() == other.users.len()
            && other.users.iter().all(has)
    }

    fn tag(&self, pair: &[u8]) -> PairTag {
        let mut tag = PairTag::default();
        let signed = hmac::sign(&self.key, pair);
        for (to, from) in tag.iter_mut().zip(signed.as_ref()) {
            *to = *from;
        }
        tag
    }

    /// The user of this name, and the hash to check: that of another one where there is no such user, which takes as
    /// long.
    fn user(&self, name: &str) -> (Option<&User>, Option<String>) {
        let user = self.users.get(name);
        let hash = user.map(|user| &user.hash).or(self.decoy.as_ref());
        (user, hash.cloned())
    }
}

/// The users whose passwords a route accepts.
#[derive(Clone, Debug)]
pub(crate) struct BasicUsers {
    /// The users.
    pub(crate) passwords: Arc<Passwords>,
    /// The realm of the challenge.
    pub(crate) realm: String,
    /// Whether the app gets the password.
    pub(crate) pass: bool,
    /// The threads that check passwords.
    pub(crate) hashing: Arc<Hashing>,
}

impl BasicUsers {
    /// Name and password of a request, joined by a colon.
    ///
    /// # Errors
    /// `BasicMissing` where there are none, `TokenMalformed` for two different ones, `BasicRefused` for what is no such
    /// pair.
    fn find(headers: &HeaderMap) -> Result<String, Reject> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let Some(line) = lines.next() else {
            return Err(Reject::BasicMissing);
        };
        if lines.any(|other| other != line) {
            return Err(Reject::TokenMalformed(
                "the request has two different Authorization fields",
            ));
        }
        if line.len() > LONGEST {
            return Err(Reject::BasicRefused);
        }
        let credentials = token::basic(line.as_bytes()).ok_or(Reject::BasicMissing)?;
        let pair = token::user_and_password(credentials).and_then(|it| String::from_utf8(it).ok());
        let pair = pair.filter(|pair| {
            let parts = pair.split_once(':');
            parts.is_some_and(|(name, password)| !name.is_empty() && !password.is_empty())
        });
        pair.ok_or(Reject::BasicRefused)
    }

    /// The user of the request.
    ///
    /// # Errors
    /// `BasicMissing`, `BasicRefused`, `TokenMalformed`; `Throttled` where too many passwords wait to be checked.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        remembered: &Remembered,
        now: SystemTime,
    ) -> Result<Arc<Verified>, Reject> {
        let pair = Self::find(headers)?;
        let tag = self.passwords.tag(pair.as_bytes());
        if let Some(verified) = remembered.pair(&tag, now) {
            return Ok(verified);
        }
        let (name, password) = pair.split_once(':').ok_or(Reject::BasicRefused)?;
        let (user, hash) = self.passwords.user(name);
        let checking = self.hashing.check(hash, password.to_owned(), false);
        let checked = checking.await.map_err(|unchecked| match unchecked {
            Unchecked::Busy => Reject::Throttled { retry: 1 },
            Unchecked::Gone => Reject::Internal,
        })?;
        let verified = accepted(user, checked.verdict)?;
        remembered.keep_pair(tag, &verified, now);
        Ok(verified)
    }

    /// The same without remembering, on this thread: for `explain`, never for a request.
    ///
    /// # Errors
    /// `BasicMissing`, `BasicRefused`, `TokenMalformed`.
    pub(super) fn verify(&self, headers: &HeaderMap) -> Result<Arc<Verified>, Reject> {
        let pair = Self::find(headers)?;
        let (name, password) = pair.split_once(':').ok_or(Reject::BasicRefused)?;
        let (user, hash) = self.passwords.user(name);
        accepted(user, password::check(hash.as_deref(), password))
    }

    /// What becomes of the request's password, in words.
    pub(super) fn explain(&self, headers: &HeaderMap) -> Vec<String> {
        let file = self.passwords.file.display();
        let line = match Self::find(headers) {
            Err(Reject::BasicMissing) => "no Basic credentials in Authorization".to_owned(),
            Err(reject) => reject.detail().into_owned(),
            Ok(pair) => {
                let name = pair.split(':').next().unwrap_or_default();
                match (
                    self.passwords.users.contains_key(name),
                    self.verify(headers),
                ) {
                    (false, _) => format!("{file} has no user {name:?}"),
                    (true, Ok(_)) => format!("the password of {name:?} in {file}"),
                    (true, Err(_)) => format!("a wrong password for {name:?} in {file}"),
                }
            }
        };
        vec![line]
    }

    /// The claims of a user.
    pub(super) fn claims(&self, name: &str) -> Option<&Claims> {
        let user = self.passwords.users.get(name)?;
        Some(user.verified.claims())
    }

    /// The names of all users, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.passwords.users.keys().map(String::as_str)
    }

    /// The field that the app does not get.
    pub(super) fn stripped(&self) -> Option<HeaderName> {
        (!self.pass).then_some(AUTHORIZATION)
    }
}

/// Whoever has the right password; nobody where there is no such user, whatever was checked in its place.
fn accepted(user: Option<&User>, verdict: Verdict) -> Result<Arc<Verified>, Reject> {
    match (user, verdict) {
        (Some(user), Verdict::Right | Verdict::RightAndOld) => Ok(Arc::clone(&user.verified)),
        (Some(_), Verdict::Wrong) | (None, _) => Err(Reject::BasicRefused),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn users(list: &[(&str, &str)]) -> BasicUsers {
        let hashed = list.iter().map(|(name, password)| {
            let hash = bcrypt::hash(password, 4).unwrap();
            ((*name).to_owned(), hash)
        });
        BasicUsers {
            passwords: Arc::new(Passwords::new("a.htpasswd".into(), hashed.collect()).unwrap()),
            realm: "r".to_owned(),
            pass: false,
            hashing: Arc::default(),
        }
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, line.parse().unwrap());
        }
        headers
    }

    fn pair(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[tokio::test]
    async fn a_pair_is_right_or_refused_and_never_half() {
        let users = users(&[("alice", "wonder:land"), ("bob", "b")]);
        let remembered = Remembered::new(0);
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let (alice, wrong, nobody) = (
            pair("alice:wonder:land"),
            pair("alice:b"),
            pair("carol:wonder:land"),
        );
        let lower = alice.replacen("Basic", "bASIC", 1);
        let long = pair(&format!("alice:{}", "x".repeat(LONGEST)));
        for (lines, expected) in [
            (&[alice.as_str()][..], Ok("alice")),
            (&[&alice, &alice], Ok("alice")),
            (&[&lower], Ok("alice")),
            (&[], Err("basic_missing")),
            (&["Bearer abc"], Err("basic_missing")),
            (&[&wrong], Err("basic_refused")),
            // The decoy's password is nobody's.
            (&[&nobody], Err("basic_refused")),
            (&[&pair("alice:")], Err("basic_refused")),
            (&[&pair(":wonder:land")], Err("basic_refused")),
            (&[&pair("alice")], Err("basic_refused")),
            (&["Basic"], Err("basic_refused")),
            (&["Basic !"], Err("basic_refused")),
            (&[&long], Err("basic_refused")),
            (&[&alice, &wrong], Err("token_request_malformed")),
        ] {
            // The second time it may be remembered.
            for _ in 0..2 {
                let headers = headers(lines);
                let found = users.authenticate(&headers, &remembered, now).await;
                let seen = found.map(|it| it.claims().get("sub").unwrap().clone());
                let expected = expected.map(Value::from);
                assert_eq!(seen.map_err(Reject::reason), expected, "{lines:?}");
                let at_once = users.verify(&headers);
                let seen = at_once.map(|it| it.claims().get("sub").unwrap().clone());
                assert_eq!(seen.map_err(Reject::reason), expected, "{lines:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_good_pair_is_remembered_for_a_while_and_for_this_version_of_the_file() {
        let (before, after) = (users(&[("alice", "old")]), users(&[("alice", "new")]));
        let remembered = Remembered::new(0);
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let headers = headers(&[&pair("alice:old")]);
        assert!(
            before
                .authenticate(&headers, &remembered, now)
                .await
                .is_ok()
        );
        let tag = before.passwords.tag(b"alice:old");
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(remembered.pair(&tag, later(299)).is_some());
        assert!(remembered.pair(&tag, later(300)).is_none());
        // A clock that was set back does not make it last.
        assert!(
            remembered
                .pair(&tag, now - Duration::from_secs(3600))
                .is_none()
        );
        assert!(!before.passwords.is_same(&after.passwords));
        let refused = after.authenticate(&headers, &remembered, now).await;
        assert_eq!(refused.err(), Some(Reject::BasicRefused));
    }
}
