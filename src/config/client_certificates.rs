//! Decodes what is said of client certificates: `client_auth` of a listener, `certificate` of `auth`, and the parts of one that
//! an app is told.

use http::HeaderName;

use super::decode::{Decoder, suggest};
use super::keys;
use super::node::{Kind, Node};
use super::parsed::{Accepted, Auth, CertificateRule, ClientAuth, Spanned};
use crate::auth::NamePattern;
use crate::net::tls::{Fingerprint, Part};

/// What the value of `forward` begins with for a part of the client certificate.
const PART: &str = "certificate:";

/// What a header of `forward` carries.
pub(super) enum Forwarded {
    /// A claim of the token, by its path.
    Claim(Spanned<String>),
    /// A part of the client certificate.
    Part(Spanned<Part>),
}

impl Decoder<'_> {
    /// `client_auth`.
    pub(super) fn client_auth(&mut self, node: &Node) -> Option<ClientAuth> {
        let fields = self.fields(node, "a map", &keys::CLIENT_AUTH)?;
        let ca = self.required(fields, "ca", Self::file);
        let required = self.value(fields, "required", Self::boolean);
        let crl = self.optional(fields, "crl", |it, node| {
            it.one_or_more(node, "a file or a list of files", Self::file)
        });
        Some(ClientAuth {
            place: fields.place,
            ca: ca?,
            required: required?,
            crl: crl.unwrap_or_default(),
        })
    }

    /// `auth: {certificate: ..}`, where nothing else is required.
    pub(super) fn certificate_alone(&mut self, node: &Node) -> Option<Auth> {
        let fields = self.fields(node, "a map", &keys::CERTIFICATE_RULE)?;
        let certificate = self.required(fields, "certificate", Self::accepted_certificate);
        let forward = self.optional(fields, "forward", Self::certificate_parts);
        let only_reports = self.value(fields, "enforce", Self::only_reports);
        Some(Auth::Certificate(Box::new(CertificateRule {
            certificate: certificate?,
            forward: forward.unwrap_or_default(),
            only_reports: only_reports?,
        })))
    }

    /// `certificate` of `auth`: `any`, or a map.
    pub(super) fn accepted_certificate(&mut self, node: &Node) -> Option<Spanned<Accepted>> {
        const WHAT: &str = "`any`, or a map with `san` or `fingerprint`";
        if matches!(node.kind, Kind::Scalar(_)) {
            return self.scalar(node, WHAT, "", |text| match text {
                "any" => Ok(Accepted::Any),
                _ => Err("`any` takes each certificate that the listener accepts".to_owned()),
            });
        }
        let fields = self.fields(node, WHAT, &keys::ACCEPTED_CERTIFICATE)?;
        let names = self.optional(fields, "san", |it, node| {
            it.one_or_more(node, "a name or a list of names", |it, node| {
                it.scalar(node, "a subject alternative name", "", NamePattern::parse)
            })
        });
        let fingerprints = self.optional(fields, "fingerprint", |it, node| {
            it.one_or_more(node, "a fingerprint or a list of them", |it, node| {
                it.scalar(node, "a certificate's SHA-256", "", |text| {
                    Fingerprint::parse(text).ok_or_else(|| {
                        "openssl x509 -in CERT -noout -fingerprint -sha256 prints it".to_owned()
                    })
                })
            })
        });
        let is_there = |name| fields.get(name).is_some();
        if !is_there("san") && !is_there("fingerprint") {
            self.errors
                .at(node.place, "this names no certificate")
                .hint("`certificate: any` takes each that the listener accepts");
            return None;
        }
        if is_there("san") && names.is_none() || is_there("fingerprint") && fingerprints.is_none() {
            return None;
        }
        let values = |names: Vec<Spanned<NamePattern>>| names.into_iter().map(|it| it.value);
        let prints = |prints: Vec<Spanned<Fingerprint>>| prints.into_iter().map(|it| it.value);
        Some(Spanned {
            value: Accepted::OneOf(
                values(names.unwrap_or_default()).collect(),
                prints(fingerprints.unwrap_or_default()).collect(),
            ),
            place: node.place,
            private: false,
        })
    }

    /// A value of `forward` where there is a token: a claim, or a part of the client certificate.
    pub(super) fn forwarded(&mut self, node: &Node) -> Option<Forwarded> {
        let is_part = matches!(&node.kind, Kind::Scalar(scalar) if scalar.text.starts_with(PART));
        if is_part {
            return self.certificate_part(node).map(Forwarded::Part);
        }
        self.filled_text(node).map(Forwarded::Claim)
    }

    /// `forward` where there is no token.
    pub(super) fn certificate_parts(
        &mut self,
        node: &Node,
    ) -> Option<Vec<(Spanned<HeaderName>, Spanned<Part>)>> {
        let what = "a map from headers to parts of the certificate";
        self.headers(node, what, Self::certificate_part)
    }

    fn certificate_part(&mut self, node: &Node) -> Option<Spanned<Part>> {
        let general = "there is no token here, and so no claim: write `certificate:subject`";
        self.scalar(node, "a part of the client certificate", general, |text| {
            let name = text.strip_prefix(PART).ok_or_else(|| general.to_owned())?;
            let found = Part::ALL.iter().find(|(known, _)| *known == name);
            found.map(|(_, part)| *part).ok_or_else(|| {
                let known = Part::ALL.iter().map(|(known, _)| *known);
                suggest(name, known, "the parts of a certificate")
            })
        })
    }
}
