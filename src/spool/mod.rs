//! Stores every accepted message on disk, in the spool, for the sessions that receive messages and
//! the workers that deliver them. A message leaves the spool once each of its recipients is
//! settled. A recipient is settled if the message was delivered, or if it failed and the sender was
//! notified.
//!
//! ```text
//! tmp/    drafts, entries that are being rewritten, derived entries until they are complete
//! new/    accepted, not yet tried
//! cur/    tried at least once and not finished
//! hold/   in quarantine, or held by an administrator
//! bad/    corrupt; nothing in it is deleted
//! note/   the last replies and the last dialogues, one file of each kind for each entry, for the
//!         administrator; may vanish at any time
//! state/  state that no message depends on (see `state`); may vanish at any time
//! lock    held by the one process that runs the queue; contains the version
//! ```
//!
//! Each message is one file, an entry. Its name `ID,S=size` consists of the queue id and the size
//! of the file in bytes. The file begins with a head, which contains the sender and the recipients.
//! The content follows as it will be delivered, with lines ending in LF.
//!
//! The head of a queued entry has a record for each recipient, which contains the recipient's
//! state. A direct entry has one recipient and no record: its whole file can become the message in
//! the recipient's mailbox. A derived entry is made from another entry: it is a report of failed
//! recipients, or the message forwarded to other addresses.
//!
//! - `confirm`: an entry whose message also exists outside the spool, after a crash
//! - `content`: reads the content of an entry, and computes its size on the wire
//! - `corrupt`: moves corrupt entries to `bad/`, and leaves those of a later version alone
//! - `derivation`: what led to a derived entry, and how many further recipients it may lead to
//! - `derived`: makes derived entries, each exactly once
//! - `dialogue`: the last dialogues with other hosts, beside the notes
//! - `direct`: renames direct entries into mailboxes, or rewrites them as queued entries
//! - `draft`: a message that is being received, from its first byte to the commit
//! - `duplicates`: chooses between two files with one id, which a crash can leave
//! - `entry`: an entry that was opened, and the steps that settle its recipients
//! - `fields`: the `key=value` fields of a queued head
//! - `handover`: makes a direct entry the file of a system user
//! - `head`: the format of the two heads
//! - `held`: bounds the messages in quarantine
//! - `hold`: holds, releases and removes entries on an administrator's request
//! - `id`: queue ids
//! - `listing`: the entries of a directory
//! - `lock`: the lock file, which contains the spool's version, and the spool's secret key
//! - `name`: file names of entries
//! - `note`: the notes for the administrator
//! - `open`: opens files without following a link
//! - `release`: lets an entry be tried before the time that its sender has set
//! - `reserve`: free space that is kept for settling accepted mail
//! - `rewrite`: gives an entry other recipients on an administrator's request
//! - `sweep`: removes files that crashes have left
//!
//! # States
//!
//! Each row is one step, which changes the state in the first column to the state in the second. A
//! `/` separates the parts of a step, which happen in that order. A crash between two parts leaves
//! a state of the second table. `N` is the name of a message's file in a mailbox, and `DERIVED` is
//! the id of a derived entry.
//!
//! A capital letter is the state of a recipient in its record: `T` still to be tried, `P` a copy
//! for the mailbox is prepared, `R` a report is prepared, `C` a forwarded message is prepared, `D`
//! done, `F` failed.
//!
//! | on disk | becomes | by | and guarantees |
//! | --- | --- | --- | --- |
//! | a file without a name, or `tmp/ID` locked by its writer | `new/ID,S=n`, or the same in `hold/` | `Draft::commit`: linked or renamed / file synced | before the step nothing; after it this server is responsible for the message. If the sync fails, the name is removed |
//! | direct, in `new/` | `new/N` of the mailbox | `Spool::move_into`: one rename | in one of the two, never both, never neither; see below for btrfs |
//! | direct, in `new/` | the same, owned by the user | `Entry::mark`: mode 0640 / time / root: `chown` | it is in no mailbox yet |
//! | owned by the user, 0640 | also `new/N` of the user's mailbox | the user's agent: linked / mode 0600 / group | it is in the mailbox; the server could read it until the mode was changed |
//! | owned by the user, 0600 | not in the spool | `Entry::unlink`: unlinked | delivered |
//! | direct, in `new/` | queued, in `cur/` | `Entry::make_queued`: `tmp/ID` written and synced / renamed / `cur/` synced / the direct one unlinked / `new/` synced | in between both exist, and only the queued one is used. If the queued one cannot be removed after an error, the direct one is not used. If the direct one was moved into its mailbox meanwhile, the queued one is removed |
//! | direct, in `hold/` | queued, in `hold/` | `Entry::make_queued`, before it is returned to its sender: as from `new/` to `cur/` | not tried |
//! | queued, in `new/` | the same in `cur/` | `Entry::move_to_cur`: one rename | nothing: either place is right |
//! | recipient `T` | `T` with a time | `Entry::defer`: record overwritten | nothing: if it is lost, the recipient is due sooner |
//! | recipient `T` | `P` | `Entry::prepare`: record overwritten / `Entry::sync_records`: file synced, once for many recipients | `tmp/N` of the mailbox is complete and synced |
//! | `P` | `D` | `deliver::local::maildir`: renamed into the mailbox's `new/` / that synced / `Entry::settle`: record overwritten | delivered |
//! | `P` | `T` | `Entry::forget_copy`: record overwritten / file synced | the copy does not exist, and is made again |
//! | `T` | `R` | `Entry::create_report`: `tmp/DERIVED` written and synced / records overwritten / file synced | the report is complete |
//! | `R` | `F` | `Entry::create_report`: `tmp/DERIVED` renamed into `new/` / directories synced / records overwritten | the report is an entry of its own |
//! | `T` or `P` | `S` | `Entry::settle` in place of `D`, if the sender wants a report about the success: record overwritten | as for `D` |
//! | `S` | `R`, then `D` | `Entry::create_report`, as from `T` to `F` | the report about the success is complete; then it is an entry of its own |
//! | `T` | `R`, then `T` with the time of the warning | `Entry::create_report`, as from `T` to `F`, for a message that is delayed | the report about the delay is complete; then it is an entry of its own |
//! | `T` | `C` | `Entry::forward`: `tmp/DERIVED` written and synced / record overwritten / file synced | the message for the addresses that the recipient expands to is complete |
//! | `C` | `D` or `S` | `Entry::forward`: as from `R` to `F` | that message is an entry of its own |
//! | `T` | `D` | `Entry::settle`: record overwritten, for a remote host's 250 | not synced: after a power cut the host may get it twice, as the protocol allows |
//! | `T` | `F` | `Entry::settle`: record overwritten, for a report to the postmaster | nobody is left to be notified |
//! | any, in `new/` or `cur/` | the same in `hold/` | `Spool::hold`: one rename / `Spool::sync_changes`: the directories synced, once for many entries | not tried any more. A recipient in `P`, or an entry that was handed over, is completed by an attempt first |
//! | any, in `hold/` | the same in `new/` or `cur/` | `Spool::release`: one rename / directories synced in the same way | tried |
//! | any | nothing | `Spool::remove`, on request: logged / dialogues unlinked / entry unlinked / directory synced / note unlinked | not tried any more |
//! | queued | queued, with other recipients | `Entry::replace_recipients`, on request: `tmp/ID` written and synced / renamed / the directory synced / the old one unlinked, if its name is another one / the directory synced | tried. In between both may exist, and none of them was tried since |
//! | all `D` or `F` | nothing | `Entry::finish`, `Spool::finish`: dialogues and note unlinked / entry unlinked | |
//!
//! | a crash leaves | becomes | by |
//! | --- | --- | --- |
//! | `new/ID,S=n`, and no 250 was sent | an entry like any other: it is complete, or does not exist | |
//! | `tmp/ID` of a draft, of `make_queued`, or of a report without a recipient in `R` | nothing | the same step made again, or `Spool::sweep` after 36 hours |
//! | direct in `new/` and queued in `cur/` | queued in `cur/` | `Spool::resolve_duplicates` at the start: direct unlinked / `new/` synced |
//! | direct and queued in `hold/` | queued in `hold/` | `Spool::resolve_duplicates`, before an administrator's next change of it: direct unlinked / `hold/` synced |
//! | all `D` or `F`, in `hold/` | nothing | the next change of it: entry unlinked |
//! | two queued entries, from `Entry::replace_recipients` | one of them | `Spool::resolve_duplicates` at the start: the other is moved to `bad/` |
//! | direct in `new/`, and in `cur/` an entry of a later version | both stay | `Spool::resolve_duplicates`: that version will remove the direct one |
//! | direct, owned by the user, 0640 | owned by the user, 0600 | linked if it has no name in the mailbox's `new/` or `cur/` / as above; delivered twice if the user has removed it meanwhile |
//! | direct, owned by the user, 0600 | not in the spool | `Entry::open`: unlinked. The time of the file is that of the id, so it is no file that was restored for another user |
//! | `T`, with a part of a copy in `tmp/` of the mailbox | `P` | the same step made again, which replaces the part |
//! | `P`, copy in `tmp/` of the mailbox | `D` | record written and synced once more / renamed / ... as above |
//! | `P`, copy not in `tmp/`, but in `new/` or `cur/`, or prepared less than a day ago | `D` | `new/` synced / record overwritten |
//! | `P`, copy nowhere in the mailbox, and prepared more than a day ago | `T` | `Entry::forget_copy`: possibly delivered twice, never lost |
//! | `R` or `C`, `tmp/DERIVED` exists: it was not sent | `T`, or `S` if it is a report about a success | `Entry::recover`: records overwritten / file synced / `tmp/DERIVED` unlinked |
//! | `R` or `C`, `tmp/DERIVED` does not exist: it was sent | as without the crash | `Entry::recover`: records overwritten |
//! | `S`, and no report | `R`, then `D` | `Entry::create_report` in the next attempt, which delivers nothing |
//! | in `hold/` and, by another name of the same file, in `new/` or `cur/` | in `hold/` | `Spool::remove_old_names` at the start: the other name unlinked |
//! | a note without an entry | nothing | `Spool::sweep` after 36 hours |
//!
//! tests/storage/crash/points.rs stops the daemon before and after each of these steps, and
//! tests/storage/crash/errors.rs lets each of them fail. tests/storage/crash/hold.rs does both for
//! the requests of an administrator.
//!
//! # Syncs
//!
//! The table says what a power cut can lose if a sync is omitted. tests/storage/powercut omits each
//! sync in turn and shows the loss.
//!
//! | sync | without it |
//! | --- | --- |
//! | `commit`: the file, before the 250 | messages are lost, under any load |
//! | after a restart: an entry, before anything is done with it | an entry that was linked just before the crash is delivered empty |
//! | a copy: `tmp/N` of the mailbox | it is delivered empty |
//! | `prepare`: the record | the message is delivered again after the user has moved it |
//! | a copy: `new/` of the mailbox | the message is lost if the mailbox is on another file system, and the removal of the entry reaches the disk first |
//! | `create_report`: the report in `tmp/` | the report is lost |
//! | `create_report`: the records; `new/` | the report is sent twice |
//! | `recover`: the records | the report is lost |
//!
//! POSIX does not promise that a new name reaches the disk with its file. But the journals of ext4,
//! xfs and btrfs commit the name with the inode, and those of ext4 and xfs keep the order in which
//! names are changed. So the syncs of directories in the next table could be left out on ext4 and
//! xfs without a loss, and tests have seen no loss on btrfs either. These syncs exist for other
//! file systems. A direct entry that is renamed into a mailbox needs none of them.
//!
//! | step | synced directory |
//! | --- | --- |
//! | `commit`, without O_TMPFILE | that of the new name |
//! | `write_temporary` | `tmp/` |
//! | `make_queued` | `cur/` and `new/` |
//! | `resolve_duplicates` | that of the direct entry, which could otherwise reappear after the queued one is finished |
//!
//! After a report was renamed from `tmp/`, that directory is synced before the recipients are `F`,
//! because btrfs can restore the old name. After a copy was renamed from the `tmp/` of a mailbox,
//! that directory is not synced: the old name would only be one more name of a delivered file. A
//! missing sync in `forget_copy` would show only after two crashes a day apart.
//!
//! A handover makes a direct entry's file the user's own, and needs no sync either. The link in the
//! mailbox is made first, then the mode is set, and the old name is removed last. The journals of
//! ext4 and xfs keep that order. btrfs does not keep the order: in a test it lost a message
//! altogether, or lost the change of the owner. So files are handed over only on file systems that
//! keep the order (`disk::keeps_order`). On others the message is copied.
//!
//! On btrfs a power cut can leave a renamed file with both its old and its new name. A direct entry
//! that also has a name in its mailbox counts as delivered (`Entry::has_name_among`), and so does a
//! copy that the user can see (`deliver::local::maildir`). The name that a renamed entry still has
//! in `tmp/` is removed before the entry is opened (`Spool::remove_old_names`).
//!
//! All state of a message is stored in its entry. The time of the next attempt is not stored, but
//! computed from the id, the record and the clock. The functions return errors of the system, and
//! the caller turns these into SMTP replies or outcomes of deliveries. A corrupt entry is logged
//! and moved to `bad/`, and does not affect other entries. The spool knows nothing about local
//! addresses, schedules or mailboxes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

