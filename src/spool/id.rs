//! Queue ids: short, sorted by time, never the same twice.
//!
//! Nineteen digits and capital letters (Crockford's base 32, no I, L, O, U):
//! eleven for the microseconds since 1970, eight for 40 random bits. What a
//! message begets has an id derived from its parent's, so that making it again
//! after a crash makes the same.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TIME_DIGITS: usize = 11;
const RANDOM_DIGITS: usize = 8;
const RANDOM_MASK: u64 = (1 << 40) - 1;

/// The name of a message in the spool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    micros: u64,
    random: u64,
}

/// What a message begets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A report that recipients failed, to the sender or to the postmaster.
    Report,
    /// The message, for what the address of a recipient stands for.
    Forwarded,
}

impl QueueId {
    /// A new id, of now.
    ///
    /// # Errors
    /// Those of getrandom(2).
    pub fn generate() -> io::Result<Self> {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        let random = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self { micros, random: random & RANDOM_MASK })
    }

    /// The id of what this message begets: of `seconds`, for the recipient with this number.
    #[must_use]
    pub fn derive(self, kind: Kind, recipient: usize, seconds: u64) -> Self {
        let word = match kind {
            Kind::Report => b"report",
            Kind::Forwarded => b"onward",
        };
        // FNV-1a: no secret is needed, only that the same parents have the same child.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in
            [self.micros, self.random, recipient as u64, seconds].iter().flat_map(|n| n.to_be_bytes()).chain(*word)
        {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // Never older than the parent, nor younger than it is.
        Self { micros: seconds.saturating_mul(1_000_000).max(self.micros + 1), random: hash & RANDOM_MASK }
    }

    /// Reads an id.
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

    /// When the message came, in seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.micros / 1_000_000
    }

    /// When the message came.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_micros(self.micros)).unwrap_or(UNIX_EPOCH)
    }

    /// How long ago the message came; nothing, if the clock says that it is yet to come.
    pub fn age(self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_micros(self.micros))
    }

    /// A number that differs from message to message, for jitter.
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
    fn the_same_parents_have_the_same_child() {
        let parent = QueueId::generate().expect("randomness");
        let seconds = parent.seconds();
        let child = parent.derive(Kind::Report, 0, seconds);
        assert_eq!(child, parent.derive(Kind::Report, 0, seconds));
        assert_ne!(child, parent.derive(Kind::Report, 1, seconds));
        assert_ne!(child, parent.derive(Kind::Report, 0, seconds + 1));
        assert_ne!(child, parent.derive(Kind::Forwarded, 0, seconds));
        assert!(child.to_string() > parent.to_string());
        let later = parent.seconds() + 5;
        assert_eq!(parent.derive(Kind::Report, 0, later).seconds(), later);
    }
}
