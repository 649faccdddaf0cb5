//! `penfoldctl flush`: makes the daemon try messages now.

use super::{Call, Command, Complete, ask_daemon, change, select};
use crate::config::Config;
use crate::exit::{self, Exit};

pub(super) const COMMAND: Command = Command {
    name: "flush",
    arguments: "[id | domain | @domain]",
    about: "try queued messages now",
    flags: &[select::FROM, select::TO, select::DOMAIN, select::AGE, select::STATE, select::LIMIT, change::YES],
    complete: Complete::Ids,
    run,
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let selectors = select::words(call)?;
    match call.words.first() {
        Some(_) if !selectors.is_empty() => Err(call.usage("queue ids and selectors cannot be combined")),
        None if !selectors.is_empty() => change::change_selected(call, &call.start.load()?, &["flush"], &selectors),
        what => flush(&call.start.load()?, what.map(String::as_str)),
    }
}

/// Asks the daemon to try deferred messages now: all of them, or only those with the id or domain
/// `what`.
///
/// # Errors
/// If the daemon cannot be asked; `UNAVAILABLE` if no message is queued for the id or domain.
pub(in crate::cli) fn flush(config: &Config, what: Option<&str>) -> Result<(), Exit> {
    let answer = ask_daemon(config, "flush", what, "run the queue")?;
    match what {
        Some(what) if answer == b"0\n" => {
            Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("nothing waits for {what}")] })
        }
        _ => Ok(()),
    }
}
