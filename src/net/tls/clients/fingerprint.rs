//! `Fingerprint`: the SHA-256 of a certificate, by which configurations and tokens (RFC 8705) name it.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Fingerprint([u8; BYTES]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base64url())
    }
}

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub(crate) fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// Reads `x5t#S256`: base64url without padding (RFC 8705 section 3.1); `None` for anything that is no SHA-256.
    pub(crate) fn from_base64url(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        // A longer text does not fit into the bytes, which is an error, too.
        let written = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (written == BYTES).then_some(Self(bytes))
    }

    /// Reads base64url, or hex as OpenSSL prints it, with or without colons.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_base64url(text).or_else(|| Self::from_hex(text))
    }

    fn from_hex(text: &str) -> Option<Self> {
        let pairs: Vec<&[u8]> = if text.contains(':') {
            text.split(':').map(str::as_bytes).collect()
        } else {
            text.as_bytes().chunks(2).collect()
        };
        if pairs.len() != BYTES {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let &[high, low] = pair else { return None };
            *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        }
        Some(Self(bytes))
    }

    /// As base64url without padding.
    pub(crate) fn base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// As hex in lower case.
    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_in_each_of_its_forms_and_in_no_other() {
        let print = Fingerprint::of(b"a certificate");
        let (hex, base64) = (print.hex(), print.base64url());
        let pairs: Vec<String> = print.0.iter().map(|byte| format!("{byte:02X}")).collect();
        let colons = pairs.join(":");
        for text in [
            &base64,
            &hex,
            &hex.to_uppercase(),
            &colons,
            &colons.to_lowercase(),
        ] {
            assert_eq!(Fingerprint::parse(text), Some(print), "{text}");
        }
        let without_first = |text: &str| text.chars().skip(1).collect::<String>();
        for text in [
            "",
            "any",
            &without_first(&hex),
            &without_first(&without_first(&hex)),
            &format!("{hex}00"),
            &format!("{}g", without_first(&hex)),
            &format!("{base64}="),
            &without_first(&base64),
            &format!("{base64}A"),
            &"+".repeat(43),
            &pairs.join("-"),
            &pairs.iter().skip(1).cloned().collect::<Vec<_>>().join(":"),
            &format!(":{}", without_first(&colons)),
            &format!("{colons}:00"),
        ] {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_token_names_a_certificate_in_one_form_only() {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let print = Fingerprint::of(b"a certificate");
        assert_eq!(Fingerprint::from_base64url(&print.base64url()), Some(print));
        assert_eq!(Fingerprint::from_base64url(&print.hex()), None);
        // The last letter holds four bits, and two that must be zero: another spelling of the same bytes is none.
        let mut twin = print.base64url();
        let last = twin.pop().unwrap();
        let at = LETTERS
            .iter()
            .position(|it| char::from(*it) == last)
            .unwrap();
        twin.push(char::from(LETTERS[at + 1]));
        assert_eq!(Fingerprint::from_base64url(&twin), None);
    }
}
