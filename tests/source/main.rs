//! The source itself, and the tools of the tests.
//!
//! - `bench_tables`: the tables and plots of `make bench`
//! - `harness`: the common code of the tests
//! - `maps`: the lists of files in the heads of folders
//! - `ranks`: imports between modules, lengths of files and functions

mod bench_tables;
mod harness;
mod maps;
mod ranks;
