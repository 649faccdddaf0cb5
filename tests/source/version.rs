//! The version, in each place that tells it: Cargo.toml, NEWS, the manual pages, the programs. And
//! the oldest version of Rust.

use std::fs;
use std::path::Path;
use std::process::Command;

use common::Site;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// NEWS begins with the version that is in Cargo.toml, and its versions go down.
#[test]
fn news_begins_with_this_version() {
    let news = read("NEWS");
    let number = |line: &str| -> Option<Vec<u32>> {
        line.strip_prefix("penfold ")?.split([',', ' ']).next()?.split('.').map(|part| part.parse().ok()).collect()
    };
    let versions: Vec<_> = news.lines().filter_map(number).collect();
    let this: Vec<u32> = VERSION.split('.').map(|part| part.parse().expect("a number")).collect();
    assert_eq!(versions.first(), Some(&this));
    assert!(versions.is_sorted_by(|newer, older| newer > older), "{versions:?}");
}

#[test]
fn programs_tell_this_version() {
    let wanted = format!("penfold {VERSION}\n");
    for program in [env!("CARGO_BIN_EXE_penfoldd"), env!("CARGO_BIN_EXE_penfoldctl")] {
        let output = Command::new(program).arg("-V").output().expect("it runs");
        assert!(output.status.success() && output.stdout == wanted.as_bytes(), "{output:?}");
    }
}

/// A manual page that names a version of penfold names this one: `penfold 1.2.3`, `penfold_1.2.3`,
/// `penfoldd       1.2.3` or `version 1.2.3`.
#[test]
fn manual_pages_name_this_version() {
    let mut count = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).expect("man") {
        let path = entry.expect("an entry").path();
        for line in read(&path).lines() {
            let words: Vec<&str> = line.split([' ', '_', '-']).filter(|word| !word.is_empty()).collect();
            for pair in words.windows(2).filter(|pair| ["penfold", "penfoldd", "version"].contains(&pair[0])) {
                let found = pair[1].trim_end_matches(|c: char| !c.is_ascii_digit());
                let is_version =
                    found.matches('.').count() == 2 && found.split('.').all(|part| part.parse::<u32>().is_ok());
                if pair[0].starts_with("penfold") || line.contains("penfold") || is_version {
                    assert!(!is_version || found == VERSION, "{}: {line}", path.display());
                    count += usize::from(is_version);
                }
            }
        }
    }
    assert!(count >= 2, "only {count} places");
}

/// README and penfold-admin(7) tell the oldest Rust, and clippy, with the lints of Cargo.toml, refuses
/// a function that is newer.
#[test]
fn a_function_newer_than_the_oldest_rust_is_refused() {
    let manifest = read("Cargo.toml");
    let oldest = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.split('"').next());
    let oldest = oldest.expect("rust-version");
    assert!(read("README").contains(&format!("Rust {oldest} or later")));
    assert!(read("man/penfold-admin.7").contains(&format!("Rust {oldest} or later")));
    let clippy = |text: &str| {
        let site = Site::new();
        let lints = manifest.split_once("[lints.clippy]").expect("lints").1.split("\n[").next().expect("a part");
        let head = format!("[package]\nname = \"new\"\nedition = \"2024\"\nrust-version = \"{oldest}\"\n");
        site.write("Cargo.toml", &format!("{head}[lib]\npath = \"lib.rs\"\n[lints.clippy]{lints}"));
        site.write("lib.rs", text);
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["clippy", "-q", "--offline"])
            .current_dir(site.path(""))
            .env("CARGO_TARGET_DIR", site.path("target"));
        let output = cargo.output().expect("cargo");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Stable since Rust 1.60 and 1.91.
    let [old, new] = [
        "pub fn f() -> u32 { 10_u32.abs_diff(3) }",
        "pub fn f() -> std::time::Duration { std::time::Duration::from_mins(1) }",
    ];
    let (is_fine, said) = clippy(old);
    if said.contains("cargo-clippy") && !is_fine {
        return common::skipped("no clippy");
    }
    assert!(is_fine, "{said}");
    let (is_fine, said) = clippy(new);
    assert!(!is_fine && said.contains("clippy::incompatible-msrv"), "{said}");
}
