//! Ends the time for which an entry is kept before its first attempt (`release=`, RFC 4865), on an
//! administrator's request.
//!
//! The digits of the time are overwritten with zeros, in place. A power cut may leave some of the
//! digits, which is an earlier time than before. The caller makes sure that no worker has a job of
//! the entry.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::hold::NotMoved;
use super::{EntryName, Spool, head};
use crate::sys::disk;

const FIELD: &[u8] = b" release=";

impl Spool {
    /// Lets an entry be tried although its time has not come. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`NotMoved`]; the entry is not held if it has no such time, or if the time has come.
    pub fn release_early(self: &Arc<Self>, name: EntryName, now: u64) -> Result<EntryName, NotMoved> {
        let entry = self.entry(name)?;
        if entry.options().release.is_none_or(|release| release <= now) {
            return Err(NotMoved::NotHeld);
        }
        let length = entry.content_start().min(head::MAX_FIRST);
        let mut front = vec![0; usize::try_from(length).unwrap_or(0)];
        entry.file.read_exact_at(&mut front, 0)?;
        let (start, digits) = field(&front).ok_or(NotMoved::Unusable("the time in its head is malformed"))?;
        disk::write_at(&entry.file, &vec![b'0'; digits], start as u64)?;
        entry.sync_records()?;
        Ok(entry.name())
    }
}

/// Finds the digits of the field in the first line of a head: their offset and their number. An
/// address before the field may contain the same text, but no other field follows with it.
fn field(front: &[u8]) -> Option<(usize, usize)> {
    let line = front.split(|&b| b == b'\n').next()?;
    let start = line.windows(FIELD.len()).rposition(|text| text == FIELD)? + FIELD.len();
    let digits = line[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    (digits > 0).then_some((start, digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_the_last_one_that_looks_like_it() {
        for (line, want) in [
            ("a release=1795255200   \nT 0 release=5", Some((10, 10))),
            ("from=<\" release=7\"@x> release=1795255200", Some((30, 10))),
            ("from=<a@x>\nrelease=5", None),
            (" release=x", None),
        ] {
            assert_eq!(field(line.as_bytes()), want, "{line}");
        }
    }
}
