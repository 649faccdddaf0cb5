//! `penfoldctl hosts`: what the daemon knows about other hosts.

use super::{Call, Command, Flag, ask};
use crate::exit::{self, Exit};

pub(super) const COMMAND: Command = Command {
    name: "hosts",
    arguments: "[domain]",
    about: "list the state of other hosts",
    flags: &[Flag::JSON],
    run,
    ..Command::NONE
};

/// Prints the state of other hosts: of all hosts, or only of one domain or destination.
fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let wanted = call.words.first().map(String::as_str);
    let request: Vec<&str> = ["hosts"].into_iter().chain(call.json_word()).chain(wanted).collect();
    let mut answer = Vec::new();
    ask(&call.start.load()?, &request, &mut answer, "ask about hosts")?;
    match wanted {
        Some(wanted) if answer.is_empty() => {
            Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("no information about {wanted}")] })
        }
        _ => exit::print(&answer),
    }
}
