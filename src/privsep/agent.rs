//! Starts an agent, a process with one user's rights: the agent drops root's rights before it reads
//! its first request.
//!
//! The agent becomes its user without executing a program afterwards, and reports the change to the
//! monitor. So the user can send signals to the agent, but can neither trace it nor take its
//! descriptors. `deliver::agent` handles the requests.

use std::io;

use nix::unistd::User;

use super::drop_root::become_and_report;
use crate::sys;

/// The conventional number of the user `nobody` and of the group `nobody` on Linux.
const NOBODY: u32 = 65_534;

/// Becomes the system user with this name; returns the uid. If the user does not exist, is root or
/// cannot be looked up, becomes nobody instead, and the inner error says why.
///
/// # Errors
/// If root's rights cannot be dropped, or the change cannot be reported.
pub fn become_named(name: &str) -> io::Result<Result<u32, io::Error>> {
    let found = match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => Err(io::Error::other("an agent never runs as root")),
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        Ok(None) => Err(io::Error::other("there is no such user")),
        Err(e) => Err(e.into()),
    };
    // A name service that the look-up has called may have left descriptors open.
    sys::close_inherited(0);
    match found {
        Ok((uid, gid)) => become_and_report(uid, gid).map(|()| Ok(uid)),
        Err(why) => become_and_report(NOBODY, NOBODY).map(|()| Err(why)),
    }
}

/// Becomes the user with this uid and gid; returns the uid.
///
/// # Errors
/// If root's rights cannot be dropped, or the change cannot be reported.
pub fn become_numbered(uid: u32, gid: u32) -> io::Result<u32> {
    become_and_report(uid, gid).map(|()| uid)
}
