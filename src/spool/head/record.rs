//! The record of a recipient: the part of the recipient's line that changes, with the state.

use super::HeadError::{self, Corrupt};

/// The length of the record at the front of a recipient's line, in bytes.
pub const RECORD: usize = 58;

/// The state of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The recipient has still to be tried.
    Todo,
    /// A copy is complete in the `tmp/` of the recipient's mailbox, and may have been renamed into
    /// `new/`.
    Prepared {
        /// The birth time of that `tmp/`, in nanoseconds since 1970; 0 if the file system has none.
        born: u64,
        /// The inode number of that `tmp/`.
        inode: u64,
    },
    /// The delivery failed. The report is complete in the `tmp/` of the spool, and may have been
    /// renamed into `new/`.
    Reported {
        /// The number of the first recipient in the report. The id of the report is derived from
        /// that number.
        lead: u64,
    },
    /// The derived entry for the addresses that this recipient expands to is complete in the `tmp/`
    /// of the spool, and may have been renamed into `new/`.
    Forwarded,
    /// The message was delivered or forwarded.
    Done,
    /// The delivery failed, and the sender was notified.
    Failed,
}

impl State {
    /// Whether the recipient is not settled.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Failed)
    }
}

/// The record of a recipient: the part of the recipient's line that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryState {
    /// The state.
    pub state: State,
    /// The time of the last attempt, in seconds since 1970; 0 for none.
    pub last: u64,
    /// The time of the last warning to the sender, in seconds since 1970; 0 for none.
    pub warned: u64,
}

impl DeliveryState {
    pub(super) const FRESH: Self = Self { state: State::Todo, last: 0, warned: 0 };

    /// The record as it is written to the file.
    pub fn encode(&self) -> [u8; RECORD] {
        let (letter, a, b) = match self.state {
            State::Todo => ('T', 0, 0),
            State::Prepared { born, inode } => ('P', born, inode),
            State::Reported { lead } => ('R', lead, 0),
            State::Forwarded => ('C', 0, 0),
            State::Done => ('D', 0, 0),
            State::Failed => ('F', 0, 0),
        };
        // Ten digits last until the year 2286.
        let (last, warned) = (self.last.min(9_999_999_999), self.warned.min(9_999_999_999));
        let text = format!("{letter} {last:010} {warned:010} {a:016x} {b:016x} ");
        let mut record = [b' '; RECORD];
        record.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        record
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`HeadError`] for anything that [`DeliveryState::encode`] does not write.
    pub fn decode(text: &[u8]) -> Result<Self, HeadError> {
        const CORRUPT: HeadError = Corrupt("a recipient's state is malformed");
        let text = std::str::from_utf8(text.get(..RECORD).ok_or(CORRUPT)?).map_err(|_| CORRUPT)?;
        let mut words = text.split_ascii_whitespace();
        let letter = words.next().ok_or(CORRUPT)?;
        let mut number = |radix| u64::from_str_radix(words.next()?, radix).ok();
        let (last, warned) = (number(10).ok_or(CORRUPT)?, number(10).ok_or(CORRUPT)?);
        let (a, b) = (number(16).ok_or(CORRUPT)?, number(16).ok_or(CORRUPT)?);
        let state = match letter {
            "T" => State::Todo,
            "P" => State::Prepared { born: a, inode: b },
            "R" => State::Reported { lead: a },
            "C" => State::Forwarded,
            "D" => State::Done,
            "F" => State::Failed,
            _ => return Err(CORRUPT),
        };
        let record = Self { state, last, warned };
        if record.encode() == text.as_bytes() { Ok(record) } else { Err(CORRUPT) }
    }
}
