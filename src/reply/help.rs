//! The reply to HELP.

use std::borrow::Cow;

use super::{Reply, Status};

/// A line for each command.
pub fn commands() -> Reply {
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
