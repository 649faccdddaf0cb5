//! sendmail, mailq and the like, as programs call them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, thread};

use nix::unistd::{User, geteuid};

use super::{Site, built};

/// A program of ours under this name, at this site, also for users who cannot see where
/// cargo builds.
pub fn program(site: &Site, name: &str) -> PathBuf {
    let (built, path) = (built::program("penfoldctl"), site.path(name));
    if !path.exists() && fs::hard_link(&built, &path).is_err() {
        copy(&built, &path);
    }
    path
}

/// Copies a program. Another process does it: what this one has open for writing, a process
/// that another test starts just then would have open too, and nobody could run it.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{}: no copy", to.display());
}

pub fn command(site: &Site, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(site, name));
    command.args(arguments).env("PENFOLD_CONFIG", site.path("penfold.conf"));
    command
}

/// Runs a program with this input to its end.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("a program");
    let (mut stdin, input) = (child.stdin.take().expect("a pipe"), input.to_vec());
    // It may not want to know.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("written");
    output
}

/// Runs a Python script below tests/ with this input; `None`, and reported as skipped, without Python.
pub fn python(script: &str, input: &[u8]) -> Option<Output> {
    if Command::new("python3").arg("-V").output().is_err() {
        super::skipped("python3 is not installed");
        return None;
    }
    let path = built::source("tests").join(script);
    Some(feed(Command::new("python3").arg("-B").arg(path), input))
}

pub fn sendmail(site: &Site, arguments: &[&str], input: &[u8]) -> Output {
    feed(&mut command(site, "sendmail", arguments), input)
}

/// How it ended, and what it said.
pub fn told(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Who the tests run as.
pub fn login() -> String {
    User::from_uid(geteuid()).expect("the user database").expect("a user").name
}

/// Runs as a user that has no name and no rights, with no way to get any.
pub fn stranger(command: &Command) -> Option<Command> {
    if !geteuid().is_root() {
        super::skipped("only root can be somebody else");
        return None;
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "--no-new-privs"]);
    other.arg(command.get_program()).args(command.get_args());
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(other)
}
