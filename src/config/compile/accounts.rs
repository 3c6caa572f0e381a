//! Users and groups by name, as `/etc/passwd` and `/etc/group` have them. Other sources of the system (LDAP, systemd)
//! are not asked: they are only known to the C library, and may take their time.

use std::path::Path;

use super::{Compiler, Purpose};
use crate::config::decode::nearest;
use crate::config::parsed::{Account, Spanned};
use crate::filesystem;
use crate::privilege::User;

pub(super) const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// A user.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Person {
    name: String,
    id: u32,
    group: u32,
}

/// The users of a file; lines that are none are left out (passwd(5)).
fn people(text: &str) -> Vec<Person> {
    let person = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, group, _, _, _] = fields.as_slice() else {
            return None;
        };
        let person = Person {
            name: (*name).to_owned(),
            id: id.parse().ok()?,
            group: group.parse().ok()?,
        };
        (!name.is_empty()).then_some(person)
    };
    text.lines().filter_map(person).collect()
}

/// A group.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Group {
    name: String,
    id: u32,
    members: Vec<String>,
}

/// The groups of a file; lines that are none are left out (group(5)).
fn groups(text: &str) -> Vec<Group> {
    let group = |line: &str| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        let members = fields.next()?.split(',').map(str::to_owned);
        let group = Group {
            name: name.to_owned(),
            id: id.parse().ok()?,
            members: members.filter(|name| !name.is_empty()).collect(),
        };
        (!name.is_empty() && fields.next().is_none()).then_some(group)
    };
    text.lines().filter_map(group).collect()
}

impl Compiler<'_> {
    /// The user that serves. Reports one that there is not, root, and one that this process cannot become.
    pub(super) fn serving_user(&mut self, account: &Account) -> Option<User> {
        let named = &account.name;
        let people = people(&self.accounts(USERS, named)?);
        let Some(person) = people.iter().find(|person| person.name == named.value) else {
            match named.value.split_once(':').filter(|_| !named.private) {
                Some((name, group)) => {
                    let problem = "a user and a group are two keys";
                    let hint = format!("write {{name: {name}, group: {group}}}");
                    self.errors.at(named.place, problem).hint(hint);
                }
                None => {
                    let names = people.iter().map(|person| person.name.as_str());
                    self.unknown_account("user", named, USERS, nearest(&named.value, names));
                }
            }
            return None;
        };
        if person.id == 0 {
            let problem = "this user is root, which `user` is there to give up";
            self.errors
                .at(named.place, problem)
                .hint("name a user without privileges, or leave `user` out");
            return None;
        }
        let groups = groups(&self.accounts(GROUPS, named)?);
        let gid = match &account.group {
            Some(group) => self.group(group)?,
            None => person.group,
        };
        let also = groups
            .iter()
            .filter(|group| group.members.contains(&person.name));
        let mut ids: Vec<u32> = also.map(|group| group.id).chain([gid]).collect();
        ids.sort_unstable();
        ids.dedup();
        let own = groups.iter().find(|group| group.id == gid);
        let user = User {
            name: person.name.clone(),
            uid: person.id,
            group: own.map_or_else(|| gid.to_string(), |group| group.name.clone()),
            gid,
            groups: ids,
        };
        let is_root = rustix::process::geteuid().is_root();
        // A reload comes from a process that has become it.
        if self.purpose == Purpose::Serve && self.previous.is_none() && !is_root && !user.is_here()
        {
            let problem = format!("only root can become `{user}`, and this process is not root");
            self.errors
                .at(named.place, problem)
                .hint("start it as root or as that user and group, or leave `user` out");
            return None;
        }
        Some(user)
    }

    /// The id of a group; reports one that there is not.
    pub(super) fn group(&mut self, named: &Spanned<String>) -> Option<u32> {
        let groups = groups(&self.accounts(GROUPS, named)?);
        let found = groups.iter().find(|group| group.name == named.value);
        if found.is_none() {
            let names = groups.iter().map(|group| group.name.as_str());
            self.unknown_account("group", named, GROUPS, nearest(&named.value, names));
        }
        found.map(|group| group.id)
    }

    /// The text of a file of accounts; reports one that cannot be read.
    fn accounts(&mut self, file: &'static str, named: &Spanned<String>) -> Option<String> {
        let read = move || filesystem::read(Path::new(file));
        match self.loader.patiently(Path::new(file), read) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => {
                let problem = format!("`{file}` cannot be read: {}", super::why(&error));
                self.errors.at(named.place, problem);
                None
            }
        }
    }

    fn unknown_account(
        &mut self,
        what: &str,
        named: &Spanned<String>,
        file: &str,
        near: Option<&str>,
    ) {
        let problem = match named.private {
            true => format!("there is no {what} of this name in {file}"),
            false => format!("there is no {what} `{}` in {file}", named.value),
        };
        let draft = self.errors.at(named.place, problem);
        if let Some(near) = near.filter(|_| !named.private) {
            draft.hint(format!("did you mean `{near}`?"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_as_the_system_has_them() {
        let text = "root:x:0:0:root:/root:/bin/sh\n#no:x:1:1\nwww-data:x:33:34:,,:/var/www:/bin/false\n\nshort:x:5:5:::\n\
                    +::::::\n:x:7:7:::\nlong:x:8:8::::9\nnobody:*:4294967294:65534::/:";
        let seen: Vec<_> = people(text)
            .into_iter()
            .map(|person| (person.name, person.id, person.group))
            .collect();
        let expected = [
            ("root", 0, 0),
            ("www-data", 33, 34),
            ("short", 5, 5),
            ("nobody", 4_294_967_294, 65_534),
        ];
        let expected = expected.map(|(name, id, group)| (name.to_owned(), id, group));
        assert_eq!(seen, expected);
    }

    #[test]
    fn groups_are_read_as_the_system_has_them() {
        let text = "root:x:0:\nwww-data:x:33:ada,bob\n# no:x:1:\n\nshort:x:5\nnis:x:no:\n+:::\n:x:7:\nlong:x:8::9\nlast:x:4294967294:ada";
        let seen: Vec<_> = groups(text)
            .into_iter()
            .map(|group| (group.name, group.id, group.members.join(" ")))
            .collect();
        let expected = [
            ("root", 0, ""),
            ("www-data", 33, "ada bob"),
            ("# no", 1, ""),
            ("last", 4_294_967_294, "ada"),
        ];
        let expected =
            expected.map(|(name, id, members)| (name.to_owned(), id, members.to_owned()));
        assert_eq!(seen, expected);
    }
}
