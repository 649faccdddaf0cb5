//! The manual pages and samples, compared with the programs.
//!
//! - `config`: penfold.conf(5): keys, and errors with their positions
//! - `debian`: the configurations of penfold.conf(5) run word for word on a fresh Debian
//! - `examples`: the EXAMPLES of all pages are run
//! - `migration`: penfold-migration(7), and the script for Postfix's settings
//! - `options`: options and exit statuses
//! - `samples`: the samples in etc/
//! - `smtp`: the table of wrong input in penfold-smtp(7)
//! - `tables`: tables, log lines and repair instructions

mod config;
mod debian;
mod examples;
mod migration;
mod options;
mod samples;
mod smtp;
// Its log lines are those of a program with all parts.
#[cfg(all(feature = "arc", feature = "filters"))]
mod tables;
