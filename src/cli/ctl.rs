//! Runs the commands of penfoldctl(8). mailq and sendmail use some of these commands, too.

use std::io::{self, Write};
use std::path::PathBuf;

#[cfg(feature = "mailauth")]
use super::dkim;
use super::{failed, passwd, usage};
use crate::config::Config;
use crate::control;
use crate::daemon::Start;
use crate::exit::{self, Exit};
use crate::spool::Spool;

const SYNOPSIS: &str = "usage: penfoldctl [-hV] [-f file] queue | hosts [domain] | flush [id | domain | @domain] | \
                        hold id ... | release id ... | remove id ... | passwd name |\n    \
                        dkim new [--selector name] [--directory path] domain | dkim check [domain]";

/// Runs penfoldctl with the arguments of this process.
///
/// # Errors
/// If the command line is wrong, or the command fails.
pub(super) fn run() -> Result<(), Exit> {
    let mut options = getopts::Options::new();
    options.optopt("f", "", "read this configuration", "file");
    options.optflag("h", "help", "show this text");
    options.optflag("V", "version", "show the version");
    options.optopt("", "directory", "make the files of dkim new there", "path");
    options.optopt("", "selector", "begin the selectors of dkim new with this", "name");
    let usage = |text: String| usage(vec![text, SYNOPSIS.into()]);
    let arguments = options.parse(std::env::args_os().skip(1)).map_err(|e| usage(e.to_string()))?;
    if arguments.opt_present("h") {
        print!("{}", options.usage(SYNOPSIS));
        return Ok(());
    }
    if arguments.opt_present("V") {
        println!("penfold {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let config = arguments.opt_str("f").or_else(|| std::env::var("PENFOLD_CONFIG").ok()).map(PathBuf::from);
    let start = Start::new(config, true, false);
    let words: Vec<&str> = arguments.free.iter().map(String::as_str).collect();
    let of_new: Vec<&str> = ["directory", "selector"].into_iter().filter(|name| arguments.opt_present(name)).collect();
    if let Some(option) = of_new.first().filter(|_| !matches!(words.as_slice(), ["dkim", "new", ..])) {
        return Err(usage(format!("--{option} is for dkim new")));
    }
    match words.as_slice() {
        ["queue"] => queue("penfoldctl", &start, &start.load()?),
        ["flush"] => flush(&start.load()?, None),
        ["flush", what] => flush(&start.load()?, Some(what)),
        ["hosts"] => hosts(&start.load()?, None),
        ["hosts", what] => hosts(&start.load()?, Some(what)),
        [change @ ("hold" | "release" | "remove")] => Err(usage(format!("{change} needs a queue id"))),
        [change @ ("hold" | "release" | "remove"), ids @ ..] => change_messages(&start.load()?, change, ids),
        ["dkim", words @ ..] => dkim(&start, words, &arguments),
        ["passwd"] | ["passwd", ""] => Err(usage("passwd needs a name".into())),
        ["passwd", name] => passwd(name),
        [] => Err(usage("a command is missing".into())),
        _ => Err(usage(format!("'{}' is not a command", words.join(" ")))),
    }
}

/// Lists the queue. The list comes from the daemon or, if none runs, from the spool. The spool is
/// read as the server's user, because root must not open files there.
///
/// # Errors
/// If the daemon cannot be asked, or the spool cannot be read.
pub(super) fn queue(program: &str, start: &Start, config: &Config) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    let mut action = "list the queue";
    let asked = control::ask(&config.socket, &["queue"], &mut out, control::ANSWER_TIMEOUT);
    let listed = match asked {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            action = "list the queue while no daemon runs";
            start.become_user(config)?;
            from_spool(config, &mut out).map(|remark| _ = writeln!(io::stderr(), "{program}: {remark}"))
        }
        result => result,
    };
    match listed.and_then(|()| out.flush()) {
        // The reader of the list, such as head(1), has closed the pipe because it needs no more.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(forbidden(config, action)),
        result => result.map_err(|e| failed(&format!("list the queue in {}", config.spool.display()), &e)),
    }
}

