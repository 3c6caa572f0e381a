//! Decodes `tls.acme`.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::decode::{Decoder, nearest};
use super::keys;
use super::node::{Kind, Node};
use super::parsed::{Acme, AcmeDirectory, AcmeDns, AcmeEab, HostPattern, Secret, Spanned};
use super::value::{self, Hint};
use crate::net::url::Url;
use crate::snapshot::{ChallengeKind, KeyKind};

/// The directories that have a word.
const DIRECTORIES: [(&str, &str); 4] = [
    (
        "letsencrypt",
        "https://acme-v02.api.letsencrypt.org/directory",
    ),
    (
        "letsencrypt-staging",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
    ),
    ("zerossl", "https://acme.zerossl.com/v2/DV90"),
    ("google", "https://dv.acme-v02.api.pki.goog/directory"),
];
/// Those that need an external account.
const WITH_EAB: [&str; 2] = ["zerossl", "google"];
/// The longest key of an external account that is taken, in bytes.
const LONGEST_HMAC: usize = 1024;

impl Decoder<'_> {
    /// `acme` of `tls`; an empty map is the whole of it for most.
    pub(crate) fn acme(&mut self, node: &Node) -> Option<Acme> {
        let before = self.errors.count();
        let fields = self.fields(node, "a map", &keys::ACME)?;
        let domains = self.optional(fields, "domains", Self::domains);
        let directories = self.value(fields, "directory", |it, node| {
            it.one_or_more(
                node,
                "a directory or a list of directories",
                Self::acme_directory,
            )
        });
        let ca = self.optional(fields, "ca", Self::file);
        let email = self.optional(fields, "email", |it, node| {
            it.scalar(node, "an address", "such as ops@example.com", email)
        });
        let eab = self.optional(fields, "eab", |it, node| {
            let fields = it.fields(node, "a map", &keys::EAB)?;
            let kid = it.required(fields, "kid", Self::filled_text);
            let hmac = it.required(fields, "hmac", |it, node| {
                it.scalar(node, "a key in base64url", HMAC, hmac)
            });
            Some(AcmeEab {
                kid: kid?,
                hmac: hmac?,
            })
        });
        let challenges = self.optional(fields, "challenges", |it, node| {
            it.filled_list(node, "a list of challenges", |it, node| {
                let known = ChallengeKind::ALL.map(|kind| (kind.name(), kind));
                it.choice(node, "a challenge", &known)
            })
        });
        let dns = self.optional(fields, "dns", |it, node| {
            let fields = it.fields(node, "a map", &keys::DNS)?;
            let hook = it.required(fields, "hook", Self::file);
            let wait = it.value(fields, "wait", Self::duration_or_zero);
            Some(AcmeDns {
                hook: hook?,
                wait: wait?,
            })
        });
        let profile = self.optional(fields, "profile", Self::filled_text);
        let key = self.value(fields, "key", |it, node| {
            let known = [
                ("p256", KeyKind::P256),
                ("p384", KeyKind::P384),
                ("rsa2048", KeyKind::Rsa2048),
            ];
            it.choice(node, "a kind of key", &known)
        });
        Some(Acme {
            place: fields.place,
            broken: self.errors.count() > before,
            domains,
            directories: directories?,
            ca,
            email,
            eab,
            challenges,
            dns,
            profile,
            key: key?,
        })
    }

    /// A list of names, or of lists of names that share a certificate.
    fn domains(&mut self, node: &Node) -> Option<Vec<Vec<Spanned<String>>>> {
        self.filled_list(node, "a list of names", |it, node| {
            if matches!(node.kind, Kind::List(_)) {
                return it.filled_list(node, "a list of names", Self::domain);
            }
            it.domain(node).map(|name| vec![name])
        })
    }

    fn domain(&mut self, node: &Node) -> Option<Spanned<String>> {
        self.scalar(node, "a name", "such as www.example.com", domain)
    }

    fn acme_directory(&mut self, node: &Node) -> Option<Spanned<AcmeDirectory>> {
        let node = self.without_password(node)?;
        let what = "a directory";
        self.scalar(
            node,
            what,
            "a word, or a URL that begins with https://",
            directory,
        )
    }
}

