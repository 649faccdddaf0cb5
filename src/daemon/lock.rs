//! The lock of the spool, which one penfoldd holds at a time.
//!
//! If a second penfoldd is started by mistake, it fails to bind its addresses before it tries the
//! lock; the lock then shows that another penfoldd uses them. Nothing here waits.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::exit::{self, Exit};
use crate::spool::{Lock, Spool};
use crate::sys;

/// Takes the lock.
///
/// # Errors
/// Another process holds it; those of the system.
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

/// Adds to an error of bind(2) which program uses the address, or that only root may use it.
/// `drop_root` drops root's rights first, since root must not open the spool.
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
