//! `penfoldctl recipients`: what next hosts have said about recipients.

use super::{Call, Command, Flag, ask};
use crate::exit::{self, Exit};

const FORGET: Flag = Flag { long: "forget", about: "forget these answers", ..Flag::NONE };

pub(super) const COMMAND: Command = Command {
    name: "recipients",
    arguments: "[address | @domain]",
    about: "list what next hosts have said about recipients",
    flags: &[FORGET, Flag::JSON],
    run,
    ..Command::NONE
};

/// Prints what is remembered about an address or a domain, or everything; or has it forgotten.
fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let wanted = call.words.first().map(String::as_str);
    let mut answer = Vec::new();
    if call.options.opt_present("forget") {
        let Some(wanted) = wanted else { return Err(call.usage("--forget needs an address or @domain")) };
        ask(&call.start.load()?, &["forget", wanted], &mut answer, "have answers forgotten")?;
        return if answer == b"0\n" { Err(nothing(wanted)) } else { Ok(()) };
    }
    let request: Vec<&str> = ["recipients"].into_iter().chain(call.json_word()).chain(wanted).collect();
    ask(&call.start.load()?, &request, &mut answer, "ask about recipients")?;
    match wanted {
        Some(wanted) if answer.is_empty() => Err(nothing(wanted)),
        _ => exit::print(&answer),
    }
}

fn nothing(wanted: &str) -> Exit {
    Exit { code: exit::UNAVAILABLE, text: vec![format!("nothing is remembered about {wanted}")] }
}
