//! The options that select messages, for the commands that list or change messages.

use super::{Call, Flag};
use crate::control::Selection;
use crate::exit::Exit;

pub(super) const FROM: Flag =
    Flag { long: "from", hint: "address", about: "messages from this address, @domain or <>", ..Flag::NONE };
pub(super) const TO: Flag =
    Flag { long: "to", hint: "address", about: "messages that wait for this address or @domain", ..Flag::NONE };
pub(super) const DOMAIN: Flag =
    Flag { long: "domain", hint: "domain", about: "messages that wait for this domain or @domain", ..Flag::NONE };
pub(super) const AGE: Flag =
    Flag { long: "age", hint: "time", about: "messages that are at least this old, such as 2h", ..Flag::NONE };
pub(super) const STATE: Flag = Flag {
    long: "state",
    hint: "state",
    about: "messages that are running, ready, deferred, scheduled or held",
    ..Flag::NONE
};
pub(super) const LIMIT: Flag =
    Flag { long: "limit", hint: "number", about: "at most this number of messages", ..Flag::NONE };

/// The names of the options.
const NAMES: [&str; 6] = ["from", "to", "domain", "age", "state", "limit"];

/// Returns the words of a request for the options of a command line, such as `from=@example.org`.
///
/// # Errors
/// If the value of an option is malformed.
pub(super) fn words(call: &Call) -> Result<Vec<String>, Exit> {
    let mut words = Vec::new();
    for name in NAMES {
        let Some(value) = call.options.opt_str(name) else { continue };
        let word = format!("{name}={value}");
        if let Err(expected) = Selection::default().take(&word) {
            return Err(call.usage(&format!("--{name} {value}: expected {}", expected.unwrap_or_default())));
        }
        words.push(word);
    }
    Ok(words)
}
