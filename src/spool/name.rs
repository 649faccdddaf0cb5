//! The names of entries: queue id, size, and directory.

use super::QueueId;

/// The directory of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Not yet tried.
    New,
    /// Tried.
    Cur,
    /// Held.
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
    /// The directory in which it was last seen.
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