mod confirm;
mod content;
mod corrupt;
mod derivation;
mod derived;
mod dialogue;
mod direct;
mod draft;
mod duplicates;
mod entry;
mod fields;
mod handover;
mod head;
mod held;
mod hold;
mod id;
mod listing;
mod lock;
mod name;
mod note;
mod open;
mod release;
mod reserve;
mod rewrite;
mod sweep;

pub use content::{Content, Measure, Meter};
pub use derivation::{Derivation, Step};
pub use draft::{Draft, NewEntry};
pub use entry::{Entry, Unusable};
pub use handover::HANDOVER_MODE;
pub use head::{DeliveryState, RecipientEntry, RecipientRef, ReportedEvent, State, Success};
pub use hold::NotMoved;
pub use id::{Kind, QueueId};
pub use lock::Lock;
pub use name::{EntryName, Place};
pub use note::{INTERRUPTED, Note, NoteLine, NoteResult};
use reserve::Reserved;

use crate::sys::{self, disk};

const DIRECTORIES: [&str; 7] = ["tmp", "new", "cur", "hold", "bad", "note", STATE];
/// The directory for state that no message depends on.
const STATE: &str = "state";

/// A spool directory.
#[derive(Debug)]
pub struct Spool {
    root: PathBuf,
    device: u64,
    /// Whether the spool was opened read-only.
    is_read_only: bool,
    /// Whether the file system supports O_TMPFILE; set to false by the first attempt that fails.
    has_tmpfile: AtomicBool,
    /// Whether an entry was found that a later version of penfold has written. Only that version
    /// knows which other files belong to such an entry.
    has_later: AtomicBool,
    /// The ids of the entries for which [`Spool::leave_alone`] has already logged a line.
    left_alone: Mutex<HashSet<QueueId>>,
    /// The ids of direct entries beside which a later version has written a queued entry: see
    /// [`Spool::resolve_duplicates`].
    beside_later: Mutex<HashSet<QueueId>>,
    /// The space reserved for entries that are being written.
    reserved: Reserved,
    /// The count of the entries in `hold/`, which limits the messages in quarantine.
    held: held::Held,
    /// The files that stand beside entries with the same ids and could not be removed, by id: see
    /// [`Spool::note_duplicate`].
    duplicates: Mutex<HashMap<QueueId, EntryName>>,
    /// The paths of the mailboxes into which nothing can be renamed: see
    /// [`Spool::note_not_renameable`].
    not_renameable: RwLock<HashSet<PathBuf>>,
    /// The locks for the files in `note/`.
    notes: note::Locks,
}

