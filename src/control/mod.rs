//! The control socket: what a running daemon is asked and told.
//!
//! One line of words from the client, an answer in lines from the daemon, the
//! first of which is `ok` or says what is wrong; then the connection is closed.
//! The kernel says who is calling (SO_PEERCRED): root and the user of the daemon may do
//! everything, others nothing yet. Nothing that comes in is longer than [`MAX_REQUEST`].

mod client;
mod list;
pub mod passwd;
mod server;

pub use client::ask;
pub use list::list;
pub use server::{Orders, bind, serve};

/// How long a person waits for a daemon that says nothing.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// The answer to whom the daemon does not serve.
const FORBIDDEN: &str = "you may not do that";

/// The longest request line.
const MAX_REQUEST: usize = 1024;
