//! Wraps system calls in safe functions: those that the standard library lacks, and those that must
//! be made in one place.
//!
//! - `command`: running commands, with limits on time and output
//! - `disk`: every change on disk that the spool and the mailboxes make
//! - `fault`: faults on demand, for tests
//! - `limits`: the limits on descriptors, threads and mappings of this process
//! - `linux`: what only Linux has
//! - `portable`: the same for other systems, as far as they have it
//! - `process`: signals, limits and descriptors of this process

pub mod command;
pub mod disk;
#[cfg(debug_assertions)]
mod fault;
mod limits;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
mod process;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use portable as system;

pub use limits::{Limit, Limited, limits};
pub use process::{
    close_inherited, end_with_input, is_root, limit_processes, now, raise_descriptor_limit, signals,
    usual_descriptor_limit, usual_umask, wake_acceptor,
};
pub use system::{
    adopt_orphans, can_link, is_in_memory, keep_chown_and_kill, lock, peer_uid, set_socket_access, temporary,
    this_program,
};
