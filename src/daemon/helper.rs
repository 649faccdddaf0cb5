//! Runs the helper processes of a server that root has started. They are this program under other
//! names; see [`crate::privsep`]. penfoldctl has helpers, too: `penfoldctl check` reads the
//! configuration as the server does.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use getopts::Options;

use super::Start;
use crate::deliver::agent::process;
use crate::exit::{self, Exit};
use crate::privsep::{AGENT, LOOKUP, MONITOR, OPENER, lookup};

/// Whether a process with this name is a helper.
pub fn is_helper(name: &str) -> bool {
    [MONITOR, AGENT, LOOKUP, OPENER].contains(&name)
}

/// Runs the helper that `name` selects, with the arguments of this process.
///
/// # Errors
/// If the arguments are wrong, or the helper fails.
pub fn run(name: &str, arguments: impl Iterator<Item = OsString>) -> Result<(), Exit> {
    let mut options = Options::new();
    options.optopt("f", "", "", "file").optopt("p", "", "", "file");
    let parsed = options.parse(arguments).map_err(|e| Exit { code: exit::USAGE, text: vec![e.to_string()] })?;
    let path = |option| parsed.opt_str(option).map(PathBuf::from);
    let start = Start::new(path("f"), false, false).with_pid_file(path("p"));
    let words = &parsed.free;
    let number = |index: usize| words.get(index).and_then(|word| word.parse().ok());
    let ended = match (name, words.as_slice(), number(0).zip(number(1))) {
        (MONITOR, [.., workers], Some(server)) => start.run_monitor(server, workers.parse().unwrap_or_default()),
        (OPENER, [], _) => start.open_files(),
        (LOOKUP, _, Some((uid, gid))) => lookup::run(uid, gid),
        (AGENT, _, Some((uid, gid))) => process::run_numbered(uid, gid),
        (AGENT, [user], _) => process::run_named(user),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    ended.map_err(|e| Exit { code: exit::IOERR, text: vec![e.to_string()] })
}
