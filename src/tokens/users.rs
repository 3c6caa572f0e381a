//! The users that may log in: `users.yaml`, as it is read and as it is written. Passwords are the
//! matter of `password`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value};

use super::password;

/// One user.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct User {
    /// The password's hash; without one nobody can log in.
    pub(crate) password: Option<String>,
    /// Whether they may log in.
    pub(crate) active: bool,
    /// What else is known of them, such as `roles`.
    pub(crate) more: Map<String, Value>,
}

/// All users, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Users(BTreeMap<String, User>);

impl Users {
    /// Reads the file's content: a map of users.
    ///
    /// # Errors
    /// What is wrong, with the user's name.
    pub(crate) fn read(content: &Value) -> Result<Self, String> {
        let Value::Object(users) = content else {
            return Err("write a map of users, such as {alice: {password: HASH}}".to_owned());
        };
        let mut all = BTreeMap::new();
        for (name, user) in users {
            let user = read_user(user).map_err(|why| format!("user {name}: {why}"))?;
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err("a user has a name without control characters".to_owned());
            }
            all.insert(name.clone(), user);
        }
        Ok(Self(all))
    }

    /// A user who may log in.
    pub(crate) fn active(&self, name: &str) -> Option<&User> {
        self.0.get(name).filter(|user| user.active)
    }

    /// A user.
    pub(crate) fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }

    /// The users, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &User)> {
        self.0.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// Puts a user in place.
    pub(crate) fn put(&mut self, name: &str, user: User) {
        self.0.insert(name.to_owned(), user);
    }

    /// Takes a user out; whether there was one.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// The file's content: a line a user, in JSON, which is YAML.
    pub(crate) fn write(&self) -> String {
        if self.0.is_empty() {
            return "{}\n".to_owned();
        }
        let mut text = String::new();
        for (name, user) in &self.0 {
            let mut members = Map::new();
            if let Some(password) = &user.password {
                members.insert("password".to_owned(), password.as_str().into());
            }
            members.insert("active".to_owned(), user.active.into());
            members.extend(user.more.clone());
            let name = Value::from(name.as_str());
            text.push_str(&format!("{name}: {}\n", Value::Object(members)));
        }
        text
    }
}

/// Does something to a users' file alone among all who do it this way: the command line, and a gateway
/// that renews a hash.
///
/// # Errors
/// Where the folder cannot be locked, and whatever is done says.
pub(crate) fn alone<T>(file: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or_else(|| Path::new(".")))?;
    flock(&folder, FlockOperation::LockExclusive)?;
    // The lock goes with the folder's descriptor.
    let done = act();
    drop(folder);
    done
}

fn read_user(user: &Value) -> Result<User, String> {
    let Value::Object(members) = user else {
        return Err("write a map, such as {password: HASH, active: true}".to_owned());
    };
    let mut more = members.clone();
    let password = match more.remove("password") {
        None => None,
        Some(Value::String(hash)) if password::is_known(&hash) => Some(hash),
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
    Ok(User {
        password,
        active,
        more,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_the_same() {
        let hash = password::hash("secret").unwrap();
        let users = Users::read(&json!({
            "alice": {"password": hash, "roles": ["clerk"], "id": 7},
            "bob: \"b\"": {"active": false},
        }))
        .unwrap();
        assert!(users.active("alice").is_some() && users.active("bob: \"b\"").is_none());
        let text = users.write();
        assert_eq!(text.lines().count(), 2);
        let back: Map<String, Value> = text
            .lines()
            .map(|line| {
                let whole: Value = serde_json::from_str(&format!("{{{line}}}")).unwrap();
                let (name, user) = whole.as_object().unwrap().iter().next().unwrap();
                (name.clone(), user.clone())
            })
            .collect();
        assert_eq!(Users::read(&Value::Object(back)).unwrap(), users);
        assert_eq!(Users::default().write(), "{}\n");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_user() {
        for (content, said) in [
            (json!([]), "a map of users"),
            (json!({"a": 1}), "user a"),
            (
                json!({"a": {"password": "plain"}}),
                "portcullis user password",
            ),
            (json!({"a": {"active": "yes"}}), "true or false"),
            (json!({"": {}}), "has a name"),
        ] {
            let why = Users::read(&content).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }
}
