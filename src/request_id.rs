//! The id of one request, as its app, the access log and a refusal say it.

use std::fmt;

/// An id, written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    /// Its digits.
    pub(crate) fn digits(self) -> [u8; 16] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 16];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            *digit = HEX
                .get(usize::from(rest.to_le_bytes()[0] & 15))
                .copied()
                .unwrap_or_default();
            rest >>= 4;
        }
        digits
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_hexadecimal() {
        for id in [0, 0xab, u64::MAX, 0x0123_4567_89ab_cdef] {
            let id = RequestId(id);
            assert_eq!(id.digits(), *id.to_string().as_bytes());
        }
    }
}
