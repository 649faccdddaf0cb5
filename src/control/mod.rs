//! The control socket: what a running daemon is asked and told.
//!
//! The client sends one line of words (see `request`), the daemon an answer in lines, the
//! first of which is `ok` or says what is wrong; then the connection is closed.
//! The kernel says who is calling (SO_PEERCRED): root and the user of the daemon may do
//! everything; other users may submit, list what they have submitted, and ask where an
//! address goes, with a limit on connections per user.
//! After `submit` and its `ok` the connection is an SMTP session; the client sends nothing
//! before the answer. Descriptors that are passed over the socket are closed by the kernel.

use std::io;
use std::path::Path;

mod client;
mod hosts;
mod list;
pub mod passwd;
mod request;
pub mod sendmail;
mod server;
mod verify;

pub use client::ask;
pub use hosts::hosts;
pub use list::list;
pub use server::{Orders, bind, serve};
pub use verify::verify;

/// How long a person waits for a daemon that says nothing.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// The answer to whom the daemon does not serve.
const FORBIDDEN: &str = "you may not do that";

/// The answer to one client too many.
const BUSY: &str = "too many are asking";

/// What is said where no daemon listens.
fn not_running(socket: &Path, error: &io::Error) -> String {
    format!("the mail system is not running (connect {}: {error})", socket.display())
}

/// What is said of a daemon that could not be asked.
pub fn trouble_with(socket: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => not_running(socket, error),
        _ => format!("the mail system does not answer: {error}"),
    }
}
