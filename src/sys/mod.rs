//! The system's calls that the standard library lacks, behind safe functions.

mod process;

pub use process::{become_user, is_root, now, raise_descriptor_limit, wake_acceptor};
