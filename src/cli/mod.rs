//! Runs the commands of penfold: penfoldctl(8) and, under other names, sendmail(8), mailq(1) and
//! newaliases(1).
//!
//! - `check`: looks for what keeps mail from coming in or going out
//! - `ctl`: the commands of penfoldctl
//! - `dkim`: making keys, and comparing them with the DNS
//! - `passwd`: a line for a users file
//! - `published`: what the domains of this host publish about TLS
//! - `sendmail`: sendmail, mailq and newaliases

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::daemon::helper;
use crate::exit::{self, Exit};

mod check;
mod ctl;
#[cfg(feature = "mailauth")]
mod dkim;
mod passwd;
mod published;
pub mod sendmail;

/// Runs the command that the program's name selects.
pub fn main() -> ExitCode {
    let path = std::env::args_os().next().map(PathBuf::from);
    let name = path.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    let (name, done) = match name {
        "send-mail" | "mailq" | "newaliases" => (name, sendmail::run(name)),
        // Debian has a link sendmail-msp, and others have sendmail.sendmail.
        name if name.starts_with("sendmail") => (name, sendmail::run(name)),
        name if helper::is_helper(name) => (name, helper::run(name, std::env::args_os().skip(1))),
        _ => ("penfoldctl", ctl::run()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.print(name),
    }
}

/// The error for a wrong command line.
fn usage(text: Vec<String>) -> Exit {
    Exit { code: exit::USAGE, text }
}

/// The error of a system call, with the exit code for its kind.
fn failed(doing: &str, error: &io::Error) -> Exit {
    let code = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::Unsupported => exit::UNAVAILABLE,
        io::ErrorKind::PermissionDenied => exit::NOPERM,
        io::ErrorKind::InvalidInput => exit::DATAERR,
        io::ErrorKind::ResourceBusy => exit::TEMPFAIL,
        _ => exit::IOERR,
    };
    Exit { code, text: vec![format!("{doing}: {error}")] }
}
