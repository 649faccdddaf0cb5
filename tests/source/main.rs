//! The source itself, and the tools of the tests.
//!
//! - `bench_tables`: the tables and plots of `make bench`
//! - `harness`: the common code of the tests
//! - `ranks`: imports between modules, lengths of files and functions

mod bench_tables;
mod harness;
mod ranks;
