//! `make dist`: the archive of the sources, with all packages that they need.
//!
//! Two clones in different directories give the same octets, and the archive is complete: the sums
//! of Cargo.lock are those of the packages, each file of a package has its sum, and cargo reads all
//! of it without a network and without a cache. On request, `make` builds penfold from it twice, in two
//! directories, without a network and without a cache, and the programs are the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use common::Site;

const TOP: &str = env!("CARGO_MANIFEST_DIR");

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// `cargo` in a directory, without a network and with an empty cache.
fn cargo_alone(directory: &Path, home: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    alone(cargo.current_dir(directory), home);
    cargo
}

fn alone<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command
        .env("CARGO_HOME", home)
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
}

/// Clones this repository and runs `make dist` there. Returns the path of the archive; `None` where
/// that is not possible.
fn archive(site: &Site, name: &str) -> Option<PathBuf> {
    if !Path::new(TOP).join(".git").exists() {
        common::skipped("this is no git repository");
        return None;
    }
    let clone = site.path(name);
    run(Command::new("git").args(["-c", "safe.directory=*", "clone", "-q", "--shared", TOP]).arg(&clone));
    let mut make = Command::new("make");
    make.args(["-s", "dist"]).current_dir(&clone).env("CARGO", env!("CARGO")).env_remove("CARGO_TARGET_DIR");
    let output = make.env_remove("MAKEFLAGS").output().expect("make");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Not all packages are in the cache: a build for this system does not need those for others.
    if said.contains("failed to download") || said.contains("Could not resolve host") {
        common::skipped(format_args!("packages for other systems cannot be downloaded: {said}"));
        return None;
    }
    assert!(output.status.success(), "{said}");
    let file = clone.join(format!("target/dist/penfold-{}.tar.gz", env!("CARGO_PKG_VERSION")));
    let line = fs::read_to_string(file.with_extension("gz.sha256")).expect("its sum");
    assert_eq!(line.split(' ').next(), Some(sum(&fs::read(&file).expect("the archive")).as_str()));
    Some(file)
}

fn sum(octets: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, octets).as_ref())
}

/// A site in memory where there is a file system for that: the packages are thousands of files.
fn scratch() -> Site {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { Site::below(memory) } else { Site::new() }
}

/// Unpacks an archive. Returns the top directory of the sources.
fn unpack(archive: &Path, place: &Path) -> PathBuf {
    fs::create_dir_all(place).expect("a directory");
    run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(place));
    place.join(concat!("penfold-", env!("CARGO_PKG_VERSION")))
}

/// The packages of Cargo.lock that are not of this repository: name, version and sum.
fn locked(top: &Path) -> Vec<[String; 3]> {
    let lock = fs::read_to_string(top.join("Cargo.lock")).expect("Cargo.lock");
    let of = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.map(|value| value.trim_end_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]").skip(1);
    packages.filter_map(|text| Some([of(text, "name")?, of(text, "version")?, of(text, "checksum")?])).collect()
}

/// The files with sums in the text of a `.cargo-checksum.json`.
fn files_with_sums(json: &str) -> Vec<(&str, &str)> {
    let files = json.split_once("\"files\":{").expect("files").1.split_once('}').expect("an end").0;
    files.split(',').map(|pair| pair.trim_matches('"').split_once("\":\"").expect("a name and a sum")).collect()
}

#[test]
fn make_dist_gives_the_same_complete_archive_each_time() {
    let site = scratch();
    let [Some(one), Some(other)] = ["one", "a/longer/other"].map(|name| archive(&site, name)) else { return };
    assert!(fs::read(&one).expect("read") == fs::read(&other).expect("read"), "two archives of one commit differ");
    let top = unpack(&one, &site.path("unpacked"));
    let packages = locked(&top);
    assert!(packages.len() > 150, "{}", packages.len());
    let mut count = 0;
    for [name, version, wanted] in &packages {
        let folder = top.join("vendor").join(format!("{name}-{version}"));
        let json = fs::read_to_string(folder.join(".cargo-checksum.json")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(json.contains(&format!("\"package\":\"{wanted}\"")), "{name}: another package than in Cargo.lock");
        for (file, wanted) in files_with_sums(&json) {
            let octets = fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{name}: {file}: {e}"));
            assert_eq!(sum(&octets), wanted, "{name}: {file}");
            count += 1;
        }
    }
    assert!(count > 2000, "{count} files");
    let tree = run(cargo_alone(&top, &site.path("home")).args(["tree", "--locked", "--workspace", "--all-features"]));
    assert!(tree.contains("rustls v"), "{tree}");
}

#[test]
#[ignore = "it builds penfold twice, which takes minutes"]
fn two_builds_of_the_archive_give_the_same_programs() {
    let site = Site::new();
    let Some(archive) = archive(&site, "one") else { return };
    let built = ["first", "a/longer/second"].map(|place| {
        let top = unpack(&archive, &site.path(place));
        let mut make = Command::new("make");
        make.arg("-C").arg(&top).arg(format!("CARGO={}", env!("CARGO"))).env_remove("MAKEFLAGS");
        run(alone(&mut make, &site.path("home")));
        ["penfoldd", "penfoldctl"].map(|program| {
            let octets = fs::read(top.join("target/release").join(program)).expect("a program");
            println!("{program}: {} octets, {}", octets.len(), sum(&octets));
            sum(&octets)
        })
    });
    assert_eq!(built[0], built[1]);
}
