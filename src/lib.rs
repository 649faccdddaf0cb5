//! penfold: a small mail transfer agent for Unix.
pub mod address;
pub mod aliases;
pub mod config;
pub mod envelope;
pub mod outcome;
pub mod reply;
pub mod retry;
pub mod route;
pub mod users;
