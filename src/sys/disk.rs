//! Makes every change on disk for the spool and the mailboxes.
//!
//! Most functions make one system call that changes a file or a name, and return its errors;
//! writing and moving data may take several calls. The order of the changes, and the state that a
//! crash leaves between two of them, are described in `spool` and `deliver::local::maildir`. The
//! functions are collected here so that a test can stop the daemon before or after each change,
//! make the change fail, or skip it. The module `fault`, which a release build does not contain,
//! carries out what the test wants.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::SystemTime;

use super::system;
pub use system::keeps_order;

#[cfg(debug_assertions)]
use super::fault::{Subject, step};

/// A release build has no faults on demand, so `step` only makes the call.
#[cfg(not(debug_assertions))]
use released::{Subject, step};

#[cfg(not(debug_assertions))]
mod released {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    #[allow(dead_code, reason = "only faults read the subject of a step")]
    pub enum Subject<'a> {
        Open(&'a File),
        Path(&'a Path),
        Paths(&'a Path, &'a Path),
    }

    pub fn step(_: &str, _: Subject<'_>, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        run()
    }
}

/// Makes a new file with mode 600, for reading and writing.
///
/// # Errors
/// Those of open(2), such as `AlreadyExists`.
pub fn create(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true).write(true).create_new(true).mode(0o600))
}

/// Makes a file without a name in a directory. If the file is closed before [`link`] gives it a
/// name, the file disappears.
///
/// # Errors
/// Those of open(2), for example because the file system does not support such files.
pub fn create_nameless(directory: &Path) -> io::Result<File> {
    open(directory, &system::nameless()?)
}

/// Opens a file with options that allow making or truncating it.
///
/// # Errors
/// Those of open(2).
pub fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let mut file = None;
    step("open", Subject::Path(path), || {
        file = Some(options.open(path)?);
        Ok(())
    })?;
    file.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Writes all of `bytes` at the file's current position.
///
/// # Errors
/// Those of write(2). A part may have been written.
pub fn write(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    step("write", Subject::Open(file), || file.write_all(bytes))
}

/// Writes `bytes` at an offset.
///
/// # Errors
/// Those of pwrite(2).
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    step("write", Subject::Open(file), || file.write_all_at(bytes, offset))
}

/// Copies the rest of `from`, which begins at its current position, to the current position of
/// `file`. Returns the number of bytes.
///
/// # Errors
/// Those of read(2) and write(2). A part may have been written.
pub fn copy(mut from: &File, mut file: &File) -> io::Result<u64> {
    let mut count = 0;
    step("write", Subject::Open(file), || {
        count = io::copy(&mut from, &mut file)?;
        Ok(())
    })?;
    Ok(count)
}

/// Moves the last `length` bytes of a file, which begin at offset `from`, to offset `to`. The file
/// then ends at `to + length`.
///
/// # Errors
/// Those of pread(2), pwrite(2) and ftruncate(2); a part may have been moved.
pub fn shift(file: &File, from: u64, to: u64, length: u64) -> io::Result<()> {
    step("write", Subject::Open(file), || {
        let mut block = vec![0; length.min(SHIFT_BLOCK) as usize];
        let mut moved = 0;
        while moved < length {
            let count = SHIFT_BLOCK.min(length - moved);
            // Bytes that move up are copied from the end backwards, so that each is read before it
            // is overwritten.
            let at = if to > from { length - moved - count } else { moved };
            let block = &mut block[..count as usize];
            file.read_exact_at(block, from + at)?;
            file.write_all_at(block, to + at)?;
            moved += count;
        }
        if to < from { file.set_len(to + length) } else { Ok(()) }
    })
}

/// The number of bytes that [`shift`] moves at a time.
const SHIFT_BLOCK: u64 = 256 << 10;

/// Truncates a file, to undo a partial write.
///
/// # Errors
/// Those of ftruncate(2).
pub fn cut(file: &File, length: u64) -> io::Result<()> {
    step("truncate", Subject::Open(file), || file.set_len(length))
}

/// Syncs a file, data and metadata, to stable storage.
///
/// # Errors
/// Those of fsync(2). After an error, fsync(2) must not be called again for the file: the system
/// may have dropped the data that it could not write, and would report success.
pub fn sync(file: &File) -> io::Result<()> {
    step("fsync", Subject::Open(file), || file.sync_all())
}

