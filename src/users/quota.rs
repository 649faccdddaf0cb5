//! The quota of a mailbox: how much mail it may hold, and how much it holds.

use std::fmt;

/// The quota of a Maildir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The maximum sum of the sizes of all messages, in bytes.
    pub limit: u64,
    /// Whether mail that does not fit is returned at once, instead of being tried again later.
    pub is_final: bool,
    /// Whether the limit is in the user's line of the users file.
    pub is_own: bool,
}

/// The number and the size of the messages of a mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// The sum of their sizes, in bytes.
    pub size: u64,
    /// The number of messages.
    pub messages: u64,
}

impl Contents {
    /// Whether a message of `size` bytes fits into a mailbox with this limit.
    pub fn leaves_room(self, size: u64, limit: u64) -> bool {
        self.size.saturating_add(size.max(1)) <= limit
    }
}

/// Shows a size with a unit, such as `1.5G`.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1 << 10 {
            return write!(f, "{}", self.0);
        }
        let units = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
        let (unit, name) = units.into_iter().find(|(unit, _)| self.0 >= *unit).unwrap_or((1, ""));
        let tenths = self.0.saturating_mul(10) / unit;
        if tenths.is_multiple_of(10) {
            write!(f, "{}{name}", tenths / 10)
        } else {
            write!(f, "{}.{}{name}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, (1 << 30) - 1, 5 << 30, 7 << 40];
        let shown = sizes.map(|size| Size(size).to_string());
        assert_eq!(shown, ["0", "1023", "1K", "1.5K", "1M", "1023.9M", "5G", "7168G"]);
    }

    #[test]
    fn only_what_fits_has_room() {
        let used = |size| Contents { size, messages: 1 };
        for (contents, size, fits) in [
            (used(0), 100, true),
            (used(1), 100, false),
            (used(99), 1, true),
            (used(100), 0, false),
            (used(99), 0, true),
            (used(u64::MAX), u64::MAX, false),
        ] {
            assert_eq!(contents.leaves_room(size, 100), fits, "{contents:?} {size}");
        }
    }
}
