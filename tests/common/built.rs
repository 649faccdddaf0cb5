//! The programs that cargo has built for the tests, its target directory, and the source tree.

use std::env;
use std::path::{Path, PathBuf};

/// The path of a program of the package, such as `penfoldd`. The program is in the directory above
/// that of the running test or benchmark. (`CARGO_BIN_EXE_*` is set only while tests are compiled.)
pub fn program(name: &str) -> PathBuf {
    above(2).join(name)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    above(3)
}

fn above(levels: usize) -> PathBuf {
    let running = env::current_exe().expect("the path of this program");
    running.ancestors().nth(levels).expect("a directory of cargo's").to_owned()
}

/// The absolute path of a file of the source tree.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/common is below it").join(path)
}
