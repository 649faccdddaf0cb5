//! penfoldd as a process of its system.
//!
//! - `container`: as the first process of a container
//! - `dane_state`: whether hosts are verified by their TLSA records, in the log
//! - `log_forms`: the log as JSON, and in the journal of systemd
//! - `panics`: a panic costs one session or one attempt
//! - `process`: options, exit codes, signals, inetd, limits
//! - `service`: under a service manager, and in the background
//! - `status`: the status page and the metrics
//! - `syslog`: logging to syslog
//! - `warnings`: warnings about a suspicious configuration

mod container;
mod dane_state;
mod log_forms;
mod panics;
mod process;
mod service;
mod status;
mod syslog;
mod warnings;
