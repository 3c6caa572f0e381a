//! `CertificateRule`: what a route demands of a client's certificate, before any token is looked at, and which parts of
//! it the app is told. Whether a certificate is genuine was decided by the handshake.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue};

use super::binding::Holder;
use crate::message::reject::Reject;
use crate::net::tls::{ClientCertificate, Fingerprint, Name, Part};

/// The rule of a route that looks at certificates.
#[derive(Debug)]
pub(crate) struct CertificateRule {
    /// Which certificates are accepted; `None` where a client needs none.
    pub(crate) demand: Option<Demand>,
    /// Which parts of the certificate are sent to the app, in which headers.
    pub(crate) forward: Vec<(HeaderName, Part)>,
    /// Whether clients that fail the demand are allowed and only reported.
    pub(crate) only_reports: bool,
}

/// The certificates that a route accepts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Demand {
    /// Each that the listener accepted.
    Any,
    /// Those that have one of the names and one of the fingerprints; an empty list demands nothing.
    OneOf {
        /// The accepted names.
        names: Vec<NamePattern>,
        /// The accepted certificates.
        fingerprints: Vec<Fingerprint>,
    },
}

/// A subject alternative name that a route accepts. The common name is never looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum NamePattern {
    /// This DNS name, in lower case.
    Dns(String),
    /// One label before this: `.example.org`, in lower case.
    DnsBelow(String),
    /// This URI.
    Uri(String),
    /// URIs that begin with this.
    UriBelow(String),
    /// This mailbox, its domain in lower case.
    Email(String),
    /// This IP address.
    Ip(IpAddr),
}

impl NamePattern {
    /// Parses `dns:`, `uri:`, `email:` or `ip:` and what follows.
    ///
    /// # Errors
    /// A sentence that says what is valid.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((kind, name)) = text.split_once(':') else {
            return Err(general());
        };
        match kind {
            "dns" => {
                let name = name.to_ascii_lowercase();
                let (below, plain) = match name.strip_prefix("*.") {
                    Some(parent) => (true, parent),
                    None => (false, name.as_str()),
                };
                let label = |label: &str| {
                    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                    !label.is_empty() && label.bytes().all(fits)
                };
                match plain.split('.').all(label) {
                    true if below => Ok(Self::DnsBelow(format!(".{plain}"))),
                    true => Ok(Self::Dns(name)),
                    false => Err(
                        "DNS names are `dns:till.example.org`, or `dns:*.example.org` for one label"
                            .to_owned(),
                    ),
                }
            }
            "uri" => {
                let (below, uri) = match name.strip_suffix('*') {
                    Some(prefix) => (true, prefix),
                    None => (false, name),
                };
                if uri.contains('*') {
                    return Err("a `*` stands at the end of a URI, and takes the rest".to_owned());
                }
                if !uri.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) || name.is_empty() {
                    return Err("URIs are `uri:spiffe://example.org/pay/7`, in ASCII".to_owned());
                }
                if below {
                    Ok(Self::UriBelow(uri.to_owned()))
                } else {
                    Ok(Self::Uri(uri.to_owned()))
                }
            }
            "email" => match mailbox(name) {
                Some(mailbox) if !name.contains('*') => Ok(Self::Email(mailbox)),
                Some(_) | None => Err("mailboxes are `email:till@example.org`".to_owned()),
            },
            "ip" => match name.parse() {
                Ok(ip) => Ok(Self::Ip(ip)),
                Err(_) => Err("addresses are `ip:10.0.0.7` or `ip:2001:db8::7`".to_owned()),
            },
            _ => Err(general()),
        }
    }

    /// Whether a certificate's name is one of these.
    fn accepts(&self, name: &Name) -> bool {
        match (self, name) {
            (Self::Dns(wanted), Name::Dns(name)) => name.eq_ignore_ascii_case(wanted),
            (Self::DnsBelow(parent), Name::Dns(name)) => {
                let split = name.len().checked_sub(parent.len());
                split
                    .and_then(|at| name.split_at_checked(at))
                    .is_some_and(|(label, rest)| {
                        // A wildcard of the certificate is no label.
                        !label.is_empty()
                            && !label.contains(['.', '*'])
                            && rest.eq_ignore_ascii_case(parent)
                    })
            }
            (Self::Uri(wanted), Name::Uri(uri)) => uri == wanted,
            (Self::UriBelow(prefix), Name::Uri(uri)) => {
                uri.strip_prefix(prefix.as_str()).is_some() && !climbs(uri)
            }
            (Self::Email(wanted), Name::Email(name)) => mailbox(name).as_ref() == Some(wanted),
            (Self::Ip(wanted), Name::Ip(ip)) => ip == wanted,
            _ => false,
        }
    }

    /// A name that it accepts, as unlike others as possible.
    fn example(&self, probe: &str) -> Name {
        match self {
            Self::Dns(name) => Name::Dns(name.clone()),
            Self::DnsBelow(parent) => Name::Dns(format!("{probe}{parent}")),
            Self::Uri(uri) => Name::Uri(uri.clone()),
            Self::UriBelow(prefix) => Name::Uri(format!("{prefix}{probe}")),
            Self::Email(mailbox) => Name::Email(mailbox.clone()),
            Self::Ip(ip) => Name::Ip(*ip),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::DnsBelow(parent) => write!(f, "dns:*{parent}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::UriBelow(prefix) => write!(f, "uri:{prefix}*"),
            Self::Email(mailbox) => write!(f, "email:{mailbox}"),
            Self::Ip(ip) => write!(f, "ip:{ip}"),
        }
    }
}

