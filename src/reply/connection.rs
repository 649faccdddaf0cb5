//! Replies about the connection as a whole: the banner, QUIT and every 421.

use super::{Reply, Status};

/// The greeting.
pub fn banner(hostname: &str) -> Reply {
    Reply::bare(220, vec![format!("{hostname} ESMTP penfold").into()])
}

/// No more connections are accepted, in total or from this client's network.
pub fn too_many_connections(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many connections, please try again later"))
}

/// No session can be started. The hostname may be unknown at this point.
pub fn not_available() -> Reply {
    Reply::new(421, Status(4, 3, 0), "Not available now, please try again later")
}

/// QUIT is accepted.
pub fn goodbye(hostname: &str) -> Reply {
    Reply::new(221, Status(2, 0, 0), format!("{hostname} closing connection, goodbye"))
}

/// The session reached its limit of errors or refusals.
pub fn too_many_errors(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many errors, closing connection"))
}

/// The session had too many commands without a message, or lasted too long without one.
pub fn too_idle(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many commands without mail, closing connection"))
}

/// The client sent nothing, or sent too slowly.
pub fn timed_out(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 4, 2), format!("{hostname} Timed out, closing connection"))
}

/// The daemon is shutting down.
pub fn shutting_down(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 3, 2), format!("{hostname} Shutting down, please try again later"))
}
