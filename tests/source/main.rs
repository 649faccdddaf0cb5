//! The source itself, what it needs and what is made of it, and the tools of the tests.
//!
//! - `bench_tables`: the tables and plots of `make bench`
//! - `dist`: the archive of `make dist`
//! - `harness`: the common code of the tests
//! - `maps`: the lists of files in the heads of folders
//! - `packages`: the packages of others
//! - `ranks`: imports between modules, lengths of files and functions
//! - `version`: the version, in each place that tells it

mod bench_tables;
mod dist;
mod harness;
mod maps;
mod packages;
mod ranks;
mod version;
