//! Makes the replies about the connection as a whole: the banner, QUIT, and 421.

use super::{Reply, Status};

/// Greets the client. `protocol` is `ESMTP` or `LMTP`.
pub fn banner(hostname: &str, protocol: &str) -> Reply {
    Reply::bare(220, vec![format!("{hostname} {protocol} penfold").into()])
}

/// Refuses a connection, because there are too many in total or from the client's network.
pub fn too_many_connections(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many connections, please try again later"))
}

/// Refuses a connection, because no session can be started. The hostname may be unknown at this
/// point.
pub fn not_available() -> Reply {
    Reply::new(421, Status(4, 3, 0), "Not available now, please try again later")
}

/// Refuses a client that has sent something before the banner.
pub fn too_early(hostname: &str) -> Reply {
    Reply::new(554, Status(5, 5, 1), format!("{hostname} You spoke before the greeting"))
}

/// Accepts QUIT.
pub fn goodbye(hostname: &str) -> Reply {
    Reply::new(221, Status(2, 0, 0), format!("{hostname} closing connection, goodbye"))
}

/// Ends a session that has reached its limit of errors or refusals.
pub fn too_many_errors(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many errors, closing connection"))
}

/// Ends a session that had too many commands, or too much time, without a message.
pub fn too_idle(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many commands without mail, closing connection"))
}

/// Ends a session whose client sends nothing, or sends too slowly.
pub fn timed_out(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 4, 2), format!("{hostname} Timed out, closing connection"))
}

/// Ends a session because the daemon is shutting down.
pub fn shutting_down(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 3, 2), format!("{hostname} Shutting down, please try again later"))
}
