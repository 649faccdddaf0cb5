//! penfoldctl: argv and exit codes.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use getopts::Options;
use penfold::control;
use penfold::daemon::{Exit, Start, exit};
use penfold::spool::Spool;

const SYNOPSIS: &str = "usage: penfoldctl [-hV] [-f file] queue | flush [id | domain] | passwd name";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.tell("penfoldctl"),
    }
}

fn run() -> Result<(), Exit> {
    let mut options = Options::new();
    options.optopt("f", "", "read this configuration", "file");
    options.optflag("h", "", "show this text");
    options.optflag("V", "", "show the version");
    let usage = |text: String| Exit { code: exit::USAGE, text: vec![text, SYNOPSIS.into()] };
    let given = options.parse(std::env::args_os().skip(1)).map_err(|e| usage(e.to_string()))?;
    if given.opt_present("h") {
        print!("{}", options.usage(SYNOPSIS));
        return Ok(());
    }
    if given.opt_present("V") {
        println!("penfold {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let config = given.opt_str("f").or_else(|| std::env::var("PENFOLD_CONFIG").ok()).map(PathBuf::from);
    let start = Start::new(config, true, false);
    let words: Vec<&str> = given.free.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["queue"] => queue(&start),
        ["flush"] => flush(&start, None),
        ["flush", what] if !what.contains(char::is_whitespace) => flush(&start, Some(what)),
        ["passwd"] | ["passwd", ""] => Err(usage("passwd needs a name".into())),
        ["passwd", name] => passwd(name),
        [] => Err(usage("a command is missing".into())),
        _ => Err(usage(format!("'{}' is not understood", words.join(" ")))),
    }
}

/// From the daemon, or from the spool when it is down.
fn queue(start: &Start) -> Result<(), Exit> {
    let config = start.load()?;
    let mut out = io::stdout().lock();
    let asked = control::ask(&config.socket, "queue", &mut out, control::PATIENCE);
    let listed = match asked {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            let schedule = config.queue.schedule();
            Spool::look_at(&config.spool).and_then(|spool| control::list(&spool, &schedule, &mut out))
        }
        result => result,
    };
    match listed.and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|e| trouble(&format!("list the queue in {}", config.spool.display()), &e)),
    }
}

/// Of a message or a domain that is named, something must be waiting.
fn flush(start: &Start, what: Option<&str>) -> Result<(), Exit> {
    let config = start.load()?;
    let request = what.map_or_else(|| "flush".to_owned(), |what| format!("flush {what}"));
    let mut answer = Vec::new();
    control::ask(&config.socket, &request, &mut answer, control::PATIENCE)
        .map_err(|e| trouble("ask the daemon", &e))?;
    match what {
        Some(what) if answer == b"0\n" => {
            Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("nothing waits for {what}")] })
        }
        _ => Ok(()),
    }
}

/// A line for the users file, on standard output.
fn passwd(name: &str) -> Result<(), Exit> {
    let made = control::passwd::line(name).and_then(|line| io::stdout().lock().write_all(line.as_bytes()));
    made.map_err(|e| trouble("make a line for a users file", &e))
}

fn trouble(doing: &str, error: &io::Error) -> Exit {
    let code = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => exit::UNAVAILABLE,
        io::ErrorKind::PermissionDenied => exit::NOPERM,
        io::ErrorKind::InvalidInput => exit::DATAERR,
        io::ErrorKind::ResourceBusy => exit::TEMPFAIL,
        _ => exit::IOERR,
    };
    Exit { code, text: vec![format!("{doing}: {error}")] }
}
