//! Does the work that needs the rights of a mailbox's owner: writing to a Maildir or a file,
//! reading a home directory, or running a command.
//!
//! A [`Request`] is one piece of such work, and [`perform`] carries it out in a process with the
//! required rights. The process is either the current one or an agent, which is a process that runs
//! as the recipient. [`AgentPool`] chooses the process, and transfers the request and the response.
//! Requests are self-contained, and no state is kept between them: if an agent dies, the next
//! attempt finds out from the spool and the mailbox whether its request was carried out, as after a
//! crash.
//!
//! Paths come from the configuration, a users file or the system, never from a client. A failure is
//! an [`AgentError`], which becomes an outcome in `deliver::local`. This module neither decides
//! about recipients nor accesses the spool.
//!
//! - `command`: running a command with a message
//! - `home`: reading a user's `.forward`, and lists
//! - `maildir`: the steps of a delivery in a Maildir
//! - `mbox`: appending to a file of many messages
//! - `pool`: the agents, and the choice between them and this process
//! - `process`: the process of an agent
//! - `quota`: the use of a Maildir, which its user shares with other programs
//! - `wire`: requests and responses as bytes

mod command;
mod home;
pub(super) mod maildir;
mod mbox;
mod pool;
pub mod process;
pub(super) mod quota;
mod wire;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

pub use pool::AgentPool;

use crate::sys;
pub use crate::sys::command::Ended;
pub use crate::users::{Contents, Owner};

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Write a message to a Maildir's `tmp/`, durably.
    Copy {
        /// The Maildir; made if it is missing.
        mailbox: PathBuf,
        /// The name of the file in `tmp/`.
        name: String,
        /// The text to write before the content.
        head: String,
        /// The content, as a part of the message's file.
        content: Part,
    },
    /// Rename a written file to `new/`, durably.
    Reveal {
        /// The Maildir.
        mailbox: PathBuf,
        /// The name of the file, the same in `tmp/` and `new/`.
        name: String,
    },
    /// Link the message's file, which now belongs to the recipient, into `new/`.
    Accept {
        /// The Maildir; made if it is missing.
        mailbox: PathBuf,
        /// The name of the file in `new/`.
        name: String,
        /// The beginning of the name, by which a link that was made before a crash is recognized.
        prefix: String,
    },
    /// Make a folder of a Maildir, and the Maildir if it is missing.
    Folder {
        /// The Maildir.
        mailbox: PathBuf,
        /// The name of the folder, such as `.Junk`.
        folder: String,
    },
    /// Find out what became of a copy that was written before a crash.
    Recover {
        /// The Maildir.
        mailbox: PathBuf,
        /// The beginning of the file's name.
        prefix: String,
        /// The identity of the `tmp/` in which the copy was written.
        identity: Identity,
        /// Whether the copy was written so long ago that its owner may have removed it from `tmp/`.
        is_old: bool,
    },
    /// Append a message to an mbox file, durably.
    Append {
        /// The file; made if it is missing.
        file: PathBuf,
        /// The text to write before the content; its first line separates messages.
        head: String,
        /// The content, as a part of the message's file.
        content: Part,
    },
    /// Read the first of the named `.forward` files that exists in a user's home.
    Forward {
        /// The home directory.
        home: PathBuf,
        /// The user's uid: the file must belong to this user or to root.
        uid: u32,
        /// The file names, without a directory.
        names: Vec<String>,
    },
    /// Read a list of addresses.
    Read {
        /// The file.
        file: PathBuf,
    },
    /// Run a command, with the message on its standard input.
    Run {
        /// The command as it is written in a table.
        command: String,
        /// The working directory of the command.
        directory: PathBuf,
        /// The whole environment of the command.
        environment: Vec<(String, String)>,
        /// The text to write before the content.
        head: String,
        /// The content, as a part of the message's file.
        content: Part,
        /// The time limit of the command, in seconds.
        limit: u64,
    },
    /// Count a message that is about to be delivered to a Maildir with a limit.
    Reserve {
        /// The Maildir; made if it is missing.
        mailbox: PathBuf,
        /// The limit, in bytes.
        limit: u64,
        /// The size of the message, in bytes.
        size: u64,
        /// Whether the files are counted if that is necessary.
        counts: bool,
    },
    /// Make sure that a message that was delivered is still counted.
    Confirm {
        /// The Maildir.
        mailbox: PathBuf,
        /// The limit, in bytes.
        limit: u64,
        /// The size of the message, in bytes.
        size: u64,
        /// The inode number of the file in which the message was counted.
        inode: u64,
    },
    /// Take back the count of a message that was not delivered.
    Release {
        /// The Maildir.
        mailbox: PathBuf,
        /// The limit, in bytes.
        limit: u64,
        /// The size of the message, in bytes.
        size: u64,
        /// The inode number of the file in which the message was counted.
        inode: u64,
    },
    /// Find out how much mail a Maildir with a limit holds.
    Measure {
        /// The Maildir.
        mailbox: PathBuf,
        /// The limit, in bytes.
        limit: u64,
        /// The size of the message that is to be delivered, in bytes.
        size: u64,
        /// Whether a count of the files is written into the Maildir.
        keeps: bool,
        /// The files that redirect the user's mail. If one of them exists, nothing is counted.
        forwards: Vec<PathBuf>,
    },
    /// Run a configured command without a shell, for its output.
    Print {
        /// The program and its arguments.
        words: Vec<String>,
        /// The time limit of the command, in seconds.
        limit: u32,
        /// The maximum length of the output, in bytes.
        max_output: u32,
    },
}

