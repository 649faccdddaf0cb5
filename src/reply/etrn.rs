//! Makes the replies to ETRN (RFC 1985).

use std::fmt;

use super::{Reply, Status};

/// Says that attempts have begun; it is not known whether mail waits.
pub fn started(node: &impl fmt::Display) -> Reply {
    Reply::new(250, Status(2, 0, 0), format!("Queuing for node {node} started"))
}

/// Says that no mail waits.
pub fn nothing(node: &impl fmt::Display) -> Reply {
    Reply::new(251, Status(2, 0, 0), format!("No messages waiting for node {node}"))
}

/// Says that attempts have begun for mail that waits; more may wait.
pub fn some(node: &impl fmt::Display) -> Reply {
    Reply::new(252, Status(2, 0, 0), format!("Pending messages for node {node} started"))
}

/// Says that attempts have begun for this number of messages.
pub fn all(node: &impl fmt::Display, count: usize) -> Reply {
    Reply::new(253, Status(2, 0, 0), format!("{count} pending messages for node {node} started"))
}

/// Says that the queue does not answer.
pub fn unable(node: &impl fmt::Display) -> Reply {
    Reply::new(458, Status(4, 3, 0), format!("Unable to queue messages for node {node}"))
}

/// Refuses a client that may not ask for any mail.
pub fn client_not_allowed(node: &impl fmt::Display) -> Reply {
    Reply::new(459, Status(4, 7, 1), format!("Node {node} not allowed: this client may not ask for mail"))
}

/// Refuses a domain that is not in the configuration.
pub fn node_not_allowed(node: &impl fmt::Display) -> Reply {
    Reply::new(459, Status(4, 7, 1), format!("Node {node} not allowed: not a domain whose mail can be asked for"))
}

/// Refuses the name of a queue.
pub fn no_such_queue(node: &impl fmt::Display) -> Reply {
    Reply::new(459, Status(4, 7, 1), format!("Node {node} not allowed: no queue here has a name"))
}

/// Refuses ETRN in a transaction.
pub fn in_transaction() -> Reply {
    Reply::new(503, Status(5, 5, 1), "ETRN is not permitted in a transaction")
}
