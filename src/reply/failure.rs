//! Makes the replies to MAIL and DATA when this server fails.

use super::{Reply, Status};

/// Defers a message, because the spool has no room or cannot be written to.
pub fn no_storage() -> Reply {
    Reply::new(452, Status(4, 3, 1), "Insufficient storage, please try again later")
}

/// Defers a message, because this server failed in any other way.
pub fn local_error() -> Reply {
    Reply::new(451, Status(4, 3, 0), "Something went wrong here, please try again later")
}
