//! Makes and parses queue ids, which are short, unique and sorted by time.
//!
//! An id has nineteen digits and capital letters (Crockford's base 32, without I, L, O and U):
//! eleven for the microseconds since 1970, eight for 40 random bits. The id of a derived entry is
//! computed from the id of the original entry, so that a step that is repeated after a crash makes
//! the same entry.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TIME_DIGITS: usize = 11;
const RANDOM_DIGITS: usize = 8;
const RANDOM_MASK: u64 = (1 << 40) - 1;

/// The queue id of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    micros: u64,
    random: u64,
}

/// The kind of a derived entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A report about failed recipients, to the sender or to the postmaster.
    Report,
    /// A report about recipients that have the message, to the sender.
    Success,
    /// A report about recipients for whom the message is delayed, to the sender.
    Delay,
    /// The original message, for the addresses that a recipient expands to.
    Forwarded,
}

impl QueueId {
    /// A new id with the current time.
    ///
    /// # Errors
    /// Those of getrandom(2).
    pub fn generate() -> io::Result<Self> {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        let random = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self { micros, random: random & RANDOM_MASK })
    }

    /// The id of an entry that is derived from this message, for the recipient with this number, at
    /// the time `seconds` since 1970.
    #[must_use]
    pub fn derive(self, kind: Kind, recipient: usize, seconds: u64) -> Self {
        let word = match kind {
            Kind::Report => b"report",
            Kind::Success => b"passed",
            Kind::Delay => b"delays",
            Kind::Forwarded => b"onward",
        };
        // FNV-1a: the result must be reproducible, not secret.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in
            [self.micros, self.random, recipient as u64, seconds].iter().flat_map(|n| n.to_be_bytes()).chain(*word)
        {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // A derived id always sorts after the id that it is derived from.
        Self { micros: seconds.saturating_mul(1_000_000).max(self.micros + 1), random: hash & RANDOM_MASK }
    }

    /// Reads an id; `None` if it is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != TIME_DIGITS + RANDOM_DIGITS {
            return None;
        }
        let number = |part: &[u8]| {
            part.iter().try_fold(0_u64, |n, b| {
                let digit = DIGITS.iter().position(|d| d == b)?;
                Some((n << 5) | digit as u64)
            })
        };
        let (time, random) = text.as_bytes().split_at(TIME_DIGITS);
        Some(Self { micros: number(time)?, random: number(random)? })
    }

    /// The time at which the message was received or derived, in seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.micros / 1_000_000
    }

    /// The time at which the message was received or derived.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_micros(self.micros)).unwrap_or(UNIX_EPOCH)
    }

    /// The age of the message; zero if its time is in the future.
    pub fn age(self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_micros(self.micros))
    }

    /// A random number that stays the same for one message, for spreading retries over time.
    pub fn seed(self) -> u64 {
        self.random
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TIME_DIGITS + RANDOM_DIGITS];
        let mut put = |part: std::ops::Range<usize>, mut number: u64| {
            for digit in text[part].iter_mut().rev() {
                *digit = DIGITS[(number & 31) as usize];
                number >>= 5;
            }
        };
        put(0..TIME_DIGITS, self.micros);
        put(TIME_DIGITS..TIME_DIGITS + RANDOM_DIGITS, self.random);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_can_be_read_back_and_sort_by_time() {
        let early = QueueId { micros: 1_795_000_000_000_000, random: RANDOM_MASK };
        let late = QueueId { micros: 1_795_000_000_000_001, random: 0 };
        assert!(early.to_string() < late.to_string());
        for id in [early, late, QueueId::generate().expect("randomness")] {
            assert_eq!(QueueId::parse(&id.to_string()), Some(id));
        }
        for text in ["", "1J4ZK", "1J4ZKX0000000000000X", "1j4zkx00000ABCDEFGH", "1J4ZKX00000ABCDEF/H"] {
            assert_eq!(QueueId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_id_of_a_derived_entry_is_reproducible() {
        let original = QueueId::generate().expect("randomness");
        let seconds = original.seconds();
        let derived = original.derive(Kind::Report, 0, seconds);
        assert_eq!(derived, original.derive(Kind::Report, 0, seconds));
        assert_ne!(derived, original.derive(Kind::Report, 1, seconds));
        assert_ne!(derived, original.derive(Kind::Report, 0, seconds + 1));
        assert_ne!(derived, original.derive(Kind::Forwarded, 0, seconds));
        assert!(derived.to_string() > original.to_string());
        let later = original.seconds() + 5;
        assert_eq!(original.derive(Kind::Report, 0, later).seconds(), later);
    }
}
