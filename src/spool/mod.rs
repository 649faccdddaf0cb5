//! The spool: every message that was accepted and is not settled, on disk.
//!
//! ```text
//! tmp/    being written, or a report that is prepared
//! new/    accepted, not yet tried
//! cur/    tried at least once and not finished
//! hold/   kept back by an administrator
//! bad/    could not be understood; never deleted here
//! note/   what was said of a message last, for people; may vanish at any time
//! state/  what is remembered for convenience (see `state`); may vanish at any time
//! lock    held by the one process that runs the queue; holds the version
//! ```
//!
//! One file is one message, named by its queue id and `,S=size`: a head (see
//! `head`) and the content as it will be delivered, lines ending in LF.
//!
//! # States
//!
//! An entry is in one of the states on the left, and one step leads on. A `/` parts what
//! happens in that order; a crash between leaves what is in the second table.
//!
//! | on disk | becomes | by | and guarantees |
//! | --- | --- | --- | --- |
//! | a file without a name, or `tmp/ID` locked by its writer | `new/ID,S=n` | `Draft::commit`: linked or renamed / file synced | nothing before; after it the message is ours. If the sync fails it is removed |
//! | direct, in `new/` | `new/N` of the mailbox | `Spool::move_into`: one rename | in one of the two, never both, never neither; see below for btrfs |
//! | direct, in `new/` | the same, but a user's | `Entry::mark`: mode 0640 / time / root: `chown` | it is in no mailbox yet |
//! | a user's, 0640 | `new/N` of his mailbox, too | his agent: linked / mode 0600 / his group | it is there; the server could read it up to the mode |
//! | a user's, 0600 | nothing here | `Entry::unlink`: unlinked | delivered |
//! | direct, in `new/` | queued, in `cur/` | `Entry::make_queued`: `tmp/ID` written and synced / renamed / `cur/` synced / the direct one unlinked / `new/` synced | both only in between: then the queued one counts, on which nothing was done yet. If it cannot be undone, the direct one is not moved |
//! | queued, in `new/` | the same in `cur/` | `Entry::move_to_cur`: one rename | nothing: either place will do |
//! | recipient `T` | `T` with a time | `Entry::defer`: record overwritten | nothing: without it he is due sooner |
//! | recipient `T` | `P` | `Entry::prepare`: record overwritten / `Entry::sync_records`: file synced, once for many recipients | `tmp/N` of the mailbox is complete and synced |
//! | `P` | `D` | `deliver::local::maildir`: renamed into the mailbox's `new/` / that synced / `Entry::settle`: record overwritten | delivered |
//! | `P` | `T` | `Entry::forget_copy`: record overwritten / file synced | the copy is nowhere, and is made again |
//! | `T` | `R` | `Entry::create_report`: `tmp/CHILD` written and synced / records overwritten / file synced | the report is complete |
//! | `R` | `F` | `Entry::create_report`: `tmp/CHILD` renamed into `new/` / directories synced / records overwritten | the report is an entry of its own |
//! | `T` | `C` | `Entry::forward`: `tmp/CHILD` written and synced / record overwritten / file synced | the message for whom the address stands for is complete |
//! | `C` | `D` | `Entry::forward`: as from `R` to `F` | that is an entry of its own |
//! | `T` | `D` | `Entry::settle`: record overwritten, for a remote host's 250 | not synced: after a power cut the host may get it twice, as the protocol allows |
//! | `T` | `F` | `Entry::settle`: record overwritten, for a report to the postmaster | there is nobody left to tell |
//! | all `D` or `F` | nothing | `Entry::finish`, `Spool::finish`: note unlinked / entry unlinked | |
//!
//! | a crash leaves | becomes | by |
//! | --- | --- | --- |
//! | `new/ID,S=n` before its 250 | as any other: it is whole, or not there | |
//! | `tmp/ID` of a draft, of `make_queued`, or of a report that no `R` names | nothing | the same step made again, or `Spool::sweep` after 36 hours |
//! | direct in `new/` and queued in `cur/` | queued in `cur/` | `Spool::entries` at the start: direct unlinked / `new/` synced |
//! | direct, a user's, 0640 | a user's, 0600 | linked if it has no name in his `new/` or `cur/` / as above; in doubt twice, if he has removed it meanwhile |
//! | direct, a user's, 0600 | nothing here | `Entry::open`: unlinked. The time, which is that of the id, tells it from a file that was restored for somebody else |
//! | `T`, with a part of a copy in `tmp/` of the mailbox | `P` | the same step made again, over it |
//! | `P`, copy in `tmp/` of the mailbox | `D` | record written and synced once more / renamed / ... as above |
//! | `P`, copy not in `tmp/`, for less than a day or in `new/` or `cur/` | `D` | `new/` synced / record overwritten |
//! | `P`, copy nowhere for longer | `T` | `Entry::forget_copy`: in doubt twice, never none |
//! | `R` or `C`, `tmp/CHILD` still there: it was not sent | `T` | `Entry::recover`: records overwritten / file synced / `tmp/CHILD` unlinked |
//! | `R` or `C`, `tmp/CHILD` gone: it was made | `F` or `D` | `Entry::recover`: records overwritten |
//! | a note without entry | nothing | `Spool::sweep` after 36 hours |
//!
//! tests/storage/crash/points.rs stops the daemon before and after each of these steps,
//! tests/storage/crash/errors.rs lets each of them fail.
//!
//! # Syncs
//!
//! What a power cut costs without each of them; tests/storage/powercut leaves it out and sees it.
//!
//! | sync | without it |
//! | --- | --- |
//! | `commit`: the file, for the 250 | messages are lost, under any load |
//! | after a restart: an entry, before it is acted on | what a killed daemon had just linked is delivered empty |
//! | a copy: `tmp/N` of the mailbox | it is delivered empty |
//! | `prepare`: the record | it is delivered again after its owner has moved it |
//! | a copy: `new/` of the mailbox | lost with mailboxes on another file system, where the entry is gone first |
//! | `create_report`: the report in `tmp/` | the report is lost |
//! | `create_report`: the records; `new/` | the report is sent twice |
//! | `recover`: the records | the report is lost |
//!
//! POSIX does not promise that a new name is on the disk with its file, but the journals
//! of ext4, xfs and btrfs commit the name with the inode, and those of ext4 and xfs keep changes
//! of names in order. So these syncs cost nothing there when they are left out, and btrfs has
//! shown no loss without them either; they are for other file systems, and none is on the
//! way of a message that is moved: the directory in `commit` where there is no O_TMPFILE;
//! `tmp/` in `write_temporary`; `cur/` and `new/` in `make_queued`, and the one in `resolve_duplicates`,
//! without which a direct entry could come back after the queued one is finished. The `tmp/`
//! that a report was renamed from is synced before it is noted as made, for btrfs can
//! bring the old name back; that of a copy is not: its old name is then one more of a
//! file that was delivered. `forget_copy` takes two crashes a day not_renameable to be missed.
//!
//! What becomes a user's own needs no sync either: the link is made before the old name goes,
//! and the mode comes after the link, and the journals of ext4 and xfs keep that order. btrfs
//! does not: it was seen to lose such a message altogether, or its owner. So nothing is given
//! away but where the order is known to be kept (`disk::keeps_order`): it is copied.
//!
//! On btrfs a power cut can leave both names of a rename, of one file. A direct entry
//! that is in its mailbox too was delivered (`Entry::has_name_among`), so was a copy that its
//! owner can see (`deliver::local::maildir`), and an entry loses its name in `tmp/` before
//! it is looked at (`Spool::remove_old_names`).
//!
//! What an entry cannot say is not kept: the schedule is a function of id, record
//! and clock. Errors are those of the system, to be turned into replies or
//! outcomes by the caller; an entry that makes no sense is put into `bad/` and
//! reported, and nothing else stops. Does not know who is local, what is due, or
//! what a mailbox is.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

