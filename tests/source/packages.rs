//! The packages of others: how many there are, and why each that penfold names is needed.
//!
//! Their licences, sources and advisories are checked by tests/deny, in `make check`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// The packages that a build for this system needs, penfold included.
fn needed(features: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["tree", "--locked", "--offline", "-e", "normal,build"]);
    let output = cargo.args(["--prefix", "none", "-f", "{p}"]).args(features).output().expect("cargo");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(|line| line.replace(" (*)", "")).collect()
}

#[test]
fn a_build_needs_at_most_200_packages_and_a_bare_one_125() {
    let [default, bare] = [&[][..], &["--no-default-features"]].map(|features| needed(features).len());
    println!("{default} packages, and {bare} without the default features");
    assert!((100..=200).contains(&default) && (100..=125).contains(&bare), "{default} and {bare}");
}

/// The shared store is off by default, and brings the package redis and few others.
#[test]
fn the_shared_store_needs_at_most_10_packages_more() {
    let [default, shared] = [&[][..], &["--features", "shared-store"]].map(needed);
    let more: Vec<&String> = shared.difference(&default).collect();
    assert!((1..=10).contains(&more.len()) && shared.is_superset(&default), "{more:?}");
    assert!(more.iter().any(|package| package.starts_with("redis ")), "{more:?}");
}

/// In Cargo.toml, the reason for a package is a comment in its line or in the line before.
#[test]
fn every_dependency_has_a_reason() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).expect("a manifest");
    let (mut is_dependency, mut before, mut count) = (false, "", 0);
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependency = line.ends_with("dependencies]");
        } else if is_dependency && line.contains(" = ") && !line.starts_with('#') {
            let has_reason = before.starts_with("# ")
                || line.rsplit_once(['"', '}', ']']).is_some_and(|(_, end)| end.contains("# "));
            assert!(has_reason, "no reason: {line}");
            count += 1;
        }
        before = line;
    }
    assert!(count > 25, "only {count} dependencies");
}
