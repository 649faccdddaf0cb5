//! The start of an agent: it drops root's rights before it reads its first request.
//!
//! It changes to its user itself and then reports that to the monitor. So the user may send it
//! signals, but can neither trace it nor take its descriptors. The requests are handled in
//! `deliver::agent`.

use std::io;

use nix::unistd::User;

use super::drop_root::become_and_report;
use crate::sys;

/// The conventional numbers of the user and the group `nobody` on Linux.
const NOBODY: u32 = 65_534;

/// Becomes the user of the system with this name. For an unknown user, or root, it becomes
/// nobody, and the inner result says why.
///
/// # Errors
/// Root's rights could not be dropped.
pub fn become_named(name: &str) -> io::Result<Result<u32, io::Error>> {
    let found = match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => Err(io::Error::other("an agent never runs as root")),
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        Ok(None) => Err(io::Error::other("there is no such user")),
        Err(e) => Err(e.into()),
    };
    // Name services may have left descriptors open.
    sys::close_inherited(0);
    match found {
        Ok((uid, gid)) => become_and_report(uid, gid).map(|()| Ok(uid)),
        Err(why) => become_and_report(NOBODY, NOBODY).map(|()| Err(why)),
    }
}

/// Becomes the user with these numbers.
///
/// # Errors
/// Root's rights could not be dropped.
pub fn become_numbered(uid: u32, gid: u32) -> io::Result<u32> {
    become_and_report(uid, gid).map(|()| uid)
}
