//! `penfoldctl config`: the configuration in force.

use super::{Call, Command, Flag, ask};
use crate::cli::failed;
use crate::control;
use crate::exit::{self, Exit};

pub(super) const COMMAND: Command = Command {
    name: "config",
    arguments: "[key]",
    flags: &[Flag { long: "given", about: "print only the keys that the file has", ..Flag::NONE }, Flag::JSON],
    about: "print the configuration in force, and where each value comes from",
    run,
    ..Command::NONE
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let config = call.start.load_partially();
    let (is_brief, format) = (call.options.opt_present("given"), call.format());
    let key = call.words.first().map(String::as_str);
    let mut answer = Vec::new();
    let request = ["config", if is_brief { "given" } else { "all" }].into_iter().chain(call.json_word()).chain(key);
    let asked = ask(&config, &request.collect::<Vec<_>>(), &mut answer, "see the configuration in force");
    match asked {
        Err(error) if error.code == exit::TEMPFAIL => {
            // No daemon runs: the file as it would be put into force.
            let config = call.start.load()?;
            eprintln!("penfoldctl: no daemon is running; this is what a start would read");
            control::config(&config, None, (key, is_brief), format, &mut answer)
                .map_err(|e| failed("write the configuration", &e))?;
        }
        result => result?,
    }
    match key {
        Some(key) if answer.is_empty() && !is_brief => {
            Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("'{key}' is not a key{}", meant(key))] })
        }
        _ => exit::print(&answer),
    }
}

/// `; did you mean KEY?`, if a key is like the one that was given.
fn meant(given: &str) -> String {
    let keys: Vec<String> = crate::config::print(&crate::config::default()).iter().map(|key| key.name()).collect();
    let near = crate::spelling::nearest(given, keys.iter().map(String::as_str));
    near.map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}
