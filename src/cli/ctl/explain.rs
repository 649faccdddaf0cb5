//! `penfoldctl explain`: what happens to mail for an address, and why a message is still in the
//! queue.

use std::io::{self, Write};

use super::{Call, Command, Flag, forbidden};
use crate::cli::failed;
use crate::config::{Config, ConfigError, table};
use crate::control::{self, request};
use crate::exit::{self, Exit};
use crate::explain::{Offline, Query, Steps, Work, explain_address, explain_message};
use crate::spool::Spool;

const fn value(long: &'static str, hint: &'static str, about: &'static str) -> Flag {
    Flag { long, hint, about, ..Flag::NONE }
}

pub(super) const COMMAND: Command = Command {
    name: "explain",
    arguments: "address | id",
    about: "explain what happens to mail for an address, or why a message waits",
    flags: &[
        value("from", "address", "the sender"),
        value("ip", "address", "the address of the client"),
        value("helo", "name", "the name that the client gives in HELO"),
        value("login", "name", "the name with which the client logs in"),
        value("size", "octets", "the size of the message"),
        value("kind", "kind", "where the message comes from: smtp, submission, lmtp or local"),
        Flag { long: "no-dns", about: "do not use the DNS", ..Flag::NONE },
        Flag::JSON,
    ],
    complete: super::Complete::Ids,
    run,
};

/// The options with a value, and those without.
const OPTIONS: [&str; 6] = ["from", "ip", "helo", "login", "size", "kind"];
const SWITCHES: [&str; 2] = ["no-dns", "json"];

/// What only root and the server's user may do.
const ACTION: &str = "ask what happens to mail";

fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let Some(target) = call.words.first() else { return Err(call.usage("explain needs an address or a queue id")) };
    let mut query = Query::new(target);
    let given = OPTIONS.iter().filter_map(|name| Some((*name, call.options.opt_str(name)?)));
    let switched = SWITCHES.iter().filter(|name| call.options.opt_present(name)).map(|name| (*name, String::new()));
    for (name, value) in given.chain(switched) {
        query.set(name, &value).map_err(|why| call.usage(&why))?;
    }
    let words = query.words();
    let words: Vec<&str> = ["explain"].into_iter().chain(words.iter().map(String::as_str)).collect();
    if request::write(&words).len() > request::MAX_REQUEST {
        return Err(call.usage("the question is too long"));
    }
    let config = call.start.load()?;
    let mut answer = Vec::new();
    let asked = match control::ask(&config.socket, &words, &mut answer, control::ANSWER_TIMEOUT) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            call.start.become_user(&config)?;
            offline(call, &config, &query).map(|text| answer = control::plain(text.as_bytes()))?;
            Ok(())
        }
        result => result,
    };
    asked.map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => forbidden(&config, ACTION),
        _ => failed("ask the daemon", &e),
    })?;
    if answer.is_empty() {
        return Err(Exit {
            code: exit::UNAVAILABLE,
            text: vec![format!("{target} is not in the queue; see penfoldctl trace {target}")],
        });
    }
    exit::print(&answer)
}

/// Answers a query from the files, while no daemon runs.
fn offline(call: &Call, config: &Config, query: &Query) -> Result<String, Exit> {
    let failed = |what: &str, e: &io::Error| match e.kind() {
        io::ErrorKind::PermissionDenied => forbidden(config, ACTION),
        _ => failed(what, e),
    };
    let spool = Spool::open_read_only(&config.spool)
        .map_err(|e| failed(&format!("read the spool {}", config.spool.display()), &e))?;
    let opened = Offline::open(config.clone(), spool);
    let (offline, faults) = opened.map_err(|errors| call.start.explain_files(config, errors))?;
    complain(&faults);
    let scene = offline.scene();
    let steps: Option<Steps> = match query.id() {
        None => Some(explain_address(&scene, query)),
        Some(id) => {
            let explained = explain_message(&scene, query, id, &Work::default());
            explained.map_err(|e| failed("read the spool", &e))?
        }
    };
    Ok(steps.map(|steps| steps.render(query.format)).unwrap_or_default())
}

/// Says that no daemon runs, and which lines of the tables have errors.
fn complain(faults: &[ConfigError]) {
    let mut err = io::stderr();
    let _ = writeln!(err, "penfoldctl: no daemon is running; this explanation is from the files");
    for fault in table::limited(faults) {
        let _ = writeln!(err, "penfoldctl: {fault}");
    }
}
