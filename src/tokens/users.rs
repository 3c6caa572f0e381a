//! The users that may log in: reads and writes `users.yaml`. Passwords are checked in `auth`.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::RandomState;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value};

use crate::auth::{Admitted, is_known_hash, is_todays_hash};
use crate::yaml::{self, Yaml};

/// One user.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct User {
    /// The password's hash; without one the user cannot log in.
    pub(crate) password: Option<String>,
    /// Whether they may log in.
    pub(crate) active: bool,
    /// Sessions that began before this have ended, in milliseconds since 1970.
    pub(crate) since: u64,
    /// Other data about the user, such as `roles`.
    pub(crate) more: Map<String, Value>,
}

impl User {
    /// Whether the password is still that of the previous entry, as far as hashes tell: a hash of the current kind in
    /// place of an older one counts as a renewal.
    pub(crate) fn has_password_of(&self, before: &Self) -> bool {
        match (&before.password, &self.password) {
            (Some(old), Some(new)) => old == new || (!is_todays_hash(old) && is_todays_hash(new)),
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

/// All users, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Users {
    by_name: BTreeMap<String, User>,
    /// Entries that cannot be read: nobody can log in under their names, and other users are not affected.
    broken: BTreeMap<String, Broken>,
    /// The hashes that existed when the file was read.
    hashes: Vec<String>,
}

/// An entry that cannot be read.
#[derive(Clone, Debug, PartialEq)]
struct Broken {
    /// Why.
    why: String,
    /// Its content, which is preserved when the file is rewritten; `None` where it is not even JSON.
    content: Option<Value>,
}

impl Users {
    /// Reads users, each with its content in the file; `None` where that is not even JSON. Entries that cannot be read
    /// are [`Users::broken`].
    pub(crate) fn read(users: impl IntoIterator<Item = (String, Option<Value>)>) -> Self {
        let mut all = Self::default();
        for (name, content) in users {
            let user = match &content {
                Some(content) => is_name(&name).and_then(|()| read_user(content)),
                None => Err("a value is ambiguous: put it into quotes".to_owned()),
            };
            match user {
                Ok(user) => {
                    all.hashes.extend(user.password.clone());
                    all.by_name.insert(name, user);
                }
                Err(why) => {
                    all.broken.insert(name, Broken { why, content });
                }
            }
        }
        all
    }

    /// The names of entries that cannot be read, each with the reason.
    pub(crate) fn broken(&self) -> impl Iterator<Item = (&str, &str)> {
        self.broken
            .iter()
            .map(|(name, broken)| (name.as_str(), broken.why.as_str()))
    }

    /// An entry that would be lost if the file were rewritten.
    pub(crate) fn unwritable(&self) -> Option<&str> {
        let mut all = self.broken.iter();
        let found = all.find(|(_, broken)| broken.content.is_none());
        found.map(|(name, _)| name.as_str())
    }

    /// A user who may log in.
    pub(crate) fn active(&self, name: &str) -> Option<&User> {
        self.by_name.get(name).filter(|user| user.active)
    }

    /// A user.
    pub(crate) fn get(&self, name: &str) -> Option<&User> {
        self.by_name.get(name)
    }

    /// The hash of some user, for a name that does not exist: always the same one for that name, so that refusing its
    /// password takes as long as for a real user.
    pub(crate) fn decoy(&self, name: &str) -> Option<String> {
        use std::hash::BuildHasher as _;
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let count = u64::try_from(self.hashes.len()).ok()?;
        let which = HASHER.hash_one(name).checked_rem(count)?;
        self.hashes.get(usize::try_from(which).ok()?).cloned()
    }

    /// The users who may have sessions, and since when.
    pub(crate) fn admitted(&self) -> Admitted {
        let active = self.by_name.iter().filter(|(_, user)| user.active);
        Admitted::new(active.map(|(name, user)| (name.clone(), user.since)))
    }

    /// The users, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &User)> {
        self.by_name
            .iter()
            .map(|(name, user)| (name.as_str(), user))
    }

    /// Adds or replaces a user.
    pub(crate) fn put(&mut self, name: &str, user: User) {
        self.broken.remove(name);
        self.by_name.insert(name.to_owned(), user);
    }

    /// Removes a user; returns whether there was one.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.by_name.remove(name).is_some() || self.broken.remove(name).is_some()
    }

    /// The file's content.
    ///
    /// # Errors
    /// Where it cannot be YAML.
    pub(crate) fn write(&self) -> io::Result<String> {
        let contents = self.broken.values().map(|broken| broken.content.as_ref());
        let broken = self.broken.keys().zip(contents);
        let broken = broken.filter_map(|(name, content)| Some((name, Yaml::from(content?))));
        let users = self.by_name.iter().map(|(name, user)| {
            let more = user.more.iter();
            let more = more.map(|(name, value)| (name.as_str().into(), value.into()));
            let known = [
                user.password
                    .as_deref()
                    .map(|hash| ("password".into(), Yaml::Text(hash.into()))),
                Some(("active".into(), Yaml::Plain(user.active.to_string().into()))),
                (user.since > 0)
                    .then(|| ("since".into(), Yaml::Plain(user.since.to_string().into()))),
            ];
            (
                name,
                Yaml::Map(known.into_iter().flatten().chain(more).collect()),
            )
        });
        let all = broken.chain(users);
        let all = all.map(|(name, user)| (name.as_str().into(), user));
        yaml::write(&Yaml::Map(all.collect())).map_err(io::Error::other)
    }
}

/// The maximum length of a user name, in characters, as in Django.
pub(super) const LONGEST_NAME: usize = 150;

