//! Makes the replies to RCPT of a client that may not relay: what the rules of `[policy]` refuse.

use std::fmt;
use std::net::IpAddr;

use super::{Reply, Status};

/// Refuses a recipient, because a line of the access table says so.
pub fn access(code: u16, status: Status, text: &str) -> Reply {
    Reply::new(code, status, text.to_owned())
}

/// Refuses a client that greets with a name or an address of this host.
pub fn own_hello(hello: &str) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("HELO {hello} is this host, and not yours"))
}

/// Refuses a sender whose domain has neither a mail exchanger nor an address (RFC 7505 4.2).
pub fn no_such_domain(sender: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 1, 8), format!("{sender} The domain of the sender accepts no mail: it does not exist"))
}

/// Refuses a sender whose domain has a null MX (RFC 7505 4.2).
pub fn null_exchanger(sender: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 27), format!("{sender} The domain of the sender accepts no mail"))
}

/// Defers a sender whose domain cannot be looked up now.
pub fn unknown_domain(sender: &impl fmt::Display) -> Reply {
    let text = "The domain of the sender cannot be looked up now, please try again later";
    Reply::new(451, Status(4, 4, 3), format!("{sender} {text}"))
}

/// Refuses a client that DNS lists contain.
pub fn listed(client: Option<IpAddr>, lists: &str) -> Reply {
    let client = client.map_or_else(|| "client".to_owned(), |address| format!("[{address}]"));
    Reply::new(550, Status(5, 7, 1), format!("Mail from {client} is refused because of {lists}"))
}

/// Refuses a client that may not use the domain of HELO or of the sender (RFC 7372 3.2).
pub fn spf_fail(domain: &str, client: Option<IpAddr>, explanation: Option<&str>) -> Reply {
    let client = client.map_or_else(|| "this client".to_owned(), |address| format!("[{address}]"));
    let why = explanation.filter(|text| !text.is_empty()).map(|text| format!(": {text}")).unwrap_or_default();
    Reply::new(550, Status(5, 7, 23), format!("SPF: {domain} does not permit mail from {client}{why}"))
}

/// Defers a message, because the SPF record of `domain` cannot be looked up now (RFC 7372 3.2).
pub fn spf_trouble(domain: &str) -> Reply {
    Reply::new(451, Status(4, 7, 24), format!("SPF of {domain} cannot be looked up now, please try again later"))
}

/// Defers a recipient of a client that is not known yet.
pub fn greylisted(seconds: u64) -> Reply {
    Reply::new(451, Status(4, 7, 1), format!("Greylisted, please try again in {seconds} seconds"))
}

/// Defers a message, because the client has reached its limit of messages.
pub fn too_many_messages(limit: usize) -> Reply {
    Reply::new(
        450,
        Status(4, 7, 1),
        format!("The limit of {limit} messages an hour is reached; please try again later"),
    )
}

/// Defers a recipient of a client that has named too many unknown ones.
pub fn too_many_unknown(limit: usize) -> Reply {
    let text = "unknown recipients an hour is reached; please try again later";
    Reply::new(450, Status(4, 7, 1), format!("The limit of {limit} {text}"))
}
