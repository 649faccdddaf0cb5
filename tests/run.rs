//! `make run`: what tests/try prints is true. The line to paste sends a message,
//! the message comes into the Maildir that was named, and at the end the scratch
//! directory is gone. Does not build: the script is given the tested penfoldd.

mod common;

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
