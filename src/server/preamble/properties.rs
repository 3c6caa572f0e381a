//! What must hold for any bytes at the beginning of a connection; called by tests and by `fuzz/`.

#![allow(
    clippy::indexing_slicing,
    reason = "whatever does not hold stops the test"
)]

use super::{LARGEST_BLOCK, LONGEST_LINE, read};

/// The longest header.
const LONGEST: usize = 16 + LARGEST_BLOCK;

/// In however many pieces bytes arrive, the same is read from them: nothing before the header's last byte, the same from
/// then on; or the same refusal from some byte on. Whoever waits for more has not yet been sent [`LONGEST`].
pub(crate) fn preamble_holds(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(2 * LONGEST)];
    let whole = read(bytes);
    let decided = (0..=bytes.len())
        .find(|count| read(&bytes[..*count]) != Ok(None))
        .unwrap_or(bytes.len());
    match &whole {
        Ok(Some((length, said))) => {
            assert_eq!(*length, decided);
            assert!(*length <= LONGEST);
            assert!(bytes[0] != b'P' || *length <= LONGEST_LINE);
            assert!(said.id.as_ref().is_none_or(|id| id.len() <= 256));
        }
        Ok(None) => assert!(bytes.len() < LONGEST),
        Err(_) => {}
    }
    for count in decided..=bytes.len() {
        assert_eq!(read(&bytes[..count]), whole, "of {count} bytes");
    }
}
