//! `penfoldctl hold`, `release`, `remove`, `bounce` and `requeue`: change messages in the queue, by
//! their ids or by selectors.
//!
//! With selectors, the daemon is asked for the ids first. If there are several, the user is asked
//! for confirmation. Only these messages are then changed.

use std::io::{self, BufRead, IsTerminal, Write};

use super::{Call, Command, Complete, Flag, ask, select};
use crate::cli::{failed, usage};
use crate::config::Config;
use crate::control::request;
use crate::exit::{self, Exit};

/// The option that changes several messages without a question.
pub(super) const YES: Flag =
    Flag { short: "y", long: "yes", about: "change several messages without a question", ..Flag::NONE };
/// The option that selects all messages.
const ALL: Flag = Flag { long: "all", about: "all messages", ..Flag::NONE };
const REASON: Flag =
    Flag { long: "reason", hint: "text", about: "the reason in the report to the sender", ..Flag::NONE };

const FLAGS: &[Flag] = &[select::FROM, select::TO, select::DOMAIN, select::AGE, select::STATE, select::LIMIT, ALL, YES];
const FLAGS_OF_BOUNCE: &[Flag] =
    &[REASON, select::FROM, select::TO, select::DOMAIN, select::AGE, select::STATE, select::LIMIT, ALL, YES];

/// The defaults for the commands of this file.
const CHANGE: Command = Command { arguments: "[id ...]", flags: FLAGS, complete: Complete::Ids, run, ..Command::NONE };

pub(super) const HOLD: Command =
    Command { name: "hold", about: "keep messages in the queue until they are released", ..CHANGE };
pub(super) const RELEASE: Command = Command { name: "release", about: "try held messages again", ..CHANGE };
pub(super) const REMOVE: Command = Command { name: "remove", about: "delete messages", ..CHANGE };
pub(super) const BOUNCE: Command =
    Command { name: "bounce", about: "return messages to their senders", flags: FLAGS_OF_BOUNCE, ..CHANGE };
pub(super) const REQUEUE: Command =
    Command { name: "requeue", about: "look up the recipients of messages anew", ..CHANGE };

/// The reason for which messages are returned, if none is given.
const DEFAULT_REASON: &str = "the administrator of this host has returned the message";
/// The maximum length of a reason, in octets.
const MAX_REASON: usize = 250;

/// A kind of change, in words.
struct Words {
    /// The word in a request.
    name: &'static str,
    /// "only root and ... may ...".
    action: &'static str,
    /// "2 messages ...".
    done: &'static str,
}

const KINDS: [Words; 6] = [
    Words { name: "hold", action: "hold messages", done: "held" },
    Words { name: "release", action: "release messages", done: "released" },
    Words { name: "remove", action: "remove messages", done: "removed" },
    Words { name: "bounce", action: "return messages", done: "returned" },
    Words { name: "requeue", action: "requeue messages", done: "requeued" },
    Words { name: "flush", action: "run the queue", done: "being tried" },
];

fn run(call: &Call) -> Result<(), Exit> {
    let mut selectors = select::words(call)?;
    let is_all = call.options.opt_present("all");
    let is_selective = is_all || !selectors.is_empty();
    let name = call.command.name;
    match (call.words.is_empty(), is_selective) {
        (true, false) => return Err(usage(vec![format!("{name} needs a queue id or a selector, such as --from")])),
        (false, true) => return Err(call.usage("queue ids and selectors cannot be combined")),
        _ => {}
    }
    if name == "release" && is_selective && !call.options.opt_present("state") {
        selectors.push("state=held".to_owned());
    }
    let reason = reason(call)?;
    let request: Vec<&str> = [name].into_iter().chain(reason.as_deref()).collect();
    let config = call.start.load()?;
    if is_selective {
        return change_selected(call, &config, &request, &selectors);
    }
    // An id that is given twice means one message.
    let mut ids: Vec<String> = Vec::new();
    for id in &call.words {
        if !ids.iter().any(|known| known.eq_ignore_ascii_case(id)) {
            ids.push(id.clone());
        }
    }
    change(&config, &request, &ids, false)
}

/// The reason for which messages are returned; `None` for another change.
fn reason(call: &Call) -> Result<Option<String>, Exit> {
    if call.command.name != "bounce" {
        return Ok(None);
    }
    let reason = call.options.opt_str("reason").unwrap_or_else(|| DEFAULT_REASON.to_owned());
    if reason.len() > MAX_REASON || reason.trim().is_empty() {
        return Err(call.usage(&format!("--reason: expected a text of at most {MAX_REASON} octets")));
    }
    Ok(Some(reason))
}

