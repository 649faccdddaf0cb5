//! Sender and recipients of one message, and their options.

use crate::address::Address;

/// Who a message is from and for, apart from what its header says (RFC 5321 2.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path; `None` is the null path of a bounce.
    pub sender: Option<Address>,
    /// The final recipients: aliases are already expanded.
    pub recipients: Vec<Recipient>,
    /// What MAIL said of the content.
    pub body: Body,
    /// Where the message comes from.
    pub origin: Origin,
}

/// One final recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Where it goes.
    pub address: Address,
    /// What RCPT named, where an alias or the virtual table made something else of it.
    pub original: Option<Address>,
}

/// The BODY parameter of MAIL (RFC 6152).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Body {
    /// Nothing was said, or 7BIT.
    #[default]
    SevenBit,
    /// 8BITMIME.
    EightBit,
}

/// Who made a message; it decides who is told when it fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// A client gave it to us.
    #[default]
    Client,
    /// A report of ours to a sender.
    Report,
    /// A report of ours to the postmaster: if that fails too, nobody is told.
    Postmaster,
}

impl Recipient {
    /// A recipient that is its own final address.
    pub fn new(address: Address) -> Self {
        Self { address, original: None }
    }
}
