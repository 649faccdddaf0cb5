//! `penfoldctl trace`: what has happened to messages and clients.

use std::io;

use super::{Call, Command, Flag, forbidden};
use crate::address::Address;
use crate::cli::failed;
use crate::config::Config;
use crate::control::trace::{self, DEFAULT_LIMIT, MAX_LIMIT, Query, Sources};
use crate::control::{self, request_failed};
use crate::exit::{self, Exit};
use crate::json::Format;
use crate::log;
use crate::spool::Spool;
use crate::when;

pub(super) const COMMAND: Command = Command {
    name: "trace",
    arguments: "id | session | message-id | address | @domain | user | ip",
    about: "show what has happened to messages, also to past ones",
    flags: &[
        Flag { long: "since", hint: "time", about: "begin at this time", ..Flag::NONE },
        Flag { long: "limit", hint: "number", about: "show at most this number of messages", ..Flag::NONE },
        Flag::JSON,
    ],
    complete: super::Complete::Ids,
    run,
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let Some(subject) = call.words.first().filter(|word| !word.trim().is_empty()) else {
        return Err(call.usage(
            "trace needs a queue id, a session id, a Message-ID, an address, a domain with @, a login or an IP address",
        ));
    };
    let limit = match call.options.opt_str("limit") {
        None => DEFAULT_LIMIT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| call.usage(&format!("--limit needs a number from 1 to {MAX_LIMIT}")))?,
    };
    let format = if call.options.opt_present("json") { Format::Json } else { Format::Text };
    let since = call.options.opt_str("since");
    let since_time = since.as_deref().map_or(Some(0), |text| when::parse(text, &log::local_time()));
    let Some(since_time) = since_time else {
        return Err(call.usage(&format!("--since '{}': expected {}", since.unwrap_or_default(), when::FORMS)));
    };
    let config = call.start.load()?;
    let query = Query { subject, limit, since: since_time, submitted_by: None, format };
    let json = (format == Format::Json).then_some("json");
    let limit = limit.to_string();
    let words = ["trace"].into_iter().chain(json).chain([limit.as_str(), subject]);
    let words: Vec<&str> = words.chain(since.as_deref()).collect();
    let mut told = Vec::new();
    match control::ask(&config.socket, &words, &mut told, control::ANSWER_TIMEOUT) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            call.start.become_user(&config)?;
            told = from_spool(&config, &query)?;
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(forbidden(&config, "trace messages")),
        result => result.map_err(|e| Exit { code: exit::TEMPFAIL, text: vec![request_failed(&config.socket, &e)] })?,
    }
    print(&told, &query)
}

/// Prints the answer after its first line, which is the number of messages and events.
fn print(told: &[u8], query: &Query<'_>) -> Result<(), Exit> {
    let end = told.iter().position(|&b| b == b'\n').map_or(told.len(), |end| end + 1);
    let (count, told) = told.split_at(end);
    if count == b"0\n" {
        let mut text = vec![format!("the history has nothing about {}", query.subject)];
        if query.format == Format::Text {
            text.extend(hint(query.subject));
            text.extend(String::from_utf8_lossy(told).lines().map(str::to_owned));
        }
        return Err(Exit { code: exit::UNAVAILABLE, text });
    }
    exit::print(told)
}

/// A hint for a subject that was not found but has another likely meaning.
fn hint(subject: &str) -> Option<String> {
    let is_domain = subject.contains('.') && Address::parse(&format!("x@{subject}")).is_ok();
    (is_domain && subject.parse::<std::net::IpAddr>().is_err())
        .then(|| format!("for the mail from and to a domain: penfoldctl trace @{subject}"))
}

/// Reads the history while no daemon runs.
fn from_spool(config: &Config, query: &Query<'_>) -> Result<Vec<u8>, Exit> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::PermissionDenied => forbidden(config, "trace messages"),
        _ => failed(&format!("read the spool {}", config.spool.display()), &e),
    };
    let spool = Spool::open_read_only(&config.spool).map_err(failed)?;
    let directory = spool.state_directory();
    let mut told = Vec::new();
    let sources = Sources { directory: &directory, keep: config.history.keep, spool: &spool };
    trace::trace(&sources, query, &mut told).map_err(failed)?;
    Ok(control::plain(&told))
}
