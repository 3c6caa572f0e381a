//! `ClientCertificate`: what is known of a client by its certificate, and each part of it as a header field for the app.
//! Whether it may be used was decided before, by the handshake.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use super::super::dates;
use super::fingerprint::Fingerprint;
use super::subject;

/// The certificate by which a client is known on its connection.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    der: CertificateDer<'static>,
    fingerprint: Fingerprint,
    subject: String,
    serial: String,
    names: Vec<Name>,
    ends: SystemTime,
    not_after: String,
    /// The header fields that were asked for once, in the order of [`Part::ALL`].
    written: [OnceLock<Option<HeaderValue>>; Part::ALL.len()],
}

/// One of a certificate's subject alternative names (RFC 5280 section 4.2.1.6). Kinds that no configuration can name
/// are left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Name {
    /// A DNS name, as written.
    Dns(String),
    /// A URI, as written.
    Uri(String),
    /// A mailbox, as written.
    Email(String),
    /// An IP address.
    Ip(IpAddr),
}

/// A part of a certificate that an app can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// The subject (RFC 4514).
    Subject,
    /// The serial number, in hex.
    Serial,
    /// The SHA-256 of the certificate, in base64url.
    Fingerprint,
    /// The subject alternative names.
    San,
    /// The end of its validity.
    NotAfter,
    /// The whole certificate, as `Client-Cert` has it (RFC 9440 section 2.1).
    Rfc9440,
    /// As Envoy's `X-Forwarded-Client-Cert`.
    Xfcc,
}

impl Part {
    /// All parts, by their names in the configuration.
    pub(crate) const ALL: [(&'static str, Self); 7] = [
        ("subject", Self::Subject),
        ("serial", Self::Serial),
        ("fingerprint", Self::Fingerprint),
        ("san", Self::San),
        ("not_after", Self::NotAfter),
        ("rfc9440", Self::Rfc9440),
        ("xfcc", Self::Xfcc),
    ];
}

impl ClientCertificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// Which part of it cannot be read.
    pub(crate) fn read(der: CertificateDer<'static>) -> Result<Arc<Self>, &'static str> {
        let (rest, read) = X509Certificate::from_der(&der).map_err(|_| "it is damaged")?;
        if !rest.is_empty() {
            return Err("something follows it");
        }
        let names = read
            .subject_alternative_name()
            .map_err(|_| "its subject alternative names are damaged")?;
        let names = names.map_or_else(Vec::new, |names| {
            let all = names.value.general_names.iter();
            all.filter_map(Name::of).collect()
        });
        let not_after = read.validity().not_after;
        Ok(Arc::new(Self {
            fingerprint: Fingerprint::of(&der),
            subject: subject::rfc4514(read.subject()),
            serial: serial(read.raw_serial()),
            names,
            ends: dates::time(not_after).ok_or("its dates cannot be read")?,
            not_after: rfc3339(not_after),
            written: Default::default(),
            der,
        }))
    }

    /// A certificate that nobody has, with these names and this fingerprint: to find out whom a rule lets in.
    pub(crate) fn made_up(
        names: Vec<Name>,
        fingerprint: Fingerprint,
        ends: SystemTime,
    ) -> Arc<Self> {
        Arc::new(Self {
            der: CertificateDer::from(Vec::new()),
            fingerprint,
            subject: String::new(),
            serial: String::new(),
            names,
            ends,
            not_after: String::new(),
            written: Default::default(),
        })
    }

    /// Its SHA-256.
    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Its subject (RFC 4514), in ASCII; empty where it has none.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Its subject alternative names.
    pub(crate) fn names(&self) -> &[Name] {
        &self.names
    }

    /// Its subject alternative names with their kinds, as a list that can be taken apart in one way.
    pub(crate) fn names_in_words(&self) -> String {
        let names: Vec<String> = self.names.iter().map(Name::in_words).collect();
        names.join(", ")
    }

    /// The last moment of its validity.
    pub(crate) fn ends(&self) -> SystemTime {
        self.ends
    }

    /// A part of it as a header field; `None` where it has none. Made once a connection.
    pub(crate) fn header(&self, part: Part) -> Option<&HeaderValue> {
        let mut places = Part::ALL.iter().zip(&self.written);
        let (_, place) = places.find(|((_, known), _)| *known == part)?;
        let made = || {
            let text = self.text(part);
            // Whatever is written here is ASCII without control characters.
            HeaderValue::try_from(text)
                .ok()
                .filter(|text| !text.is_empty())
        };
        place.get_or_init(made).as_ref()
    }

    fn text(&self, part: Part) -> String {
        match part {
            Part::Subject => self.subject.clone(),
            Part::Serial => self.serial.clone(),
            Part::Fingerprint => self.fingerprint.base64url(),
            Part::San => self.names_in_words(),
            Part::NotAfter => self.not_after.clone(),
            // A byte sequence of structured fields (RFC 8941 section 3.3.5).
            Part::Rfc9440 => format!(":{}:", STANDARD.encode(&self.der)),
            Part::Xfcc => self.xfcc(),
        }
    }

    /// Envoy's form, one element: `Hash`, `Subject`, a `URI` for each name of that kind, then a `DNS`. `By`, `Cert` and
    /// `Chain` are left out.
    fn xfcc(&self) -> String {
        // Security: readers differ in how they unescape quotes, so that there are none. RFC 4514 has both spellings.
        let subject = self.subject.replace(r"\\", r"\5C").replace("\\\"", r"\22");
        let mut text = format!("Hash={};Subject=\"{subject}\"", self.fingerprint.hex());
        let mut add = |key: &str, value: &str| {
            let value = visible(value);
            // A value that could be taken for the next is quoted.
            let quote = if value.contains([',', ';', '=']) {
                "\""
            } else {
                ""
            };
            text.push_str(&format!(";{key}={quote}{value}{quote}"));
        };
        for name in &self.names {
            if let Name::Uri(uri) = name {
                add("URI", uri);
            }
        }
        for name in &self.names {
            if let Name::Dns(name) = name {
                add("DNS", name);
            }
        }
        text
    }
}

impl Name {
    fn of(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns((*name).to_owned())),
            GeneralName::URI(uri) => Some(Self::Uri((*uri).to_owned())),
            GeneralName::RFC822Name(mailbox) => Some(Self::Email((*mailbox).to_owned())),
            GeneralName::IPAddress(bytes) => {
                let v4 = || <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                v4().or_else(|_| v6()).ok().map(Self::Ip)
            }
            GeneralName::OtherName(..)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => None,
        }
    }

    /// The name with its kind. A comma is written `%2C`, so that a list of names is taken apart in one way.
    fn in_words(&self) -> String {
        let plain = |text: &str| visible(text).replace(',', "%2C");
        match self {
            Self::Dns(name) => format!("dns:{}", plain(name)),
            Self::Uri(uri) => format!("uri:{}", plain(uri)),
            Self::Email(mailbox) => format!("email:{}", plain(mailbox)),
            Self::Ip(ip) => format!("ip:{ip}"),
        }
    }
}

