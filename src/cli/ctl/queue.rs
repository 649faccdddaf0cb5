//! `penfoldctl queue`: lists the queue.

use std::io::{self, Write};

use super::{Call, Command, forbidden};
use crate::cli::failed;
use crate::config::Config;
use crate::control;
use crate::daemon::Start;
use crate::exit::Exit;
use crate::spool::Spool;

pub(super) const COMMAND: Command =
    Command { name: "queue", arguments: "", about: "list the messages in the spool", run, ..Command::NONE };

fn run(call: &Call) -> Result<(), Exit> {
    call.words(0)?;
    queue("penfoldctl", call.start, &call.start.load()?)
}

/// Lists the queue. The list comes from the daemon or, if none runs, from the spool. The spool is
/// read as the server's user, because root must not open files there.
///
/// # Errors
/// If the daemon cannot be asked, or the spool cannot be read.
pub(in crate::cli) fn queue(program: &str, start: &Start, config: &Config) -> Result<(), Exit> {
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
