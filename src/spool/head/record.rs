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
    /// A report about the recipient is complete in the `tmp/` of the spool, and may have been
    /// renamed into `new/`.
    Reported {
        /// The number of the first recipient in the report. The id of the report is derived from
        /// that number.
        lead: u64,
        /// What the report says about the recipient.
        event: ReportedEvent,
    },
    /// The derived entry for the addresses that this recipient expands to is complete in the `tmp/`
    /// of the spool, and may have been renamed into `new/`.
    Forwarded {
        /// The success that is to be reported once the derived entry exists; `None` if no report
        /// is wanted.
        success: Option<Success>,
    },
    /// The message was delivered, and the report about that success is still to be made.
    Unreported(Success),
    /// The message was delivered or forwarded.
    Done,
    /// The delivery failed, and the sender was notified.
    Failed,
}

/// What a report says about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedEvent {
    /// The delivery has failed.
    Failure,
    /// The message was delivered.
    Success(Success),
    /// The message is delayed, and is tried further.
    Delay,
}

/// The success that a report states, as far as this host knows it (RFC 3464 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    /// The message was delivered to the recipient.
    Delivered,
    /// The message was passed on to a host that sends no reports about successes.
    Relayed,
    /// The message was passed on to the addresses that the recipient's address stands for.
    Expanded,
}

impl Success {
    /// The number that stands for this success in a record.
    fn number(self) -> u64 {
        match self {
            Self::Delivered => 1,
            Self::Relayed => 2,
            Self::Expanded => 3,
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        [Self::Delivered, Self::Relayed, Self::Expanded].into_iter().find(|success| success.number() == number)
    }
}

impl ReportedEvent {
    /// The number that stands for a delay in a record; 0 stands for a failure.
    const DELAY: u64 = 4;

    fn number(self) -> u64 {
        match self {
            Self::Failure => 0,
            Self::Success(success) => success.number(),
            Self::Delay => Self::DELAY,
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Failure),
            Self::DELAY => Some(Self::Delay),
            number => Success::from_number(number).map(Self::Success),
        }
    }
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
            State::Reported { lead, event } => ('R', lead, event.number()),
            State::Forwarded { success } => ('C', success.map_or(0, Success::number), 0),
            State::Unreported(success) => ('S', success.number(), 0),
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
            "R" => State::Reported { lead: a, event: ReportedEvent::from_number(b).ok_or(CORRUPT)? },
            "C" if a == 0 => State::Forwarded { success: None },
            "C" => State::Forwarded { success: Some(Success::from_number(a).ok_or(CORRUPT)?) },
            "S" => State::Unreported(Success::from_number(a).ok_or(CORRUPT)?),
            "D" => State::Done,
            "F" => State::Failed,
            _ => return Err(CORRUPT),
        };
        let record = Self { state, last, warned };
        if record.encode() == text.as_bytes() { Ok(record) } else { Err(CORRUPT) }
    }
}
