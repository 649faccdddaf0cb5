//! `penfoldctl queue`: lists the queue, or counts its messages.

use std::io::{self, Write};

use super::{Call, Command, Flag, forbidden, select};
use crate::cli::failed;
use crate::config::Config;
use crate::control::{self, Listing, Plain};
use crate::daemon::Start;
use crate::exit::Exit;
use crate::spool::Spool;

pub(super) const COMMAND: Command = Command {
    name: "queue",
    about: "list or count the messages in the queue",
    flags: &[
        select::FROM,
        select::TO,
        select::DOMAIN,
        select::AGE,
        select::STATE,
        select::LIMIT,
        Flag { long: "by", hint: "what", about: "count by sender, domain, reason or age", ..Flag::NONE },
        Flag::JSON,
    ],
    run,
    ..Command::NONE
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(0)?;
    let mut words = select::words(call)?;
    if let Some(by) = call.options.opt_str("by") {
        words.push(format!("by={by}"));
    }
    if call.options.opt_present("json") {
        words.push("json".to_owned());
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let listing = Listing::read(&words).ok_or_else(|| call.usage("--by: expected sender, domain, reason or age"))?;
    list("penfoldctl", call.start, &call.start.load()?, (&words, &listing))
}

/// Lists the whole queue as text.
///
/// # Errors
/// If the daemon cannot be asked, or the spool cannot be read.
pub(in crate::cli) fn queue(program: &str, start: &Start, config: &Config) -> Result<(), Exit> {
    list(program, start, config, (&[], &Listing::default()))
}

/// Lists messages. The list comes from the daemon or, if none runs, from the spool. The spool is
/// read as the server's user, because root must not open files there. `words` are the request for
/// this listing.
fn list(program: &str, start: &Start, config: &Config, (words, listing): (&[&str], &Listing)) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    let mut action = "list the queue";
    let request: Vec<&str> = ["queue"].iter().chain(words).copied().collect();
    let asked = control::ask(&config.socket, &request, &mut out, control::ANSWER_TIMEOUT);
    let listed = match asked {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            action = "list the queue while no daemon runs";
            start.become_user(config)?;
            from_spool(config, listing, &mut out).map(|remark| _ = writeln!(io::stderr(), "{program}: {remark}"))
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

/// Lists messages from the spool. Returns a remark that no daemon runs, for standard error.
fn from_spool(config: &Config, listing: &Listing, out: &mut dyn Write) -> io::Result<&'static str> {
    let spool = Spool::open_read_only(&config.spool)?;
    let is_unused = spool.is_unused()?;
    let mut out = io::BufWriter::new(out);
    let mut plain = Plain::new(&mut out);
    listing.write((&spool, config.queue.schedule()), None, None, &mut plain, &mut |_| Ok(()))?;
    listing.write_dropped(config, None, &mut plain)?;
    plain.finish().and_then(|()| out.flush())?;
    Ok(if is_unused { "no daemon has run yet" } else { "no daemon is running; this list is from the spool" })
}