/// Changes the messages that selectors match.
///
/// # Errors
/// Those of [`change`], and an error if no message matches, or if the user does not confirm that several are
/// changed.
pub(super) fn change_selected(
    call: &Call,
    config: &Config,
    request: &[&str],
    selectors: &[String],
) -> Result<(), Exit> {
    let words: Vec<&str> = ["queue", "ids"].into_iter().chain(selectors.iter().map(String::as_str)).collect();
    let mut answer = Vec::new();
    ask(config, &words, &mut answer, kind(request).action)?;
    let answer = String::from_utf8_lossy(&answer);
    let found: Vec<(&str, u64)> = answer
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(id, size)| Some((id, size.parse().ok()?)))
        .collect();
    if let Some(line) = answer.lines().find(|line| line.starts_with("-- ")) {
        return Err(Exit { code: exit::TEMPFAIL, text: vec![line.to_owned()] });
    }
    let octets = found.iter().map(|(_, size)| size).fold(0_u64, |sum, size| sum.saturating_add(*size));
    match found.len() {
        0 => return Err(Exit { code: exit::UNAVAILABLE, text: vec!["no message matches".to_owned()] }),
        1 => {}
        _ if call.options.opt_present("yes") => {}
        count => confirm(&format!("{count} messages with {octets} octets match"), request.first().unwrap_or(&""))?,
    }
    let ids: Vec<String> = found.iter().map(|(id, _)| (*id).to_owned()).collect();
    change(config, request, &ids, true)
}

fn kind(request: &[&str]) -> &'static Words {
    KINDS.iter().find(|kind| request.first() == Some(&kind.name)).unwrap_or(&KINDS[0])
}

/// Asks the user whether to change several messages.
fn confirm(found: &str, change: &str) -> Result<(), Exit> {
    if !io::stdin().is_terminal() {
        return Err(usage(vec![format!("{found}: use -y to {change} all of them")]));
    }
    let mut answer = String::new();
    let _ = write!(io::stderr(), "{found}. Do you want to {change} all of them? [y/N] ");
    io::stdin().lock().read_line(&mut answer).map_err(|e| failed("read the answer", &e))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Exit { code: exit::UNAVAILABLE, text: vec!["nothing was changed".to_owned()] }),
    }
}

/// Changes the messages with these ids, and goes on if that fails for one of them. Prints how many
/// were changed. If the messages were selected, it is no error if some are gone meanwhile.
///
/// # Errors
/// If the daemon cannot be asked. If it refuses to change some messages, the text has a line with
/// the reason for each of them; the code is `TEMPFAIL` if all the refusals are temporary, otherwise
/// `UNAVAILABLE`.
fn change(config: &Config, request: &[&str], ids: &[String], is_selected: bool) -> Result<(), Exit> {
    let words = kind(request);
    let (mut done, mut gone) = (0, 0);
    let mut refused = Exit { code: exit::TEMPFAIL, text: Vec::new() };
    let mut rest = ids;
    while !rest.is_empty() {
        let (batch, more) = rest.split_at(batch_size(request, rest));
        rest = more;
        let mut answer = Vec::new();
        ask(config, &words_for(request, batch), &mut answer, words.action)?;
        let answer = String::from_utf8_lossy(&answer);
        for (id, line) in batch.iter().zip(answer.lines()) {
            let why = match line {
                "done" => {
                    done += 1;
                    continue;
                }
                "there is no such message" if is_selected => {
                    gone += 1;
                    continue;
                }
                line => line.strip_prefix("later: ").unwrap_or_else(|| {
                    refused.code = exit::UNAVAILABLE;
                    line
                }),
            };
            refused.text.push(format!("{id}: {why}"));
        }
        if answer.lines().count() < batch.len() {
            refused.text.push("the daemon has not answered for all messages".to_owned());
            break;
        }
    }
    if done > 0 || refused.text.is_empty() {
        let messages = if done == 1 { "1 message".to_owned() } else { format!("{done} messages") };
        let gone = if gone > 0 { format!(", {gone} gone meanwhile") } else { String::new() };
        exit::print(format!("{messages} {}{gone}\n", words.done))?;
    }
    if refused.text.is_empty() { Ok(()) } else { Err(refused) }
}

/// The words of the request to change these messages.
fn words_for<'a>(request: &[&'a str], ids: &'a [String]) -> Vec<&'a str> {
    ["change"].into_iter().chain(request.iter().copied()).chain(ids.iter().map(String::as_str)).collect()
}

/// The number of ids that fit into one request; at least one.
fn batch_size(request: &[&str], ids: &[String]) -> usize {
    let fits = |count: &usize| request::write(&words_for(request, &ids[..*count])).len() <= request::MAX_REQUEST;
    (1..=ids.len().min(64)).take_while(fits).last().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_as_many_ids_as_fit() {
        let ids = vec!["1K0TVZ6PH81DZ9JHPQF".to_owned(); 100];
        for (request, rest, size) in [(&["hold"][..], &ids[..], 50), (&["hold"], &ids[..3], 3)] {
            assert_eq!(batch_size(request, rest), size, "{request:?}");
        }
        let reason = "\u{f6}".repeat(MAX_REASON / 2);
        assert!(batch_size(&["bounce", &reason], &ids) > 5);
        assert_eq!(batch_size(&["hold"], &["x".repeat(5000)]), 1);
    }
}
