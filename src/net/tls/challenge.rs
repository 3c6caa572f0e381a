//! Challenges of ACME directories that are pending: the answers to http-01 (RFC 8555 section 8.3), and the certificates
//! of tls-alpn-01 (RFC 8737). One cell for the process; workers read it without a lock. `control/acme` fills it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsFault;

/// The protocol of tls-alpn-01 (RFC 8737 section 6.2). Nothing is ever served on it.
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// What is pending.
#[derive(Clone, Debug, Default)]
struct Pending {
    /// The answers by host, each with its token.
    http: HashMap<String, Vec<(String, Bytes)>>,
    /// The certificates by name.
    tls: HashMap<String, Arc<CertifiedKey>>,
}

/// The challenges that are pending in this process.
#[derive(Debug, Default)]
pub(crate) struct Challenges(ArcSwap<Pending>);

/// A challenge that is answered until this is dropped.
#[derive(Debug)]
pub(crate) struct Posted {
    challenges: Arc<Challenges>,
    host: String,
    answer: Answer,
}

/// How a challenge is answered.
#[derive(Debug)]
enum Answer {
    /// http-01 with this token.
    Http(String),
    /// tls-alpn-01 with this certificate.
    Tls(Arc<CertifiedKey>),
}

impl Challenges {
    /// The answer to http-01 for this host and token.
    pub(crate) fn http(&self, host: &str, token: &str) -> Option<Bytes> {
        let pending = self.0.load();
        let answers = pending.http.get(host)?;
        let answer = answers.iter().find(|(known, _)| known == token);
        answer.map(|(_, answer)| answer.clone())
    }

    /// Whether tls-alpn-01 is pending for this name.
    pub(super) fn has_tls(&self, name: &str) -> bool {
        self.0.load().tls.contains_key(&name.to_ascii_lowercase())
    }

    /// Answers http-01 for this host and token.
    pub(crate) fn post_http(self: &Arc<Self>, host: &str, token: &str, answer: &str) -> Posted {
        let answer = Bytes::copy_from_slice(answer.as_bytes());
        self.change(|pending| {
            let answers = pending.http.entry(host.to_owned()).or_default();
            answers.retain(|(known, _)| known != token);
            answers.push((token.to_owned(), answer.clone()));
        });
        Posted {
            challenges: Arc::clone(self),
            host: host.to_owned(),
            answer: Answer::Http(token.to_owned()),
        }
    }

    /// Answers tls-alpn-01 for this name with a certificate in DER and its key in PKCS#8.
    ///
    /// # Errors
    /// The key cannot be used.
    pub(crate) fn post_tls(
        self: &Arc<Self>,
        name: &str,
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Posted, TlsFault> {
        let key = PrivateKeyDer::try_from(key)
            .map_err(|why| TlsFault::Setup(rustls::Error::General(why.to_owned())))?;
        let key = aws_lc_rs::sign::any_supported_type(&key)?;
        let chain = vec![CertificateDer::from(certificate.to_vec())];
        let certified = Arc::new(CertifiedKey::new(chain, key));
        self.change(|pending| {
            pending.tls.insert(name.to_owned(), Arc::clone(&certified));
        });
        Ok(Posted {
            challenges: Arc::clone(self),
            host: name.to_owned(),
            answer: Answer::Tls(certified),
        })
    }

    fn change(&self, change: impl Fn(&mut Pending)) {
        self.0.rcu(|pending| {
            let mut pending = Pending::clone(pending);
            change(&mut pending);
            pending
        });
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.challenges.change(|pending| match &self.answer {
            Answer::Tls(certified) => {
                // A later one for the same name stays.
                let own = pending.tls.get(&self.host);
                if own.is_some_and(|own| Arc::ptr_eq(own, certified)) {
                    pending.tls.remove(&self.host);
                }
            }
            Answer::Http(token) => {
                if let Some(answers) = pending.http.get_mut(&self.host) {
                    answers.retain(|(known, _)| known != token);
                    if answers.is_empty() {
                        pending.http.remove(&self.host);
                    }
                }
            }
        });
    }
}

/// Selects the certificate of a pending challenge.
#[derive(Debug)]
struct ByChallenge(Arc<Challenges>);

impl ResolvesServerCert for ByChallenge {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.0.load().tls.get(&name).map(Arc::clone)
    }
}

/// The TLS settings of a handshake that offers `acme-tls/1` alone: where no challenge is pending for the name, it ends
/// with an alert.
///
/// # Errors
/// The crypto provider does not support the versions.
pub(super) fn config(challenges: &Arc<Challenges>) -> Result<Arc<ServerConfig>, TlsFault> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByChallenge(Arc::clone(challenges))));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    // A connection that serves nothing is not resumed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_for_its_host_until_it_is_dropped() {
        let challenges = Arc::new(Challenges::default());
        assert!(challenges.http("a.test", "token").is_none());
        let first = challenges.post_http("a.test", "token", "token.thumb");
        let second = challenges.post_http("a.test", "other", "other.thumb");
        let answer = |host, token| challenges.http(host, token);
        assert_eq!(answer("a.test", "token").unwrap(), "token.thumb");
        assert_eq!(answer("a.test", "other").unwrap(), "other.thumb");
        assert!(answer("b.test", "token").is_none(), "another host's");
        assert!(answer("a.test", "").is_none());
        drop(first);
        assert!(answer("a.test", "token").is_none());
        assert!(answer("a.test", "other").is_some());
        drop(second);
        assert!(challenges.0.load().http.is_empty());
    }

    #[test]
    fn a_later_challenge_for_the_same_name_stays() {
        let challenges = Arc::new(Challenges::default());
        let post = || {
            let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
            let key = made.signing_key.serialize_der();
            challenges
                .post_tls("a.test", made.cert.der(), &key)
                .unwrap()
        };
        let (first, second) = (post(), post());
        drop(first);
        assert!(challenges.has_tls("a.test"));
        drop(second);
        assert!(!challenges.has_tls("a.test"));
    }
}
