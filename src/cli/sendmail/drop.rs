//! Keeps a message in the drop directory while no daemon runs.
//!
//! Nothing is checked with the daemon's tables: the daemon does that when it takes the message, and
//! reports a recipient that does not exist to the sender.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::dialogue::{Envelope, parent};
use crate::config::Config;
use crate::control;
use crate::smtp::extensions::Extensions;
use crate::submit::drop::{self, file};

/// The time limit for telling the daemon. The message is safe without that.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Keeps a message. If this returns no error, the message is on stable storage.
///
/// # Errors
/// A text that says why the message was not kept.
pub fn keep(config: &Config, directory: &Path, envelope: &Envelope<'_>, message: &mut dyn Read) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| format!("keep it in {}: {why}", directory.display());
    if let Some(why) = drop::fault_for_users(directory, &config.spool) {
        return Err(failed(&why));
    }
    let mut content = Vec::new();
    message.take(config.limits.message_size + 1).read_to_end(&mut content).map_err(|e| failed(&e))?;
    let size = content.len() as u64;
    if size > config.limits.message_size {
        return Err(failed(&format_args!("it is longer than {} octets", config.limits.message_size)));
    }
    let mut extensions = Extensions { eight_bit: true, dsn: true, smtp_utf8: true, ..Extensions::default() };
    extensions.withhold(&config.smtp.disable);
    let head = file::head(size, &parent(), envelope.commands(&extensions, size));
    drop::keep::keep(directory, &head, &mut content.as_slice()).map_err(|e| failed(&e))
}

/// Tells the daemon of a message in the directory, if a daemon has started meanwhile. If this fails,
/// no daemon had started when the message was already in the directory. The start of the next daemon
/// finds it.
pub fn notify(socket: &Path) {
    let _ = control::ask(socket, &["dropped"], &mut io::sink(), WAKE_TIMEOUT);
}
