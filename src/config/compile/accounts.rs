//! Users and groups by name, as `/etc/passwd` and `/etc/group` have them. Other sources of the system (LDAP, systemd)
//! are not asked: they are only known to the C library, and may take their time.

use std::path::Path;

use super::Compiler;
use crate::config::decode::nearest;
use crate::config::parsed::Spanned;
use crate::filesystem;

const GROUPS: &str = "/etc/group";

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