mod content;
mod corrupt;
mod derivation;
mod derived;
mod direct;
mod draft;
mod duplicates;
mod entry;
mod fields;
mod handover;
mod head;
mod id;
mod listing;
mod lock;
mod name;
mod note;
mod open;
mod reserve;
mod sweep;

pub use content::{Content, Measure};
pub use derivation::{Derivation, Step};
pub use draft::{Draft, NewEntry};
pub use entry::{Entry, Unusable};
pub use handover::HANDOVER_MODE;
pub use head::{DeliveryState, RecipientEntry, RecipientRef, State};
pub use id::{Kind, QueueId};
pub use lock::Lock;
pub use name::{EntryName, Place};
pub use note::{Note, NoteLine};

use crate::sys::disk;

const DIRECTORIES: [&str; 7] = ["tmp", "new", "cur", "hold", "bad", "note", STATE];
/// The directory of the state beside the queue.
const STATE: &str = "state";

/// A spool directory.
#[derive(Debug)]
pub struct Spool {
    root: PathBuf,
    device: u64,
    /// Whether it is only looked at.
    is_read_only: bool,
    /// Whether the file system has files without a name; found out by the first attempt.
    nameless: AtomicBool,
    /// Whether an entry of a later version was found: nobody else knows which files belong to it.
    has_later: AtomicBool,
    /// What is set aside for entries that are being written, in octets.
    aside: AtomicU64,
    /// See `note_duplicate`.
    duplicates: Mutex<HashMap<QueueId, EntryName>>,
    /// See `note_not_renameable`.
    not_renameable: RwLock<HashSet<PathBuf>>,
}

