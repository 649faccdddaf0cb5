//! Logs the line of an event.

use ::log::Level;

/// Logs the line of an event: an id, the name of the event, and `key=value` pairs. All events of
/// this process go through this function.
pub(super) fn emit(level: Level, line: &str) {
    ::log::log!(level, "{line}");
}
