//! Defines the envelope of a message: its sender, its recipients, and their options.

use std::fmt;

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
    /// The address given at RCPT, if an alias or the virtual table replaced it. For a copy, always the
    /// address that gets the copy, even if nothing replaced it.
    pub original: Option<Address>,
    /// How the message is delivered.
    pub action: Action,
    /// The options that the client gave at RCPT.
    pub options: RcptOptions,
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
    /// Nothing is delivered, because several other recipients have replaced this address. The
    /// sender gets a report about that.
    Replaced,
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

/// The options that a client gives at MAIL. The next host gets them, too, if it offers their
/// extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailOptions {
    /// The type of the message's body.
    pub body: Body,
    /// Whether addresses and header fields may be UTF-8 (SMTPUTF8, RFC 6531).
    pub utf8: bool,
    /// The part of the message that a failure report contains (RET, RFC 3461).
    pub ret: Option<Ret>,
    /// The sender's name for the envelope (ENVID, RFC 3461): xtext of at most [`MAX_ENVID`]
    /// characters, as the client sent it.
    pub envid: Option<Box<str>>,
    /// The time by which the message is to be delivered (BY, RFC 2852).
    pub deliver_by: Option<DeliverBy>,
    /// The priority, from -9 to 9; 0 is the default (MT-PRIORITY, RFC 6710).
    pub priority: i8,
    /// The time before which the message is not delivered, in seconds since 1970 (RFC 4865).
    pub release: Option<u64>,
    /// The number of seconds until that time, if the client gave HOLDFOR; a report repeats it.
    pub hold_for: Option<u32>,
    /// Whether the message needs TLS on its way (RFC 8689).
    pub tls: MessageTls,
}

/// Whether a message needs TLS on its way to other hosts (RFC 8689).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MessageTls {
    /// The sender has not said so. The TLS policy of each host decides.
    #[default]
    Default,
    /// The sender has given REQUIRETLS at MAIL. The message goes only over TLS, to hosts whose
    /// certificate is authenticated and that offer REQUIRETLS themselves.
    Required,
    /// The message has the header field `TLS-Required: No`, and the sender has not given REQUIRETLS.
    /// The message goes without TLS where TLS fails, even if the recipient's domain demands TLS by
    /// DANE or MTA-STS.
    Indifferent,
}

impl MessageTls {
    /// What a delivery must obey. A report, which has no sender, is sent even if no host can take it
    /// as a message that needs TLS: nobody would learn otherwise what became of the message that it
    /// is about (RFC 8689 5).
    #[must_use]
    pub fn enforced(self, has_sender: bool) -> Self {
        if self == Self::Required && !has_sender { Self::Default } else { self }
    }
}

/// The BODY parameter of MAIL (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Body {
    /// `BODY=7BIT`, or no such parameter.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBit,
    /// `BODY=BINARYMIME`. The header consists of lines that end in LF. The body is stored octet for
    /// octet as it came, because it need not consist of lines.
    Binary,
}

/// The RET parameter of MAIL (RFC 3461 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// `RET=FULL`: the whole message.
    Full,
    /// `RET=HDRS`: the header.
    Headers,
}

/// The BY parameter of MAIL (RFC 2852 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverBy {
    /// The time by which the message is to be delivered, in seconds since 1970.
    pub deadline: i64,
    /// What happens at that time.
    pub mode: ByMode,
    /// Whether a report is sent whenever the message is passed on to another host (the flag T).
    pub trace: bool,
}

/// What happens to a message that is not delivered by the time in [`DeliverBy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByMode {
    /// The message fails, and the sender gets a report.
    Return,
    /// The sender gets a report, and the message is tried further.
    Notify,
}

/// The maximum length of ENVID, in characters of xtext (RFC 3461 4.4).
pub const MAX_ENVID: usize = 100;

/// The maximum length of ORCPT, in characters (RFC 3461 4.2).
pub const MAX_ORCPT: usize = 500;

/// The options that a client gives at RCPT. The next host gets them, too, if it offers DSN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptOptions {
    /// When the sender gets a report about this recipient; `None` if the client did not say.
    pub notify: Option<Notify>,
    /// The address for which the sender's host first accepted the message (ORCPT, RFC 3461): a
    /// type, a semicolon, and an address in xtext, together at most [`MAX_ORCPT`] characters, as
    /// the client sent them.
    pub orcpt: Option<Box<str>>,
}

impl RcptOptions {
    /// Whether the sender gets a report if the delivery fails.
    #[must_use]
    pub fn wants_failure(&self) -> bool {
        self.notify.is_none_or(|notify| notify.failure)
    }

    /// Whether the sender gets a report if the delivery is delayed.
    #[must_use]
    pub fn wants_delay(&self) -> bool {
        self.notify.is_none_or(|notify| notify.delay)
    }

    /// Whether the sender gets a report about a successful delivery.
    #[must_use]
    pub fn wants_success(&self) -> bool {
        self.notify.is_some_and(|notify| notify.success)
    }

    /// The options without the wish for reports about successes.
    #[must_use]
    pub fn without_success(&self) -> Self {
        Self { notify: self.notify.map(|notify| Notify { success: false, ..notify }), orcpt: self.orcpt.clone() }
    }
}

