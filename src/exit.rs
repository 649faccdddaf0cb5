//! Defines the exit codes of sysexits(3), and the error that ends a program.
//!
//! The function in which the error occurs makes an [`Exit`], and `main` prints it. Errors in files
//! that an administrator writes are printed in the form that compilers use.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::reply::Status;

/// The command line is wrong.
pub const USAGE: u8 = 64;
/// The input is malformed.
pub const DATAERR: u8 = 65;
/// A user does not exist.
pub const NOUSER: u8 = 67;
/// A host does not exist.
pub const NOHOST: u8 = 68;
/// A service is not available.
pub const UNAVAILABLE: u8 = 69;
/// A bug in the program.
pub const SOFTWARE: u8 = 70;
/// A system call failed.
pub const OSERR: u8 = 71;
/// A file cannot be created.
pub const CANTCREAT: u8 = 73;
/// Reading or writing failed.
pub const IOERR: u8 = 74;
/// A failure is temporary: another try may succeed later.
pub const TEMPFAIL: u8 = 75;
/// The user lacks permission.
pub const NOPERM: u8 = 77;
/// The configuration has errors.
pub const CONFIG: u8 = 78;

/// Returns the exit code for a reply that rejects a command.
pub fn of_reply(code: u16, status: Option<Status>) -> u8 {
    match (code, status) {
        (..500, _) => TEMPFAIL,
        (_, Some(Status(_, 1, 1))) => NOUSER,
        (_, Some(Status(_, 1, 2))) => NOHOST,
        (_, Some(Status(_, 1, 3 | 7))) | (500..=504, _) => DATAERR,
        (_, Some(Status(_, 7, _))) => NOPERM,
        _ => UNAVAILABLE,
    }
}

/// Writes a text to standard output. It is no error if the reader, such as head(1), has closed the pipe
/// because it needs no more.
///
/// # Errors
/// `IOERR` for any other error.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|e| Exit::new(IOERR, "write to standard output", &e)),
    }
}

/// The error that ends a program.
#[derive(Debug)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// The lines to print on standard error.
    pub text: Vec<String>,
}

impl Exit {
    /// Makes an exit for a system error while `doing` something. If permission was denied, the code
    /// is [`NOPERM`] instead of `code`.
    pub fn new(code: u8, doing: impl Into<String>, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::PermissionDenied { NOPERM } else { code };
        Self { code, text: vec![format!("{}: {error}", doing.into())] }
    }

    /// Adds a line, if there is one.
    #[must_use]
    pub fn and(mut self, line: Option<String>) -> Self {
        self.text.extend(line);
        self
    }

    /// Makes an exit for the errors of a configuration.
    pub fn of_config(errors: &[ConfigError]) -> Self {
        Self { code: CONFIG, text: errors.iter().map(ToString::to_string).collect() }
    }

    /// Prints the lines, and returns the exit code. Each line begins with the name of the program,
    /// except for errors in a file, where editors expect the location first.
    pub fn print(&self, program: &str) -> ExitCode {
        self.text.iter().for_each(|line| eprintln!("{}", self.line(program, line)));
        ExitCode::from(self.code)
    }

    /// A line with the name of the program, if it has no location: a word that ends with a colon.
    fn line(&self, program: &str, line: &str) -> String {
        let is_located = self.code == CONFIG && line.split_once(": ").is_some_and(|(place, _)| !place.contains(' '));
        if is_located { line.to_owned() } else { format!("{program}: {line}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_in_a_file_stands_without_the_name_of_the_program() {
        for (code, line, want) in [
            (CONFIG, "/etc/p.conf:1:2: no such key", "/etc/p.conf:1:2: no such key"),
            (CONFIG, "there is no /etc/p.conf: x", "penfoldctl: there is no /etc/p.conf: x"),
            (NOPERM, "a: b", "penfoldctl: a: b"),
        ] {
            assert_eq!(Exit { code, text: Vec::new() }.line("penfoldctl", line), want);
        }
    }
}
