//! What a test leaves out, and why.
//!
//! Cargo shows nothing that a test prints which succeeds. So the line goes to the file that
//! `make test` names, which prints it at its end; without such a file it goes to standard
//! error itself, past cargo.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::{env, thread};

/// Says that this test, or a part of it, is skipped.
pub fn skipped(why: impl Display) {
    let name = thread::current().name().unwrap_or("a thread").to_owned();
    let line = format!("{name}: skipped: {why}\n");
    let file = env::var_os("PENFOLD_SKIPPED").map(|path| OpenOptions::new().append(true).create(true).open(path));
    match file {
        Some(Ok(mut file)) => file.write_all(line.as_bytes()),
        _ => io::stderr().write_all(line.as_bytes()),
    }
    .expect("a place for what is skipped");
}
