//! `penfoldctl stats`: numbers about mail.

use std::io::{self, Write};

use super::{Call, Command, Flag, forbidden};
use crate::cli::failed;
use crate::config::Config;
use crate::control::{self, StatsQuery};
use crate::exit::Exit;
use crate::log;
use crate::spool::Spool;
use crate::state::State;
use crate::when;

pub(super) const COMMAND: Command = Command {
    name: "stats",
    about: "show numbers of messages, refusals, deliveries and delays",
    flags: &[
        Flag { long: "since", hint: "time", about: "begin at this time", ..Flag::NONE },
        Flag { long: "until", hint: "time", about: "end at this time", ..Flag::NONE },
        Flag { long: "limit", hint: "number", about: "print this number of rows of each list", ..Flag::NONE },
        Flag { long: "report", about: "print a report about yesterday, with what needs attention", ..Flag::NONE },
        Flag {
            long: "openmetrics",
            about: "print the numbers since the start of the daemon, for a monitoring system",
            ..Flag::NONE
        },
        Flag { long: "prometheus", about: "print the same in the text format of Prometheus", ..Flag::NONE },
        Flag::JSON_OBJECT,
    ],
    run,
    ..Command::NONE
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(0)?;
    let chosen: Vec<_> = ["report", "openmetrics", "prometheus", "json"]
        .into_iter()
        .filter(|name| call.options.opt_present(name))
        .collect();
    let form = match chosen.as_slice() {
        [] => "text",
        [form] => form,
        [one, other, ..] => return Err(call.usage(&format!("--{one} and --{other} exclude each other"))),
    };
    let (since, until) = (call.options.opt_str("since"), call.options.opt_str("until"));
    if ["openmetrics", "prometheus"].contains(&form) && (since.is_some() || until.is_some()) {
        let text = format!("--{form} has the numbers since the start of the daemon; --since and --until do not apply");
        return Err(call.usage(&text));
    }
    let is_default = since.is_none() && until.is_none();
    let default = |text: &str| (form == "report" && is_default).then(|| text.to_owned());
    let since = time(call, "since", since.or_else(|| default("yesterday")))?;
    let until = until.or_else(|| default("today"));
    let until = time(call, "until", until)?;
    let rows = match call.options.opt_str("limit") {
        Some(text) if text.parse().is_ok_and(|rows: usize| (1..=1000).contains(&rows)) => text,
        Some(text) => return Err(call.usage(&format!("--limit '{text}': expected a number from 1 to 1000"))),
        None => "-".to_owned(),
    };
    print(call, &call.start.load()?, &[form, &since, &until, &rows])
}

/// Checks an option that is a time, and returns its word in the request. The daemon reads the time, in
/// the zone in which it writes the answer.
fn time(call: &Call, name: &str, text: Option<String>) -> Result<String, Exit> {
    match text {
        None => Ok("-".to_owned()),
        Some(text) if when::parse(&text, &log::local_time()).is_some() => Ok(text),
        Some(text) => Err(call.usage(&format!("--{name} '{text}': expected {}", when::FORMS))),
    }
}

/// Prints the numbers. They come from the daemon or, if none runs, from the spool, which is read as
/// the server's user.
fn print(call: &Call, config: &Config, words: &[&str]) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    let action = "see the statistics";
    let request: Vec<_> = ["stats"].into_iter().chain(words.iter().copied()).collect();
    let asked = control::ask(&config.socket, &request, &mut out, control::ANSWER_TIMEOUT);
    let printed = match asked {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            call.start.become_user(config)?;
            from_spool(config, words, &mut out)
        }
        result => result,
    };
    match printed.and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(forbidden(config, action)),
        Err(e) if e.to_string() == control::WRONG_ORDER => Err(call.usage(control::WRONG_ORDER)),
        result => result.map_err(|e| failed("read the statistics", &e)),
    }
}

fn from_spool(config: &Config, words: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let spool = Spool::open_read_only(&config.spool)?;
    let query = StatsQuery::parse(words, &log::local_time());
    let query = query.ok_or(io::ErrorKind::InvalidInput)?;
    if !query.is_in_order() {
        return Err(io::Error::other(control::WRONG_ORDER));
    }
    // Unlike root, other users can open the spool only if they may read the state.
    std::fs::read_dir(spool.state_directory())?;
    let state = State::at(&spool.state_directory());
    out.write_all(&control::plain(control::stats(&state, &query, &control::spool_gauges(&spool, true)).as_bytes()))?;
    out.flush()?;
    let _ = writeln!(io::stderr(), "penfoldctl: no daemon is running; these numbers are from the spool");
    Ok(())
}