/// Lists the queue from the spool. Returns a remark that no daemon runs, for standard error.
fn from_spool(config: &Config, out: &mut dyn Write) -> io::Result<&'static str> {
    let spool = Spool::open_read_only(&config.spool)?;
    let is_unused = spool.is_unused()?;
    control::list(&spool, &config.queue.schedule(), &[], None, out)?;
    out.flush()?;
    Ok(if is_unused { "no daemon has run yet" } else { "no daemon is running; this list is from the spool" })
}

/// Asks the daemon to try deferred messages now: all of them, or only those with the id or domain
/// `what`.
///
/// # Errors
/// If the daemon cannot be asked; `UNAVAILABLE` if no message is queued for the id or domain.
pub(super) fn flush(config: &Config, what: Option<&str>) -> Result<(), Exit> {
    let answer = ask_daemon(config, "flush", what, "run the queue")?;
    match what {
        Some(what) if answer == b"0\n" => {
            Err(Exit { code: exit::UNAVAILABLE, text: vec![format!("nothing waits for {what}")] })
        }
        _ => Ok(()),
    }
}

/// Holds, releases or removes messages, and goes on if that fails for one of them.
///
/// # Errors
/// If the daemon cannot be asked. If it refuses to change some messages, the text has a line with
/// the reason for each of them; the code is `TEMPFAIL` if all the refusals are temporary, otherwise
/// `UNAVAILABLE`.
fn change_messages(config: &Config, change: &str, ids: &[&str]) -> Result<(), Exit> {
    let action = match change {
        "hold" => "hold messages",
        "release" => "release messages",
        _ => "remove messages",
    };
    let mut refused = Exit { code: exit::TEMPFAIL, text: Vec::new() };
    for id in ids {
        let answer = ask_daemon(config, change, Some(id), action)?;
        let answer = String::from_utf8_lossy(&answer);
        let why = match answer.trim_end() {
            "done" => continue,
            answer => answer.strip_prefix("later: ").unwrap_or_else(|| {
                refused.code = exit::UNAVAILABLE;
                answer
            }),
        };
        refused.text.push(format!("{id}: {why}"));
    }
    if refused.text.is_empty() { Ok(()) } else { Err(refused) }
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

/// Sends the daemon a request that only privileged users may make, and returns the answer.
fn ask_daemon(config: &Config, command: &str, what: Option<&str>, action: &str) -> Result<Vec<u8>, Exit> {
    let request: Vec<&str> = [command].into_iter().chain(what).collect();
    let mut answer = Vec::new();
    let asked = control::ask(&config.socket, &request, &mut answer, control::ANSWER_TIMEOUT);
    asked.map(|()| answer).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => forbidden(config, action),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Exit { code: exit::TEMPFAIL, text: vec![control::request_failed(&config.socket, &e)] }
        }
        _ => failed("ask the daemon", &e),
    })
}

/// Runs `dkim new` or `dkim check`.
#[cfg(feature = "mailauth")]
fn dkim(start: &Start, words: &[&str], options: &getopts::Matches) -> Result<(), Exit> {
    let (selector, directory) = (options.opt_str("selector"), options.opt_str("directory").map(PathBuf::from));
    match words {
        ["new", domain] => {
            dkim::new(&dkim::New { domain, selector: selector.as_deref(), directory: directory.as_deref() })
        }
        ["new", ..] => Err(usage(vec!["dkim new needs one domain".into(), SYNOPSIS.into()])),
        ["check"] => dkim::check(start, None),
        ["check", domain] => dkim::check(start, Some(domain)),
        _ => Err(usage(vec!["expected dkim new or dkim check".into(), SYNOPSIS.into()])),
    }
}

#[cfg(not(feature = "mailauth"))]
fn dkim(_: &Start, _: &[&str], _: &getopts::Matches) -> Result<(), Exit> {
    Err(usage(vec!["this penfold has been built without the feature mailauth".into()]))
}

/// Reads a password, and prints a line of a users file for the user `name`.
fn passwd(name: &str) -> Result<(), Exit> {
    let made = passwd::line(name).and_then(|line| io::stdout().lock().write_all(line.as_bytes()));
    made.map_err(|e| failed("make a line for a users file", &e))
}

/// The error if a user other than root and the server's user tries to do `action`.
fn forbidden(config: &Config, action: &str) -> Exit {
    Exit { code: exit::NOPERM, text: vec![format!("only root and {} may {action}", config.user)] }
}