/// A name that a certificate can have.
fn domain(text: &str) -> Result<String, Hint> {
    let bare = text.trim_matches(['[', ']']);
    if bare.parse::<IpAddr>().is_ok() {
        return Err(
            "certificates for addresses are not ordered; name a host, or leave the address to `certificates`".to_owned(),
        );
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let name = match value::host_pattern(text)? {
        HostPattern::Exact(name) => name,
        HostPattern::Below(parent) => {
            if is_public_suffix(&parent) {
                return Err(format!(
                    "everybody can have a name below `{parent}`, so nobody gets a certificate for all; name a domain of yours"
                ));
            }
            format!("*.{parent}")
        }
    };
    let legal = |label: &str| {
        label.len() <= 63
            && !label.contains('_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    if !labels.split('.').all(legal) {
        return Err(
            "a certificate's name has labels of letters, digits and inner dashes, 63 at most each"
                .to_owned(),
        );
    }
    Ok(name)
}

/// A word, or a URL.
fn directory(text: &str) -> Result<AcmeDirectory, Hint> {
    let url = |word: &str| {
        let known = DIRECTORIES.iter().find(|(known, _)| *known == word);
        known.and_then(|(_, url)| Url::parse(url).ok())
    };
    if let Some(known) = url(text) {
        return Ok(AcmeDirectory {
            url: known,
            staging: url("letsencrypt-staging").filter(|_| text == "letsencrypt"),
            word: DIRECTORIES
                .into_iter()
                .map(|(word, _)| word)
                .find(|word| *word == text),
            needs_eab: WITH_EAB.contains(&text),
        });
    }
    if text.contains("://") {
        let url = Url::parse(text).map_err(|why| match text.starts_with("http://") {
            true => "anybody on the way could answer in the directory's place; write https:// (http:// goes to this machine alone)",
            false => why,
        })?;
        return Ok(AcmeDirectory {
            url,
            staging: None,
            word: None,
            needs_eab: false,
        });
    }
    let words = DIRECTORIES.map(|(word, _)| word);
    Err(match nearest(text, words) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}, or a URL", words.join(", ")),
    })
}

/// Whether registries give out names below this one (ICANN's part of the Public Suffix List).
fn is_public_suffix(name: &str) -> bool {
    let suffix = psl::suffix(name.as_bytes());
    suffix.is_some_and(|suffix| suffix.typ() == Some(psl::Type::Icann) && suffix == name.as_bytes())
}

fn email(text: &str) -> Result<String, Hint> {
    let legal =
        |letter: char| letter.is_ascii_graphic() && !matches!(letter, ',' | '<' | '>' | '?');
    let (local, host) = text.rsplit_once('@').unwrap_or_default();
    if local.is_empty() || host.is_empty() || !text.chars().all(legal) || local.contains('@') {
        return Err("such as ops@example.com, without `mailto:`".to_owned());
    }
    if text.starts_with("mailto:") {
        return Err("write it without `mailto:`".to_owned());
    }
    Ok(text.to_owned())
}

const HMAC: &str = "as the directory's page shows it";

fn hmac(text: &str) -> Result<Secret, Hint> {
    let decoded = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    match decoded {
        Ok(key) if !key.is_empty() && key.len() <= LONGEST_HMAC => Ok(Secret::new(text.to_owned())),
        Ok(_) | Err(_) => Err(HMAC.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_certificate_can_have() {
        for (text, name) in [
            ("a.example", Some("a.example")),
            ("A.Example.", Some("a.example")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("host", Some("host")),
            ("*.a.example", Some("*.a.example")),
            ("*.A.co.uk", Some("*.a.co.uk")),
            // Of a registry; a platform's own suffix is its owner's.
            ("*.com", None),
            ("*.co.uk", None),
            ("*.github.io", Some("*.github.io")),
            ("*.corp", Some("*.corp")),
            ("*.*.example", None),
            ("a.*.example", None),
            ("*", None),
            ("*.a_b.example", None),
            ("10.0.0.1", None),
            ("[::1]", None),
            ("::1", None),
            ("b\u{fc}cher.example", None),
            ("a_b.example", None),
            ("-a.example", None),
            ("a-.example", None),
            ("a..example", None),
            ("a.example:443", None),
            ("https://a.example", None),
            ("", None),
            ("a b", None),
            ("$(id).example", None),
        ] {
            assert_eq!(domain(text).ok().as_deref(), name, "{text}");
        }
        assert!(domain(&format!("{}.example", "a".repeat(64))).is_err());
    }

    #[test]
    fn directories_have_words_or_urls() {
        let staging = |text| directory(text).unwrap().staging.is_some();
        assert!(staging("letsencrypt") && !staging("letsencrypt-staging"));
        assert!(directory("google").unwrap().needs_eab);
        assert_eq!(directory("zerossl").unwrap().word, Some("zerossl"));
        assert!(directory("https://ca.test/dir").is_ok());
        assert!(directory("http://127.0.0.1:4001/dir").is_ok());
        for (text, said) in [
            ("http://ca.test/dir", "anybody on the way"),
            ("letsencript", "did you mean `letsencrypt`?"),
            ("nobody", "known here: letsencrypt"),
            ("ftp://ca.test/", "begins with https://"),
        ] {
            let why = directory(text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }

    #[test]
    fn contacts_and_keys_are_what_they_look_like() {
        for (text, good) in [
            ("ops@example.com", true),
            ("a@b@c", false),
            ("@b", false),
            ("a@", false),
            ("mailto:a@b", false),
            ("a@b, c@d", false),
            ("a@b?cc=d", false),
        ] {
            assert_eq!(email(text).is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("c2VjcmV0", true),
            ("c2VjcmU=", true),
            ("", false),
            ("a+b/", false),
        ] {
            assert_eq!(hmac(text).is_ok(), good, "{text}");
        }
    }
}
