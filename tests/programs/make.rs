//! `make run`: what tests/try prints is true. The line to paste sends a message,
//! the message comes into the Maildir that was named, and at the end the scratch
//! directory is gone. Does not build: the script is given the tested penfoldd.
//! And `make test`: it ends with what was skipped, and with cargo's exit code.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Daemon, Site, free_port};

#[test]
fn the_line_to_paste_sends_a_message() {
    tries(&Site::new());
}

#[test]
fn so_does_the_line_for_a_system_without_curl() {
    let site = Site::new();
    site.write("curl", "#!/bin/sh\nexit 1\n");
    fs::set_permissions(site.path("curl"), fs::Permissions::from_mode(0o755)).expect("chmod");
    tries(&site);
}

/// The site lends its directory for scratch, and for programs that come before the system's.
fn tries(site: &Site) {
    let path = format!("{}:{}", site.path("").display(), std::env::var("PATH").unwrap_or_default());
    let said = File::create(site.path("said")).expect("a file");
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/try"));
    script
        .arg(env!("CARGO_BIN_EXE_penfoldd"))
        .arg(free_port().to_string())
        .env("TMPDIR", site.path(""))
        .env("PATH", &path);
    let daemon = Daemon::spawn({
        script.stdin(Stdio::null()).stdout(said);
        script
    });
    let said = fs::read_to_string(site.path("said")).expect("what it printed");
    assert!(said.contains(&format!("port {}.", daemon.port)), "{said}");

    let line =
        said.lines().find(|line| line.starts_with("    ") && !line.starts_with("     ")).expect("a line to paste");
    let pasted = Command::new("bash").args(["-c", line]).env("PATH", &path).output().expect("bash");
    assert!(pasted.status.success(), "{line}\n{pasted:?}");

    let maildir = said.lines().find_map(|line| line.strip_prefix("Maildir:")).expect("a Maildir").trim();
    let arrived = || fs::read_dir(Path::new(maildir).join("new")).is_ok_and(|mut new| new.next().is_some());
    daemon.wait_until("the message", arrived);
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    assert!(!Path::new(maildir).exists(), "left behind");
}

/// A cargo that finds the tools of /usr/sbin, skips two tests and fails.
const CARGO: &str = "#!/bin/sh
case $PATH in *:/usr/sbin:*) ;; *) exit 1 ;; esac
echo 'b: skipped: no btrfs' >> \"$PENFOLD_SKIPPED\"
echo 'a: skipped: no root' >> \"$PENFOLD_SKIPPED\"
echo 'a: skipped: no root' >> \"$PENFOLD_SKIPPED\"
echo 'test result: FAILED'
exit 3
";

#[test]
fn what_was_skipped_is_said_at_the_end_also_of_a_failure() {
    let site = Site::new();
    site.write("cargo", CARGO);
    fs::set_permissions(site.path("cargo"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::create_dir(site.path("target")).expect("a directory");
    fs::write(site.path("target/skipped"), "of the last time\n").expect("a file");
    let mut make = Command::new("make");
    make.args(["-C", env!("CARGO_MANIFEST_DIR"), "--no-print-directory", "-s", "test", "SETUP="]);
    make.arg(format!("CARGO={}", site.path("cargo").display())).env("CARGO_TARGET_DIR", site.path("target"));
    make.env_remove("MAKEFLAGS").env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    let output = make.output().expect("make");
    let said = String::from_utf8_lossy(&output.stdout);
    let end = "test result: FAILED\na: skipped: no root\nb: skipped: no btrfs\n2 skipped\n";
    assert!(said.ends_with(end) && output.status.code() == Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Error 3"), "{output:?}");
}

#[test]
fn no_test_says_in_vain_that_it_is_skipped() {
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).expect("a directory").flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|end| end == "rs")
            && !path.parent().is_some_and(|dir| dir.ends_with("bench"))
        {
            let text = fs::read_to_string(&path).expect("text");
            // Cargo does not show what a test prints that succeeds.
            for (n, line) in text.lines().enumerate() {
                let in_vain =
                    line.contains(concat!("println!(\"", "skipped")) || line.contains(concat!("print!(\"", "skipped"));
                assert!(!in_vain, "{}:{}: use common::skipped", path.display(), n + 1);
            }
        }
    }
}
