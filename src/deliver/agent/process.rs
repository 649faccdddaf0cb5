//! An agent: a process that does tasks with the rights of whom it runs as.
//!
//! It is this program under another name, begun by the keeper with nothing but a socket to
//! the server, on its standard input. The first thing that it does is to become that user,
//! with no group but his own, and to tell the keeper; since it does so itself, the system
//! lets him send it signals, but not look into it, nor take its descriptors. Who he is it
//! asks the system as root, and keeps nothing open of that. If there is no such user, or he
//! is root, it becomes nobody, to say so. What a command of his leaves behind takes room that
//! is everybody's, so his processes are limited before one is run. It does one task after the
//! other, and ends when the server hangs up, sends nonsense, or has nothing for it for a while.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use nix::sys::stat::{Mode, umask};
use nix::unistd::User;

use super::pool::IDLE;
use super::wire::{receive_task, send_result};
use super::{Task, Trouble, perform};
use crate::sys;
use crate::sys::command;

/// The user and the group of nobody, on every Linux.
const NOBODY: u32 = 65_534;
/// Processes and threads of a user, with all others that he has on this host.
const PROCESSES: u64 = 2048;

/// Becomes this user of the system, and works until there is nothing more to do.
///
/// # Errors
/// That it cannot become him, that standard input is no socket, or what ended it.
pub fn run_for(name: &str) -> io::Result<()> {
    sys::end_with_input(command::end_all)?;
    let found = match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => Err(io::Error::other("nothing is done as root")),
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        Ok(None) => Err(io::Error::other("there is no such user")),
        Err(e) => Err(e.into()),
    };
    // What the system's libraries have opened to find out.
    sys::close_inherited(0);
    match found {
        Ok((uid, gid)) => work(uid, gid),
        Err(error) => {
            sys::become_and_say(NOBODY, NOBODY)?;
            refuse(Trouble::new(format!("work as {name}"), error))
        }
    }
}

/// Answers the first task, whatever it is.
fn refuse(trouble: Trouble) -> io::Result<()> {
    let socket: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    socket.set_read_timeout(Some(IDLE))?;
    if receive_task(&socket)?.is_some() {
        send_result(&socket, &Err(trouble))?;
    }
    Ok(())
}

/// Becomes the user with these numbers, and works until there is nothing more to do.
///
/// # Errors
/// That it cannot become him, that standard input is no socket, or what ended it.
pub fn run(uid: u32, gid: u32) -> io::Result<()> {
    sys::end_with_input(command::end_all)?;
    work(uid, gid)
}

fn work(uid: u32, gid: u32) -> io::Result<()> {
    sys::become_and_say(uid, gid)?;
    sys::usual_descriptor_limit();
    umask(Mode::from_bits_truncate(0o077));
    let socket: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    socket.set_read_timeout(Some(IDLE))?;
    loop {
        match receive_task(&socket) {
            Ok(Some((task, message))) => {
                if matches!(task, Task::Run { .. }) && message.as_ref().is_some_and(|file| is_anothers(file, uid)) {
                    sys::limit_processes(PROCESSES);
                }
                let result = perform(&task, message.as_ref());
                // Who has the answer finds nothing in its hands.
                drop(message);
                send_result(&socket, &result)?;
            }
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Whether a message is not this user's: it is the server's, of whose threads there may be
/// many more.
fn is_anothers(message: &File, uid: u32) -> bool {
    message.metadata().is_ok_and(|metadata| metadata.uid() != uid)
}
