//! The programs that cargo has built for the tests, its target directory, and the source tree.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The path of a program of the package, such as `penfoldd`. The program is in the directory above
/// that of the running test or benchmark. (`CARGO_BIN_EXE_*` is set only while tests are compiled.)
pub fn program(name: &str) -> PathBuf {
    above(2).join(name)
}

/// The path of a program of the release build, such as `penfoldd`; `None` if there is no release build
/// of the present sources.
pub fn release(name: &str) -> Option<PathBuf> {
    let path = target().join("release").join(name);
    let built = fs::metadata(&path).and_then(|data| data.modified()).ok()?;
    let mut files = vec![source("src"), source("Cargo.lock"), source("Cargo.toml")];
    while let Some(file) = files.pop() {
        let data = fs::metadata(&file).ok()?;
        if data.is_dir() {
            files.extend(fs::read_dir(&file).ok()?.flatten().map(|entry| entry.path()));
        } else if data.modified().ok()? > built {
            return None;
        }
    }
    Some(path)
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
