//! Who has the spool, and the addresses with it.
//!
//! One penfoldd has a spool at a time, by its lock. A second one that is started by
//! mistake finds its addresses taken first, and says by the lock by whom. Nothing is
//! waited for.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::exit::{self, Exit};
use crate::spool::{Lock, Spool};
use crate::sys;

/// Takes the lock.
///
/// # Errors
/// That another process has it, and those of the system.
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

/// The same end, with who has the address that cannot be listened on, or who may. `may_look`
/// ends root's rights, with which no lock is looked at.
pub fn name_holder(mut exit: Exit, spool: &Path, may_look: impl Fn() -> bool) -> Exit {
    if exit.code == exit::NOPERM && !sys::is_root() {
        exit.text.iter_mut().for_each(|line| line.push_str(" (start it as root)"));
        return exit;
    }
    let in_use = io::Error::from(Errno::EADDRINUSE).to_string();
    for line in exit.text.iter_mut().filter(|line| line.ends_with(&in_use)) {
        let is_ours = may_look() && is_locked(spool);
        line.push_str(if is_ours { " (another penfoldd has the spool)" } else { " (another program listens there)" });
    }
    exit
}

fn is_locked(spool: &Path) -> bool {
    Spool::open_read_only(spool).and_then(|spool| spool.lock()).is_ok_and(|lock| lock.is_none())
}
