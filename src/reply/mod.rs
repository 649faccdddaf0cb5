//! Every reply penfold gives; reading the replies of others.
//!
//! Each sentence that a client can hear is a function here, so that wording and
//! codes are reviewed in one place. Code, enhanced status and text are separate
//! fields (RFC 5321 4.2, RFC 2034). No text holds a path or the words of the
//! operating system. How those of others are read is in `read`.

use std::borrow::Cow;
use std::fmt;

mod auth;
mod message;
mod read;
mod submission;
mod xclient;

pub use auth::*;
pub use message::*;
pub use read::{Malformed, ReplyReader, quoted};
pub use submission::*;
pub use xclient::*;

/// How many lines of a remote reply are kept.
pub const MAX_LINES: usize = 32;
/// How much of a line of a remote reply is kept, in octets (RFC 5321 4.5.3.1.5).
pub const MAX_LINE: usize = 512;

/// An enhanced status code, class.subject.detail (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8, pub u16, pub u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Status {
    /// Reads a status at the front of `text`; what follows it and a blank.
    pub fn read(text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = word.splitn(3, '.');
        let class = parts.next().filter(|c| matches!(*c, "2" | "4" | "5"))?;
        let mut number =
            || parts.next().filter(|p| p.len() <= 3 && p.bytes().all(|b| b.is_ascii_digit()))?.parse().ok();
        Some((Self(class.parse().ok()?, number()?, number()?), rest))
    }
}

/// A reply, ours or another host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: Option<Status>,
    lines: Vec<Cow<'static, str>>,
    /// Its lines have different codes: the last one in `lines` is all that was said.
    is_mixed: bool,
}

impl Reply {
    /// A reply of one line with an enhanced status code.
    pub fn new(code: u16, status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: Some(status), lines: vec![text.into()], is_mixed: false }
    }

    /// A reply without a status: the banner, HELO, EHLO and 354 have none (RFC 2034 4).
    pub fn bare(code: u16, lines: Vec<Cow<'static, str>>) -> Self {
        Self { code, status: None, lines, is_mixed: false }
    }

    /// The reply code. Another host's may be none that a reply can have.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status code, where there is one.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The lines of text, without code and status.
    pub fn lines(&self) -> &[Cow<'static, str>] {
        let said = usize::from(self.is_mixed).min(self.lines.len());
        self.lines.get(..self.lines.len() - said).unwrap_or_default()
    }

    /// Whether it refuses, now or for ever.
    pub fn is_refusal(&self) -> bool {
        (400..600).contains(&self.code)
    }

    /// Whether it refuses who asks and not what is asked (RFC 4954 4.7.8 and 6).
    pub fn wants_login(&self) -> bool {
        matches!(self.code, 530 | 534 | 535 | 538)
    }

    /// As it goes over the wire, after what is in `out` already.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let last = self.lines.len().saturating_sub(1);
        for (at, line) in self.lines.iter().enumerate() {
            let mark = if at == last { ' ' } else { '-' };
            // Writing to a vector cannot fail.
            let _ = match self.status {
                Some(status) => write!(out, "{}{mark}{status} {line}\r\n", self.code),
                None => write!(out, "{}{mark}{line}\r\n", self.code),
            };
        }
    }
}

/// As one line for a log or a report: code, status, and the lines joined with blanks; or
/// every line with its own code.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(said) = self.lines.last().filter(|_| self.is_mixed) {
            return f.write_str(said);
        }
        write!(f, "{:03}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        self.lines.iter().filter(|l| !l.is_empty()).try_for_each(|line| write!(f, " {line}"))
    }
}

// What penfold says. In the order in which a client can hear it.

/// The greeting.
pub fn banner(hostname: &str) -> Reply {
    Reply::bare(220, vec![format!("{hostname} ESMTP penfold").into()])
}

/// No more connections, in all or from this host.
pub fn too_many_connections(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many connections, please try again later"))
}

/// There cannot be a session now; not even the name of this host may be known.
pub fn not_available() -> Reply {
    Reply::new(421, Status(4, 3, 0), "Not available now, please try again later")
}

/// The answer to HELO.
pub fn hello(hostname: &str, client: &str) -> Reply {
    Reply::bare(250, vec![format!("{hostname} Hello {client}, pleased to meet you").into()])
}

