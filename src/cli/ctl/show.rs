//! `penfoldctl show`: one message of the queue.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;

use nix::unistd::User;

use super::{Call, Command, Complete, Flag, forbidden};
use crate::cli::failed;
use crate::config::Config;
use crate::control::show::{MISSING, NotShown, Part, Shown};
use crate::control::{self, request_failed};
use crate::exit::{self, Exit};
use crate::json::Format;
use crate::spool::{QueueId, Spool};

pub(super) const COMMAND: Command = Command {
    name: "show",
    arguments: "id",
    about: "show a message in the queue",
    flags: &[
        Flag { short: "H", long: "header", about: "print the header of the message", ..Flag::NONE },
        Flag { short: "m", long: "message", about: "print the whole message", ..Flag::NONE },
        Flag::JSON_OBJECT,
    ],
    complete: Complete::Ids,
    run,
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let Some(word) = call.words.first() else { return Err(call.usage("show needs a queue id")) };
    let Some(id) = QueueId::parse(&word.to_ascii_uppercase()) else {
        return Err(Exit { code: exit::DATAERR, text: vec![format!("{word} is not a queue id")] });
    };
    let parts = [("H", Part::Header), ("m", Part::Message), ("json", Part::Facts(Format::Json))];
    let given: Vec<Part> =
        parts.into_iter().filter(|(name, _)| call.options.opt_present(name)).map(|(_, part)| part).collect();
    let part = match given.as_slice() {
        [] => Part::Facts(Format::Text),
        [part] => *part,
        _ => return Err(call.usage("only one of -H, -m and --json can be given")),
    };
    let config = call.start.load()?;
    let socket = &config.socket;
    let shown = match control::ask_exactly(socket, &["show", part.word(), &id.to_string()], control::ANSWER_TIMEOUT) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            call.start.become_user(&config)?;
            from_spool(&config, id, part)?
        }
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Err(not_shown(&config, id, &e.to_string())),
        result => result.map_err(|e| Exit { code: exit::TEMPFAIL, text: vec![request_failed(socket, &e)] })?,
    };
    let is_exact = matches!(part, Part::Header | Part::Message) && !io::stdout().is_terminal();
    let shown = if is_exact { shown } else { control::plain(&shown) };
    exit::print(&shown)
}

/// Whether the user may see all messages: root and the server's user may. A server that root has not
/// started runs as the owner of the spool.
fn is_privileged(config: &Config) -> bool {
    let uid = nix::unistd::geteuid();
    let owns_spool = || std::fs::metadata(&config.spool).is_ok_and(|spool| spool.uid() == uid.as_raw());
    uid.is_root() || User::from_uid(uid).ok().flatten().is_some_and(|user| user.name == config.user) || owns_spool()
}

/// The error if the daemon or the spool has this answer in place of the message.
fn not_shown(config: &Config, id: QueueId, why: &str) -> Exit {
    let code = if control::is_busy(why.as_bytes()) { exit::TEMPFAIL } else { exit::UNAVAILABLE };
    let text = match why {
        MISSING if is_privileged(config) => {
            format!("there is no message {id} in the queue; see penfoldctl trace {id}")
        }
        MISSING => format!("there is no message {id} in the queue that you may see; see penfoldctl trace {id}"),
        why => format!("{id}: {why}"),
    };
    Exit { code, text: vec![text] }
}

/// Returns what the spool alone says about a message, while no daemon runs.
fn from_spool(config: &Config, id: QueueId, part: Part) -> Result<Vec<u8>, Exit> {
    let failed = |e: io::Error| match e.kind() {
        // While a daemon runs, every user can see messages of this user.
        io::ErrorKind::PermissionDenied => forbidden(config, "see messages while no daemon runs"),
        _ => failed(&format!("read the spool {}", config.spool.display()), &e),
    };
    let spool = Spool::open_read_only(&config.spool).map_err(failed)?;
    let shown = Shown { spool: &spool, id, schedule: config.queue.schedule(), submitted_by: None, live: None };
    let mut out = Vec::new();
    match shown.open() {
        Ok(entry) => shown.write(&entry, part, &mut out).map_err(failed)?,
        Err(NotShown::Io(e)) => return Err(failed(e)),
        Err(why) => return Err(not_shown(config, id, &why.answer())),
    }
    if part == Part::Facts(Format::Text) {
        // Nothing can be done if standard error is closed.
        let _ = writeln!(io::stderr(), "penfoldctl: no daemon is running; this is from the spool");
    }
    Ok(out)
}