/// Whether this is a valid user name.
///
/// # Errors
/// Why not.
pub(crate) fn is_name(name: &str) -> Result<(), String> {
    if name.is_empty()
        || name.chars().count() > LONGEST_NAME
        || name.chars().any(char::is_control)
        || name != name.trim()
    {
        let why = format!(
            "a user has a name of 1 to {LONGEST_NAME} characters, without control characters and without space at its ends"
        );
        return Err(why);
    }
    Ok(())
}

/// Runs an action on a users' file under a lock that all its writers use: the command line, and a gateway that renews
/// a hash.
///
/// # Errors
/// Where the directory cannot be locked, and the errors of the action.
pub(crate) fn alone<T>(file: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let directory = file
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or_else(|| Path::new(".")))?;
    flock(&directory, FlockOperation::LockExclusive)?;
    // Closing the directory's descriptor releases the lock.
    let done = act();
    drop(directory);
    done
}

fn read_user(user: &Value) -> Result<User, String> {
    let Value::Object(members) = user else {
        return Err("write a map, such as {password: HASH, active: true}".to_owned());
    };
    let mut more = members.clone();
    let password = match more.remove("password") {
        None => None,
        Some(Value::String(hash)) if is_known_hash(&hash) => Some(hash),
        // Django's mark of an account without a password.
        Some(Value::String(hash)) if hash.starts_with('!') => None,
        Some(_) => {
            return Err(
                "`password` is a hash of argon2id, bcrypt or Django's pbkdf2_sha256; \
                        `portcullis user password NAME` makes one"
                    .to_owned(),
            );
        }
    };
    let active = match more.remove("active") {
        None => true,
        Some(Value::Bool(active)) => active,
        Some(_) => return Err("`active` is true or false".to_owned()),
    };
    let since = match more.remove("since") {
        None => 0,
        Some(since) => since.as_u64().ok_or(
            "`since` is a time in milliseconds since 1970: sessions that began earlier have ended",
        )?,
    };
    Ok(User {
        password,
        active,
        since,
        more,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(content: &Value) -> Users {
        let members = content.as_object().unwrap().clone();
        Users::read(members.into_iter().map(|(name, user)| (name, Some(user))))
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let hash = crate::auth::hash_password("secret").unwrap();
        let users = read(&json!({
            "alice": {"password": hash, "roles": ["clerk"], "id": 7, "since": 1500},
            "bob: \"b\"": {"active": false},
        }));
        assert!(users.active("alice").is_some() && users.active("bob: \"b\"").is_none());
        let text = users.write().unwrap();
        let begin = format!("alice:\n  password: {hash}\n  active: true\n  since: 1500\n");
        assert!(text.starts_with(&begin), "{text}");
        let back: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read(&back), users);
        assert_eq!(Users::default().write().unwrap(), "{}\n");
    }

    #[test]
    fn who_is_wrong_is_named_and_the_others_stay() {
        for (content, said) in [
            (json!({"a": 1}), "write a map"),
            (
                json!({"a": {"password": "plain"}}),
                "portcullis user password",
            ),
            (json!({"a": {"active": "yes"}}), "true or false"),
            (json!({"a": {"since": "x"}}), "milliseconds"),
            (json!({"a": {"since": -1}}), "milliseconds"),
            (json!({"": {}}), "has a name"),
            (json!({"a ": {}}), "has a name"),
            (json!({"a".repeat(151): {}}), "has a name"),
        ] {
            let mut all = content.as_object().unwrap().clone();
            all.insert("bob".to_owned(), json!({"roles": []}));
            let mut users = read(&Value::Object(all.clone()));
            let [(name, why)] = users.broken().collect::<Vec<_>>()[..] else {
                panic!("{users:?}");
            };
            assert!(why.contains(said), "{why}");
            assert!(users.active("bob").is_some() && users.active(name).is_none());
            // It is preserved when another user is changed, and can be removed.
            let (name, content) = (name.to_owned(), &all[name]);
            let text = users.write().unwrap();
            let back: Value = serde_yaml::from_str(&text).unwrap();
            assert_eq!(back.get(&name), Some(content), "{text}");
            let mut mended = users.clone();
            mended.put(&name, User::default());
            assert!(mended.broken().next().is_none());
            assert!(users.remove(&name) && users.broken().next().is_none());
        }
        let users = Users::read([("a".to_owned(), None)]);
        assert_eq!(users.unwritable(), Some("a"));
    }

    #[test]
    fn names_have_so_many_characters_and_not_bytes() {
        assert!(is_name(&"\u{1f600}".repeat(150)).is_ok());
        assert!(is_name(&"a".repeat(151)).is_err());
    }

    #[test]
    fn an_unknown_name_takes_the_time_of_somebody_who_is_there() {
        let some = ["a", "b", "c", "d"].map(|it| bcrypt::hash(it, 4).unwrap());
        let all: Map<String, Value> = some
            .iter()
            .enumerate()
            .map(|(at, hash)| (at.to_string(), json!({ "password": hash })))
            .chain([("x".to_owned(), json!({"password": "!unusable"}))])
            .collect();
        let users = read(&Value::Object(all));
        assert_eq!(users.get("x").unwrap().password, None);
        let mut seen = std::collections::HashSet::new();
        for at in 0..200 {
            let name = format!("nobody{at}");
            let decoy = users.decoy(&name).unwrap();
            assert_eq!(users.decoy(&name), Some(decoy.clone()));
            assert!(some.contains(&decoy));
            seen.insert(decoy);
        }
        assert_eq!(seen.len(), 4);
        assert_eq!(Users::default().decoy("a"), None);
    }
}
