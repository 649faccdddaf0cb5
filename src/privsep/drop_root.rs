//! Drops root's rights: the server, agents and lookup processes drop all of these rights, and the
//! monitor keeps two of them.
//!
//! A change of user is irrevocable. After each change, the process verifies that it cannot become
//! root again.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getegid, geteuid, initgroups, setgroups, setresgid, setresuid};

use crate::sys::is_root;

/// The name of the user that this process runs as, once it is known and is not root.
static NAME: OnceLock<String> = OnceLock::new();

/// Returns the name of the user that this process runs as, or the uid if the user has no name. A
/// process that is not root asks the system only once.
pub fn user_name() -> String {
    let uid = geteuid();
    let look_up = || User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    if uid.is_root() { look_up() } else { NAME.get_or_init(look_up).clone() }
}

/// If this process is root, becomes the server's user for good, with all groups of that user.
/// Otherwise does nothing.
///
/// # Errors
/// If the user does not exist, if the user is root, or if root's rights could be regained.
pub fn become_server(user: &str) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let found =
        User::from_name(user)?.ok_or_else(|| io::Error::other("there is no such user: create it, or set user"))?;
    if found.uid.is_root() {
        return Err(io::Error::other("the server must not run as root"));
    }
    // The groups come first: a user who is not root cannot change them.
    initgroups(&CString::new(found.name)?, found.gid)?;
    change(found.uid, found.gid)?;
    let _ = NAME.set(user.to_owned());
    Ok(())
}

/// Becomes the user with this uid for good, with `gid` as the only group.
///
/// # Errors
/// If this process is not root, if the user is root, or if root's rights could be regained.
pub fn become_only(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if uid.is_root() {
        return Err(Errno::EPERM.into());
    }
    setgroups(&[])?;
    change(uid, gid)
}

fn change(uid: Uid, gid: Gid) -> io::Result<()> {
    let root = Uid::from_raw(0);
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    if setresuid(root, root, root).is_ok() || geteuid() != uid || getegid() != gid {
        return Err(io::Error::other("privileges could not be given up"));
    }
    Ok(())
}

/// Calls [`become_only`], then writes the uid to standard output in four bytes, which the parent
/// process reads. Afterwards standard output is `/dev/null`.
///
/// # Errors
/// Those of [`become_only`] and of the system.
pub fn become_and_report(uid: u32, gid: u32) -> io::Result<()> {
    become_only(uid, gid)?;
    let mut output = io::stdout();
    output.write_all(&uid.to_ne_bytes())?;
    output.flush()?;
    Ok(nix::unistd::dup2_stdout(fs::File::options().write(true).open("/dev/null")?)?)
}
