//! penfold: a small mail transfer agent for Unix.
pub mod address;
pub mod config;
pub mod deliver;
pub mod dns;
pub mod envelope;
pub mod net;
pub mod outcome;
pub mod reply;
pub mod retry;
pub mod smtp;
pub mod sys;
