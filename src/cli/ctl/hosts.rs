//! `penfoldctl hosts`: what the daemon knows about other hosts.

use std::io::{self, Write};

use super::{Call, Command, ask_daemon};
use crate::cli::failed;
use crate::config::Config;
use crate::exit::{self, Exit};

pub(super) const COMMAND: Command =
    Command { name: "hosts", arguments: "[domain]", about: "list the state of other hosts", run, ..Command::NONE };

fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    hosts(&call.start.load()?, call.words.first().map(String::as_str))
}

/// Prints the state of other hosts: of all hosts, or only of the domain or destination `what`.
fn hosts(config: &Config, what: Option<&str>) -> Result<(), Exit> {
    let answer = ask_daemon(config, "hosts", what, "ask about hosts")?;
    match what {
        Some(what) if answer.is_empty() => {
            Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("no information about {what}")] })
        }
        _ => io::stdout().lock().write_all(&answer).map_err(|e| failed("write the list", &e)),
    }
}
