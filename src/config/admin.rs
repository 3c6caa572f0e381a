//! What the tree says of the admin listener, the control socket and metrics.

use super::decode::Decoder;
use super::keys;
use super::node::Node;
use super::parsed::{Admin, Certificate, Tls, TlsVersion};
use super::value;

impl Decoder<'_> {
    pub(super) fn admin(&mut self, node: &Node) -> Option<Admin> {
        let before = self.errors.count();
        let fields = self.fields(node, "a map", &keys::ADMIN)?;
        let directory = self.directory;
        let address = self.optional(fields, "address", |it, node| {
            it.scalar(node, "an address", value::ADDRESSES, |text| {
                value::listen_address(text, directory)
            })
        });
        let token = self.optional(fields, "token", Self::filled_text);
        let read_token = self.optional(fields, "read_token", Self::filled_text);
        let hosts = self.value(fields, "hosts", |it, node| {
            it.list(node, "a list of names", |it, node| {
                it.scalar(node, "a name", "as in gateway.internal", value::admin_host)
            })
        });
        let tls = self.optional(fields, "tls", Self::admin_tls);
        let socket = self.optional(fields, "socket", Self::file);
        Some(Admin {
            place: fields.place,
            broken: self.errors.count() > before,
            address,
            token,
            read_token,
            hosts: hosts.unwrap_or_default(),
            tls,
            socket,
        })
    }

    fn admin_tls(&mut self, node: &Node) -> Option<Tls> {
        let fields = self.fields(node, "a map", &keys::ADMIN_TLS)?;
        let certificates = self.required(fields, "certificates", |it, node| {
            it.filled_list(node, "a list of certificates", Self::certificate)
        });
        let min_version = self.value(fields, "min_version", Self::min_version);
        Some(Tls {
            place: fields.place,
            client_auth: None,
            certificates: certificates?,
            acme: None,
            unknown_name: None,
            min_version: min_version?,
            http2: false,
        })
    }

    /// A certificate and its key.
    pub(super) fn certificate(&mut self, node: &Node) -> Option<Certificate> {
        let fields = self.fields(node, "a map", &keys::CERTIFICATE)?;
        let cert = self.required(fields, "cert", Self::file);
        let key = self.required(fields, "key", Self::file);
        Some(Certificate {
            cert: cert?,
            key: key?,
        })
    }

    /// The oldest version of TLS that is accepted.
    pub(super) fn min_version(
        &mut self,
        node: &Node,
    ) -> Option<super::parsed::Spanned<TlsVersion>> {
        self.choice(
            node,
            "a TLS version",
            &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)],
        )
    }
}
