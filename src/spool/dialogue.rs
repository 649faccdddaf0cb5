//! Keeps the last dialogues with other hosts about each deferred message, for the administrator and
//! for the report if the message expires.
//!
//! The file is a convenience, as the note beside it: it is never synced, may vanish at any time, and
//! is not trusted when it is read. The module `dialogue` has the form of the text.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{QueueId, Spool, open};
use crate::dialogue::{self, Dialogue, MAX_FILE};
use crate::sys::disk;

/// The end of the file's name, after the queue id.
pub(super) const SUFFIX: &str = ".dialogue";

impl Spool {
    /// Keeps a dialogue of a message, in place of the last one with the same destination. Nothing is
    /// written if that would touch the reserve of the disk. Errors are ignored.
    pub fn add_dialogue(&self, id: QueueId, dialogue: &Dialogue) {
        if !self.has_room(MAX_FILE).unwrap_or(false) {
            return;
        }
        let _changing = self.notes.of(id);
        let text = dialogue::add(&self.dialogue_text(id), dialogue);
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600).custom_flags(open::SAFELY);
        let file = disk::open(&self.dialogue_path(id), &options);
        let _ = file.and_then(|file| disk::write(&file, text.as_bytes()));
    }

    /// The last dialogues about a message, the oldest first; none if they are not known.
    pub fn dialogues(&self, id: QueueId) -> Vec<Dialogue> {
        dialogue::read(&self.dialogue_text(id))
    }

    fn dialogue_text(&self, id: QueueId) -> String {
        let mut text = Vec::new();
        let file = open::to_read(&self.dialogue_path(id));
        let read = file.and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
        read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    pub(super) fn dialogue_path(&self, id: QueueId) -> PathBuf {
        self.root.join("note").join(format!("{id}{SUFFIX}"))
    }
}
