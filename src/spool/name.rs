//! Parses and prints the names of entries, which consist of queue id, size and directory.

use super::QueueId;

/// The directory of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `new/`: the entry was not tried yet.
    New,
    /// `cur/`: the entry was tried.
    Cur,
    /// `hold/`: the entry is in quarantine, or an administrator holds it.
    Hold,
}

impl Place {
    pub(super) fn directory(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Cur => "cur",
            Self::Hold => "hold",
        }
    }
}

/// The name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryName {
    /// The queue id.
    pub id: QueueId,
    /// The size of the file in bytes.
    pub size: u64,
    /// The directory in which the entry was last seen.
    pub place: Place,
}

impl EntryName {
    /// Reads the file name of an entry in `new/`.
    pub fn parse_new(name: &str) -> Option<Self> {
        Self::parse(name, Place::New)
    }

    /// The name of the file, without its directory.
    pub fn file_name(&self) -> String {
        format!("{},S={}", self.id, self.size)
    }

    pub(super) fn parse(name: &str, place: Place) -> Option<Self> {
        let (id, size) = name.split_once(",S=")?;
        let digits = size.bytes().all(|b| b.is_ascii_digit()) && !size.starts_with('0');
        Some(Self { id: QueueId::parse(id)?, size: size.parse().ok().filter(|_| digits)?, place })
    }
}
