//! `make run` and `make test`: the output of tests/try and tests/all.
//!
//! The line that `make run` prints to be pasted sends a message, the message arrives in the
//! Maildir that was printed, and at the end the scratch directory is removed. Nothing is built:
//! tests/try is given the tested penfoldd, and tests/all a stand-in for cargo.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Daemon, Site, free_port};

#[test]
fn the_printed_command_sends_a_message() {
    tries(&Site::new());
}

#[test]
fn the_printed_command_works_without_curl() {
    let site = Site::new();
    site.write("curl", "#!/bin/sh\nexit 1\n");
    fs::set_permissions(site.path("curl"), fs::Permissions::from_mode(0o755)).expect("chmod");
    tries(&site);
}

/// Runs tests/try. The directory of the site is the place for temporary files, and the first
/// directory of the path, so its programs come before the system's.
fn tries(site: &Site) {
    let path = format!("{}:{}", site.path("").display(), std::env::var("PATH").unwrap_or_default());
    let printed = File::create(site.path("printed")).expect("a file");
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/try"));
    script
        .arg(env!("CARGO_BIN_EXE_penfoldd"))
        .arg(free_port().to_string())
        .env("TMPDIR", site.path(""))
        .env("PATH", &path);
    let daemon = Daemon::spawn({
        script.stdin(Stdio::null()).stdout(printed);
        script
    });
    let printed = fs::read_to_string(site.path("printed")).expect("the output");
    assert!(printed.contains(&format!("port {}.", daemon.port)), "{printed}");
    let log = daemon.log();
    assert!(!log.contains("id:") && !log.contains("hostname") && !log.contains("root"), "{log}");

    let line =
        printed.lines().find(|line| line.starts_with("    ") && !line.starts_with("     ")).expect("a line to paste");
    let pasted = Command::new("bash").args(["-c", line]).env("PATH", &path).output().expect("bash");
    assert!(pasted.status.success(), "{line}\n{pasted:?}");

    let maildir = printed.lines().find_map(|line| line.strip_prefix("Maildir:")).expect("a Maildir").trim();
    let arrived = || fs::read_dir(Path::new(maildir).join("new")).is_ok_and(|mut new| new.next().is_some());
    daemon.wait_until("the message", arrived);
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    assert!(!Path::new(maildir).exists(), "left behind");
}

/// A stand-in for cargo. It needs the tools of /usr/sbin and reports two skipped tests. Of the test
/// programs that it is asked to run, the unit tests pass, `queue` fails, and the others are empty.
const CARGO: &str = "#!/bin/sh
case $PATH in *:/usr/sbin:*) ;; *) exit 1 ;; esac
case $* in
*' --no-run')
    exit ;;
*' --lib '*)
    echo 'a::x: skipped: no root' >> \"$PENFOLD_SKIPPED\"
    echo 'test a::x ... ok'
    echo 'test result: \u{1b}[32mok\u{1b}[0m. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s' ;;
*' --test queue '*)
    echo 'b::x: skipped: no btrfs' >> \"$PENFOLD_SKIPPED\"
    echo 'a::x: skipped: no root' >> \"$PENFOLD_SKIPPED\"
    echo 'test b::y ... \u{1b}[31mFAILED\u{1b}[0m'
    echo 'test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s'
    exit $1 ;;
esac
";

/// Runs `make test` with [`CARGO`] as cargo. `code` is its exit code for the program that fails,
/// and `ci` the value of the variable CI.
fn make_test(site: &Site, code: u8, ci: &str) -> Output {
    site.write("cargo", &CARGO.replace("$1", &code.to_string()));
    fs::set_permissions(site.path("cargo"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut make = Command::new("make");
    make.args(["-C", env!("CARGO_MANIFEST_DIR"), "--no-print-directory", "-s", "test", "SETUP="]);
    make.arg(format!("CARGO={}", site.path("cargo").display())).env("CARGO_TARGET_DIR", site.path("target"));
    make.env_remove("MAKEFLAGS").env("CI", ci).env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    make.output().expect("make")
}

const SUMMARY: &str = "
a::x: skipped: no root
b::x: skipped: no btrfs
failed: b::y
12 tests passed, 1 failed, 2 skipped, 1 only on request
";

#[test]
fn make_test_ends_with_what_passed_failed_and_was_skipped() {
    let site = Site::new();
    fs::create_dir(site.path("target")).expect("a directory");
    fs::write(site.path("target/skipped"), "left by an earlier run\n").expect("a file");
    let output = make_test(&site, 3, "");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(SUMMARY) && !output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Error 101"), "{output:?}");
}

#[test]
fn a_skipped_test_is_an_error_in_ci_only() {
    let site = Site::new();
    let output = make_test(&site, 0, "");
    assert!(output.status.success(), "{output:?}");
    let output = make_test(&site, 0, "true");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(SUMMARY) && !output.status.success(), "{output:?}");
}

/// No test may print by itself that it is skipped: cargo does not show the output of a test that
/// passes, so only `common::skipped` reaches the reader.
#[test]
fn no_test_prints_that_it_is_skipped() {
    let mut todo = ["src", "tests"].map(|top| Path::new(env!("CARGO_MANIFEST_DIR")).join(top)).to_vec();
    while let Some(path) = todo.pop() {
        if path.is_dir() && !path.ends_with("bench") {
            todo.extend(fs::read_dir(&path).expect("a directory").flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            for (n, line) in text.lines().enumerate() {
                let is_print =
                    line.contains(concat!("print", "ln!(\"skipped")) || line.contains(concat!("print", "!(\"skipped"));
                assert!(!is_print, "{}:{}: use common::skipped", path.display(), n + 1);
            }
        }
    }
}
