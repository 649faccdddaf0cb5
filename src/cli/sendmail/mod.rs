//! sendmail(8): the command by which programs on this host send mail.
//!
//! The command is only a client of the control socket: it runs with the rights of its caller, and
//! opens no file of the spool. It reads a whole message, finds its recipients, and speaks SMTP with
//! the daemon. The kernel tells the daemon which user the caller is. The exit code is 0 if, and
//! only if, the message is on stable storage for all of its recipients. Any other exit code is one
//! of sysexits(3): nothing was sent, and a line of text says why.
//!
//! - `dialogue`: SMTP with the daemon
//! - `drop`: keeps a message in the drop directory while no daemon runs
//! - `head`: the recipients in the header, Bcc and From
//! - `options`: the command line
//! - `text`: the message on standard input

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ctl, failed, usage};
use crate::address::Address;
use crate::aliases::{Aliases, Separator, entries};
use crate::config::table;
use crate::config::{Config, TableFile};
use crate::control;
use crate::daemon::Start;
use crate::exit::{self, DATAERR, Exit, IOERR, NOUSER, TEMPFAIL, USAGE};
use crate::reply::Reply;

mod dialogue;
mod drop;
mod head;
mod options;
mod text;

use dialogue::{Dialogue, Envelope};
use head::Head;
use options::Mode;
pub use options::Options;
use text::Text;