impl Spool {
    /// Opens a spool that is there, to look at it: nothing is changed.
    ///
    /// # Errors
    /// As for [`Spool::open`], and `NotFound`.
    pub fn open_read_only(root: &Path) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { is_read_only: true, ..Self::new(root, true)? }))
    }

    /// Whether no daemon has ever opened it: the directory is there, and nothing of ours in it.
    ///
    /// # Errors
    /// When that cannot be seen.
    pub fn is_unused(&self) -> io::Result<bool> {
        for directory in DIRECTORIES {
            if self.root.join(directory).try_exists()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn new(root: &Path, nameless: bool) -> io::Result<Self> {
        let device = fs::metadata(root)?.dev();
        Ok(Self {
            root: root.to_owned(),
            device,
            is_read_only: false,
            nameless: AtomicBool::new(nameless),
            has_later: AtomicBool::new(false),
            aside: AtomicU64::new(0),
            duplicates: Mutex::default(),
            not_renameable: RwLock::default(),
        })
    }

    /// Opens a spool, making what is missing of its directories.
    ///
    /// # Errors
    /// Those of the system, and `InvalidData` for a spool of another version.
    pub fn open(root: &Path) -> io::Result<Arc<Self>> {
        for directory in DIRECTORIES {
            disk::make_directory(&root.join(directory))?;
        }
        let spool = Self::new(root, has_proc())?;
        spool.check_version()?;
        Ok(Arc::new(spool))
    }

    /// The directory for state that no message depends on: see [`crate::state`].
    pub fn state_directory(&self) -> PathBuf {
        self.root.join(STATE)
    }

    /// The spool directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens an entry, in `new/` or `cur/` wherever it is now.
    ///
    /// # Errors
    /// [`Unusable`]: it is gone, makes no sense, or the system refuses.
    pub fn entry(self: &Arc<Self>, name: EntryName) -> Result<Entry, Unusable> {
        self.open_entry(name, None)
    }

    /// Opens an entry for some of its recipients: of a long head only these are read.
    ///
    /// # Errors
    /// As for [`Spool::entry`].
    pub fn entry_for(self: &Arc<Self>, name: EntryName, wanted: &[RecipientRef]) -> Result<Entry, Unusable> {
        self.open_entry(name, Some(wanted))
    }

    fn open_entry(self: &Arc<Self>, name: EntryName, wanted: Option<&[RecipientRef]>) -> Result<Entry, Unusable> {
        let opened = Entry::open(self, name, wanted);
        if let Err(Unusable::Later(_)) = opened {
            self.has_later.store(true, Ordering::Relaxed);
        }
        opened
    }

    fn path(&self, name: EntryName) -> PathBuf {
        self.root.join(name.place.directory()).join(name.file_name())
    }

    fn temporary(&self, id: QueueId) -> PathBuf {
        self.root.join("tmp").join(id.to_string())
    }

    fn sync_places(&self, places: &[&str]) -> io::Result<()> {
        places.iter().try_for_each(|place| disk::sync_directory(&self.root.join(place)))
    }

    fn is_nameless(&self) -> bool {
        self.nameless.load(Ordering::Relaxed)
    }
}

/// Whether a file without a name can be given one: linkat(2) finds it below /proc.
fn has_proc() -> bool {
    Path::new("/proc/self/fd").is_dir()
}

#[cfg(test)]
mod tests;
