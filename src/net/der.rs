//! DER (X.690) elements, as far as keys and certificates need them. DER lengths have exactly one encoding. The input is
//! untrusted and is compared with keys, so any other encoding is `None`.

/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER.
pub(crate) const OBJECT_ID: u8 = 0x06;
/// The explicit tag of a certificate's version (RFC 5280 section 4.1.2.1); version 1 has none.
pub(crate) const VERSION: u8 = 0xa0;

/// The content of the element; `None` where anything follows it.
pub(crate) fn whole(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (content, rest) = expect(der, tag)?;
    rest.is_empty().then_some(content)
}

/// The content of the first element, which must have this tag, and the rest.
pub(crate) fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if digits.is_empty() || digits.len() > 3 {
            return None;
        }
        (
            digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
            rest,
        )
    };
    rest.split_at_checked(length)
}

/// The first element with its tag and length, and the rest.
pub(crate) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (_, rest) = expect(der, tag)?;
    der.split_at_checked(der.len() - rest.len())
}

/// A certificate's SubjectPublicKeyInfo with its tag, and whether the certificate is X.509 version 1 (RFC 5280 section
/// 4.1).
pub(crate) fn certificate_key(certificate: &[u8]) -> Option<(&[u8], bool)> {
    let (content, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(content, SEQUENCE)?;
    let first_version = fields.first() != Some(&VERSION);
    if !first_version {
        fields = expect(fields, VERSION)?.1;
    }
    // Serial number, signature algorithm, issuer, validity, subject.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        fields = expect(fields, tag)?.1;
    }
    Some((element(fields, SEQUENCE)?.0, first_version))
}
