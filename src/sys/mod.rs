//! Wraps system calls in safe functions: those that the standard library lacks, and those that must
//! be made in one place.
//!
//! - `command`: running commands, with limits on time and output
//! - `disk`: every change on disk that the spool and the mailboxes make
//! - `fault`: faults on demand, for tests
//! - `limits`: the limits on descriptors, threads and mappings of this process
//! - `process`: signals, limits and descriptors of this process

pub mod command;
pub mod disk;
#[cfg(debug_assertions)]
mod fault;
mod limits;
mod process;

pub use limits::{Limit, Limited, limits};
pub use process::{
    close_inherited, end_with_input, is_root, limit_processes, now, raise_descriptor_limit, signals,
    usual_descriptor_limit, usual_umask, wake_acceptor,
};
