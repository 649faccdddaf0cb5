//! sendmail, mailq and similar programs, run as other programs run them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, thread};

use data_encoding::BASE64;
use nix::unistd::{User, geteuid};

use super::{Site, built};

/// Makes a link to penfoldctl with this name, in the site's directory, where every user can run it.
pub fn program(site: &Site, name: &str) -> PathBuf {
    let (built, path) = (built::program("penfoldctl"), site.path(name));
    if !path.exists() && fs::hard_link(&built, &path).is_err() {
        copy(&built, &path);
    }
    path
}

/// Copies a program. Another process does that: if this process had the copy open for writing, the
/// child of another test might inherit the descriptor, and the copy could not be run. The copy gets
/// its name when it is complete, so several threads may make the same copy.
pub fn copy(from: &Path, to: &Path) {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let part = to.with_added_extension(format!("copy{}", COPIES.fetch_add(1, Ordering::Relaxed)));
    let copied = Command::new("cp").arg(from).arg(&part).status();
    assert!(copied.is_ok_and(|status| status.success()), "{}: no copy", to.display());
    fs::rename(&part, to).expect("a rename");
}

pub fn command(site: &Site, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(site, name));
    command.args(arguments).env("PENFOLD_CONFIG", site.path("penfold.conf"));
    command
}

/// Runs a program with this input on standard input until it ends.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("a program");
    let (mut stdin, input) = (child.stdin.take().expect("a pipe"), input.to_vec());
    // The write may fail, since the program may end before it has read everything.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("written");
    output
}

/// Runs a Python script below tests/ with this input. Without Python, reports the test as skipped
/// and returns `None`.
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

/// The exit code of a program, and its output.
pub fn code_and_text(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// The name of the user that runs the tests.
pub fn login() -> String {
    User::from_uid(geteuid()).expect("the user database").expect("a user").name
}

/// A command that runs `command` as an unprivileged user without a name. If the tests do not run as
/// root, reports the test as skipped and returns `None`.
pub fn stranger(command: &Command) -> Option<Command> {
    if !geteuid().is_root() {
        super::skipped("only root can run a command as another user");
        return None;
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "--no-new-privs"]);
    other.arg(command.get_program()).args(command.get_args());
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(other)
}

/// The compressed text that is attached to a daily report. `report` is a whole message.
pub fn gunzipped(report: &str) -> String {
    let (_, part) = report.split_once("filename=").expect("a file");
    let (_, rest) = part.split_once("\n\n").expect("a body");
    let (encoded, _) = rest.split_once("\n\n").expect("an end");
    let file = BASE64.decode(encoded.replace('\n', "").as_bytes()).expect("base64");
    gunzip(&file)
}

/// The text in a gzip file.
pub fn gunzip(file: &[u8]) -> String {
    let output = feed(Command::new("gzip").arg("-dc"), file);
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}
