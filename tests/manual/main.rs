//! The manual pages and samples, compared with the programs.
//!
//! - `config`: penfold.conf(5): keys, and errors with their positions
//! - `examples`: the EXAMPLES of all pages are run
//! - `options`: options and exit statuses
//! - `samples`: the samples in etc/
//! - `tables`: tables, log lines and repair instructions

mod config;
mod examples;
mod options;
mod samples;
mod tables;
