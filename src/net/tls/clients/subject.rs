//! The subject of a certificate as text (RFC 4514), in ASCII alone, as `openssl x509 -nameopt RFC2253` prints it: a
//! header field, a log record or an app can read it in one way only.

use x509_parser::asn1_rs::{Any, Class, Tag, ToDer as _};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The names of attribute types. The first nine are those of RFC 4514 section 3, the others are registered as LDAP's
/// (RFC 4519, RFC 2985), or OpenSSL's; all else is written by its object identifier.
const TYPES: [(&str, &str); 22] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "street"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The name, its last part first; empty for an empty name.
pub(super) fn rfc4514(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter()
        .map(|part| {
            let attributes: Vec<String> = part.iter().map(attribute).collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = attribute.attr_type().to_id_string();
    let known = TYPES.iter().find(|(known, _)| *known == id);
    match (known, text(attribute.attr_value())) {
        (Some((_, name)), Some(text)) => format!("{name}={}", escaped(&text)),
        (Some((_, name)), None) => format!("{name}={}", hex(attribute.attr_value())),
        // RFC 4514 section 2.4: what has no name has no text either.
        (None, _) => format!("{id}={}", hex(attribute.attr_value())),
    }
}

/// A string's text; `None` for what is no string, or a malformed one.
fn text(value: &Any<'_>) -> Option<String> {
    if value.class() != Class::Universal {
        return None;
    }
    let wide = |width: usize| -> Option<String> {
        let units = value.data.chunks(width).map(|unit| {
            let number = unit
                .iter()
                .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
            (unit.len() == width)
                .then(|| char::from_u32(number))
                .flatten()
        });
        units.collect()
    };
    match value.tag() {
        Tag::Utf8String => std::str::from_utf8(value.data).ok().map(str::to_owned),
        Tag::NumericString | Tag::PrintableString | Tag::Ia5String | Tag::VisibleString => value
            .data
            .is_ascii()
            .then(|| value.data.iter().copied().map(char::from).collect()),
        // T.61 is dead; whoever wrote its tag meant Latin 1.
        Tag::T61String => Some(value.data.iter().copied().map(char::from).collect()),
        Tag::BmpString => wide(2),
        Tag::UniversalString => wide(4),
        _ => None,
    }
}

/// RFC 4514 section 2.4. Control characters and what is not ASCII become pairs of hex digits, which it allows.
fn escaped(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b'#' if at == 0 => out.push_str("\\#"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:02X}")),
        }
    }
    out
}

/// A value by its encoding.
fn hex(value: &Any<'_>) -> String {
    let der = value.to_der_vec().unwrap_or_default();
    let digits = der.iter().map(|byte| format!("{byte:02X}"));
    std::iter::once("#".to_owned()).chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    /// A name of one attribute for each row: the encoded type, the value with its tag.
    fn name(rows: &[&[(&[u8], Vec<u8>)]]) -> Vec<u8> {
        let parts: Vec<u8> = rows
            .iter()
            .flat_map(|row| {
                let all: Vec<u8> = row
                    .iter()
                    .flat_map(|(id, value)| tlv(0x30, &[tlv(0x06, id), value.clone()].concat()))
                    .collect();
                tlv(0x31, &all)
            })
            .collect();
        tlv(0x30, &parts)
    }

    #[track_caller]
    fn check(rows: &[&[(&[u8], Vec<u8>)]], expected: &str) {
        let der = name(rows);
        let (rest, name) = X509Name::from_der(&der).unwrap();
        assert!(rest.is_empty());
        let text = rfc4514(&name);
        assert_eq!(text, expected);
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const C: &[u8] = &[0x55, 4, 6];

    #[test]
    fn a_subject_is_written_from_its_end_and_read_in_one_way() {
        let utf8 = |text: &str| tlv(0x0c, text.as_bytes());
        check(&[], "");
        check(
            &[
                &[(C, tlv(0x13, b"DE"))],
                &[(O, utf8("Example"))],
                &[(CN, utf8("till 7"))],
            ],
            "CN=till 7,O=Example,C=DE",
        );
        check(
            &[&[(CN, utf8("a")), (O, utf8("b"))], &[(CN, utf8("c"))]],
            "CN=c,CN=a+O=b",
        );
        for (text, expected) in [
            ("Smith, John", r"CN=Smith\, John"),
            ("a,O=Other", r"CN=a\,O=Other"),
            (" a ", r"CN=\ a\ "),
            (" ", r"CN=\ "),
            ("#1#", r"CN=\#1#"),
            (r#"q"+;<>\"#, r#"CN=q\"\+\;\<\>\\"#),
            ("a\r\nX-Admin: 1", r"CN=a\0D\0AX-Admin: 1"),
            ("a\0b", r"CN=a\00b"),
            ("Zoë", r"CN=Zo\C3\AB"),
            ("", "CN="),
        ] {
            check(&[&[(CN, utf8(text))]], expected);
        }
    }

    #[test]
    fn every_kind_of_string_is_read_and_what_is_none_is_written_as_it_is() {
        let bmp = [0, b'Z', 0, b'o', 0, 0xeb];
        check(&[&[(CN, tlv(0x1e, &bmp))]], r"CN=Zo\C3\AB");
        check(
            &[&[(CN, tlv(0x1c, &[0, 0, 0, b'a', 0, 0, 0x01, 0x5c]))]],
            r"CN=a\C5\9C",
        );
        check(&[&[(CN, tlv(0x14, &[b'Z', b'o', 0xeb]))]], r"CN=Zo\C3\AB");
        check(&[&[(CN, tlv(0x16, b"a@b"))]], "CN=a@b");
        // Damaged, no string, and of a type that has no name here.
        check(&[&[(CN, tlv(0x1e, &[0, b'Z', 0]))]], "CN=#1E03005A00");
        check(&[&[(CN, tlv(0x0c, &[0xff]))]], "CN=#0C01FF");
        check(&[&[(CN, tlv(0x16, &[0xeb]))]], "CN=#1601EB");
        check(&[&[(CN, tlv(0x02, &[7]))]], "CN=#020107");
        check(&[&[(&[0x2a, 3, 4], tlv(0x13, b"x"))]], "1.2.3.4=#130178");
        check(
            &[&[(
                &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1],
                tlv(0x16, b"a@b.c"),
            )]],
            "emailAddress=a@b.c",
        );
    }

    #[test]
    fn certificates_of_others_are_read_alike() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CountryName, "DE");
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "A, B");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "x");
        let made = params
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap();
        let (_, read) = X509Certificate::from_der(made.der()).unwrap();
        let text = rfc4514(read.subject());
        let mut parts: Vec<&str> = text.split(r",").collect();
        parts.sort_unstable();
        assert_eq!(parts, [" B", "C=DE", "CN=x", r"O=A\"]);
    }
}