/// The NOTIFY parameter of RCPT (RFC 3461 4.1). All fields are false for `NOTIFY=NEVER`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notify {
    /// A report is sent when the message is delivered.
    pub success: bool,
    /// A report is sent when the delivery fails.
    pub failure: bool,
    /// A report is sent when the delivery is delayed.
    pub delay: bool,
}

impl Notify {
    /// The reports that a sender gets who gives no NOTIFY.
    pub const DEFAULT: Self = Self { success: false, failure: true, delay: true };

    /// The reports that one of the two asks for.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            success: self.success || other.success,
            failure: self.failure || other.failure,
            delay: self.delay || other.delay,
        }
    }

    /// Parses the value of NOTIFY, in upper or lower case. Returns `None` if it is malformed.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut notify = Self::default();
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(notify);
        }
        for word in value.split(',') {
            let wanted = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return None,
            };
            *wanted = true;
        }
        Some(notify)
    }
}

/// Prints the value of NOTIFY in upper case.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let words: Vec<&str> = words.into_iter().filter_map(|(is_wanted, word)| is_wanted.then_some(word)).collect();
        if words.is_empty() { f.write_str("NEVER") } else { f.write_str(&words.join(",")) }
    }
}

/// The source of a message, which decides where a report of its failure is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// A client sent the message.
    #[default]
    Client,
    /// The message was submitted, or a list with an owner passes it on, so that its sender is no
    /// stranger's choice. If the message is sent on to another host, its sender is not rewritten, and
    /// may decide by which hosts it leaves. Submitted messages have this mark only if it matters: if
    /// the sender is not local, or if hosts depend on senders.
    Own,
    /// The message is a DMARC report to a domain elsewhere. Strangers have chosen the recipient and
    /// the mail hosts of its domain, so it is sent only to public addresses, unless the
    /// configuration names the mail host. If it fails, no report is sent.
    DmarcReport,
    /// The message is a TLS report to a domain elsewhere. Like a DMARC report, it is sent only to
    /// public addresses, and if it fails, no report is sent. The connection by which it is sent is
    /// not counted for TLS reports.
    TlsReport,
    /// The message is a report from this server to a sender.
    Report,
    /// The message is a report from this server to the postmaster. If it fails, no report is sent.
    Postmaster,
}

/// A folder of a Maildir (Maildir++), such as `.Junk`. A suspicious message goes into such a folder
/// of each recipient's Maildir.
///
/// The name is a dot and at least one part, and dots separate the parts. A part has letters,
/// digits, the characters `-_&,+` and single blanks within it, so that no name leads out of the
/// Maildir.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Folder(Box<str>);

/// The maximum length of the name of a folder, in bytes.
pub const MAX_FOLDER: usize = 100;

impl Folder {
    /// Parses the name of a folder; `None` if it is malformed.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_&,+ ".contains(&b);
        let is_part = |part: &str| !part.is_empty() && part.trim() == part && part.bytes().all(is_plain);
        let parts = name.strip_prefix('.').filter(|_| name.len() <= MAX_FOLDER)?;
        (parts.split('.').all(is_part) && !parts.contains("  ")).then(|| Self(name.into()))
    }

    /// The name of the folder, which is also the name of a directory in the Maildir.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Recipient {
    /// Makes a recipient with ordinary delivery to a final address.
    pub fn new(address: Address) -> Self {
        Self { address, original: None, action: Action::Deliver, options: RcptOptions::default() }
    }

    /// Whether this is an address that gets a copy, and that nothing replaced: no other recipient has its
    /// own address as the original one.
    pub fn is_copy(&self) -> bool {
        self.original.as_ref() == Some(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_parsed_and_printed() {
        for (value, printed) in [
            ("NEVER", Some("NEVER")),
            ("never", Some("NEVER")),
            ("SUCCESS", Some("SUCCESS")),
            ("delay,Failure,SUCCESS", Some("SUCCESS,FAILURE,DELAY")),
            ("FAILURE,FAILURE", Some("FAILURE")),
            ("", None),
            ("NEVER,DELAY", None),
            ("SUCCESS,", None),
            ("SUCCESS, DELAY", None),
            ("ALWAYS", None),
        ] {
            assert_eq!(Notify::parse(value).map(|notify| notify.to_string()).as_deref(), printed, "{value}");
        }
    }

    #[test]
    fn the_name_of_a_folder_never_leads_out_of_the_maildir() {
        for name in [".Junk", ".Lists.penfold", ".Junk E-mail", ".Entw&APw-rfe", ".a"] {
            assert_eq!(Folder::parse(name).as_ref().map(Folder::as_str), Some(name));
        }
        let long = format!(".{}", "x".repeat(MAX_FOLDER));
        for name in [
            "",
            ".",
            "..",
            "Junk",
            "/Junk",
            "./Junk",
            ".Junk/",
            ".Junk/../..",
            ".Junk.",
            "..Junk",
            ".a..b",
            ". Junk",
            ".Junk ",
            ".a  b",
            ".J\u{f6}",
            ".a\n",
            ".a\0b",
            ".a%2f",
            ".<x>",
            &long,
        ] {
            assert_eq!(Folder::parse(name), None, "{name:?}");
        }
    }
}
