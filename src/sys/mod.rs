//! The system's calls that the standard library lacks: the only place for unsafe code.

mod process;

pub use process::{become_user, is_root, now, raise_descriptor_limit, wake_acceptor};