fn general() -> String {
    "names are `dns:`, `uri:`, `email:` or `ip:` and what follows, as `dns:till.example.org`"
        .to_owned()
}

/// A mailbox as it is compared: the domain without case, the local part as it is (RFC 5280 section 7.5).
fn mailbox(text: &str) -> Option<String> {
    let (local, domain) = text.rsplit_once('@')?;
    let fits = !local.is_empty()
        && !domain.is_empty()
        && text.bytes().all(|it| (b'!'..=b'~').contains(&it));
    fits.then(|| format!("{local}@{}", domain.to_ascii_lowercase()))
}

/// Whether a reader of the URI may go up: it is then below no prefix.
fn climbs(uri: &str) -> bool {
    let lower = uri.to_ascii_lowercase().replace("%2e", ".");
    let path = lower.split(['?', '#']).next().unwrap_or_default();
    path.split(['/', '\\']).any(|segment| segment == "..")
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::OneOf {
            names,
            fingerprints,
        } = self
        else {
            return f.write_str("any certificate");
        };
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let prints: Vec<String> = fingerprints.iter().map(Fingerprint::hex).collect();
        let both = if names.is_empty() || prints.is_empty() {
            ""
        } else {
            ", and "
        };
        write!(f, "{}{both}{}", names.join(" or "), prints.join(" or "))
    }
}

impl Demand {
    fn accepts(&self, certificate: &ClientCertificate) -> bool {
        let Self::OneOf {
            names,
            fingerprints,
        } = self
        else {
            return true;
        };
        let named =
            |pattern: &NamePattern| certificate.names().iter().any(|name| pattern.accepts(name));
        (names.is_empty() || names.iter().any(named))
            && (fingerprints.is_empty() || fingerprints.contains(certificate.fingerprint()))
    }
}

/// A client whose certificate was looked at, as its route demands. Only `Guard::certify` makes one.
#[derive(Debug)]
#[must_use = "what a route demands besides is checked with it"]
pub(crate) struct Certified<'c> {
    certificate: Option<&'c Arc<ClientCertificate>>,
    /// Why the client would be refused, where failed checks are only reported.
    reported: Option<Reject>,
}

impl Certified<'_> {
    /// The client as tokens name it.
    pub(super) fn holder(&self) -> Holder<'_> {
        Holder::Client(self.certificate.map(|it| it.fingerprint()))
    }

    /// Whether the client has a certificate.
    pub(super) fn has_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// Why the client would be refused, where failed checks are only reported.
    pub(super) fn reported(&self) -> Option<Reject> {
        self.reported
    }
}

impl CertificateRule {
    /// Whether the demand is met.
    fn check(
        &self,
        certificate: Option<&ClientCertificate>,
        now: SystemTime,
    ) -> Result<(), Reject> {
        let Some(demand) = &self.demand else {
            return Ok(());
        };
        let certificate = certificate.ok_or(Reject::CertificateMissing)?;
        // The handshake may be long ago.
        if now > certificate.ends() || !demand.accepts(certificate) {
            return Err(Reject::CertificateRefused);
        }
        Ok(())
    }

