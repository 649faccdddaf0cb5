//! Takes the lock of the spool, which only one penfoldd can hold at a time.
//!
//! If a second penfoldd is started by mistake, it already fails when it binds its addresses. The
//! lock then tells whether the program that uses the addresses is another penfoldd. No function
//! here waits for the lock.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::cure;
use crate::exit::{self, Exit};
use crate::spool::{Lock, Spool};

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

/// Adds what to do to an error of bind(2) because another program uses the address. Calls
/// `drop_root` before it opens the spool, because root must not open the spool.
pub fn explain_conflict(exit: Exit, spool: &Path, drop_root: impl Fn() -> bool) -> Exit {
    let in_use = io::Error::from(Errno::EADDRINUSE);
    let is_conflict = matches!(exit.text.as_slice(), [line] if line.ends_with(&in_use.to_string()));
    if !is_conflict {
        return exit;
    }
    let is_ours = drop_root() && is_locked(spool);
    exit.and(cure::of_address(&in_use, is_ours))
}

fn is_locked(spool: &Path) -> bool {
    Spool::open_read_only(spool).and_then(|spool| spool.lock()).is_ok_and(|lock| lock.is_none())
}
