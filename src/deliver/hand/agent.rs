//! An agent: a process that does tasks with the rights of whom it runs as.
//!
//! It is this program under another name, begun by the keeper as that user, with nothing
//! but a socket to the server, on its standard input. It does one task after the other, and
//! ends when the server hangs up, sends nonsense, or has nothing for it for a while.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sys::stat::{Mode, umask};

use super::perform;
use super::pool::IDLE;
use super::wire::{receive_task, send_result};

/// Works until there is nothing more to do.
///
/// # Errors
/// That standard input is no socket, or what ended it.
pub fn run() -> io::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    let socket: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    socket.set_read_timeout(Some(IDLE))?;
    loop {
        match receive_task(&socket) {
            Ok(Some((task, message))) => send_result(&socket, &perform(&task, message.as_ref()))?,
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}
