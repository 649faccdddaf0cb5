//! sendmail(8): the command by which programs on this host send mail.
//!
//! A client of the control socket and nothing more: it runs as whoever calls it, has no
//! right of its own, and opens no file of the spool. It reads a message whole, finds its
//! recipients, and speaks SMTP with the daemon, which knows from the kernel who calls. It
//! ends with 0 when, and only when, the message is on stable storage for all of its
//! recipients; else with a code of sysexits(3) and one line of text, and nothing was sent.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;

use crate::address::Address;
use crate::aliases::{Aliases, Separator, entries};
use crate::config::TableFile;
use crate::config::table;
use crate::reply::{Reply, Status};

mod dialogue;
mod head;
mod options;
mod text;

pub use dialogue::pass_through;
pub use options::{Mode, Options};

use dialogue::Dialogue;
use head::Head;
use text::Text;

const USAGE: u8 = 64;
pub(super) const DATAERR: u8 = 65;
pub(super) const NOUSER: u8 = 67;
const NOHOST: u8 = 68;
const UNAVAILABLE: u8 = 69;
const IOERR: u8 = 74;
pub(super) const TEMPFAIL: u8 = 75;
const NOPERM: u8 = 77;

/// Why nothing was sent.
#[derive(Debug)]
pub struct Failure {
    /// The exit code, one of sysexits(3).
    pub code: u8,
    /// What to say, in lines.
    pub text: Vec<String>,
    /// The connection was lost.
    is_lost: bool,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: vec![text.into()], is_lost: false }
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

    /// What a refusal of the daemon's means to a program.
    fn of(reply: &Reply) -> Self {
        Self::new(code_of(reply.code(), reply.status()), format!("{reply}: message not sent"))
    }
}

/// The exit code for a reply that refuses.
pub(super) fn code_of(code: u16, status: Option<Status>) -> u8 {
    match (code, status) {
        (..500, _) => TEMPFAIL,
        (_, Some(Status(_, 1, 1))) => NOUSER,
        (_, Some(Status(_, 1, 2))) => NOHOST,
        (_, Some(Status(_, 1, 3 | 7))) | (500..=504, _) => DATAERR,
        (_, Some(Status(_, 7, _))) => NOPERM,
        _ => UNAVAILABLE,
    }
}

/// Sends the message on standard input. If it is not sent, a file there is as it was: who
/// calls has the place in it too, and may keep what is behind that in dead.letter.
///
/// # Errors
/// Why nothing was sent.
pub fn deliver(socket: &Path, options: &Options) -> Result<(), Failure> {
    let mut begin = place_in_file();
    send(socket, options).inspect_err(|_| {
        if let Some((file, place)) = &mut begin {
            let _ = file.seek(SeekFrom::Start(*place));
        }
    })
}

/// Where in the file on standard input its reader is; nothing where that is no file.
fn place_in_file() -> Option<(File, u64)> {
    let mut file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let place = file.stream_position().ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some((file, place))
}

fn send(socket: &Path, options: &Options) -> Result<(), Failure> {
    let mut recipients = Vec::new();
    for list in &options.recipients {
        recipients.extend(head::read_list(list.as_bytes())?);
    }
    if recipients.is_empty() && !options.from_header {
        return Err(Failure::new(USAGE, "Recipient names must be specified"));
    }
    let (sender, name) = who(options)?;
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
    let author = sender.as_ref().map(|sender| head::author(&name, sender));
    let mut message = io::Cursor::new(head.finish(author.as_deref())).chain(rest);
    Dialogue::begin(socket, options.verbose)?.send(sender.as_ref(), &recipients, size, &mut message)?;
    Ok(())
}

/// The envelope sender, and a name for From.
fn who(options: &Options) -> Result<(Option<Address>, String), Failure> {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let login = user.as_ref().map_or_else(|| format!("uid{uid}"), |user| user.name.clone());
    let sender = match options.sender.as_deref().map(str::trim) {
        Some("" | "<>") => None,
        Some(given) => match head::read_list(given.as_bytes())?.as_slice() {
            [only] => Some(only.clone()),
            _ => return Err(Failure::new(USAGE, "option -f needs one address")),
        },
        None => Some(Address::new(&login, "").map_err(|e| Failure::data(format!("the login {login}: {e}")))?),
    };
    let own = || match (&options.sender, &user) {
        (None, Some(user)) => full_name(&user.gecos.to_string_lossy(), &login),
        _ => String::new(),
    };
    Ok((sender, options.full_name.clone().unwrap_or_else(own)))
}

/// The name in a line of passwd(5): up to a comma, `&` being the login.
fn full_name(gecos: &str, login: &str) -> String {
    let mut letters = login.chars();
    let capital = letters.next().map(|c| c.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default();
    gecos.split(',').next().unwrap_or_default().replace('&', &capital)
}

/// Where addresses go, as the daemon says, on standard output.
///
/// # Errors
/// If one of them goes nowhere, with the code of the first one; and trouble with asking.
pub fn verify(socket: &Path, options: &Options) -> Result<(), Failure> {
    let mut nowhere = None;
    for list in &options.recipients {
        for address in head::read_list(list.as_bytes())? {
            let mut answer = Vec::new();
            super::ask(socket, &["verify", &address.to_string()], &mut answer, super::PATIENCE)
                .map_err(|e| Failure::later(super::trouble_with(socket, &e)))?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let (goes, mut lines) = answer.split_once('\n').unwrap_or_default();
            if goes != "yes" {
                let (code, rest) = lines.split_once('\n').unwrap_or_default();
                nowhere = nowhere.or(Some(code.parse().unwrap_or(NOUSER)));
                lines = rest;
            }
            tell(lines);
        }
    }
    nowhere.map_or(Ok(()), |code| Err(Failure { text: Vec::new(), ..Failure::new(code, "") }))
}

/// On standard output, for whoever still wants to know.
pub fn tell(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether the aliases file is good, and how many aliases it has. Nothing has to be built
/// for the daemon: it sees by itself that the file has changed.
///
/// # Errors
/// All that is wrong in it, a line each.
pub fn check_aliases(file: &TableFile) -> Result<String, Failure> {
    let path = &file.path;
    let wrong = |errors: Vec<_>| {
        let text = errors.iter().map(|error: &crate::config::ConfigError| error.to_string()).collect();
        Failure { text, ..Failure::data("") }
    };
    if !file.required && !path.exists() {
        return Ok(format!("{}: no such file, so no aliases", path.display()));
    }
    let text = table::read_text(path).map_err(|error| wrong(vec![error]))?;
    Aliases::parse(path, &text).map_err(wrong)?;
    let count = entries(path, &text, Separator::Colon, &mut Vec::new()).len();
    Ok(format!("{}: {count} alias{}", path.display(), if count == 1 { "" } else { "es" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_user_database() {
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
    fn aliases_that_are_not_there() {
        let file = |required| TableFile { path: "/nonexistent/aliases".into(), required };
        let none = "/nonexistent/aliases: no such file, so no aliases";
        assert_eq!(check_aliases(&file(false)).expect("none are needed"), none);
        assert_eq!(check_aliases(&file(true)).expect_err("it was named").code, DATAERR);
    }
}
