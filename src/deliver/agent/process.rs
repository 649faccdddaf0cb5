//! Runs this process as an agent, to carry out one request of the server after another with the
//! rights of one user.
//!
//! An agent is this program under another name. The monitor, the process that stays root, starts
//! the agent with nothing but a socket to the server as standard input. The agent first becomes its
//! user (`privsep::agent`). If there is no such user, or the user is root, the agent answers the
//! first request with an error that says so. Processes that a user's command leaves behind take up
//! slots that all users share, so the number of the user's processes is limited before a command is
//! run. An agent ends when the server closes the socket or sends garbage, or when no request has
//! come for [`IDLE`].

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use nix::sys::stat::{Mode, umask};

use super::pool::IDLE;
use super::wire::{receive_request, send_response};
use super::{AgentError, Request, perform};
use crate::privsep::agent::{become_named, become_numbered};
use crate::sys::{self, command};

/// Maximum number of processes and threads that a user may have on this host when an agent runs the
/// user's command.
const MAX_PROCESSES: u32 = 2048;

/// Becomes the system user with this name, and serves requests.
///
/// # Errors
/// If root's rights cannot be dropped, or if standard input is not a socket or fails.
pub fn run_named(name: &str) -> io::Result<()> {
    sys::end_with_input(command::end_all)?;
    match become_named(name)? {
        Ok(uid) => serve(uid),
        Err(why) => refuse(AgentError::new(format!("work as {name}"), why)),
    }
}

/// Becomes the user with these numbers, and serves requests.
///
/// # Errors
/// If root's rights cannot be dropped, or if standard input is not a socket or fails.
pub fn run_numbered(uid: u32, gid: u32) -> io::Result<()> {
    sys::end_with_input(command::end_all)?;
    serve(become_numbered(uid, gid)?)
}

/// Answers the first request, whatever it is, with an error.
fn refuse(error: AgentError) -> io::Result<()> {
    let socket: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    socket.set_read_timeout(Some(IDLE))?;
    if receive_request(&socket)?.is_some() {
        send_response(&socket, &Err(error))?;
    }
    Ok(())
}

fn serve(uid: u32) -> io::Result<()> {
    sys::usual_descriptor_limit();
    umask(Mode::from_bits_truncate(0o077));
    let socket: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    socket.set_read_timeout(Some(IDLE))?;
    loop {
        match receive_request(&socket) {
            Ok(Some((request, message))) => {
                if matches!(request, Request::Run { .. }) && message.as_ref().is_some_and(|file| is_foreign(file, uid))
                {
                    sys::limit_processes(MAX_PROCESSES);
                }
                let result = perform(&request, message.as_ref());
                // The message is closed before the response, so that the server knows that no agent
                // has it open.
                drop(message);
                send_response(&socket, &result)?;
            }
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Whether the message belongs to a user other than `uid`, this agent's user. If not, the agent
/// runs as the server's own user, who may have many more threads than [`MAX_PROCESSES`].
fn is_foreign(message: &File, uid: u32) -> bool {
    message.metadata().is_ok_and(|metadata| metadata.uid() != uid)
}
