//! Session tickets (RFC 5077, RFC 8446 section 4.6.1): the ring of keys of the process, which stays over reloads, and the
//! keys that each listener derives from it. Who turns the ring, and when, is not decided here.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::{digest, rand};
use rustls::server::ProducesTickets;

use super::TlsFault;

/// How long a key seals tickets.
const SEALS: Duration = Duration::from_secs(6 * 60 * 60);
/// How long it opens them, counted like the other from its beginning: a ticket is good for six hours at least.
const OPENS: Duration = Duration::from_secs(12 * 60 * 60);
/// What a listener's keys are derived for.
const PURPOSE: &[u8] = b"portcullis session tickets";
/// The length of the name with which a ticket says what key it was sealed with (RFC 5077 section 4).
const NAME: usize = 16;
const KEY: usize = 32;

/// The keys of the process from which all listeners derive theirs. Workers read it without a lock.
pub(crate) struct TicketRing(ArcSwap<Ring>);

/// The newest first: it seals, all open.
type Ring = Vec<RingKey>;

#[derive(Clone)]
struct RingKey {
    begins: Instant,
    secret: Prk,
    /// The number of a key that other gateways have, too.
    shared: Option<u64>,
}

/// A key that all gateways of a fleet have.
#[derive(Clone, Copy)]
pub(crate) struct SharedKey {
    /// Its number; later ones have higher numbers.
    pub(crate) number: u64,
    /// Its bytes.
    pub(crate) secret: [u8; KEY],
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey({})", self.number)
    }
}

impl RingKey {
    fn random(begins: Instant) -> Result<Self, TlsFault> {
        let mut secret = [0; KEY];
        rand::fill(&mut secret)
            .map_err(|_| TlsFault::Setup(rustls::Error::FailedToGetRandomBytes))?;
        let secret = Prk::new_less_safe(HKDF_SHA256, &secret);
        Ok(Self {
            begins,
            secret,
            shared: None,
        })
    }
}

impl fmt::Debug for TicketRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketRing")
    }
}

impl TicketRing {
    /// A ring with one random key, which begins now.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn new(now: Instant) -> Result<Self, TlsFault> {
        let ring = vec![RingKey::random(now)?];
        Ok(Self(ArcSwap::from_pointee(ring)))
    }

    /// Seals with the first of these keys, and opens with all, beside the keys of its own that still open. While it is
    /// called at least every few hours, no other keys are made. Call it from the thread that turns the ring.
    pub(crate) fn share(&self, keys: &[SharedKey], now: Instant) {
        let ring = self.0.load();
        let age = |key: &RingKey| now.saturating_duration_since(key.begins);
        let numbers = keys.iter().map(|key| Some(key.number));
        let same = ring
            .iter()
            .map(|key| key.shared)
            .take(keys.len())
            .eq(numbers);
        if keys.is_empty() || same && ring.first().is_some_and(|key| age(key) < SEALS / 2) {
            return;
        }
        let shared = keys.iter().map(|key| RingKey {
            begins: now,
            secret: Prk::new_less_safe(HKDF_SHA256, &key.secret),
            shared: Some(key.number),
        });
        let own = (ring.iter()).filter(|key| key.shared.is_none() && age(key) < OPENS);
        self.0.store(Arc::new(shared.chain(own.cloned()).collect()));
    }

    /// Adds a random key where the newest has sealed for six hours, and forgets those that have opened for twelve. Call it
    /// every few minutes at most, always from the same thread.
    ///
    /// # Errors
    /// The system has no random bytes. The newest key goes on, and is forgotten in its time.
    pub(crate) fn turn(&self, now: Instant) -> Result<(), TlsFault> {
        let ring = self.0.load();
        let age = |key: &RingKey| now.saturating_duration_since(key.begins);
        let seals = ring.first().is_some_and(|key| age(key) < SEALS);
        let all_open = ring.iter().all(|key| age(key) < OPENS);
        if seals && all_open {
            return Ok(());
        }
        let added = if seals {
            Ok(None)
        } else {
            RingKey::random(now).map(Some)
        };
        let (added, turned) = match added {
            Ok(added) => (added, Ok(())),
            Err(fault) => (None, Err(fault)),
        };
        let kept = ring.iter().filter(|key| age(key) < OPENS).cloned();
        self.0
            .store(Arc::new(added.into_iter().chain(kept).collect()));
        turned
    }
}

/// The tickets of one listener.
pub(super) struct Tickets {
    ring: Arc<TicketRing>,
    /// The digest of what the listener demands of its clients.
    demands: digest::Digest,
    derived: ArcSwap<Derived>,
}

