//! Runs the commands of penfoldctl(8). mailq and sendmail use some of these commands, too.
//!
//! - `change`: hold, release, remove, bounce and requeue
//! - `check`: looks for what keeps mail from coming in or going out
//! - `completion`: completion for shells
//! - `config`: the configuration in force
//! - `explain`: what happens to mail for an address, and why a message waits
//! - `flush`: makes the daemon try messages now
//! - `help`: the texts about the commands, and suggestions for misspelt words
//! - `hosts`: the state of other hosts
//! - `keys`: dkim and passwd
//! - `queue`: the listing of the queue
//! - `recipients`: what next hosts have said about recipients
//! - `reload`: the configuration, read again
//! - `select`: the options that select messages
//! - `show`: one message of the queue
//! - `stats`: the numbers
//! - `status`: the daemon, and what it is doing
//! - `sts`: the MTA-STS policies of our domains
//! - `tlsa`: the TLSA records for certificates and keys
//! - `top`: a live view
//! - `trace`: what has happened to messages and clients

use std::io;
use std::path::PathBuf;

use super::{failed, usage};
use crate::config::Config;
use crate::control;
use crate::daemon::Start;
use crate::exit::{self, Exit, print};
use crate::json::Format;

mod change;
mod check;
mod completion;
mod config;
mod explain;
mod flush;
mod help;
mod hosts;
mod keys;
mod queue;
mod recipients;
mod reload;
mod select;
mod show;
mod stats;
mod status;
mod sts;
mod tlsa;
mod top;
mod trace;

pub(super) use flush::flush;
pub(super) use queue::queue;

/// All commands, in the order in which the manual page describes them.
const COMMANDS: &[Command] = &[
    queue::COMMAND,
    show::COMMAND,
    trace::COMMAND,
    explain::COMMAND,
    hosts::COMMAND,
    recipients::COMMAND,
    status::COMMAND,
    stats::COMMAND,
    top::COMMAND,
    check::COMMAND,
    flush::COMMAND,
    change::HOLD,
    change::RELEASE,
    change::REMOVE,
    change::BOUNCE,
    change::REQUEUE,
    config::COMMAND,
    reload::COMMAND,
    keys::PASSWD,
    keys::DKIM,
    tlsa::COMMAND,
    sts::COMMAND,
    help::COMMAND,
    completion::COMMAND,
];

/// A command of penfoldctl.
struct Command {
    /// The word that selects it.
    name: &'static str,
    /// Its arguments as the usage shows them, without its options; empty for none.
    arguments: &'static str,
    /// What it does, in a few words.
    about: &'static str,
    /// Its options.
    flags: &'static [Flag],
    /// What a shell proposes as an argument.
    complete: Complete,
    /// Runs it.
    run: fn(&Call) -> Result<(), Exit>,
}

impl Command {
    /// The defaults for commands.
    const NONE: Self =
        Self { name: "", arguments: "", about: "", flags: &[], complete: Complete::Nothing, run: |_| Ok(()) };
}

/// An option of a command.
struct Flag {
    /// Its letter; empty for none.
    short: &'static str,
    /// Its long name; empty for none.
    long: &'static str,
    /// The name of its value; empty if it takes none.
    hint: &'static str,
    /// What it does, in a few words.
    about: &'static str,
}

impl Flag {
    /// The defaults for options.
    const NONE: Self = Self { short: "", long: "", hint: "", about: "" };
    /// The option of all commands that can print JSON.
    const JSON: Self = Self { long: "json", about: "print JSON, one object a line", ..Self::NONE };
    /// The same option of a command that prints one object.
    const JSON_OBJECT: Self = Self { about: "print one object in JSON", ..Self::JSON };

    /// The names of the option, with their dashes.
    fn names(&self) -> impl Iterator<Item = String> {
        let [short, long] = [("-", self.short), ("--", self.long)]
            .map(|(dashes, name)| if name.is_empty() { None } else { Some(format!("{dashes}{name}")) });
        short.into_iter().chain(long)
    }
}

/// What a shell proposes as the next argument of a command.
enum Complete {
    /// Nothing.
    Nothing,
    /// These words.
    Words(&'static [&'static str]),
    /// The names of the commands.
    Commands,
    /// The queue ids of all messages. The first member of each object that `queue --json` prints is
    /// the queue id.
    Ids,
}

