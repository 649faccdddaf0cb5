//! The protocol without I/O, for both sides: limits, lines, dots, commands.
//!
//! Nothing here knows a socket, a spool or a configuration. The readers are
//! small bounded machines, each alone in its file.

pub mod command;
pub mod dot;
pub mod extensions;
pub mod line;
pub mod parameters;
pub mod proxy;
pub mod xclient;
pub mod xtext;

/// The longest command line read, CR LF included. RFC 5321 4.5.3.1.4 asks for
/// 512, and every extension adds to MAIL and RCPT.
pub const MAX_COMMAND_LINE: usize = 2048;

/// The longest line of an AUTH exchange, CR LF included (RFC 4954 4).
pub const MAX_AUTH_LINE: usize = 12_288 + 2;

/// The longest reply line read, CR LF included; RFC 5321 4.5.3.1.5 asks for 512.
pub const MAX_REPLY_LINE: usize = 4096;

/// As many Received: lines say that a message goes in circles (RFC 5321 6.3).
pub const MAX_HOPS: usize = 100;

/// As many Delivered-To: lines with a local domain say the same.
pub const MAX_OWN_DELIVERIES: usize = 10;

/// Final recipients that a message may have, aliases expanded: the head of its
/// entry stays readable.
pub const MAX_FINAL_RECIPIENTS: usize = 40_000;

/// As many refusals of mail end the session of one who may not relay.
pub const MAX_REFUSALS: usize = 100;

/// As many commands that lead to no mail end the session of one who may not relay.
pub const MAX_IDLE_COMMANDS: usize = 100;

/// As many mistakes of a client end its session.
pub const MAX_ERRORS: usize = 10;
