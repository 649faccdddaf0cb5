//! `penfoldctl reload`: makes the daemon read its configuration and tables again.

use super::{Call, Command, ask};
use crate::exit::{self, Exit};

pub(super) const COMMAND: Command = Command {
    name: "reload",
    about: "read the configuration and its tables again, and print the errors",
    run,
    ..Command::NONE
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(0)?;
    let mut answer = Vec::new();
    ask(&call.start.load_partially(), &["reload"], &mut answer, "reload")?;
    let answer = String::from_utf8_lossy(&answer);
    let mut lines = answer.lines();
    match lines.next() {
        Some("in force") => exit::print(lines.map(|line| format!("{line}\n")).collect::<String>()),
        _ => Err(Exit {
            code: exit::CONFIG,
            text: lines.map(str::to_owned).chain(["the old configuration stays in force".to_owned()]).collect(),
        }),
    }
}