    /// Looks at the certificate of a client.
    ///
    /// # Errors
    /// `CertificateMissing` or `CertificateRefused`, where the rule is enforced.
    pub(super) fn certify<'c>(
        &self,
        certificate: Option<&'c Arc<ClientCertificate>>,
        now: SystemTime,
    ) -> Result<Certified<'c>, Reject> {
        let reported = match self.check(certificate.map(AsRef::as_ref), now) {
            Ok(()) => None,
            Err(reject) if self.only_reports => Some(reject),
            Err(reject) => return Err(reject),
        };
        Ok(Certified {
            certificate,
            reported,
        })
    }

    /// The headers that tell the app about the client's certificate.
    pub(super) fn headers<'r>(
        &'r self,
        certified: &'r Certified<'_>,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'r {
        self.forward.iter().filter_map(|(name, part)| {
            let value = certified.certificate?.header(*part)?;
            Some((name.clone(), value.clone()))
        })
    }

    /// Made-up certificates that the rule accepts, one for each way to meet its demand.
    pub(super) fn examples(&self, probe: &str, now: SystemTime) -> Vec<Arc<ClientCertificate>> {
        let Some(demand) = &self.demand else {
            return Vec::new();
        };
        let (names, fingerprints) = match demand {
            Demand::Any => (&[][..], &[][..]),
            Demand::OneOf {
                names,
                fingerprints,
            } => (names.as_slice(), fingerprints.as_slice()),
        };
        let names: Vec<Vec<Name>> = match names {
            [] => vec![Vec::new()],
            names => names.iter().map(|name| vec![name.example(probe)]).collect(),
        };
        let prints = match fingerprints {
            [] => vec![Fingerprint::of(probe.as_bytes())],
            prints => prints.to_vec(),
        };
        let pairs = names
            .iter()
            .flat_map(|names| prints.iter().map(move |print| (names, print)));
        pairs
            .map(|(names, print)| ClientCertificate::made_up(names.clone(), *print, now))
            .collect()
    }
}

