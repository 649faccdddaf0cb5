//! Every change on disk: what the spool and the mailboxes are made of.
//!
//! One function is one system call that changes a file or a name (`write` may be
//! several if the system takes less at a time), with the errors of that call and
//! nothing added. The order of the calls, and what a crash leaves between two of
//! them, is the business of `spool` and of `deliver::local::maildir`. They are here
//! together so that a test can stop the daemon dead before and after each of
//! them, let each fail, or leave it out: see `fault`, which a release build
//! does not contain.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, renameat2};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use nix::unistd::linkat;

#[cfg(debug_assertions)]
use super::fault::{Subject, step};

/// In a release build a step is just taken.
#[cfg(not(debug_assertions))]
use released::{Subject, step};

#[cfg(not(debug_assertions))]
mod released {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    #[allow(dead_code, reason = "what a step is about matters to tests only")]
    pub enum Subject<'a> {
        Open(&'a File),
        Path(&'a Path),
        Paths(&'a Path, &'a Path),
    }

    pub fn step(_: &str, _: Subject<'_>, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        run()
    }
}

/// Makes a file that must not exist, for its owner alone, to be written to.
///
/// # Errors
/// Those of open(2); `AlreadyExists` in particular.
pub fn create(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true).write(true).create_new(true).mode(0o600))
}

/// Makes a file without a name, which is gone when it is closed before [`link`].
///
/// # Errors
/// Those of open(2), where the file system has no such files too.
pub fn create_nameless(directory: &Path) -> io::Result<File> {
    open(directory, OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(nix::libc::O_TMPFILE))
}

/// Opens a file in a way that may make it, or empty it.
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

/// Writes all of `bytes` at the file's place.
///
/// # Errors
/// Those of write(2); a part may have been written.
pub fn write(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    step("write", Subject::Open(file), || file.write_all(bytes))
}

/// Overwrites what is at `offset` with `bytes`.
///
/// # Errors
/// Those of pwrite(2).
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    step("write", Subject::Open(file), || file.write_all_at(bytes, offset))
}

/// Writes all that `from` has from its place on; how much that was.
///
/// # Errors
/// Those of reading and of write(2).
pub fn copy(mut from: &File, mut file: &File) -> io::Result<u64> {
    let mut count = 0;
    step("write", Subject::Open(file), || {
        count = io::copy(&mut from, &mut file)?;
        Ok(())
    })?;
    Ok(count)
}

/// Moves `length` bytes within a file from offset `from` to offset `to`, where the file then ends.
///
/// # Errors
/// Those of pread(2), pwrite(2) and ftruncate(2); a part may have been moved.
pub fn shift(file: &File, from: u64, to: u64, length: u64) -> io::Result<()> {
    step("write", Subject::Open(file), || {
        let mut block = vec![0; length.min(SHIFT_BLOCK) as usize];
        let mut moved = 0;
        while moved < length {
            let count = SHIFT_BLOCK.min(length - moved);
            // What is moved up begins at its end, so that nothing is overwritten unread.
            let at = if to > from { length - moved - count } else { moved };
            let block = &mut block[..count as usize];
            file.read_exact_at(block, from + at)?;
            file.write_all_at(block, to + at)?;
            moved += count;
        }
        if to < from { file.set_len(to + length) } else { Ok(()) }
    })
}

/// The bytes that [`shift`] moves at a time.
const SHIFT_BLOCK: u64 = 256 << 10;

/// Cuts a file off, as it was before something that could not be written whole.
///
/// # Errors
/// Those of ftruncate(2).
pub fn cut(file: &File, length: u64) -> io::Result<()> {
    step("truncate", Subject::Open(file), || file.set_len(length))
}

/// Puts a file, data and metadata, on stable storage.
///
/// # Errors
/// Those of fsync(2). It must not be tried again: the system may have dropped what
/// it could not write, and would then say that all is well.
pub fn sync(file: &File) -> io::Result<()> {
    step("fsync", Subject::Open(file), || file.sync_all())
}

/// The same, without metadata that is not needed to read the data back.
///
/// # Errors
/// As for [`sync`].
pub fn sync_data(file: &File) -> io::Result<()> {
    step("fsync", Subject::Open(file), || file.sync_data())
}

/// Makes the names in a directory durable.
///
/// # Errors
/// As for [`sync`], and those of open(2).
pub fn sync_directory(path: &Path) -> io::Result<()> {
    // Of what somebody has put in its place a FIFO would keep us waiting.
    let open = || OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECTORY).open(path);
    step("fsync", Subject::Path(path), || open()?.sync_all())
}

/// Says who may do what with a file.
///
/// # Errors
/// Those of fchmod(2).
pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    step("chmod", Subject::Open(file), || file.set_permissions(Permissions::from_mode(mode)))
}

/// Says when a file was written.
///
/// # Errors
/// Those of futimens(2).
pub fn set_time(file: &File, time: SystemTime) -> io::Result<()> {
    step("utime", Subject::Open(file), || file.set_modified(time))
}

/// Says whose a file is.
///
/// # Errors
/// Those of fchown(2).
pub fn set_owner(file: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    step("chown", Subject::Open(file), || fchown(file, uid, gid))
}

/// Gives an open file a name, which must not exist: its first, after [`create_nameless`],
/// or one more.
///
/// # Errors
/// Those of linkat(2).
pub fn link(file: &File, path: &Path) -> io::Result<()> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    let run = || Ok(linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?);
    step("link", Subject::Path(path), run)
}

/// Renames a file; one that has the name already is replaced.
///
/// # Errors
/// Those of rename(2).
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step("rename", Subject::Paths(from, to), || fs::rename(from, to))
}

/// Renames a file to a name that must not exist.
///
/// # Errors
/// Those of renameat2(2); `AlreadyExists` in particular.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    step("rename", Subject::Paths(from, to), || {
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            // A file system that cannot promise it, such as NFS: the names are unique anyway.
            Err(Errno::EINVAL | Errno::ENOSYS) if !to.try_exists()? => fs::rename(from, to),
            Err(Errno::EINVAL | Errno::ENOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
            result => Ok(result?),
        }
    })
}

/// Removes a name of a file.
///
/// # Errors
/// Those of unlink(2).
pub fn remove(path: &Path) -> io::Result<()> {
    step("unlink", Subject::Path(path), || fs::remove_file(path))
}

/// Whether changes of names and of files come to the disk in their order, as the journals of
/// ext4 and xfs keep it, or nothing comes to a disk at all. Others may lose a new name and
/// keep that the old one was removed, as btrfs does when other files are synced.
///
/// # Errors
/// Those of fstatfs(2).
pub fn keeps_order(file: &File) -> io::Result<bool> {
    let kind = fstatfs(file)?.filesystem_type();
    Ok([EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC].contains(&kind))
}

/// Makes a directory for its owner alone, and those above it, if they are missing.
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
