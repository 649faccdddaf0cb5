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
    /// What is done with the message.
    pub action: Action,
}

/// The longest command, path and user's name in an [`Action`], in octets.
pub const MAX_ACTION: usize = 1000;

/// What is done for a final recipient. Only tables and people's own files here say
/// anything but the first: nothing that a client says ever becomes another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// What is done with mail for the address.
    #[default]
    Deliver,
    /// `\name`: into the mailbox, whatever the user's `.forward` says.
    Direct,
    /// What the alias of this name stands for is found out at the delivery: it names a
    /// list in a file, or has an owner.
    Expand,
    /// Given to a command.
    Run {
        /// As it is written in the table.
        command: Box<str>,
        /// Whose command it is; `None` is the server's own user.
        user: Option<Box<str>>,
    },
    /// Put into a file or, where the name ends in `/`, into a Maildir.
    Append {
        /// The absolute path.
        file: Box<str>,
        /// With whose rights; `None` is the server's own user.
        user: Option<Box<str>>,
    },
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
        Self { address, original: None, action: Action::Deliver }
    }
}