/// A command line of a user.
struct Call<'a> {
    command: &'a Command,
    /// The configuration to read.
    start: &'a Start,
    /// The options of the command.
    options: getopts::Matches,
    /// The arguments, without the name of the command.
    words: Vec<String>,
}

impl Call<'_> {
    /// Checks that there are at most `most` arguments.
    ///
    /// # Errors
    /// The error for a wrong command line.
    fn words(&self, most: usize) -> Result<(), Exit> {
        match self.words.get(most) {
            Some(word) => Err(self.usage(&format!("'{word}' is one argument too many"))),
            None => Ok(()),
        }
    }

    /// The form of the output that the user wants.
    fn format(&self) -> Format {
        if self.options.opt_present("json") { Format::Json } else { Format::Text }
    }

    /// The word of a request that asks for JSON, if the user wants JSON.
    fn json_word(&self) -> Option<&'static str> {
        (self.format() == Format::Json).then_some("json")
    }

    /// The error for a wrong command line, with the usage of the command.
    fn usage(&self, text: &str) -> Exit {
        usage(vec![text.to_owned(), help::usage(self.command)])
    }
}

/// Runs penfoldctl with the arguments of this process.
///
/// # Errors
/// If the command line is wrong, or the command fails.
pub(super) fn run() -> Result<(), Exit> {
    let mut options = common_options();
    options.parsing_style(getopts::ParsingStyle::StopAtFirstFree);
    let wrong = |text: String| usage(vec![text, help::SYNOPSIS.into()]);
    let before = options.parse(std::env::args_os().skip(1)).map_err(|e| wrong(e.to_string()))?;
    if before.opt_present("V") {
        return print(concat!("penfold ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let Some((name, arguments)) = before.free.split_first() else {
        if before.opt_present("h") {
            return help::all(&options);
        }
        return Err(wrong("a command is missing".into()));
    };
    let command =
        COMMANDS.iter().find(|command| command.name == name).ok_or_else(|| wrong(help::not_a_command(name)))?;
    let options = command.options();
    let wrong = |text: String| usage(vec![text, help::usage(command)]);
    let after = options.parse(arguments).map_err(|e| wrong(help::not_an_option(command, e)))?;
    if before.opt_present("h") || after.opt_present("h") {
        return help::of(command);
    }
    let file = after.opt_str("f").or_else(|| before.opt_str("f")).or_else(|| std::env::var("PENFOLD_CONFIG").ok());
    let start = Start::new(file.map(PathBuf::from), true, false);
    let words = after.free.clone();
    (command.run)(&Call { command, start: &start, options: after, words })
}

/// The options that all commands have, and that may also stand before the name of the command.
fn common_options() -> getopts::Options {
    let mut options = getopts::Options::new();
    options.optopt("f", "", "read this configuration", "file");
    options.optflag("h", "help", "show this text");
    options.optflag("V", "version", "show the version");
    options
}

impl Command {
    /// The options of this command, with those that all commands have.
    fn options(&self) -> getopts::Options {
        let mut options = common_options();
        for Flag { short, long, hint, about } in self.flags {
            if hint.is_empty() {
                options.optflag(short, long, about);
            } else {
                options.optopt(short, long, about, hint);
            }
        }
        options
    }
}

/// Sends the daemon a request that only privileged users may make, and returns the answer.
fn ask_daemon(config: &Config, command: &str, what: Option<&str>, action: &str) -> Result<Vec<u8>, Exit> {
    let request: Vec<&str> = [command].into_iter().chain(what).collect();
    let mut answer = Vec::new();
    ask(config, &request, &mut answer, action).map(|()| answer)
}

/// Sends the daemon a request that only privileged users may make, and copies the answer to `out`.
/// `action` says in a few words what the request does.
///
/// # Errors
/// `TEMPFAIL` if no daemon runs, and `NOPERM` if the user may not do that. Otherwise the code for
/// the error.
fn ask(config: &Config, request: &[&str], out: &mut dyn io::Write, action: &str) -> Result<(), Exit> {
    control::ask(&config.socket, request, out, control::ANSWER_TIMEOUT).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => forbidden(config, action),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Exit { code: exit::TEMPFAIL, text: vec![control::request_failed(&config.socket, &e)] }
        }
        _ => failed("ask the daemon", &e),
    })
}

/// The error if a user other than root and the server's user tries to do `action`.
fn forbidden(config: &Config, action: &str) -> Exit {
    Exit { code: exit::NOPERM, text: vec![format!("only root and {} may {action}", config.user)] }
}
