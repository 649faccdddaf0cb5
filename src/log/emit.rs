//! Logs the line of an event, and adds it to the history.
//!
//! The line of a message goes to the history of messages, and that of a session to the history of
//! refusals. What is found out about a message before it is accepted or refused goes where that line
//! goes.

use std::cell::RefCell;

use ::log::Level;

use crate::history::{self, Kind};

/// The maximum number of lines that are held back for one message.
const MAX_HELD: usize = 16;
/// The path of this module, which the log records of events have and no others.
pub(super) const MODULE: &str = module_path!();

thread_local! {
    /// The lines about the message that this thread receives.
    static HELD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Logs the line of an event: an id, the name of the event, and `key=value` pairs. All events of
/// this process go through this function.
pub(super) fn emit(level: Level, line: &str) {
    ::log::log!(level, "{line}");
    if history::is_kept() {
        remember(line, history::append);
    }
}

/// Adds a line to the history with `append`.
fn remember(line: &str, append: impl Fn(Kind, &[&str])) {
    let mut words = line.splitn(3, ' ');
    let (id, event) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_session = id.starts_with('s');
    let kind = if is_session { Kind::Refused } else { Kind::Messages };
    // If the thread is ending, its lines are not held back.
    let _ = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        match event {
            "checked" | "filter" if !is_session => {
                if held.len() < MAX_HELD {
                    held.push(line.to_owned());
                }
            }
            "accept" | "refused" | "discarded" | "lost" if !held.is_empty() => {
                let lines: Vec<&str> = held.iter().map(String::as_str).chain([line]).collect();
                append(kind, &lines);
                held.clear();
            }
            _ => append(kind, &[line]),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_about_a_message_follow_it_into_its_history() {
        let kept = RefCell::new(Vec::new());
        for line in [
            "s1 auth-failed user=x",
            "1A checked session=s1",
            "1A filter by=/x",
            "s1 filter by=/x result=refuse",
            "s1 refused command=DATA",
            "1B checked session=s1",
            "1B accept from=<>",
            "1C accept from=<>",
            "1C sent to=<a@b>",
            "- dmarc-report domain=x",
        ] {
            remember(line, |kind, lines| kept.borrow_mut().push((kind, lines.join("|"))));
        }
        let kept = kept.into_inner();
        let of = |kind| kept.iter().filter(|(of, _)| *of == kind).map(|(_, lines)| lines.as_str()).collect::<Vec<_>>();
        assert_eq!(
            of(Kind::Refused),
            [
                "s1 auth-failed user=x",
                "s1 filter by=/x result=refuse",
                "1A checked session=s1|1A filter by=/x|s1 refused command=DATA"
            ]
        );
        assert_eq!(
            of(Kind::Messages),
            [
                "1B checked session=s1|1B accept from=<>",
                "1C accept from=<>",
                "1C sent to=<a@b>",
                "- dmarc-report domain=x"
            ]
        );
    }
}
