//! Takes the lock of the spool, which only one penfoldd can hold at a time.
//!
//! If a second penfoldd is started by mistake, it already fails when it binds its addresses. The
//! lock then tells whether the program that uses the addresses is another penfoldd. No function
//! here waits for the lock.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::exit::{self, Exit};
use crate::spool::{Lock, Spool};
use crate::sys;

/// Takes the lock of the spool.
///
/// # Errors
/// If another process holds the lock, or locking fails.
pub fn take(spool: &Spool) -> Result<Lock, Exit> {
    match spool.lock() {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Exit {
            code: exit::TEMPFAIL,
            text: vec![format!("the spool {} is in use by another penfoldd", spool.root().display())],
        }),
        Err(e) => Err(Exit::new(exit::IOERR, "lock the spool", &e)),
    }
}

/// Adds an explanation to an error of bind(2): which program uses the address, or that only root
/// may use it. Calls `drop_root` before it opens the spool, because root must not open the spool.
pub fn explain_conflict(mut exit: Exit, spool: &Path, drop_root: impl Fn() -> bool) -> Exit {
    if exit.code == exit::NOPERM && !sys::is_root() {
        exit.text.iter_mut().for_each(|line| line.push_str(" (start it as root)"));
        return exit;
    }
    let in_use = io::Error::from(Errno::EADDRINUSE).to_string();
    for line in exit.text.iter_mut().filter(|line| line.ends_with(&in_use)) {
        let is_ours = drop_root() && is_locked(spool);
        line.push_str(if is_ours { " (another penfoldd has the spool)" } else { " (another program listens there)" });
    }
    exit
}

fn is_locked(spool: &Path) -> bool {
    Spool::open_read_only(spool).and_then(|spool| spool.lock()).is_ok_and(|lock| lock.is_none())
}
