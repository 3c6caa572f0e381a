//! The id of a request, as in the app's request, the access log and refusals.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip::SipHasher24;

/// An id, written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    /// The hexadecimal digits.
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

/// The id generator of one worker: a counter under a keyed pseudorandom function. From some ids nobody can derive
/// others, or how many lie between; none needs a system call.
#[derive(Debug)]
pub(crate) struct RequestIds {
    key: [u8; 16],
    count: AtomicU64,
}

impl RequestIds {
    /// A generator whose ids differ from those of all other workers and runs.
    pub(crate) fn new() -> Self {
        let mut key = [0; 16];
        if getrandom::fill(&mut key).is_err() {
            // The standard library gets a key from the system, or panics.
            let random = RandomState::new();
            key = (u128::from(random.hash_one(0)) << 64 | u128::from(random.hash_one(1)))
                .to_ne_bytes();
        }
        Self {
            key,
            count: AtomicU64::new(0),
        }
    }

    /// The next id.
    pub(crate) fn next(&self) -> RequestId {
        // Only the worker's own thread runs this, so no increment is lost between the two.
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u64(count);
        RequestId(hasher.finish())
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
    fn ids_do_not_tell_of_each_other() {
        let ids = RequestIds::new();
        let seen: Vec<u64> = (0..1000).map(|_| ids.next().0).collect();
        let distinct: std::collections::HashSet<u64> = seen.iter().copied().collect();
        assert_eq!(distinct.len(), seen.len());
        let steps = seen.windows(2).map(|two| two[1].wrapping_sub(two[0]));
        let steps: std::collections::HashSet<u64> = steps.collect();
        assert!(steps.len() > 990, "one step leads from each to the next");
        // Each bit is set in about half of the 1000 ids, within eight standard deviations.
        for bit in 0..u64::BITS {
            let set = seen.iter().filter(|id| *id >> bit & 1 == 1).count();
            assert!((370..630).contains(&set), "bit {bit}: {set}");
        }
        let other = RequestIds::new();
        assert!(!distinct.contains(&other.next().0), "another worker's");
    }

    #[test]
    fn digits_are_hexadecimal() {
        for id in [0, 0xab, u64::MAX, 0x0123_4567_89ab_cdef] {
            let id = RequestId(id);
            assert_eq!(id.digits(), *id.to_string().as_bytes());
        }
    }
}
