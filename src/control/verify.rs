//! Where an address goes, for `sendmail -bv`: in the words of the router, which RCPT and
//! the queue ask too.
//!
//! One line for each final recipient. What is no address is refused as RCPT would.
//! Nothing is sent, and nobody is asked who is not on this host: that another one takes
//! the mail is not said.

use std::fmt::Write;

use crate::address::Address;
use crate::envelope::Recipient;
use crate::route::{Expansion, Place, Route, Router};

/// Whether an address goes anywhere, and where, in lines.
pub fn verify(router: &Router, text: &str) -> (bool, String) {
    let address = match Address::parse(text) {
        Ok(address) => router.qualify(&address),
        Err(why) => return (false, format!("{}: {why}\n", text.escape_debug())),
    };
    let finals = match router.place(address.domain()) {
        Place::Local => match router.expand(&address) {
            Expansion::Finals(finals) => finals,
            Expansion::Unknown => return (false, format!("{address}: user unknown\n")),
            Expansion::Refused(status, why) => return (false, format!("{address}: {status} {why}\n")),
            Expansion::Unsure(why) => return (false, format!("{address}: not known now: {why}\n")),
        },
        Place::Relay | Place::Elsewhere => vec![Recipient::new(address.clone())],
    };
    let (mut goes, mut lines) = (false, String::new());
    for recipient in finals {
        let last = &recipient.address;
        let whence = if *last == address { String::new() } else { format!("{address} -> ") };
        let (good, whither) = whither(&router.route_of(&recipient));
        goes |= good;
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{whence}{last}: {whither}");
    }
    (goes, lines)
}

fn whither(route: &Route) -> (bool, String) {
    match route {
        Route::Mailbox(mailbox) => (true, format!("mailbox {}", mailbox.path.display())),
        Route::Command(command, _) => (true, format!("command |{command}")),
        Route::List => (true, "list".to_owned()),
        Route::Unknown => (false, "user unknown".to_owned()),
        Route::Refused(status, why) => (false, format!("{status} {why}")),
        Route::Unsure(_, why) => (false, format!("not known now: {why}")),
        other => (true, other.destination().unwrap_or_default()),
    }
}
