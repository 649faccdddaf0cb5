//! The stages of a dialogue: their order, timeouts and names.

use std::time::Duration;

/// A stage of the dialogue with a host. Up to `AfterDot` the stages are in the order of the
/// dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connecting.
    Connect,
    /// The greeting.
    Banner,
    /// EHLO or HELO.
    Hello,
    /// LHLO, which LMTP has in place of EHLO.
    StoreHello,
    /// STARTTLS or implicit TLS, up to the end of the handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// RSET after a transaction that was not completed.
    Reset,
    /// MAIL.
    MailFrom,
    /// RCPT.
    RcptTo,
    /// DATA.
    Data,
    /// Sending the content.
    Body,
    /// The final dot, and the reply by which the host accepts the message.
    AfterDot,
    /// Reading the content from this host's own disk. A failure here is not the other host's fault.
    Content,
    /// QUIT.
    Quit,
}

impl Stage {
    /// The timeout of the stage (RFC 5321 4.5.3.2). For `Body` it applies to each block of the
    /// content.
    pub fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Connect => 30,
            Self::Banner | Self::Hello | Self::StoreHello | Self::Reset | Self::MailFrom | Self::RcptTo => 5 * 60,
            Self::StartTls | Self::Auth | Self::Data => 2 * 60,
            Self::Body | Self::Content => 3 * 60,
            Self::AfterDot => 10 * 60,
            Self::Quit => 1,
        })
    }

    /// What the client was doing, for "timed out while ...".
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::Banner => "waiting for the greeting",
            Self::Hello => "waiting for the reply to EHLO",
            Self::StoreHello => "waiting for the reply to LHLO",
            Self::StartTls => "starting TLS",
            Self::Auth => "logging in",
            Self::Reset => "waiting for the reply to RSET",
            Self::MailFrom => "waiting for the reply to MAIL",
            Self::RcptTo => "waiting for the reply to RCPT",
            Self::Data => "waiting for the reply to DATA",
            Self::Body => "sending the message",
            Self::AfterDot => "waiting for the reply to the end of the message",
            Self::Content => "reading the message",
            Self::Quit => "waiting for the reply to QUIT",
        }
    }

    /// The command to which a reply in this stage belongs.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Connect | Self::Banner => "the connection",
            Self::Hello => "EHLO",
            Self::StoreHello => "LHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Reset => "RSET",
            Self::MailFrom => "MAIL",
            Self::RcptTo => "RCPT",
            Self::Data => "DATA",
            Self::Body | Self::AfterDot | Self::Content => "the end of the message",
            Self::Quit => "QUIT",
        }
    }
}
