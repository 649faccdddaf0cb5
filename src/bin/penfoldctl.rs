//! penfoldctl, and under other names sendmail, mailq and newaliases: argv and exit codes.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use penfold::config::Config;
use penfold::control;
use penfold::control::sendmail::{self, Mode, Options};
use penfold::daemon::{Exit, Start, exit};
use penfold::spool::Spool;

const SYNOPSIS: &str = "usage: penfoldctl [-hV] [-f file] queue | hosts [domain] | flush [id | domain] | passwd name";

fn main() -> ExitCode {
    let own = std::env::args_os().next().map(PathBuf::from);
    let name = own.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    let (name, done) = match name {
        "sendmail" | "send-mail" | "mailq" | "newaliases" => (name, sendmail(name)),
        _ => ("penfoldctl", run()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.tell(name),
    }
}

/// What programs that know sendmail ask for.
fn sendmail(name: &str) -> Result<(), Exit> {
    let usage = |text: String| Exit { code: exit::USAGE, text: vec![text] };
    match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some("--help") => {
            println!("usage: {name} [option ...] [recipient ...]; its man page tells the options");
            return Ok(());
        }
        Some("--version") => {
            println!("penfold {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        _ => {}
    }
    let options = Options::parse(name, std::env::args_os().skip(1)).map_err(usage)?;
    let named = options.config.clone().map(OsString::from).or_else(|| std::env::var_os("PENFOLD_CONFIG"));
    let start = Start::new(named.map(PathBuf::from), true, false);
    let config = start.glance();
    let result = match options.mode {
        Mode::Deliver => sendmail::deliver(&config.socket, &options),
        Mode::Session => sendmail::pass_through(&config.socket),
        Mode::Verify => sendmail::verify(&config.socket, &options),
        Mode::Aliases => return aliases(&start),
        Mode::Queue => return queue(name, &start, &config),
        Mode::Flush => return flush(&config, options.flush.as_deref()),
        Mode::Daemon(stays) => return Err(become_daemon(options.config.as_deref(), stays)),
    };
    result.map_err(|failure| Exit { code: failure.code, text: failure.text })
}

/// What is wrong in a file stands alone on its line, so that editors can jump there.
fn aliases(start: &Start) -> Result<(), Exit> {
    let check = |file| sendmail::check_aliases(&file).map_err(|why| Exit { code: why.code, text: why.text });
    let count = start.aliases().and_then(check).map_err(|exit| {
        exit.text.iter().for_each(|line| eprintln!("{line}"));
        Exit { text: Vec::new(), ..exit }
    })?;
    sendmail::tell(&format!("{count}\n"));
    Ok(())
}

/// penfoldd, which stands beside this program or is found by its name. Returns only
/// why not.
fn become_daemon(config: Option<&str>, stays: bool) -> Exit {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("penfoldd")).filter(|path| path.exists());
    let mut command = Command::new(beside.unwrap_or_else(|| "penfoldd".into()));
    command.args(stays.then_some("-d")).args(config.map(|path| ["-f", path]).into_iter().flatten());
    trouble("start penfoldd", &command.exec())
}

fn run() -> Result<(), Exit> {
    let mut options = getopts::Options::new();
    options.optopt("f", "", "read this configuration", "file");
    options.optflag("h", "help", "show this text");
    options.optflag("V", "version", "show the version");
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
        ["queue"] => queue("penfoldctl", &start, &start.load()?),
        ["flush"] => flush(&start.load()?, None),
        ["flush", what] => flush(&start.load()?, Some(what)),
        ["hosts"] => hosts(&start.load()?, None),
        ["hosts", what] => hosts(&start.load()?, Some(what)),
        ["passwd"] | ["passwd", ""] => Err(usage("passwd needs a name".into())),
        ["passwd", name] => passwd(name),
        [] => Err(usage("a command is missing".into())),
        _ => Err(usage(format!("'{}' is not understood", words.join(" ")))),
    }
}

/// From the daemon, or from the spool when it is down: as the server's user, for what is in
/// there is not for root to open.
fn queue(name: &str, start: &Start, config: &Config) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    let mut may = "list the queue";
    let asked = control::ask(&config.socket, &["queue"], &mut out, control::PATIENCE);
    let listed = match asked {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            may = "list the queue while no daemon runs";
            start.become_user(config)?;
            from_spool(config, &mut out).map(|whence| _ = writeln!(io::stderr(), "{name}: {whence}"))
        }
        result => result,
    };
    match listed.and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(forbidden(config, may)),
        result => result.map_err(|e| trouble(&format!("list the queue in {}", config.spool.display()), &e)),
    }
}

/// What is to be said of the list.
fn from_spool(config: &Config, out: &mut dyn Write) -> io::Result<&'static str> {
    let spool = Spool::open_read_only(&config.spool)?;
    let is_unused = spool.is_unused()?;
    control::list(&spool, &config.queue.schedule(), &[], None, out)?;
    out.flush()?;
    Ok(if is_unused { "no daemon has run yet" } else { "no daemon runs: this is what the spool has" })
}

/// Of a message or a domain that is named, something must be waiting.
fn flush(config: &Config, what: Option<&str>) -> Result<(), Exit> {
    let answer = ask_daemon(config, "flush", what, "run the queue")?;
    match what {
        Some(what) if answer == b"0\n" => {
            Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("nothing waits for {what}")] })
        }
        _ => Ok(()),
    }
}

/// What the daemon knows of other hosts; of one that is named, there must be something.
fn hosts(config: &Config, what: Option<&str>) -> Result<(), Exit> {
    let answer = ask_daemon(config, "hosts", what, "ask about hosts")?;
    match what {
        Some(what) if answer.is_empty() => {
            Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("nothing is known of {what}")] })
        }
        _ => io::stdout().lock().write_all(&answer).map_err(|e| trouble("write the list", &e)),
    }
}

/// The daemon's answer to a command of the privileged.
fn ask_daemon(config: &Config, command: &str, what: Option<&str>, may: &str) -> Result<Vec<u8>, Exit> {
    let request: Vec<&str> = [command].into_iter().chain(what).collect();
    let mut answer = Vec::new();
    let asked = control::ask(&config.socket, &request, &mut answer, control::PATIENCE);
    asked.map(|()| answer).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => forbidden(config, may),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Exit { code: exit::TEMPFAIL, text: vec![control::trouble_with(&config.socket, &e)] }
        }
        _ => trouble("ask the daemon", &e),
    })
}

/// A line for the users file, on standard output.
fn passwd(name: &str) -> Result<(), Exit> {
    let made = control::passwd::line(name).and_then(|line| io::stdout().lock().write_all(line.as_bytes()));
    made.map_err(|e| trouble("make a line for a users file", &e))
}

/// What others than root and the daemon's user are told.
fn forbidden(config: &Config, what: &str) -> Exit {
    Exit { code: exit::NOPERM, text: vec![format!("only root and {} may {what}", config.user)] }
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
