//! The control socket, over which programs on this host send requests to a running daemon.
//!
//! The client sends one line of words (see `request`). The daemon answers in lines, of which the
//! first is `ok` or an error, and closes the connection. The kernel identifies the client
//! (SO_PEERCRED). Root and the user of the daemon may make all requests. Other users may submit
//! mail, see what happens to the messages that they have submitted (`queue`, `show`, `trace`), and verify
//! addresses. The number of connections per
//! user is limited. After the request `submit` and its answer `ok`, the connection is an SMTP
//! session. The client sends nothing before that answer. If a client passes descriptors over the
//! socket, the kernel closes them.
//!
//! - `actions`: the actions that answer requests
//! - `change`: holds, releases, removes, returns, requeues and flushes messages
//! - `client`: sends a request and copies the answer
//! - `config`: the configuration in force
//! - `connections`: the limits on connections
//! - `counts`: the messages of the queue counted by sender, domain, reason or age
//! - `dropped`: takes messages from the drop directory
//! - `explain`: what happens to mail for an address
//! - `hosts`: the listing of other hosts
//! - `list`: the listing of the queue
//! - `listing`: the request to list the queue
//! - `messages`: reads the messages that a selection matches
//! - `numbers`: the present state, for statistics
//! - `recipients`: what next hosts have said about recipients
//! - `reload`: a reload, and its result
//! - `request`: the form of a request line
//! - `selection`: which messages of the queue are listed or changed
//! - `server`: accepts connections and answers requests
//! - `show`: one message of the queue
//! - `stats`: the answers to `stats` and `top`
//! - `status`: the daemon, and what it is doing
//! - `trace`: what has happened to messages and clients
//! - `verify`: the destinations of an address, for `sendmail -bv`
//! - `visible`: what an unprivileged user may see of a message

use std::io;
use std::path::Path;

mod actions;
mod change;
mod client;
mod config;
mod connections;
mod counts;
mod dropped;
mod explain;
mod hosts;
mod list;
mod listing;
mod messages;
mod numbers;
mod recipients;
mod reload;
pub mod request;
mod selection;
mod server;
pub mod show;
mod stats;
mod status;
pub mod trace;
mod verify;
mod visible;

pub use actions::Control;
pub use client::{Plain, ask, ask_exactly, knock, plain};
pub use config::config;
pub use dropped::{Dropped, Waker, recover};
pub use listing::Listing;
pub use numbers::gauges;
pub use numbers::spool_gauges;
pub use reload::{Reloaded, Reloads};
pub use selection::Selection;
pub use server::{bind, leave, serve};
pub use stats::{Query as StatsQuery, WRONG_ORDER, answer as stats, matters, octets, scarce};
pub use status::Listening;

/// How long a client waits for each part of an answer.
pub const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// The answer to a request that the user may not make.
const FORBIDDEN: &str = "permission denied";

/// The answer to a client if a limit on connections is reached.
pub const BUSY: &str = "too many connections";

/// The answer to a malformed or unknown request.
const NOT_UNDERSTOOD: &str = "malformed request";

/// Whether an answer is [`FORBIDDEN`], or the text that an older daemon sends instead. An older
/// daemon may still run after an upgrade.
fn is_forbidden(answer: &str) -> bool {
    matches!(answer, FORBIDDEN | "you may not do that")
}

/// Whether an answer is [`BUSY`], or the text that an older daemon sends instead.
pub fn is_busy(answer: &[u8]) -> bool {
    answer == BUSY.as_bytes() || answer == b"too many are asking"
}

/// The error text if no daemon listens on the socket.
pub fn not_running(socket: &Path, error: &io::Error) -> String {
    format!("the mail system is not running (connect {}: {error})", socket.display())
}

/// The error text for a request that failed.
pub fn request_failed(socket: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => not_running(socket, error),
        _ => format!("the mail system does not answer: {error}"),
    }
}
