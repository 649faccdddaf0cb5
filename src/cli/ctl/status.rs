//! `penfoldctl status`: the daemon, and what it is doing.

use super::{Call, Command, Flag, ask};
use crate::exit::{Exit, print};

pub(super) const COMMAND: Command = Command {
    name: "status",
    about: "show the daemon, and what it is doing now",
    flags: &[Flag::JSON_OBJECT],
    run,
    ..Command::NONE
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(0)?;
    let request: Vec<&str> = ["status"].into_iter().chain(call.json_word()).collect();
    let mut answer = Vec::new();
    ask(&call.start.load_partially(), &request, &mut answer, "see the status of the daemon")?;
    print(&answer)
}
