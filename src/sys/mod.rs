//! The system's calls that the standard library lacks, behind safe functions.

mod limits;
mod process;

pub use limits::{Good, Limit, limits};
pub use process::{become_user, is_root, now, raise_descriptor_limit, wake_acceptor};
