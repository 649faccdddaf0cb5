//! System calls that the standard library lacks, or that must be in one place, behind safe
//! functions.

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
