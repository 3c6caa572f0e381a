//! Roots that are a folder of each user's own: `{claim:PATH}` in a root is a claim of the token that allowed the request.
//! Who has access at all is decided by the route's guard.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::auth::{ClaimPath, Permit};
use crate::message::reject::Reject;

/// How a claim begins in a root.
const BEGIN: &str = "{claim:";
/// The longest name of a folder, which most file systems allow.
const LONGEST: usize = 255;

/// The part of a root from its first claim on.
#[derive(Clone, Debug)]
pub(crate) struct PrivateFolder(Vec<Segment>);

#[derive(Clone, Debug)]
enum Segment {
    Name(String),
    Claim(ClaimPath),
}

impl PrivateFolder {
    /// Takes a root apart: the directory that all users have in common, and the folder of each below it, if the root has
    /// claims in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(root: &Path) -> Result<(PathBuf, Option<Self>), String> {
        let mut base = PathBuf::new();
        let mut folder = Vec::new();
        for component in root.components() {
            let text = component.as_os_str().to_str();
            match text.filter(|text| text.contains(BEGIN)) {
                Some(text) => folder.push(claim(text)?),
                None if folder.is_empty() => base.push(component),
                None => folder.push(name(component)?),
            }
        }
        let folder = (!folder.is_empty()).then_some(Self(folder));
        Ok((base, folder))
    }

    /// The folder of the user that this permit is for, with a slash at its end.
    ///
    /// # Errors
    /// `Forbidden` without the claim, and `ClaimUnfit` where it is not the name of a folder.
    pub(super) fn of(&self, permit: &Permit) -> Result<String, Reject> {
        let mut folder = String::new();
        for segment in &self.0 {
            match segment {
                Segment::Name(name) => folder.push_str(name),
                Segment::Claim(path) => match permit.claim_as_name(path)? {
                    name if is_fit(name) => folder.push_str(name),
                    _ => return Err(Reject::ClaimUnfit),
                },
            }
            folder.push('/');
        }
        Ok(folder)
    }
}

impl fmt::Display for PrivateFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            match segment {
                Segment::Name(name) => write!(f, "{slash}{name}")?,
                Segment::Claim(path) => write!(f, "{slash}{BEGIN}{path}}}")?,
            }
        }
        Ok(())
    }
}

/// A segment that has a claim in it.
fn claim(segment: &str) -> Result<Segment, String> {
    let path = segment
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix('}'))
        .filter(|path| !path.contains(['{', '}']));
    let Some(path) = path else {
        return Err(format!("`{segment}`: a claim is a whole segment of a root"));
    };
    ClaimPath::parse(path).map(Segment::Claim)
}

/// A segment below one that has a claim in it.
fn name(component: Component<'_>) -> Result<Segment, String> {
    let text = match component {
        Component::Normal(name) => OsStr::to_str(name),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            None
        }
    };
    match text {
        Some(text) => Ok(Segment::Name(text.to_owned())),
        None => Err("what is below a claim in a root is plain names".to_owned()),
    }
}

/// Whether a claim is the name of one folder and nothing else.
fn is_fit(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn parse(root: &str) -> Result<(String, Option<String>), String> {
        let (base, folder) = PrivateFolder::parse(Path::new(root))?;
        let folder = folder.map(|folder| folder.to_string());
        Ok((base.to_str().unwrap().to_owned(), folder))
    }

    #[test]
    fn a_root_is_what_users_share_and_what_is_their_own() {
        for (root, base, folder) in [
            ("/srv/data", "/srv/data", None),
            ("/srv/data/{claim:sub}", "/srv/data", Some("{claim:sub}")),
            (
                "data/{claim:org.id}/users/{claim:sub}/files",
                "data",
                Some("{claim:org.id}/users/{claim:sub}/files"),
            ),
            ("/srv/{sub}", "/srv/{sub}", None),
        ] {
            let expected = (base.to_owned(), folder.map(str::to_owned));
            assert_eq!(parse(root), Ok(expected), "{root}");
        }
        for (root, said) in [
            ("/srv/u-{claim:sub}", "whole segment"),
            ("/srv/{claim:sub}{claim:org}", "whole segment"),
            ("/srv/{claim:sub}.d", "whole segment"),
            ("/srv/{claim:sub", "whole segment"),
            ("/srv/{claim:sub}/../x", "plain names"),
            ("/srv/{claim:}", ""),
        ] {
            let error = parse(root).unwrap_err();
            assert!(error.contains(said), "{root}: {error}");
        }
    }

    #[test]
    fn a_claim_is_one_plain_segment_or_refused() {
        let folder = PrivateFolder::parse(Path::new("/d/{claim:sub}/own")).unwrap();
        let folder = folder.1.unwrap();
        let of = |claim: Value| folder.of(&Permit::with_claims(json!({ "sub": claim })));
        for name in ["ada", "a b", "\u{444}", "a..b", "~", "x.", &"x".repeat(255)] {
            assert_eq!(of(json!(name)), Ok(format!("{name}/own/")), "{name}");
        }
        for claim in [
            json!(""),
            json!("."),
            json!(".."),
            json!(".hidden"),
            json!("../eve"),
            json!("a/b"),
            json!("/etc"),
            json!("a\\b"),
            json!("a\u{0}b"),
            json!("a\nb"),
            json!("a\u{85}b"),
            json!("x".repeat(256)),
            json!(7),
            json!(true),
            json!(["ada"]),
            json!({"a": 1}),
        ] {
            assert_eq!(of(claim.clone()), Err(Reject::ClaimUnfit), "{claim}");
        }
        assert_eq!(of(json!(null)), Err(Reject::Forbidden));
        let none = folder.of(&Permit::with_claims(json!({"name": "ada"})));
        assert_eq!(none, Err(Reject::Forbidden));
        assert_eq!(folder.of(&Permit::for_tests()), Err(Reject::Forbidden));
    }
}