/// Runs sendmail, mailq or newaliases with the arguments of this process.
///
/// # Errors
/// If the command line is wrong, or the task fails.
pub(super) fn run(name: &str) -> Result<(), Exit> {
    match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some("--help") => {
            let text = "[option ...] [recipient ...]; its man page describes the options";
            return exit::print(format!("usage: {name} {text}\n"));
        }
        Some("--version") => {
            return exit::print(concat!("penfold ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        _ => {}
    }
    let options = Options::parse(name, std::env::args_os().skip(1)).map_err(|text| usage(vec![text]))?;
    let file = options.config.clone().map(OsString::from).or_else(|| std::env::var_os("PENFOLD_CONFIG"));
    let start = Start::new(file.map(PathBuf::from), true, false);
    let config = start.load_partially();
    match options.mode {
        Mode::Deliver => Ok(deliver(&config, &options)?),
        Mode::Session => Ok(dialogue::pass_through(&config.socket)?),
        Mode::Verify => Ok(verify(&config.socket, &options)?),
        Mode::Aliases => aliases(&start),
        Mode::Queue => ctl::queue(name, &start, &config),
        Mode::Flush => ctl::flush(&config, options.flush.as_deref()),
        Mode::Daemon(foreground) => Err(become_daemon(options.config.as_deref(), foreground)),
    }
}

/// Replaces this process by penfoldd, found in the directory of this program or else in PATH.
/// Returns only if penfoldd cannot be started.
fn become_daemon(config: Option<&str>, foreground: bool) -> Exit {
    let beside =
        std::env::current_exe().ok().map(|program| program.with_file_name("penfoldd")).filter(|path| path.exists());
    let mut command = Command::new(beside.unwrap_or_else(|| "penfoldd".into()));
    command.args(foreground.then_some("-d")).args(config.map(|path| ["-f", path]).into_iter().flatten());
    failed("start penfoldd", &command.exec())
}

/// Checks the aliases files and prints the number of aliases in each. Each error in a file is printed
/// on a line of its own, without a prefix, so that editors can find the place.
fn aliases(start: &Start) -> Result<(), Exit> {
    let silent = |exit: Exit| {
        exit.text.iter().for_each(|line| eprintln!("{line}"));
        Exit { text: Vec::new(), ..exit }
    };
    let mut failed = None;
    for file in start.aliases().map_err(silent)? {
        match check_aliases(&file) {
            Ok(count) => print(&format!("{count}\n")),
            Err(failure) => failed = Some(silent(failure.into())),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The reason why nothing was sent.
#[derive(Debug)]
struct Failure {
    /// The exit code, one of sysexits(3).
    code: u8,
    /// The lines to print on standard error.
    text: Vec<String>,
    /// Whether the connection was lost.
    is_lost: bool,
    /// Whether the reply was a 421, with which the daemon closes the connection.
    is_closing: bool,
    /// Whether no daemon runs, or the daemon is ending, so that it has not got any part of the message.
    is_down: bool,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: vec![text.into()], is_lost: false, is_closing: false, is_down: false }
    }

    /// Adds why the message was not kept for later either.
    fn and(mut self, why: &str) -> Self {
        self.text.push(why.to_owned());
        self
    }

    fn data(text: impl Into<String>) -> Self {
        Self::new(DATAERR, text)
    }

    fn later(text: impl Into<String>) -> Self {
        Self::new(TEMPFAIL, text)
    }

    fn io(error: &io::Error) -> Self {
        Self::new(IOERR, format!("{error}: message not sent"))
    }

    /// Makes the failure for a reply that rejects a command.
    fn of(reply: &Reply) -> Self {
        let code = exit::of_reply(reply.code(), reply.status());
        Self { is_closing: reply.code() == 421, ..Self::new(code, format!("{reply}: message not sent")) }
    }
}

impl From<Failure> for Exit {
    fn from(Failure { code, text, .. }: Failure) -> Self {
        Self { code, text }
    }
}

/// Sends the message on standard input. If sending fails and standard input is a file, restores the
/// position in the file: the caller shares that position, and may read the message again to save it
/// as dead.letter.
///
/// # Errors
/// The reason why nothing was sent.
fn deliver(config: &Config, options: &Options) -> Result<(), Failure> {
    let mut begin = place_in_file();
    send(config, options).inspect_err(|_| {
        if let Some((file, place)) = &mut begin {
            let _ = file.seek(SeekFrom::Start(*place));
        }
    })
}

/// Returns the file on standard input and the position in it; `None` if standard input is not a
/// file.
fn place_in_file() -> Option<(File, u64)> {
    let mut file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let place = file.stream_position().ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some((file, place))
}

fn send(config: &Config, options: &Options) -> Result<(), Failure> {
    let mut recipients = Vec::new();
    for list in &options.recipients {
        recipients.extend(head::read_list(list.as_bytes())?);
    }
    if recipients.is_empty() && !options.from_header {
        return Err(Failure::new(USAGE, "Recipient names must be specified"));
    }
    let (sender, name) = sender(options)?;
    let text = Text::read(&mut io::stdin().lock(), options.ignore_dots).map_err(|e| Failure::io(&e))?;
    let size = text.size();
    let mut rest = text.into_reader().map_err(|e| Failure::io(&e))?;
    let head = Head::read(&mut rest).map_err(|e| Failure::io(&e))?;
    if options.from_header {
        recipients.extend(head.recipients()?);
    }
    if recipients.is_empty() {
        return Err(Failure::new(USAGE, "No recipient addresses found in header"));
    }
    let is_utf8 = head.has_utf8_address();
    let author = sender.as_ref().map(|sender| head::author(&name, sender));
    let mut message = io::Cursor::new(head.finish(author.as_deref())).chain(rest);
    let Options { reports, needs_tls, .. } = options;
    let envelope =
        Envelope { sender: sender.as_ref(), recipients: &recipients, reports, is_utf8, needs_tls: *needs_tls };
    let directory = &config.submission.drop;
    match (Dialogue::begin(&config.socket, directory.is_some(), options.verbose), directory) {
        (Ok(mut dialogue), _) => dialogue.send(&envelope, size, &mut message).map(drop),
        (Err(down), Some(directory)) if down.is_down => {
            drop::keep(config, directory, &envelope, &mut message).map_err(|why| down.and(&why))?;
            if options.verbose || io::stderr().is_terminal() {
                let directory = directory.display();
                eprintln!("sendmail: the mail system is not running; it will take the message from {directory}");
            }
            drop::notify(&config.socket);
            Ok(())
        }
        (Err(failure), _) => Err(failure),
    }
}

/// Returns the envelope sender, and the sender's name for From. The sender is `None` for the null
/// path, and the name may be empty.
fn sender(options: &Options) -> Result<(Option<Address>, String), Failure> {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let login = user.as_ref().map_or_else(|| format!("uid{uid}"), |user| user.name.clone());
    let sender = match options.sender.as_deref().map(str::trim) {
        Some("" | "<>") => None,
        Some(address) => match head::read_list(address.as_bytes())?.as_slice() {
            [only] => Some(only.clone()),
            _ => return Err(Failure::new(USAGE, "option -f needs one address")),
        },
        None => Some(Address::new(&login, "").map_err(|e| Failure::data(format!("the login {login}: {e}")))?),
    };
    let name_of_user = || match (&options.sender, &user) {
        (None, Some(user)) => full_name(&user.gecos.to_string_lossy(), &login),
        _ => String::new(),
    };
    Ok((sender, options.full_name.clone().unwrap_or_else(name_of_user)))
}

/// Returns the full name in the comment field of passwd(5): the text before the first comma, in
/// which `&` stands for the capitalized login.
fn full_name(gecos: &str, login: &str) -> String {
    let mut letters = login.chars();
    let capital = letters.next().map(|c| c.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default();
    gecos.split(',').next().unwrap_or_default().replace('&', &capital)
}

/// Asks the daemon for the destinations of the addresses on the command line, and prints them.
///
/// # Errors
/// If mail for an address cannot be delivered; the exit code is that of the first such address.
/// Also if a list of addresses cannot be read, or the daemon does not answer.
fn verify(socket: &Path, options: &Options) -> Result<(), Failure> {
    let mut first_code = None;
    for list in &options.recipients {
        for address in head::read_list(list.as_bytes())? {
            let mut answer = Vec::new();
            control::ask(socket, &["verify", &address.to_string()], &mut answer, control::ANSWER_TIMEOUT)
                .map_err(|e| Failure::later(control::request_failed(socket, &e)))?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let (is_deliverable, mut lines) = answer.split_once('\n').unwrap_or_default();
            if is_deliverable != "yes" {
                let (code, rest) = lines.split_once('\n').unwrap_or_default();
                first_code = first_code.or(Some(code.parse().unwrap_or(NOUSER)));
                lines = rest;
            }
            print(lines);
        }
    }
    first_code.map_or(Ok(()), |code| Err(Failure { text: Vec::new(), ..Failure::new(code, "") }))
}

/// Prints a text on standard output, and ignores errors.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Checks the aliases file, and returns a line with the number of its aliases. Nothing is built
/// from the file: the daemon notices by itself that the file has changed.
///
/// # Errors
/// All errors in the file, each on a line.
fn check_aliases(file: &TableFile) -> Result<String, Failure> {
    let path = &file.path;
    let failure = |errors: Vec<_>| {
        let text = errors.iter().map(|error: &crate::config::ConfigError| error.to_string()).collect();
        Failure { text, ..Failure::data("") }
    };
    if !file.required && !path.exists() {
        return Ok(format!("{}: no such file, so no aliases", path.display()));
    }
    let text = table::read_text(path).map_err(|error| failure(vec![error]))?;
    Aliases::parse(path, &text).map_err(failure)?;
    let count = entries(path, &text, Separator::Colon, &mut Vec::new()).len();
    Ok(format!("{}: {count} alias{}", path.display(), if count == 1 { "" } else { "es" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names_are_read_from_the_user_database() {
        for (gecos, name) in [
            ("Jon Postel,room 1,,", "Jon Postel"),
            ("& Postel", "Jon Postel"),
            ("The &,&", "The Jon"),
            ("", ""),
            (",x", ""),
            ("J\u{f6}n", "J\u{f6}n"),
        ] {
            assert_eq!(full_name(gecos, "jon"), name, "{gecos}");
        }
        assert_eq!(full_name("&", ""), "");
    }

    #[test]
    fn a_missing_aliases_file_is_an_error_only_if_it_is_configured() {
        let file = |required| TableFile { path: "/nonexistent/aliases".into(), required };
        let none = "/nonexistent/aliases: no such file, so no aliases";
        assert_eq!(check_aliases(&file(false)).expect("it is optional"), none);
        assert_eq!(check_aliases(&file(true)).expect_err("it is required").code, DATAERR);
    }
}
