//! What is done with somebody's rights: in a mailbox, in a home, by a command.
//!
//! A [`Task`] is one such thing, and [`perform`] does it, in whatever process has the
//! rights: this one, or an agent that runs as the recipient. [`Hands`] knows which,
//! and brings the task there and what came of it back. A task says all that it needs,
//! and nothing is remembered between two: an agent that dies has done a task or has
//! not, and the entry in the spool says which, as after a crash.
//!
//! Paths come from the configuration, a users file or the system, never from a
//! client. What cannot be done is a [`Trouble`], which the worker turns into an outcome.
//! Decides nothing about recipients and knows nothing of entries.

mod command;
mod home;
pub(super) mod maildir;
mod mbox;
mod pool;
pub mod process;
mod wire;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

pub use pool::Hands;

use crate::sys;
pub use crate::sys::command::Ended;
pub use crate::users::Owner;

/// One thing to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Write a message to `tmp/` of a Maildir, durably.
    Copy {
        /// The Maildir; made if it is missing.
        mailbox: PathBuf,
        /// The name of the file.
        name: String,
        /// What goes before the content.
        head: String,
        /// What the message's file has of it.
        content: Part,
    },
    /// Rename what was written to `new/`, durably.
    Reveal {
        /// The Maildir.
        mailbox: PathBuf,
        /// The name of the file.
        name: String,
    },
    /// Give the message's file, which is the recipient's by now, its name in `new/`.
    Adopt {
        /// The Maildir; made if it is missing.
        mailbox: PathBuf,
        /// The name of the file.
        name: String,
        /// What its name begins with, if it has one there since before a crash.
        prefix: String,
    },
    /// Find out what became of a copy, after a crash.
    Recover {
        /// The Maildir.
        mailbox: PathBuf,
        /// What the name of the file begins with.
        prefix: String,
        /// The `tmp/` in which it was written.
        identity: Identity,
        /// So long ago that its owner may have removed it from `tmp/`.
        is_old: bool,
    },
    /// Write a message to the end of a file that holds many, durably.
    Append {
        /// The file; made if it is missing.
        file: PathBuf,
        /// What goes before the content: its first line is the one that parts messages.
        head: String,
        /// What the message's file has of it.
        content: Part,
    },
    /// Read what a user wants to be done with his mail: the first of some files in his home.
    Forward {
        /// His home.
        home: PathBuf,
        /// His number: only he and root may own the file.
        uid: u32,
        /// The names, without a directory.
        names: Vec<String>,
    },
    /// Read a list of addresses.
    Read {
        /// The file.
        file: PathBuf,
    },
    /// Run a command, with the message on its standard input.
    Run {
        /// As it is written in a table.
        command: String,
        /// Where it works.
        directory: PathBuf,
        /// All of its environment.
        environment: Vec<(String, String)>,
        /// What goes before the content.
        head: String,
        /// What the message's file has of it.
        content: Part,
        /// How long it may take, in seconds.
        limit: u64,
    },
    /// Run a configured command, without a shell, for what it prints.
    Print {
        /// The program and its arguments.
        words: Vec<String>,
        /// Seconds that it has.
        limit: u32,
        /// Octets that it may print.
        most: u32,
    },
}

/// A piece of the file that goes with a task, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub at: u64,
    /// Its length.
    pub size: u64,
}

/// What tells one `tmp/` from one that is there in its place, such as below a mount
/// that failed. The number of its device would not do: it is another one after many a
/// restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// When it was made, in nanoseconds since 1970; 0 where the file system does not know.
    pub born: u64,
    /// The number of its inode.
    pub inode: u64,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is done.
    Well,
    /// It was written, in this `tmp/`.
    Copied(Identity),
    /// It is still in `tmp/`, under this name.
    Waiting(String),
    /// It is in no place where it could be.
    Lost,
    /// That `tmp/` is another one.
    Elsewhere,
    /// The text of a file.
    Text(String),
    /// There is no such file.
    Absent,
    /// There is a file, and it is not to be believed: why.
    Refused(String),
    /// The command ended like this, and said this first.
    Ended(Ended, String),
    /// What was printed.
    Printed(Vec<u8>),
}

/// Why it could not be done.
#[derive(Debug)]
pub struct Trouble {
    /// What was being done, in words.
    pub doing: String,
    /// Why it failed.
    pub error: io::Error,
}

/// Does a task with the rights of this process. `message` is the file that goes with it.
///
/// # Errors
/// What the system says.
pub fn perform(task: &Task, message: Option<&File>) -> Result<Done, Trouble> {
    let message = || message.ok_or_else(|| Trouble::new("read the message", io::ErrorKind::InvalidInput));
    match task {
        Task::Copy { mailbox, name, head, content } => {
            maildir::At(mailbox).settle()?;
            maildir::At(mailbox).copy(name, head, message()?, *content)
        }
        Task::Reveal { mailbox, name } => maildir::At(mailbox).reveal(name).map(|()| Done::Well),
        Task::Recover { mailbox, prefix, identity, is_old } => maildir::At(mailbox).recover(prefix, *identity, *is_old),
        Task::Adopt { mailbox, name, prefix } => {
            maildir::At(mailbox).settle()?;
            maildir::At(mailbox).adopt(name, prefix, message()?).map(|()| Done::Well)
        }
        Task::Append { file, head, content } => mbox::append(file, head, message()?, *content).map(|()| Done::Well),
        Task::Forward { home, uid, names } => home::forward(home, *uid, names),
        Task::Read { file } => home::read(file),
        Task::Run { command, directory, environment, head, content, limit } => {
            let run = command::Run { command, directory, environment, limit: Duration::from_secs(*limit) };
            run.with(head, message()?, *content)
        }
        Task::Print { words, limit, most } => {
            let none = || Trouble::new("run a command", io::ErrorKind::InvalidInput);
            let (program, arguments) = words.split_first().ok_or_else(none)?;
            let most = usize::try_from(*most).unwrap_or(usize::MAX);
            let printed = sys::command::output(program, arguments, Duration::from_secs((*limit).into()), most);
            printed.map(Done::Printed).map_err(|error| Trouble::new(program, error))
        }
    }
}

/// Refuses what another user may have put in the place of a mailbox: in a directory where
/// everybody may make files it has to be whose process this is, or root's.
fn check_owner(path: &Path, found: &Metadata) -> io::Result<()> {
    if [geteuid().as_raw(), 0].contains(&found.uid()) {
        return Ok(());
    }
    let directory = fs::metadata(path.parent().unwrap_or(path))?;
    if directory.mode() & EVERYBODY == 0 || directory.uid() == found.uid() {
        return Ok(());
    }
    Err(io::Error::other("it belongs to somebody else, and everybody may make files there"))
}

/// Writing, for those who are neither the owner nor of the group.
const EVERYBODY: u32 = 0o002;

impl Task {
    /// Whether the server, which is confined, could not do it itself.
    fn is_beyond_the_server(&self) -> bool {
        matches!(self, Self::Print { .. } | Self::Run { .. } | Self::Read { .. } | Self::Append { .. })
    }
}

impl Trouble {
    /// Trouble with something.
    pub fn new(doing: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), error: error.into() }
    }
}
