//! What was said of a message last, for people to read.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{QueueId, Spool, open};
use crate::sys::disk;

/// The longest note.
pub(super) const MAX_NOTE: u64 = 16 << 10;

impl Spool {
    /// Adds a line to what is kept about a message for people to read.
    pub fn note(&self, id: QueueId, line: &str) {
        let path = self.note_path(id);
        let short = fs::metadata(&path).is_ok_and(|m| m.len() + line.len() as u64 <= MAX_NOTE);
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600).custom_flags(open::SAFELY);
        let options = if short { options.append(true) } else { options.write(true).truncate(true) };
        // A note is a courtesy: mail goes on without it.
        let _ = disk::open(&path, options).and_then(|file| disk::write(&file, format!("{line}\n").as_bytes()));
    }

    /// What is kept about a message for people to read.
    pub fn read_note(&self, id: QueueId) -> String {
        let mut text = Vec::new();
        let file = open::to_read(&self.note_path(id));
        let read = file.and_then(|file| file.take(2 * MAX_NOTE).read_to_end(&mut text));
        read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    pub(super) fn note_path(&self, id: QueueId) -> PathBuf {
        self.root.join("note").join(id.to_string())
    }
}