/// The answer to EHLO, with what is offered (RFC 5321 4.1.1.1).
pub fn extended_hello(hostname: &str, client: &str, offers: Vec<Cow<'static, str>>) -> Reply {
    let greeting = format!("{hostname} Hello {client}, pleased to meet you");
    let lines = std::iter::once(greeting.into()).chain(offers).collect();
    Reply::bare(250, lines)
}

/// STARTTLS was understood: nothing more is said in clear (RFC 3207).
pub fn ready_for_tls() -> Reply {
    Reply::new(220, Status(2, 0, 0), "Ready to start TLS")
}

/// STARTTLS under TLS.
pub fn secure_already() -> Reply {
    Reply::new(503, Status(5, 5, 1), "TLS is active already")
}

/// STARTTLS where it is not offered.
pub fn no_tls() -> Reply {
    Reply::new(502, Status(5, 5, 1), "TLS is not offered here")
}

/// Commands in one piece with STARTTLS, from the client or from someone on the way.
pub fn talks_before_tls() -> Reply {
    Reply::new(554, Status(5, 5, 1), "Nothing may follow STARTTLS before the handshake")
}

/// A command that has to wait for TLS.
pub fn need_tls() -> Reply {
    Reply::new(530, Status(5, 7, 0), "Must issue a STARTTLS command first")
}

/// HELO or EHLO without a name.
pub fn bad_hello() -> Reply {
    Reply::new(501, Status(5, 5, 4), "Please say HELO or EHLO with the name of your host")
}

/// MAIL before HELO.
pub fn need_hello() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Polite people say HELO first")
}

/// MAIL was good.
pub fn sender_ok(sender: &str) -> Reply {
    Reply::new(250, Status(2, 1, 0), format!("{sender} Sender ok"))
}

/// MAIL while a transaction is open.
pub fn nested_mail() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Sender already specified; RSET starts anew")
}

/// A sender that is no address.
pub fn bad_sender(why: impl fmt::Display) -> Reply {
    Reply::new(553, Status(5, 1, 7), format!("Sender address: {why}"))
}

/// A sender without a domain, from a stranger.
pub fn sender_needs_domain() -> Reply {
    Reply::new(553, Status(5, 1, 7), "Sender address: a domain is needed")
}

/// RCPT was good.
pub fn recipient_ok(recipient: &impl fmt::Display) -> Reply {
    Reply::new(250, Status(2, 1, 5), format!("<{recipient}> Recipient ok"))
}

/// RCPT or DATA before MAIL.
pub fn need_mail() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Need MAIL first")
}

/// A recipient that is no address.
pub fn bad_recipient(why: impl fmt::Display) -> Reply {
    Reply::new(553, Status(5, 1, 3), format!("Recipient address: {why}"))
}

/// A local address that leads to no mailbox.
pub fn unknown_user(recipient: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 1, 1), format!("<{recipient}> User unknown"))
}

/// Mail for elsewhere from someone who may not relay.
pub fn relaying_denied(recipient: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("<{recipient}> Relaying denied"))
}

/// A recipient that the routes table refuses, in its words.
pub fn recipient_refused(recipient: &impl fmt::Display, status: Status, why: &str) -> Reply {
    Reply::new(550, status, format!("<{recipient}> {why}"))
}

/// It cannot be said now whether the recipient exists.
pub fn recipient_unsure(recipient: &impl fmt::Display) -> Reply {
    Reply::new(451, Status(4, 3, 0), format!("<{recipient}> Cannot be looked up now, please try again later"))
}

/// One recipient more than a message may have (RFC 5321 4.5.3.1.10).
pub fn too_many_recipients() -> Reply {
    Reply::new(452, Status(4, 5, 3), "Too many recipients; send the rest in another message")
}

/// DATA before RCPT.
pub fn need_recipient() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Need RCPT before DATA")
}

/// All recipients were refused (RFC 2033 says it for LMTP, RFC 2920 3.1 for pipelining).
pub fn no_valid_recipients() -> Reply {
    Reply::new(554, Status(5, 5, 1), "No valid recipients")
}

/// The spool has no room, or cannot be written to.
pub fn no_storage() -> Reply {
    Reply::new(452, Status(4, 3, 1), "Not enough room to keep mail now, please try again later")
}