/// Syncs a file's data, and only the metadata that is needed for reading the data.
///
/// # Errors
/// Those of [`sync`].
pub fn sync_data(file: &File) -> io::Result<()> {
    step("fsync", Subject::Open(file), || file.sync_data())
}

/// Syncs the names in a directory.
///
/// # Errors
/// Those of [`sync`] and of open(2).
pub fn sync_directory(path: &Path) -> io::Result<()> {
    // With O_DIRECTORY, opening does not block if there is a FIFO instead of a directory.
    let open = || OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECTORY).open(path);
    step("fsync", Subject::Path(path), || open()?.sync_all())
}

/// Syncs a directory from which names were removed. On btrfs a power cut can bring such a name back
/// although its directory was synced. So on file systems that do not keep the order of names,
/// everything is synced.
///
/// # Errors
/// Those of [`sync_directory`], and of syncfs(2).
pub fn sync_removals(path: &Path) -> io::Result<()> {
    sync_directory(path)?;
    let directory = OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECTORY).open(path)?;
    if system::keeps_order(&directory)? {
        return Ok(());
    }
    step("fsync", Subject::Path(path), || system::sync_file_system(&directory))
}

/// Syncs a file and its new name, for a process that may not read the directory of the file. The
/// journals of ext4, xfs and btrfs commit the name with the file. On other file systems, everything
/// on the file system of the file is synced.
///
/// # Errors
/// Those of [`sync`], and of syncfs(2).
pub fn sync_with_name(file: &File) -> io::Result<()> {
    sync(file)?;
    if system::syncs_names(file)? {
        return Ok(());
    }
    step("fsync", Subject::Open(file), || system::sync_file_system(file))
}

/// Sets the mode of a file.
///
/// # Errors
/// Those of fchmod(2).
pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    step("chmod", Subject::Open(file), || file.set_permissions(Permissions::from_mode(mode)))
}

/// Sets the modification time of a file.
///
/// # Errors
/// Those of futimens(2).
pub fn set_time(file: &File, time: SystemTime) -> io::Result<()> {
    step("utime", Subject::Open(file), || file.set_modified(time))
}

/// Sets the owner and the group of a file, each only if it is given.
///
/// # Errors
/// Those of fchown(2).
pub fn set_owner(file: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    step("chown", Subject::Open(file), || fchown(file, uid, gid))
}

/// Gives an open file a new name: its first name after [`create_nameless`], or a further one.
///
/// # Errors
/// Those of linkat(2).
pub fn link(file: &File, path: &Path) -> io::Result<()> {
    step("link", Subject::Path(path), || system::link(file, path))
}

/// Renames a file. An existing file with the new name is replaced.
///
/// # Errors
/// Those of rename(2).
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step("rename", Subject::Paths(from, to), || fs::rename(from, to))
}

/// Renames a file. The new name must not exist.
///
/// # Errors
/// Those of renameat2(2), such as `AlreadyExists`.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    step("rename", Subject::Paths(from, to), || system::rename_new(from, to))
}

/// Renames a file unless the new name exists, for systems and file systems that cannot do both in
/// one step. All names are unique anyway.
pub(super) fn rename_unless_exists(from: &Path, to: &Path) -> io::Result<()> {
    if to.try_exists()? { Err(io::ErrorKind::AlreadyExists.into()) } else { fs::rename(from, to) }
}

/// Removes a name of a file.
///
/// # Errors
/// Those of unlink(2).
pub fn remove(path: &Path) -> io::Result<()> {
    step("unlink", Subject::Path(path), || fs::remove_file(path))
}

/// Makes a directory with mode 700, and the missing directories above it. Does nothing if the
/// directory exists.
///
/// # Errors
/// Those of mkdir(2).
pub fn make_directory(path: &Path) -> io::Result<()> {
    let make = || step("mkdir", Subject::Path(path), || DirBuilder::new().mode(0o700).create(path));
    let mut made = make();
    if let (Err(e), Some(parent)) = (&made, path.parent())
        && e.kind() == io::ErrorKind::NotFound
    {
        make_directory(parent)?;
        made = make();
    }
    match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}
