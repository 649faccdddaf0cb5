//! penfold: a small mail transfer agent for Unix.
pub mod address;
pub mod bounce;
pub mod config;
pub mod envelope;
pub mod outcome;
pub mod reply;
pub mod retry;
