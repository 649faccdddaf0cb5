//! The parts of SMTP that need no network, for the server and the client: limits, lines, dots,
//! commands.
//!
//! Nothing here depends on sockets, the spool or the configuration. Each parser is a small
//! state machine with bounded memory.
//!
//! - `chunk`: messages that arrive in chunks
//! - `command`: the commands that a client sends
//! - `dot`: the content of a message on the wire, and its end
//! - `etrn`: the argument of ETRN
//! - `extensions`: the ESMTP extensions, and the files that a new one touches
//! - `line`: lines from a byte stream, with a limit
//! - `parameters`: the ESMTP parameters of MAIL and RCPT
//! - `proxy`: the PROXY header
//! - `xclient`: the attributes of XCLIENT and XFORWARD
//! - `xtext`: the encoding of values in commands

pub mod chunk;
pub mod command;
pub mod dot;
pub mod etrn;
pub mod extensions;
pub mod line;
pub mod parameters;
pub mod proxy;
pub mod xclient;
pub mod xtext;

/// The maximum length of a command line, with CR LF, in octets. RFC 5321 4.5.3.1.4 asks for at
/// least 512, and extensions make MAIL and RCPT longer.
pub const MAX_COMMAND_LINE: usize = 2048;

/// The maximum length of a line of an AUTH exchange, with CR LF, in octets (RFC 4954 4).
pub const MAX_AUTH_LINE: usize = 12_288 + 2;

/// The maximum length of a reply line that is read, with CR LF, in octets. RFC 5321 4.5.3.1.5 asks
/// for at least 512.
pub const MAX_REPLY_LINE: usize = 4096;

/// The number of Received fields at which a message counts as looping (RFC 5321 6.3).
pub const MAX_HOPS: usize = 100;

/// The number of Delivered-To fields with a local domain at which a message counts as looping.
pub const MAX_OWN_DELIVERIES: usize = 10;

/// The maximum number of final recipients of a message, after aliases are expanded. The limit
/// bounds the size of the head in the message's spool file.
pub const MAX_FINAL_RECIPIENTS: usize = 40_000;

/// The number of refusals after which a session ends, if the client may not relay.
pub const MAX_REFUSALS: usize = 100;

/// A session ends after this number of commands that lead to no message, counted since the last
/// accepted message, if the client may not relay.
pub const MAX_IDLE_COMMANDS: usize = 100;

/// The number of errors after which any session ends.
pub const MAX_ERRORS: usize = 10;