/// A listener's keys, in the ring's order, and the ring that they were derived from.
struct Derived {
    from: Arc<Ring>,
    keys: Vec<TicketKey>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// Tickets for a listener that demands this of its clients: only where these bytes are the same does a ticket of one
    /// listener, or of one configuration, open another.
    pub(super) fn new(ring: Arc<TicketRing>, demands: &[u8]) -> Self {
        let from = ring.0.load_full();
        let demands = digest::digest(&digest::SHA256, demands);
        let keys = Derived::of(from, &demands);
        Self {
            derived: ArcSwap::from_pointee(keys),
            ring,
            demands,
        }
    }

    /// The keys of the ring as it is now.
    fn keys(&self) -> Arc<Derived> {
        let derived = self.derived.load();
        let ring = self.ring.0.load();
        if Arc::ptr_eq(&derived.from, &ring) {
            return Arc::clone(&derived);
        }
        let derived = Arc::new(Derived::of(Arc::clone(&ring), &self.demands));
        self.derived.store(Arc::clone(&derived));
        derived
    }
}

impl Derived {
    fn of(from: Arc<Ring>, demands: &digest::Digest) -> Self {
        let derive = |key: &RingKey| TicketKey::derive(&key.secret, demands).ok();
        let keys = from.iter().filter_map(derive).collect();
        Self { from, keys }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from((OPENS - SEALS).as_secs()).unwrap_or_default()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys().keys.first()?.seal(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let derived = self.keys();
        let (name, _) = ticket.split_first_chunk()?;
        let key = derived.keys.iter().find(|key| key.name == *name)?;
        key.open(ticket)
    }
}

/// A key of a listener. A ticket is the key's name, a nonce, and what is sealed: RFC 8452's AES-256-GCM-SIV, which stays
/// safe where two of very many random nonces are the same.
struct TicketKey {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

/// The length of what is derived.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        NAME + KEY
    }
}

impl TicketKey {
    fn derive(secret: &Prk, demands: &digest::Digest) -> Result<Self, Unspecified> {
        let info = [PURPOSE, demands.as_ref()];
        let mut derived = [0; NAME + KEY];
        secret.expand(&info, Length)?.fill(&mut derived)?;
        let (name, key) = derived.split_first_chunk().ok_or(Unspecified)?;
        Ok(Self {
            name: *name,
            key: RandomizedNonceKey::new(&AES_256_GCM_SIV, key)?,
        })
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.key.seal_in_place_append_tag(self.aad(), &mut sealed);
        let nonce = nonce.ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + sealed.len());
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let sealed = ticket.strip_prefix(&self.name)?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::from(nonce);
        let plain = self.key.open_in_place(nonce, self.aad(), &mut opened);
        let length = plain.ok()?.len();
        opened.truncate(length);
        Some(opened)
    }

    fn aad(&self) -> Aad<&[u8; NAME]> {
        Aad::from(&self.name)
    }
}

