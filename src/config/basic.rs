//! `basic` of `auth`, and the file of names and password hashes that it names, as `htpasswd` writes them. Passwords are
//! checked in `auth`.

use super::decode::Decoder;
use super::keys;
use super::node::{Kind, Node};
use super::parsed::{Auth, BasicRule, JwtRule, Spanned};
use crate::auth::is_htpasswd_hash;

/// A name, and the hash of its password.
type User = (String, String);

/// Something wrong with a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// It is not a name, a colon and a hash.
    Form,
    /// The hash is of a kind that is not accepted, or takes too long.
    Hash,
    /// The name is there before.
    Twin,
}

impl Fault {
    /// In words, as the end of a sentence that begins with the line.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Form => "is not NAME:HASH",
            Self::Hash => {
                "has a hash that is neither bcrypt (of a cost up to 16) nor argon2id (of up to 256 MiB)"
            }
            Self::Twin => "has a name that is there before",
        }
    }
}

/// Names and hashes, in the order of the file. Empty lines and those that begin with `#` are left out, as is what stands
/// after a second colon.
///
/// # Errors
/// The faults, with the numbers of their lines.
pub(super) fn parse(text: &str) -> Result<Vec<User>, Vec<(usize, Fault)>> {
    let mut users: Vec<User> = Vec::new();
    let mut faults = Vec::new();
    let lines = text.trim_start_matches('\u{feff}').lines();
    for (number, line) in (1..).zip(lines) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fault = |what| faults.push((number, what));
        let Some((name, rest)) = line.split_once(':').filter(|(name, _)| !name.is_empty()) else {
            fault(Fault::Form);
            continue;
        };
        let hash = rest.split(':').next().unwrap_or_default();
        if !is_htpasswd_hash(hash) {
            fault(Fault::Hash);
        } else if users.iter().any(|(known, _)| known == name) {
            fault(Fault::Twin);
        } else {
            users.push((name.to_owned(), hash.to_owned()));
        }
    }
    if faults.is_empty() {
        Ok(users)
    } else {
        Err(faults)
    }
}

impl Decoder<'_> {
    /// `auth: {basic: {users: FILE}}`, or the file alone.
    pub(super) fn basic_auth(&mut self, node: &Node) -> Option<Auth> {
        if let Kind::Map(entries) = &node.kind {
            let others = ["jwt", "api_key", "ask", "login"];
            let other = entries.iter().find(|(key, _)| others.contains(&&*key.text));
            if let Some((key, _)) = other {
                let problem = format!("`{}` does not stand beside `basic`", key.text);
                self.errors
                    .at(key.place, problem)
                    .hint("give it a route of its own; beside `basic` may be `certificate`, `require` and `forward`");
                return None;
            }
        }
        let fields = self.fields(node, "a map", &keys::BASIC_RULE)?;
        let basic = self.required(fields, "basic", Self::basic_users);
        let certificate = self.optional(fields, "certificate", Self::accepted_certificate);
        let require = self.optional(fields, "require", Self::require);
        let (forward, forward_certificate) = self.forwards(fields);
        Some(Auth::Jwt(Box::new(JwtRule {
            place: node.place,
            verifiers: Vec::new(),
            api_key: None,
            basic: Some(basic?),
            optional: Spanned::default_of(false),
            require,
            certificate,
            forward,
            forward_certificate,
            strip_token: Spanned::default_of(false),
            only_reports: Spanned::default_of(false),
            ends_with_token: Spanned::default_of(false),
        })))
    }

    fn basic_users(&mut self, node: &Node) -> Option<BasicRule> {
        let map;
        let node = match &node.kind {
            Kind::Scalar(_) => {
                map = node.clone().behind("users", false);
                &map
            }
            Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Broken => node,
        };
        let fields = self.fields(node, "a file or a map", &keys::BASIC)?;
        let users = self.required(fields, "users", Self::file);
        let realm = self.optional(fields, "realm", Self::filled_text);
        let pass = self.value(fields, "pass", Self::boolean);
        Some(BasicRule {
            users: users?,
            realm,
            pass: pass?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$VOkOh7BFi3mZyXR2Vf6XzuDrSXTdPIsCsG4k5TGvjLQJsrVTmGOLK";
    const ARGON: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$7cqhHWfp5QWJ1qE7LyZK4Wm4qVvHPaZQvWPIXXpJcOM";

    #[test]
    fn names_and_hashes_are_read_in_order() {
        let text = format!("\u{feff}# admins\n\nada:{BCRYPT}\r\n  bob:{ARGON}:a comment  \n");
        let users = parse(&text).unwrap();
        let expected = [("ada", BCRYPT), ("bob", ARGON)];
        assert_eq!(
            users,
            expected.map(|(name, hash)| (name.to_owned(), hash.to_owned()))
        );
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = format!(
            "ada\n:{BCRYPT}\nbob:$apr1$a$b\ncarol:secret\ndan:{{SHA}}x=\neve:{BCRYPT}\neve:{BCRYPT}\nfay:{}\ngil:{}\n",
            BCRYPT.replace("$05$", "$31$"),
            ARGON.replace("m=19456", "m=9999999"),
        );
        let faults = parse(&text).unwrap_err();
        let expected = [
            (1, Fault::Form),
            (2, Fault::Form),
            (3, Fault::Hash),
            (4, Fault::Hash),
            (5, Fault::Hash),
            (7, Fault::Twin),
            (8, Fault::Hash),
            (9, Fault::Hash),
        ];
        assert_eq!(faults, expected);
    }
}
