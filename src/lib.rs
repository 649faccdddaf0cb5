//! penfold: a small mail transfer agent for Unix.
pub mod address;
pub mod bounce;
pub mod config;
pub mod deliver;
pub mod envelope;
pub mod net;
pub mod outcome;
pub mod reply;
pub mod retry;
pub mod smtp;
pub mod spool;
pub mod sys;
