//! Files that were compressed, once for all workers and requests, within bounded memory. Which files those are is decided
//! in `files`.

use std::io;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use super::encoder::{self, Level};
use crate::message::accept::Coding;
use crate::message::reject::Reject;

/// The weight of an entry besides its bytes and its key.
const OVERHEAD: u64 = 256;
/// About how many bytes an entry has; only an estimate of how many there will be.
const ORDINARY: u64 = 16 * 1024;
/// Longer files are compressed on the blocking pool.
const LONGEST_AT_ONCE: usize = 64 * 1024;

/// Compressed files by key; `None` for one that does not get shorter.
#[derive(Debug)]
pub(crate) struct CompressedFiles {
    cache: Cache<String, Option<Bytes>, Weight>,
    memory: u64,
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<String, Option<Bytes>> for Weight {
    fn weight(&self, key: &String, bytes: &Option<Bytes>) -> u64 {
        let bytes = bytes.as_ref().map_or(0, Bytes::len);
        OVERHEAD + (key.len() + bytes) as u64
    }
}

impl CompressedFiles {
    /// An empty store for this many bytes.
    pub(crate) fn new(memory: u64) -> Self {
        let items = usize::try_from(memory / ORDINARY).unwrap_or(usize::MAX);
        Self {
            cache: Cache::with_weighter(items.clamp(16, 1 << 16), memory, Weight),
            memory,
        }
    }

    /// How many bytes it may take.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// The compressed form of a file; `None` if it is not shorter by a tenth. `read` reads the file if it was not
    /// compressed before. All who ask for the same at once wait for one of them; if that one leaves, for the next.
    ///
    /// # Errors
    /// Those of `read`, and `Internal` if memory is scarce.
    pub(crate) async fn get_or_make(
        &self,
        key: &str,
        (coding, level): (Coding, Level),
        read: impl Future<Output = Result<Bytes, Reject>>,
    ) -> Result<Option<Bytes>, Reject> {
        let guard = match self.cache.get_value_or_guard_async(key).await {
            Ok(made) => return Ok(made),
            Err(guard) => guard,
        };
        let content = read.await?;
        let length = content.len();
        let compress = move || encoder::compress(&content, coding, level);
        let made = match Handle::try_current() {
            Ok(runtime) if length > LONGEST_AT_ONCE => {
                let made = runtime.spawn_blocking(compress).await;
                made.map_err(io::Error::other).flatten()
            }
            // A benchmark and `explain` have no runtime.
            Ok(_) | Err(_) => compress(),
        };
        let made = made.map_err(|_| Reject::Internal)?;
        let is_shorter = made.len() < length - length / 10;
        let made = is_shorter.then(|| Bytes::from(made));
        // Whoever waits gets it even if it has no room.
        drop(guard.insert(made.clone()));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const AS: (Coding, Level) = (Coding::Gzip, Level::Default);

    #[tokio::test]
    async fn a_file_is_compressed_once_and_read_by_one() {
        let store = CompressedFiles::new(1 << 20);
        let reads = Cell::new(0);
        let read = || async {
            reads.set(reads.get() + 1);
            tokio::task::yield_now().await;
            Ok(Bytes::from(vec![b'x'; 100_000]))
        };
        let all = tokio::join!(
            store.get_or_make("a", AS, read()),
            store.get_or_make("a", AS, read()),
            store.get_or_make("a", AS, read()),
        );
        let made = all.0.unwrap().unwrap();
        assert!(made.len() < 1000);
        assert_eq!(all.1.unwrap().as_ref(), Some(&made));
        assert_eq!(all.2.unwrap().as_ref(), Some(&made));
        assert_eq!(reads.get(), 1);
        store.get_or_make("b", AS, read()).await.unwrap();
        assert_eq!(reads.get(), 2);
    }

    #[tokio::test]
    async fn what_does_not_get_shorter_is_known_and_a_failure_is_not() {
        let store = CompressedFiles::new(1 << 20);
        let mut state = 88_172_645_463_325_252_u64;
        let noise: Vec<u8> = (0..250)
            .flat_map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            })
            .collect();
        for _ in 0..2 {
            let content = Bytes::from(noise.clone());
            let made = store.get_or_make("noise", AS, async { Ok(content) }).await;
            assert_eq!(made, Ok(None));
        }
        let failed = store
            .get_or_make("x", AS, async { Err(Reject::Internal) })
            .await;
        assert_eq!(failed, Err(Reject::Internal));
        let content = Bytes::from(vec![0; 5000]);
        let made = store.get_or_make("x", AS, async { Ok(content) }).await;
        assert!(made.unwrap().is_some());
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let store = CompressedFiles::new(100_000);
        for at in 0..1000_u32 {
            let content = Bytes::from(at.to_le_bytes().repeat(20_000));
            let key = at.to_string();
            store
                .get_or_make(&key, AS, async { Ok(content) })
                .await
                .unwrap();
        }
        assert!(store.cache.weight() <= store.memory());
        assert!(store.cache.len() < 500);
    }
}
