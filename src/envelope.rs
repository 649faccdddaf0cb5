//! Defines the envelope of a message: its sender, its recipients, and their options.

use crate::address::Address;

/// The sender and the recipients of a message, independent of its header (RFC 5321 2.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path; `None` is the null reverse-path of a bounce.
    pub sender: Option<Address>,
    /// The final recipients: aliases are already expanded.
    pub recipients: Vec<Recipient>,
    /// The options that the client gave at MAIL.
    pub options: MailOptions,
    /// The source of the message.
    pub origin: Origin,
}

/// One final recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The final address.
    pub address: Address,
    /// The address given at RCPT, if an alias or the virtual table replaced it.
    pub original: Option<Address>,
    /// How the message is delivered.
    pub action: Action,
}

/// The maximum length of each command, path and user name in an [`Action`], in bytes.
pub const MAX_ACTION: usize = 1000;

/// How a message is delivered to a final recipient. Input from clients always means
/// [`Action::Deliver`]. Only tables and users' own files on this host give other actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// Ordinary delivery to the address.
    #[default]
    Deliver,
    /// `\name`: delivery into the mailbox, without reading the user's `.forward`.
    Direct,
    /// An alias that is expanded at delivery, because it includes a list from a file or has an
    /// owner.
    Expand,
    /// Delivery to a command.
    Run {
        /// The command as written in the table.
        command: Box<str>,
        /// The user as whom the command runs; `None` is the server's own user.
        user: Option<Box<str>>,
    },
    /// Delivery into a file or, if the name ends in `/`, into a Maildir.
    Append {
        /// The absolute path of the file or Maildir.
        file: Box<str>,
        /// The user as whom the file is written; `None` is the server's own user.
        user: Option<Box<str>>,
    },
}

/// The options that a client gives at MAIL, and that the next host gets, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailOptions {
    /// The type of the message's body.
    pub body: Body,
}

/// The BODY parameter of MAIL (RFC 6152).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Body {
    /// `BODY=7BIT`, or no such parameter.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBit,
}

/// The source of a message, which decides where a report of its failure is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// A client sent the message.
    #[default]
    Client,
    /// The message is a report from this server to a sender.
    Report,
    /// The message is a report from this server to the postmaster. If it fails, no report is sent.
    Postmaster,
}

impl Recipient {
    /// Makes a recipient with ordinary delivery to a final address.
    pub fn new(address: Address) -> Self {
        Self { address, original: None, action: Action::Deliver }
    }
}