/// The text with every byte percent-encoded that is no visible ASCII, or that no name has and quotes end with.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"\\".contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A serial number in hex, as `openssl x509 -serial` prints it: without the zero that only keeps it positive.
fn serial(bytes: &[u8]) -> String {
    let digits = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        bytes => bytes,
    };
    digits.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn rfc3339(time: ASN1Time) -> String {
    let time = time.to_datetime();
    let (hour, minute, second) = time.to_hms();
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Arc<ClientCertificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        change(&mut params);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::read(made.der().clone()).unwrap()
    }

    fn ia5(text: &str) -> Ia5String {
        Ia5String::try_from(text.to_owned()).unwrap()
    }

    fn text(of: &ClientCertificate, part: Part) -> Option<String> {
        let value = of.header(part)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn each_part_is_a_header_field() {
        let client = made(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "till \"7\", Zoë");
            params.serial_number = Some(SerialNumber::from(vec![0xab, 0x01]));
            params.subject_alt_names = vec![
                SanType::DnsName(ia5("till.example.org")),
                SanType::URI(ia5("spiffe://example.org/pay/7")),
                SanType::Rfc822Name(ia5("till@example.org")),
                SanType::IpAddress("10.0.0.7".parse().unwrap()),
                SanType::IpAddress("2001:db8::7".parse().unwrap()),
            ];
        });
        let print = client.fingerprint();
        let subject = r#"CN=till \"7\"\, Zo\C3\AB"#;
        assert_eq!(client.subject(), subject);
        assert_eq!(text(&client, Part::Subject).as_deref(), Some(subject));
        assert_eq!(text(&client, Part::Serial).as_deref(), Some("AB01"));
        assert_eq!(text(&client, Part::Fingerprint), Some(print.base64url()));
        assert_eq!(
            text(&client, Part::San).as_deref(),
            Some(
                "dns:till.example.org, uri:spiffe://example.org/pay/7, email:till@example.org, ip:10.0.0.7, ip:2001:db8::7"
            )
        );
        assert_eq!(
            text(&client, Part::NotAfter).as_deref(),
            Some("2031-02-03T00:00:00Z")
        );
        let whole = text(&client, Part::Rfc9440).unwrap();
        let inner = whole.strip_prefix(':').and_then(|it| it.strip_suffix(':'));
        let der = STANDARD.decode(inner.unwrap()).unwrap();
        assert_eq!(Fingerprint::of(&der), *print);
        assert_eq!(
            text(&client, Part::Xfcc).unwrap(),
            format!(
                r#"Hash={};Subject="CN=till \227\22\, Zo\C3\AB";URI=spiffe://example.org/pay/7;DNS=till.example.org"#,
                print.hex()
            )
        );
        let ends = Duration::from_secs(1_927_843_200);
        assert_eq!(client.ends(), SystemTime::UNIX_EPOCH + ends);
    }

    #[test]
    fn what_a_certificate_does_not_have_is_no_field() {
        let client = made(|_| {});
        assert_eq!(text(&client, Part::Subject), None);
        assert_eq!(text(&client, Part::San), None);
        assert!(
            text(&client, Part::Xfcc)
                .unwrap()
                .ends_with(";Subject=\"\"")
        );
    }

    #[test]
    fn a_name_cannot_pass_for_two() {
        let client = made(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName(ia5("a, uri:spiffe://admin")),
                SanType::URI(ia5("spiffe://a;DNS=admin\r\nX-Admin: 1,\"")),
            ];
            params
                .distinguished_name
                .push(DnType::CommonName, r#"x\";URI=spiffe://admin\"#);
        });
        assert_eq!(
            text(&client, Part::San).as_deref(),
            Some("dns:a%2C%20uri:spiffe://admin, uri:spiffe://a;DNS=admin%0D%0AX-Admin:%201%2C%22")
        );
        assert!(text(&client, Part::Xfcc).unwrap().ends_with(
            r#";Subject="CN=x\5C\22\;URI=spiffe://admin\5C";URI="spiffe://a;DNS=admin%0D%0AX-Admin:%201,%22";DNS="a,%20uri:spiffe://admin""#
        ));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let made = made(|_| {});
        let whole = made.der.to_vec();
        for damaged in [
            &[][..],
            &whole[1..],
            &whole[..whole.len() - 1],
            &[&whole[..], &[0]].concat(),
        ] {
            let read = ClientCertificate::read(CertificateDer::from(damaged.to_vec()));
            assert!(read.is_err());
        }
    }
}