/// A part of the file that goes with a request. Both numbers are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The offset of the part in the file.
    pub at: u64,
    /// The length of the part.
    pub size: u64,
}

/// The identity of a `tmp/` directory. It distinguishes the directory from another `tmp/` at the
/// same path, such as the one that appears if a mount has failed. The device number is not used,
/// since it can change at a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The time at which the directory was created, in nanoseconds since 1970; 0 if the file system
    /// does not record the time.
    pub born: u64,
    /// The inode number.
    pub inode: u64,
}

/// The response to a request that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The request was carried out, and there is nothing to return.
    Done,
    /// The copy is written, in the `tmp/` with this identity.
    Copied(Identity),
    /// After a crash, the copy is still in `tmp/`, under this name.
    Waiting(String),
    /// After a crash, the copy is nowhere in the Maildir.
    Lost,
    /// After a crash, `tmp/` is another directory than the one in which the copy was written.
    Elsewhere,
    /// The text of the `.forward` or the list.
    Text(String),
    /// There is no such file.
    Absent,
    /// The file is not trusted, for this reason.
    Refused(String),
    /// How the command ended, and its output up to a limit.
    Ended(Ended, String),
    /// The output of the command.
    Printed(Vec<u8>),
    /// The message is counted, in the file with this inode number; `None` if there is no such file.
    Reserved(Option<u64>),
    /// The use of the Maildir. If the request was to count a message, the message does not fit.
    Used(Contents),
}

/// Why a request failed.
#[derive(Debug)]
pub struct AgentError {
    /// The step that failed, such as `enter /home/jon`.
    pub doing: String,
    /// The error of that step.
    pub error: io::Error,
}