/// Invariants of every ticket: what a listener sealed it opens, as it was; anything else it refuses, and another listener
/// refuses that too. `input` is how the ticket is damaged, and what is in it.
#[cfg(any(test, fuzzing))]
#[track_caller]
pub(crate) fn ticket_holds(input: &[u8]) {
    // A random key: otherwise a fuzzer may come with a ticket that it saw sealed in an earlier case.
    let Ok(ring) = TicketRing::new(Instant::now()).map(Arc::new) else {
        return;
    };
    let own = Tickets::new(Arc::clone(&ring), b"");
    let other = Tickets::new(ring, b"a CA");
    assert_eq!(own.decrypt(input), None);
    let Some(([how, place @ .., mask], plain)) = input.split_first_chunk::<4>() else {
        return;
    };
    let ticket = own.encrypt(plain).unwrap_or_default();
    assert_eq!(own.decrypt(&ticket).as_deref(), Some(plain));
    assert_eq!(other.decrypt(&ticket), None);
    let place = usize::from(u16::from_be_bytes(*place)) % ticket.len().max(1);
    let mut damaged = ticket.clone();
    match how % 4 {
        0 => damaged.truncate(place),
        1 => damaged.extend_from_slice(plain.get(place..).unwrap_or(&[0])),
        2 => damaged = damaged.split_off(place),
        _ => {
            if let Some(byte) = damaged.get_mut(place) {
                *byte ^= mask;
            }
        }
    }
    if damaged != ticket {
        assert_eq!(own.decrypt(&damaged), None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn ring(now: Instant) -> Arc<TicketRing> {
        Arc::new(TicketRing::new(now).unwrap())
    }

    #[test]
    fn a_key_seals_for_six_hours_and_opens_for_twelve() {
        let start = Instant::now();
        let ring = ring(start);
        let tickets = Tickets::new(Arc::clone(&ring), b"");
        let first = tickets.encrypt(b"first").unwrap();
        let name = |ticket: &[u8]| ticket[..NAME].to_vec();
        let second = Duration::from_secs(1);

        ring.turn(start + 6 * HOUR - second).unwrap();
        assert_eq!(name(&tickets.encrypt(b"").unwrap()), name(&first));
        ring.turn(start + 6 * HOUR).unwrap();
        let later = tickets.encrypt(b"later").unwrap();
        assert_ne!(name(&later), name(&first));
        assert_eq!(tickets.decrypt(&first).unwrap(), b"first");
        ring.turn(start + 12 * HOUR - second).unwrap();
        assert_eq!(tickets.decrypt(&first).unwrap(), b"first");
        ring.turn(start + 12 * HOUR).unwrap();
        assert_eq!(tickets.decrypt(&first), None);
        assert_eq!(tickets.decrypt(&later).unwrap(), b"later");
        // Nothing that was sealed before a long sleep is opened after it.
        ring.turn(start + 100 * HOUR).unwrap();
        assert_eq!(tickets.decrypt(&later), None);
        assert!(tickets.encrypt(b"").is_some());
        assert_eq!(ring.0.load().len(), 1);
    }

    #[test]
    fn another_configuration_with_the_same_demands_opens_a_ticket_and_no_other_does() {
        let ring = ring(Instant::now());
        let ticket = Tickets::new(Arc::clone(&ring), b"one CA").encrypt(b"secret");
        let ticket = ticket.unwrap();
        let open = |ring: &Arc<TicketRing>, demands| {
            Tickets::new(Arc::clone(ring), demands).decrypt(&ticket)
        };
        assert_eq!(open(&ring, b"one CA").unwrap(), b"secret");
        assert_eq!(open(&ring, b"another CA"), None);
        assert_eq!(open(&ring, b""), None);
        let other_process = Arc::new(TicketRing::new(Instant::now()).unwrap());
        assert_eq!(open(&other_process, b"one CA"), None);
    }

    #[test]
    fn gateways_with_shared_keys_open_each_others_tickets() {
        let start = Instant::now();
        let key = |number: u8| SharedKey {
            number: number.into(),
            secret: [number; KEY],
        };
        let (one, other) = (ring(start), ring(start));
        let tickets = |ring: &Arc<TicketRing>| Tickets::new(Arc::clone(ring), b"");
        let (first, second) = (tickets(&one), tickets(&other));
        let own = first.encrypt(b"own").unwrap();
        one.share(&[key(1), key(2)], start);
        other.share(&[key(1), key(2)], start);
        assert_eq!(
            first.decrypt(&own).unwrap(),
            b"own",
            "clients of before come back"
        );
        let early = first.encrypt(b"early").unwrap();
        assert_eq!(second.decrypt(&early).unwrap(), b"early");
        // One is ahead of the other.
        one.share(&[key(2), key(1), key(3)], start + 6 * HOUR);
        let late = first.encrypt(b"late").unwrap();
        assert_eq!(second.decrypt(&late).unwrap(), b"late");
        // The ring turns by itself only where nothing is shared any more.
        let sealing = |ring: &TicketRing| ring.0.load().first().unwrap().shared;
        one.turn(start + 7 * HOUR).unwrap();
        assert_eq!(sealing(&one), Some(2));
        one.turn(start + 13 * HOUR).unwrap();
        assert_eq!(sealing(&one), None);
        assert_eq!(first.decrypt(&own), None);
        one.share(&[key(4)], start + 14 * HOUR);
        assert_eq!(sealing(&one), Some(4));
        assert_eq!(first.decrypt(&late), None);
        one.share(&[], start + 14 * HOUR);
        assert_eq!(sealing(&one), Some(4));
    }

    #[test]
    fn two_tickets_of_the_same_session_cannot_be_linked() {
        let tickets = Tickets::new(ring(Instant::now()), b"");
        let (one, two) = (tickets.encrypt(b"same"), tickets.encrypt(b"same"));
        assert_ne!(one.unwrap()[NAME..], two.unwrap()[NAME..]);
    }

    proptest! {
        #[test]
        fn what_is_not_whole_is_refused(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            ticket_holds(&input);
        }
    }
}
