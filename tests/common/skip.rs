//! Reports skipped tests and parts of tests, with the reason.
//!
//! Cargo does not show the output of a test that passes. So the line goes to the file named by
//! `PENFOLD_SKIPPED`, which tests/all prints at its end. Without that variable the line goes to
//! standard error, past cargo.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::{env, thread};

/// Reports that the running test, or a part of it, is skipped.
pub fn skipped(why: impl Display) {
    let name = thread::current().name().unwrap_or("a thread").to_owned();
    let line = format!("{name}: skipped: {why}\n");
    let file = env::var_os("PENFOLD_SKIPPED").map(|path| OpenOptions::new().append(true).create(true).open(path));
    match file {
        Some(Ok(mut file)) => file.write_all(line.as_bytes()),
        _ => io::stderr().write_all(line.as_bytes()),
    }
    .expect("the file of skipped tests");
}