/// Something of ours broke.
pub fn local_error() -> Reply {
    Reply::new(451, Status(4, 3, 0), "Something went wrong here, please try again later")
}

/// CR without LF or LF without CR in a command.
pub fn bare_newline_in_command() -> Reply {
    Reply::new(500, Status(5, 5, 2), "Lines end with CR LF; a bare CR or LF is refused")
}

/// RSET.
pub fn reset() -> Reply {
    Reply::new(250, Status(2, 0, 0), "Reset state")
}

/// NOOP.
pub fn noop() -> Reply {
    Reply::new(250, Status(2, 0, 0), "OK")
}

/// VRFY of an address that exists here.
pub fn verified(address: &impl fmt::Display) -> Reply {
    Reply::new(250, Status(2, 1, 5), format!("<{address}>"))
}

/// VRFY of an address that is not ours to know (RFC 5321 7.3).
pub fn cannot_verify() -> Reply {
    Reply::new(252, Status(2, 5, 0), "Cannot verify that address; send some mail, and it will be tried")
}

/// VRFY without an argument.
pub fn verify_whom() -> Reply {
    Reply::new(501, Status(5, 5, 4), "VRFY needs a name or an address")
}

/// EXPN.
pub fn no_expand() -> Reply {
    Reply::new(502, Status(5, 5, 1), "EXPN is not available")
}

/// HELP: a line for each command.
pub fn help() -> Reply {
    let lines = [
        "This is penfold. It knows these commands:",
        "  HELO host             say who you are",
        "  EHLO host             the same, and hear what is offered",
        "  MAIL FROM:<sender>    begin a message; SIZE= and BODY= may follow",
        "  RCPT TO:<recipient>   one line for each recipient",
        "  DATA                  the message, ended by a line with only a dot",
        "  RSET                  forget the message begun",
        "  VRFY address          ask whether an address exists",
        "  AUTH mechanism        log in",
        "  NOOP                  do nothing",
        "  HELP                  this text",
        "  QUIT                  say goodbye",
    ];
    let lines = lines.into_iter().map(Cow::from).collect();
    Reply { code: 214, status: Some(Status(2, 0, 0)), lines, is_mixed: false }
}

/// QUIT.
pub fn goodbye(hostname: &str) -> Reply {
    Reply::new(221, Status(2, 0, 0), format!("{hostname} closing connection, goodbye"))
}

/// A verb that nobody knows.
pub fn unknown_command() -> Reply {
    Reply::new(500, Status(5, 5, 1), "Command unrecognized; HELP lists those that are")
}

/// A command that was cut off at its limit.
pub fn line_too_long() -> Reply {
    Reply::new(500, Status(5, 5, 2), "The line is too long")
}

/// A verb with arguments that make no sense; `usage` shows the right form.
pub fn bad_arguments(usage: &'static str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("That should be: {usage}"))
}

/// A parameter of MAIL or RCPT that was not offered (RFC 5321 4.1.1.11).
pub fn unknown_parameter(name: &str) -> Reply {
    Reply::new(555, Status(5, 5, 4), format!("Parameter {name} is not known here"))
}

/// A parameter with a value that cannot be.
pub fn bad_parameter(name: &str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("Parameter {name} has a bad value"))
}

/// A parameter that stands on the line twice.
pub fn repeated_parameter(name: &str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("Parameter {name} is given twice"))
}

/// Too many mistakes in one session.
pub fn too_many_errors(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many errors, closing connection"))
}

/// Only commands that lead to no mail, or none for long.
pub fn too_idle(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many commands without mail, closing connection"))
}

/// The client was silent, or too slow.
pub fn timed_out(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 4, 2), format!("{hostname} Timed out, closing connection"))
}

/// The daemon is going down.
pub fn shutting_down(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 3, 2), format!("{hostname} Shutting down, please try again later"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_written_line_by_line_with_its_status() {
        let mut out = Vec::new();
        unknown_user(&"elvis@razorback").write_to(&mut out);
        assert_eq!(out, b"550 5.1.1 <elvis@razorback> User unknown\r\n");
        out.clear();
        help().write_to(&mut out);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.lines().rev().skip(1).all(|l| l.starts_with("214-2.0.0 ")));
        assert!(text.lines().next_back().is_some_and(|l| l.starts_with("214 2.0.0 ")));
    }
}
