//! What an unprivileged user may see of a message that this user has sent. Where an alias or a route
//! of this site leads is hidden.

use std::io::Read;

use crate::address::Address;
use crate::destination::{Destination, HostTarget, SMTP_PORT};
use crate::envelope::Recipient;
use crate::message::trace;
use crate::spool::{Entry, INTERRUPTED};

/// Where mail goes, as far as it matters for what may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the mail exchangers of the recipient's own domain, which everyone can look up.
    Public,
    /// To a mailbox or a command of this host.
    Here,
    /// To a host that this site has chosen, or it is not known.
    Hidden,
}

impl Way {
    /// The way of mail for `address` to this destination.
    pub fn of(destination: Option<&Destination>, address: &Address) -> Self {
        match destination {
            Some(Destination::Remote(HostTarget::Mx { domain, port: SMTP_PORT }, _))
                if domain.eq_ignore_ascii_case(address.domain()) =>
            {
                Self::Public
            }
            Some(Destination::Local | Destination::User(_) | Destination::Command(_)) => Self::Here,
            Some(Destination::Remote(..)) | None => Self::Hidden,
        }
    }
}

/// Returns the uid of the local user who submitted a message, from its first trace field; `None` if
/// the field names no such user.
pub fn submitter(entry: &Entry) -> Option<u32> {
    const MAX_READ: u64 = 2048;
    let mut text = Vec::new();
    entry.content().take(MAX_READ).read_to_end(&mut text).ok()?;
    trace::submitter(&text, &entry.id().to_string())
}

/// The address that the client gave.
pub fn given(recipient: &Recipient) -> &Address {
    recipient.original.as_ref().unwrap_or(&recipient.address)
}

/// Whether a table of this host has replaced the address that the client gave.
pub fn is_replaced(recipient: &Recipient) -> bool {
    *given(recipient) != recipient.address
}

/// The recipient without the address to which an alias leads.
pub fn as_given(recipient: &Recipient) -> Recipient {
    Recipient { options: recipient.options.clone(), ..Recipient::new(given(recipient).clone()) }
}

/// A result from the note of a message, as the sender may see it: without the hosts, the mailboxes
/// and the commands of this site.
pub fn result(text: &str, way: Way) -> String {
    let rest = without_host(text);
    let is_reply =
        |text: &str| text.as_bytes().first_chunk().is_some_and(|code: &[u8; 3]| code.iter().all(u8::is_ascii_digit));
    match way {
        Way::Public => text.to_owned(),
        _ if text.starts_with(INTERRUPTED) => text.to_owned(),
        Way::Hidden if is_reply(&rest) => rest,
        Way::Hidden => "the next host did not take it".to_owned(),
        // The path of a mailbox, or a command, may have blanks.
        Way::Here if text.starts_with(['/', '|', '"']) || rest.split(' ').any(|word| word.contains('/')) => {
            "not delivered on this host".to_owned()
        }
        Way::Here => rest,
    }
}

/// Removes the host from the front of a result.
pub fn without_host(result: &str) -> String {
    let (first, rest) = result.split_once(' ').unwrap_or(("", result));
    let is_host = first.contains('[') || first.contains('/') || first.contains('.') && first.contains(':');
    if is_host { rest.to_owned() } else { result.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPort, Scheme};

    #[test]
    fn a_sender_sees_no_host_of_this_site() {
        let relay = "mx.inside.test[192.0.2.1]:25 ";
        for (text, way, shown) in [
            ("450 4.2.0 later", Way::Public, "mx.inside.test[192.0.2.1]:25 450 4.2.0 later"),
            ("450 4.2.0 later", Way::Hidden, "450 4.2.0 later"),
            ("timed out", Way::Hidden, "the next host did not take it"),
        ] {
            assert_eq!(result(&format!("{relay}{text}"), way), shown);
        }
        for (text, way, shown) in [
            ("looking up inside.test: no such domain", Way::Hidden, "the next host did not take it"),
            ("[127.0.0.1]:25 connecting: refused", Way::Hidden, "the next host did not take it"),
            ("/var/mail/jon b the disk is full", Way::Here, "not delivered on this host"),
            ("|/bin/x -a exit 75", Way::Here, "not delivered on this host"),
            ("the disk is full", Way::Here, "the disk is full"),
            (INTERRUPTED, Way::Here, INTERRUPTED),
            (INTERRUPTED, Way::Hidden, INTERRUPTED),
        ] {
            assert_eq!(result(text, way), shown, "{text}");
        }
        let address: Address = "jon@Far.test".parse().expect("an address");
        let host = HostPort { host: "127.0.0.1".into(), port: 25, scheme: Scheme::Smtp };
        for (destination, way) in [
            (Some(Destination::mx("far.test")), Way::Public),
            (Some(Destination::mx("relay.test")), Way::Hidden),
            (Some(Destination::Remote(HostTarget::Mx { domain: "far.test".into(), port: 26 }, None)), Way::Hidden),
            (Some(Destination::Remote(HostTarget::hosts(vec![host]), None)), Way::Hidden),
            (Some(Destination::Local), Way::Here),
            (None, Way::Hidden),
        ] {
            assert_eq!(Way::of(destination.as_ref(), &address), way, "{destination:?}");
        }
    }
}
