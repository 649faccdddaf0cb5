//! What only Linux has. The same functions for other systems are in `portable`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, fcntl};
use nix::libc::{F_WRLCK, O_NOFOLLOW, O_PATH, O_TMPFILE, SEEK_SET, flock};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, fstatfs, statfs};
use nix::unistd::linkat;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// The number of xfs, which nix does not have for musl.
const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);

/// The options that make a file without a name in the directory that is opened.
///
/// # Errors
/// None on Linux.
pub fn nameless() -> io::Result<OpenOptions> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(O_TMPFILE);
    Ok(options)
}

/// Makes a file without a name, which disappears when it is closed.
///
/// # Errors
/// Those of open(2).
pub fn temporary(directory: &Path) -> io::Result<File> {
    nameless()?.open(directory)
}

/// Whether [`link`] works: it needs /proc.
pub fn can_link() -> bool {
    Path::new("/proc/self/fd").is_dir()
}

/// Gives an open file a new name.
///
/// # Errors
/// Those of linkat(2).
pub fn link(file: &File, path: &Path) -> io::Result<()> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// Renames a file. The new name must not exist.
///
/// # Errors
/// Those of renameat2(2), such as `AlreadyExists`.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        // Some file systems, such as NFS, lack RENAME_NOREPLACE.
        Err(e) if matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::EINVAL | Errno::ENOSYS)) => {
            super::disk::rename_unless_exists(from, to)
        }
        result => result,
    }
}

/// Whether the file system keeps changes to names and files in order after a crash. ext4 and xfs do
/// so with their journals. A file system in memory counts, too, because it does not survive a
/// crash. On other file systems, such as btrfs, a renamed file may have neither its old nor its new
/// name after a crash.
///
/// # Errors
/// Those of fstatfs(2).
pub fn keeps_order(file: &File) -> io::Result<bool> {
    let kind = fstatfs(file)?.filesystem_type();
    Ok([EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC].contains(&kind))
}

/// Whether syncing a file has synced its new name, too: ext4, xfs and btrfs do so.
///
/// # Errors
/// Those of fstatfs(2).
pub fn syncs_names(file: &File) -> io::Result<bool> {
    Ok(keeps_order(file)? || fstatfs(file)?.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// Syncs everything on the file system of a file.
///
/// # Errors
/// Those of syncfs(2).
pub fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(nix::unistd::syncfs(file)?)
}

/// Whether a directory is on a file system in memory.
pub fn is_in_memory(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// Locks the whole file for writing. The lock belongs to the open file and not to the process, so
/// that the threads of one process exclude each other, too.
///
/// # Errors
/// `WouldBlock` or `PermissionDenied` if another program has locked the file, and those of fcntl(2).
pub fn lock(file: &File) -> io::Result<()> {
    let all = flock { l_type: F_WRLCK as i16, l_whence: SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&all))?;
    Ok(())
}

/// The uid of the process at the other end of a socket.
///
/// # Errors
/// Those of getsockopt(2).
pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(getsockopt(stream, sockopt::PeerCredentials)?.uid())
}

/// Sets mode and owner of a Unix socket. The path may be in a directory of another user, so it is
/// not followed to another file.
///
/// # Errors
/// `AlreadyExists` if the path is no socket, and those of the system.
pub fn set_socket_access(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let file = File::options().read(true).custom_flags(O_PATH | O_NOFOLLOW).open(path)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(&path, Permissions::from_mode(mode))?;
    owner.map_or(Ok(()), |(uid, gid)| chown(&path, Some(uid), Some(gid)))
}

/// The numbers of descriptors that may be open.
pub fn descriptors() -> Vec<i32> {
    let numbers = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    // They include the descriptor of the directory itself, which is closed by then.
    numbers.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect()
}

/// A command that runs this program again, even if its file has been replaced.
///
/// # Errors
/// None on Linux.
pub fn this_program() -> io::Result<Command> {
    Ok(Command::new("/proc/self/exe"))
}

/// Makes orphans below this process its children, and names the process.
///
/// # Errors
/// Those of prctl(2).
pub fn adopt_orphans(name: &std::ffi::CStr) -> io::Result<()> {
    let _ = nix::sys::prctl::set_name(name);
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Drops all of root's capabilities but two: to change the owner of a file (CAP_CHOWN), and to send
/// signals to other users' processes (CAP_KILL). A program that this process executes gets all of
/// root's capabilities again. Because this process lacks CAP_SYS_RESOURCE, quotas apply to it: a
/// change of owner fails if it would exceed the new owner's quota.
///
/// # Errors
/// Those of capset(2).
pub fn keep_chown_and_kill() -> io::Result<()> {
    let kept = (CapabilitySet::CHOWN | CapabilitySet::KILL) & capabilities(None)?.permitted;
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?)
}
