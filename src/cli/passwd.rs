//! A line for a users file, from a password on standard input.
//!
//! At a terminal the password is asked for twice and not shown, and the terminal is restored when
//! the program ends, even by a signal. Otherwise the password is the first line of standard input.
//! The line has a salt of its own and only a hash of the password, but anyone who reads it can try
//! passwords against it: it belongs in a file that other users cannot read.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::thread;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::address::Address;
use crate::sasl::secret::{MAX_PASSWORD, Scram};

/// The line for the user of this name, with the LF at its end.
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

/// Reads a line of standard input without its end.
fn read() -> io::Result<String> {
    let mut line = String::new();
    let limit = u64::try_from(MAX_PASSWORD).unwrap_or(u64::MAX) + 2;
    io::stdin().lock().take(limit).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal without echo, until this is dropped.
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
