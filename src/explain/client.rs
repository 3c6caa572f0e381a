//! The client of an explained request: which listener it connects to, and what its certificate is there.

use std::sync::Arc;

use super::{Decision, Question};
use crate::auth::{Certified, Guard};
use crate::message::reject::Reject;
use crate::net::tls::{At, ClientCertificate, Clients};
use crate::snapshot::{ListenAddress, Listener, Snapshot};

/// The listener that receives the request, and whether it uses TLS. Where several could, it is one that lets the client
/// in with the certificate that it shows.
pub(super) fn listener_of<'s>(
    snapshot: &'s Snapshot,
    question: &Question<'_>,
) -> (Option<&'s Listener>, bool) {
    let port = question.request.uri().port_u16();
    let has_port = |listener: &&Arc<Listener>| match (&listener.address, port) {
        (ListenAddress::Tcp(address), Some(port)) => address.port() == port,
        (_, _) => false,
    };
    let is_right = |listener: &&Arc<Listener>| match question.secure {
        Some(secure) => listener.tls.is_some() == secure,
        // By default, the first listener that does not just redirect to HTTPS.
        None => listener.redirect_to_https.is_none(),
    };
    let fits = |listener: &&Arc<Listener>| match clients_of(listener) {
        Some(clients) => clients.let_in(question.certificate, question.at()).is_ok(),
        None => question.certificate.is_none(),
    };
    let all = || snapshot.listeners.iter().filter(is_right);
    let of_port = || all().filter(has_port);
    let found = (of_port().find(fits))
        .or_else(|| of_port().next())
        .or_else(|| all().find(fits))
        .or_else(|| all().next());
    let secure = question
        .secure
        .or_else(|| found.map(|listener| listener.tls.is_some()));
    (found.map(|listener| &**listener), secure.unwrap_or(false))
}

fn clients_of(listener: &Listener) -> Option<&Clients> {
    listener.tls.as_ref().and_then(|tls| tls.clients())
}

impl Question<'_> {
    /// When its certificate is looked at.
    fn at(&self) -> At {
        if self.any_time {
            At::AnyTime
        } else {
            At::Now(self.now)
        }
    }
}

impl Decision {
    /// The handshake with a listener: the certificate by which the client is known after it.
    ///
    /// # Errors
    /// The listener refuses the client.
    pub(super) fn shake_hands<'q>(
        &mut self,
        listener: Option<&Listener>,
        question: &Question<'q>,
    ) -> Result<Option<&'q Arc<ClientCertificate>>, Refused> {
        let shown = question.certificate;
        let Some(clients) = listener.and_then(clients_of) else {
            if shown.is_some() {
                self.say(
                    "client",
                    "a certificate, for which the listener does not ask",
                );
            }
            return Ok(None);
        };
        let subject = shown.map(|shown| shown.certificate().subject());
        match (clients.let_in(shown, question.at()), subject) {
            (Ok(()), Some(subject)) => {
                self.say("client", format!("certificate {subject}, accepted"));
            }
            (Ok(()), None) => self.say("client", "no certificate, and none is required"),
            (Err(why), Some(subject)) => {
                self.say("client", format!("certificate {subject}, refused: {why}"));
                return Err(Refused);
            }
            (Err(why), None) => {
                self.say("client", format!("no certificate, refused: {why}"));
                return Err(Refused);
            }
        }
        Ok(shown.map(|shown| shown.certificate()))
    }

    /// What the guard makes of the certificate.
    pub(super) fn certify<'q>(
        &mut self,
        guard: &Guard,
        certificate: Option<&'q Arc<ClientCertificate>>,
        question: &Question<'_>,
    ) -> Result<Certified<'q>, Reject> {
        let now = match certificate {
            Some(certificate) if question.any_time => question.now.min(certificate.ends()),
            _ => question.now,
        };
        let certified = guard.certify(certificate, now);
        if let (Some(certificate), Err(_)) = (certificate, &certified) {
            let names = certificate.names_in_words();
            let names = if names.is_empty() { "none" } else { &names };
            let print = certificate.fingerprint().hex();
            self.say("client", format!("its names: {names}"));
            self.say("client", format!("its fingerprint: {print}"));
        }
        if let Some(wanted) = guard.certificate().and_then(|rule| rule.demand.as_ref())
            && certified.is_err()
        {
            self.say("client", format!("the route wants {wanted}"));
        }
        certified
    }
}

/// The handshake ended without a connection.
#[derive(Debug)]
pub(super) struct Refused;
