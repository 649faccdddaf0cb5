//! `penfoldctl hold`, `release` and `remove`: change messages in the queue.

use super::{Call, Command, Complete, ask_daemon};
use crate::cli::usage;
use crate::config::Config;
use crate::exit::{self, Exit};

pub(super) const HOLD: Command = Command {
    name: "hold",
    arguments: "id ...",
    about: "keep messages in the spool until they are released",
    complete: Complete::Ids,
    run,
    ..Command::NONE
};
pub(super) const RELEASE: Command = Command {
    name: "release",
    arguments: "id ...",
    about: "try held messages again",
    complete: Complete::Ids,
    run,
    ..Command::NONE
};
pub(super) const REMOVE: Command = Command {
    name: "remove",
    arguments: "id ...",
    about: "delete messages",
    complete: Complete::Ids,
    run,
    ..Command::NONE
};

fn run(call: &Call) -> Result<(), Exit> {
    if call.words.is_empty() {
        return Err(usage(vec![format!("{} needs a queue id", call.command.name)]));
    }
    change_messages(&call.start.load()?, call.command.name, &call.words)
}

/// Holds, releases or removes messages, and goes on if that fails for one of them.
///
/// # Errors
/// If the daemon cannot be asked. If it refuses to change some messages, the text has a line with
/// the reason for each of them; the code is `TEMPFAIL` if all the refusals are temporary, otherwise
/// `UNAVAILABLE`.
fn change_messages(config: &Config, change: &str, ids: &[String]) -> Result<(), Exit> {
    let action = match change {
        "hold" => "hold messages",
        "release" => "release messages",
        _ => "remove messages",
    };
    let mut refused = Exit { code: exit::TEMPFAIL, text: Vec::new() };
    for id in ids {
        let answer = ask_daemon(config, change, Some(id), action)?;
        let answer = String::from_utf8_lossy(&answer);
        let why = match answer.trim_end() {
            "done" => continue,
            answer => answer.strip_prefix("later: ").unwrap_or_else(|| {
                refused.code = exit::UNAVAILABLE;
                answer
            }),
        };
        refused.text.push(format!("{id}: {why}"));
    }
    if refused.text.is_empty() { Ok(()) } else { Err(refused) }
}
