//! Makes a line of a users file from a password on standard input, for `penfoldctl passwd`.
//!
//! If standard input is a terminal, the password is asked for twice and not shown. The terminal is
//! restored when the program ends, even if a signal such as SIGINT ends it. If standard input is
//! not a terminal, its first line is the password. The line of the users file has a salt of its own
//! and a hash of the password, but not the password. Still, anyone who reads the line can try
//! passwords against it, so it belongs in a file that other users cannot read.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::thread;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::address::Address;
use crate::sasl::secret::{MAX_PASSWORD, Scram};

/// Reads a password, and returns the line of a users file for the user `name`, with the LF at its
/// end.
///
/// # Errors
/// `InvalidInput` for an invalid name or password; otherwise the errors of standard input.
pub fn line(name: &str) -> io::Result<String> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
    Address::parse(name).map_err(|e| invalid(&e.to_string()))?;
    if name.contains(':') {
        return Err(invalid("a name in a users file has no colon"));
    }
    let password = if io::stdin().is_terminal() {
        let quiet = Quiet::start()?;
        let (first, second) = (ask("Password: ")?, ask("Again: ")?);
        drop(quiet);
        if first != second {
            return Err(invalid("the passwords do not match"));
        }
        first
    } else {
        read()?
    };
    if password.is_empty() {
        return Err(invalid("the password is empty"));
    }
    let secret = Scram::make(&password).ok_or_else(|| invalid("this password cannot be used"))?;
    Ok(format!("{name}:{secret}:\n"))
}

fn ask(prompt: &str) -> io::Result<String> {
    let mut terminal = io::stderr();
    terminal.write_all(prompt.as_bytes())?;
    let answer = read();
    terminal.write_all(b"\n")?;
    answer
}

/// Reads a line from standard input, and returns it without its line end.
fn read() -> io::Result<String> {
    let mut line = String::new();
    let limit = u64::try_from(MAX_PASSWORD).unwrap_or(u64::MAX) + 2;
    io::stdin().lock().take(limit).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A guard: while it exists, the terminal does not show what is typed.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let restored = before.clone();
        thread::Builder::new().spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &restored);
                std::process::exit(128 + signal);
            }
        })?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}