/// A client whose route looks at no certificate.
pub(super) fn unasked(certificate: Option<&Arc<ClientCertificate>>) -> Certified<'_> {
    Certified {
        certificate,
        reported: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[track_caller]
    fn check(wanted: &str, accepted: &[Name], refused: &[Name]) {
        let pattern = pattern(wanted);
        for name in accepted {
            assert!(pattern.accepts(name), "{wanted}: {name:?}");
        }
        for name in refused {
            assert!(!pattern.accepts(name), "{wanted}: {name:?}");
        }
        assert!(pattern.accepts(&pattern.example("probe")), "{wanted}");
    }

    fn dns(text: &str) -> Name {
        Name::Dns(text.to_owned())
    }

    fn uri(text: &str) -> Name {
        Name::Uri(text.to_owned())
    }

    fn email(text: &str) -> Name {
        Name::Email(text.to_owned())
    }

    #[test]
    fn names_are_compared_as_their_kinds_are() {
        check(
            "dns:Till.example.org",
            &[dns("till.example.org"), dns("TILL.EXAMPLE.ORG")],
            &[
                dns("till.example.org."),
                dns("xtill.example.org"),
                dns("*.example.org"),
                dns("till.example.org\0.evil"),
                uri("till.example.org"),
            ],
        );
        check(
            "dns:*.example.org",
            &[dns("a.example.org"), dns("A.Example.Org")],
            &[
                dns("a.b.example.org"),
                dns("example.org"),
                dns(".example.org"),
                dns("*.example.org"),
                dns("a.example.org.evil"),
                dns("éxample.org"),
            ],
        );
        check(
            "uri:spiffe://example.org/pay/7",
            &[uri("spiffe://example.org/pay/7")],
            &[
                uri("spiffe://example.org/pay/70"),
                uri("spiffe://example.org/pay/"),
                uri("SPIFFE://example.org/pay/7"),
                dns("spiffe://example.org/pay/7"),
            ],
        );
        check(
            "uri:spiffe://example.org/pay/*",
            &[
                uri("spiffe://example.org/pay/7"),
                uri("spiffe://example.org/pay/a/b"),
                uri("spiffe://example.org/pay/"),
                uri("spiffe://example.org/pay/a..b?x=../y"),
            ],
            &[
                uri("spiffe://example.org/pay"),
                uri("spiffe://example.org/payments"),
                uri("spiffe://example.org/pay/../admin"),
                uri("spiffe://example.org/pay/%2E%2e/admin"),
                uri("spiffe://example.org/pay/.."),
                uri("spiffe://example.org/pay/..\\admin"),
            ],
        );
        check("uri:*", &[uri("a:b"), uri("")], &[dns("a")]);
        check(
            "email:Till@Example.org",
            &[email("Till@example.ORG")],
            &[
                email("till@example.org"),
                email("Till@example.org.evil"),
                email("x@Till@example.org"),
            ],
        );
        let ip = |text: &str| Name::Ip(text.parse().unwrap());
        check(
            "ip:10.0.0.7",
            &[ip("10.0.0.7")],
            &[ip("10.0.0.8"), ip("::ffff:10.0.0.7")],
        );
        check(
            "ip:2001:DB8::7",
            &[ip("2001:db8:0::7")],
            &[ip("2001:db8::8")],
        );
    }

    #[test]
    fn what_would_mean_something_else_is_an_error() {
        for (text, said) in [
            ("till.example.org", "names are `dns:`"),
            ("cn:till", "names are `dns:`"),
            ("DNS:till.example.org", "names are `dns:`"),
            ("dns:", "DNS names are"),
            ("dns:*", "DNS names are"),
            ("dns:*.", "DNS names are"),
            ("dns:a.*.org", "DNS names are"),
            ("dns:a*.example.org", "DNS names are"),
            ("dns:a..b", "DNS names are"),
            ("dns:.example.org", "DNS names are"),
            ("dns:example.org.", "DNS names are"),
            ("dns:éxample.org", "DNS names are"),
            ("uri:", "URIs are"),
            ("uri:a b", "URIs are"),
            ("uri:spiffe://*/pay", "at the end of a URI"),
            ("uri:spiffe://a/**", "at the end of a URI"),
            ("email:till", "mailboxes are"),
            ("email:*@example.org", "mailboxes are"),
            ("email:@example.org", "mailboxes are"),
            ("ip:10.0.0.0/8", "addresses are"),
            ("ip:", "addresses are"),
        ] {
            let refused = NamePattern::parse(text).unwrap_err();
            assert!(
                refused.starts_with(said) || refused.contains(said),
                "{text}: {refused}"
            );
        }
    }

    #[test]
    fn a_demand_is_met_by_one_of_the_names_and_one_of_the_fingerprints() {
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let rule = |names: &[&str], prints: &[&str]| CertificateRule {
            demand: Some(match (names, prints) {
                ([], []) => Demand::Any,
                _ => Demand::OneOf {
                    names: names.iter().map(|name| pattern(name)).collect(),
                    fingerprints: prints
                        .iter()
                        .map(|it| Fingerprint::of(it.as_bytes()))
                        .collect(),
                },
            }),
            forward: Vec::new(),
            only_reports: false,
        };
        let shown = |names: &[&str], print: &str| {
            let names = names.iter().map(|name| dns(name)).collect();
            ClientCertificate::made_up(names, Fingerprint::of(print.as_bytes()), now)
        };
        for (rule, shown, expected) in [
            (rule(&[], &[]), None, Err(Reject::CertificateMissing)),
            (rule(&["dns:a"], &[]), None, Err(Reject::CertificateMissing)),
            (rule(&[], &[]), Some(shown(&[], "x")), Ok(())),
            (
                rule(&["dns:a", "dns:b"], &[]),
                Some(shown(&["c", "b"], "x")),
                Ok(()),
            ),
            (
                rule(&["dns:a", "dns:b"], &[]),
                Some(shown(&["c"], "x")),
                Err(Reject::CertificateRefused),
            ),
            (rule(&[], &["x", "y"]), Some(shown(&[], "y")), Ok(())),
            (
                rule(&[], &["x", "y"]),
                Some(shown(&["x"], "z")),
                Err(Reject::CertificateRefused),
            ),
            (rule(&["dns:a"], &["x"]), Some(shown(&["a"], "x")), Ok(())),
            (
                rule(&["dns:a"], &["x"]),
                Some(shown(&["a"], "y")),
                Err(Reject::CertificateRefused),
            ),
            (
                rule(&["dns:a"], &["x"]),
                Some(shown(&["b"], "x")),
                Err(Reject::CertificateRefused),
            ),
        ] {
            let seen = rule.certify(shown.as_ref(), now).map(drop);
            assert_eq!(seen, expected, "{rule:?} {shown:?}");
            for example in rule.examples("probe", now) {
                assert!(rule.certify(Some(&example), now).is_ok());
            }
            let rule = CertificateRule {
                only_reports: true,
                ..rule
            };
            let certified = rule.certify(shown.as_ref(), now).unwrap();
            assert_eq!(certified.reported(), expected.err());
        }
        // The connection may be older than its certificate's life.
        let old = shown(&[], "x");
        let later = now + Duration::from_secs(1);
        let refused = rule(&[], &[]).certify(Some(&old), later).map(drop);
        assert_eq!(refused, Err(Reject::CertificateRefused));
    }
}