/// Carries out a request with the rights of this process. `message` is the file that goes with the
/// request.
///
/// # Errors
/// If a step fails: a description of the step, and its error.
pub fn perform(request: &Request, message: Option<&File>) -> Result<Response, AgentError> {
    let message = || message.ok_or_else(|| AgentError::new("read the message", io::ErrorKind::InvalidInput));
    match request {
        Request::Copy { mailbox, name, head, content } => {
            maildir::At(mailbox).settle()?;
            maildir::At(mailbox).copy(name, head, message()?, *content)
        }
        Request::Reveal { mailbox, name } => maildir::At(mailbox).reveal(name).map(|()| Response::Done),
        Request::Recover { mailbox, prefix, identity, is_old } => {
            maildir::At(mailbox).recover(prefix, *identity, *is_old)
        }
        Request::Accept { mailbox, name, prefix } => {
            maildir::At(mailbox).settle()?;
            maildir::At(mailbox).accept(name, prefix, message()?).map(|()| Response::Done)
        }
        Request::Folder { mailbox, folder } => {
            maildir::At(mailbox).settle()?;
            maildir::At(mailbox).make_folder(folder).map(|()| Response::Done)
        }
        Request::Reserve { mailbox, limit, size, counts } => {
            let patience = quota::PATIENCE * u32::from(*counts);
            match (quota::Limited { maildir: mailbox, limit: *limit, patience }).reserve(*size)? {
                quota::Reserved::Full(contents) => Ok(Response::Used(contents)),
                quota::Reserved::Yes(inode) => Ok(Response::Reserved(inode)),
                quota::Reserved::Unknown => Ok(Response::Done),
            }
        }
        Request::Confirm { mailbox, limit, size, inode } => {
            quota::Limited { maildir: mailbox, limit: *limit, patience: Duration::ZERO }.confirm(*size, *inode);
            Ok(Response::Done)
        }
        Request::Release { mailbox, limit, size, inode } => {
            quota::Limited { maildir: mailbox, limit: *limit, patience: Duration::ZERO }.release(*size, *inode);
            Ok(Response::Done)
        }
        Request::Measure { mailbox, limit, size, keeps, forwards } => {
            if forwards.iter().any(|file| fs::symlink_metadata(file).is_ok()) {
                return Ok(Response::Absent);
            }
            let mailbox = quota::Limited { maildir: mailbox, limit: *limit, patience: quota::BRIEF_PATIENCE };
            Ok(mailbox.contents(*size, *keeps)?.map_or(Response::Absent, Response::Used))
        }
        Request::Append { file, head, content } => {
            mbox::append(file, head, message()?, *content).map(|()| Response::Done)
        }
        Request::Forward { home, uid, names } => home::forward(home, *uid, names),
        Request::Read { file } => home::read(file),
        Request::Run { command, directory, environment, head, content, limit } => {
            let run = command::Run { command, directory, environment, limit: Duration::from_secs(*limit) };
            run.with(head, message()?, *content)
        }
        Request::Print { words, limit, max_output } => {
            let none = || AgentError::new("run a command", io::ErrorKind::InvalidInput);
            let (program, arguments) = words.split_first().ok_or_else(none)?;
            let max_output = usize::try_from(*max_output).unwrap_or(usize::MAX);
            let printed = sys::command::output(program, arguments, Duration::from_secs((*limit).into()), max_output);
            printed.map(Response::Printed).map_err(|error| AgentError::new(program, error))
        }
    }
}

/// Refuses a mailbox that another user may have put there. If every user may write to the directory
/// that contains the mailbox, the mailbox must belong to the user of this process, to root or to
/// the owner of that directory.
fn check_owner(path: &Path, found: &Metadata) -> io::Result<()> {
    if [geteuid().as_raw(), 0].contains(&found.uid()) {
        return Ok(());
    }
    let directory = fs::metadata(path.parent().unwrap_or(path))?;
    if directory.mode() & EVERYBODY == 0 || directory.uid() == found.uid() {
        return Ok(());
    }
    Err(io::Error::other("it belongs to another user, and any user may make files there"))
}

/// The mode bit that lets every user write.
const EVERYBODY: u32 = 0o002;

impl Request {
    /// Whether the server cannot carry out the request itself, because the server is confined
    /// (`privsep::confine`).
    fn exceeds_confinement(&self) -> bool {
        matches!(self, Self::Print { .. } | Self::Run { .. } | Self::Read { .. } | Self::Append { .. })
    }
}

impl AgentError {
    /// The failure of a step.
    pub fn new(doing: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), error: error.into() }
    }
}