impl Spool {
    /// Opens an existing spool read-only: nothing in it is changed.
    ///
    /// # Errors
    /// Those of stat(2), such as `NotFound`.
    pub fn open_read_only(root: &Path) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { is_read_only: true, ..Self::new(root, true)? }))
    }

    /// Whether no daemon has ever opened this spool: none of its subdirectories exists.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn is_unused(&self) -> io::Result<bool> {
        for directory in DIRECTORIES {
            if self.root.join(directory).try_exists()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn new(root: &Path, has_tmpfile: bool) -> io::Result<Self> {
        let device = fs::metadata(root)?.dev();
        Ok(Self {
            root: root.to_owned(),
            device,
            is_read_only: false,
            has_tmpfile: AtomicBool::new(has_tmpfile),
            has_later: AtomicBool::new(false),
            left_alone: Mutex::default(),
            beside_later: Mutex::default(),
            reserved: Reserved::default(),
            held: held::Held::default(),
            duplicates: Mutex::default(),
            not_renameable: RwLock::default(),
            notes: note::Locks::default(),
        })
    }

    /// Opens a spool, and creates its missing directories.
    ///
    /// # Errors
    /// Those of the system, and `InvalidData` for a spool of another version.
    pub fn open(root: &Path) -> io::Result<Arc<Self>> {
        for directory in DIRECTORIES {
            disk::make_directory(&root.join(directory))?;
        }
        let spool = Self::new(root, sys::can_link())?;
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

    /// Opens an entry. If the entry was in `new/` or `cur/`, it is looked for in both, because a
    /// worker may have moved it.
    ///
    /// # Errors
    /// [`Unusable`] says why it cannot be opened.
    pub fn entry(self: &Arc<Self>, name: EntryName) -> Result<Entry, Unusable> {
        self.open_entry(name, None)
    }

    /// Opens an entry for the recipients in `wanted`. If its head is long, only these recipients
    /// are read.
    ///
    /// # Errors
    /// As for [`Spool::entry`].
    pub fn entry_for(self: &Arc<Self>, name: EntryName, wanted: &[RecipientRef]) -> Result<Entry, Unusable> {
        self.open_entry(name, Some(wanted))
    }

    fn open_entry(self: &Arc<Self>, name: EntryName, wanted: Option<&[RecipientRef]>) -> Result<Entry, Unusable> {
        self.remove_duplicate(name.id)?;
        let mut opened = Entry::open(self, name, wanted);
        if opened.as_ref().is_ok_and(|entry| entry.is_direct() && self.is_beside_later(name.id)) {
            opened = Err(Unusable::Later("a later version has made it a queued entry"));
        }
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

    fn can_use_tmpfile(&self) -> bool {
        self.has_tmpfile.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
