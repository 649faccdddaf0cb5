//! What `linux` has, for systems that are not Linux. No test runs on them: only `make machines`
//! checks that this compiles.
//!
//! There are no files that get their name later, no agents that take over a file of the server, and
//! no drop directory; the spool works without all of these. The monitor keeps all of root's rights,
//! and programs that a user's command leaves behind are not ended if they leave its process group.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, lchown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

/// # Errors
/// Always: a file cannot get its name later.
pub fn nameless() -> io::Result<OpenOptions> {
    Err(Errno::EOPNOTSUPP.into())
}

/// Makes a file without a name, which disappears when it is closed.
///
/// # Errors
/// Those of open(2) and unlink(2).
pub fn temporary(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!("penfold.{}", getrandom::u64().map_err(io::Error::other)?));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    super::disk::remove(&path)?;
    Ok(file)
}

/// Whether [`link`] works.
pub fn can_link() -> bool {
    false
}

/// # Errors
/// Always.
pub fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(Errno::EOPNOTSUPP.into())
}

/// Renames a file. The new name must not exist.
///
/// # Errors
/// Those of rename(2), and `AlreadyExists`.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    super::disk::rename_unless_exists(from, to)
}

/// Whether the file system keeps changes to names and files in order after a crash. That is not
/// known.
///
/// # Errors
/// None.
pub fn keeps_order(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Whether syncing a file has synced its new name, too. That is not known.
///
/// # Errors
/// None.
pub fn syncs_names(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// # Errors
/// Always: sync(2) may return before everything is on stable storage.
pub fn sync_file_system(_: &File) -> io::Result<()> {
    Err(Errno::EOPNOTSUPP.into())
}

/// Whether a directory is on a file system in memory, which is not known.
pub fn is_in_memory(_: &Path) -> bool {
    false
}

/// Locks the whole file with flock(2), which on the BSDs respects the locks of fcntl(2).
///
/// # Errors
/// `WouldBlock` if another program has locked the file, and those of flock(2).
pub fn lock(file: &File) -> io::Result<()> {
    Ok(file.try_lock()?)
}

/// The uid of the process at the other end of a socket.
///
/// # Errors
/// Those of getpeereid(3).
pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(nix::unistd::getpeereid(stream)?.0.as_raw())
}

/// Sets mode and owner of a Unix socket. The last part of the path is not followed to another file.
///
/// # Errors
/// `AlreadyExists` if the path is no socket, and those of the system.
pub fn set_socket_access(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mode = Mode::from_bits_truncate(mode.try_into().map_err(io::Error::other)?);
    fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)?;
    owner.map_or(Ok(()), |(uid, gid)| lchown(path, Some(uid), Some(gid)))
}

/// The numbers of descriptors that may be open.
pub fn descriptors() -> Vec<i32> {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(soft, _)| i32::try_from(soft).ok());
    (0..limit.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS)).collect()
}

/// The highest number of descriptors that [`descriptors`] returns.
const MOST_DESCRIPTORS: i32 = 65_536;

/// A command that runs this program again.
///
/// # Errors
/// If the system does not tell the path of the program.
pub fn this_program() -> io::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// Does nothing: orphans become children of the first process.
///
/// # Errors
/// None.
pub fn adopt_orphans(_: &std::ffi::CStr) -> io::Result<()> {
    Ok(())
}

/// Does nothing: root has no capabilities here.
///
/// # Errors
/// None.
pub fn keep_chown_and_kill() -> io::Result<()> {
    Ok(())
}
