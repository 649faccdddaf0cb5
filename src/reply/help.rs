//! Makes the reply to HELP.

use std::borrow::Cow;

use super::{Reply, Status};

/// Which of the commands that are not always available can be used now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Available {
    /// Whether the session speaks LMTP.
    pub lmtp: bool,
    /// Whether STARTTLS is offered.
    pub starttls: bool,
    /// Whether AUTH is offered.
    pub auth: bool,
    /// Whether XCLIENT and XFORWARD are offered.
    pub xclient: bool,
    /// Whether BDAT is offered.
    pub chunking: bool,
    /// Whether VRFY is offered.
    pub vrfy: bool,
    /// Whether ETRN is offered.
    pub etrn: bool,
}

/// Lists the available commands, one on each line.
pub fn commands(available: Available) -> Reply {
    let Available { lmtp, starttls, auth, xclient, chunking, vrfy, etrn } = available;
    let lines = [
        (true, "This is penfold. These commands are available now:"),
        (!lmtp, "  HELO host             introduce the client"),
        (!lmtp, "  EHLO host             the same, and list the extensions"),
        (lmtp, "  LHLO host             introduce the client, and list the extensions"),
        (starttls, "  STARTTLS              encrypt the connection"),
        (auth, "  AUTH mechanism        log in"),
        (xclient, "  XCLIENT name=value    change the client of the session"),
        (xclient, "  XFORWARD name=value   name the client of the next message"),
        (true, "  MAIL FROM:<sender>    begin a message; SIZE= and BODY= may follow"),
        (true, "  RCPT TO:<recipient>   add a recipient"),
        (true, "  DATA                  send the message, ended by a line with only a dot"),
        (chunking, "  BDAT size             send a part of the message; LAST may follow"),
        (true, "  RSET                  drop the message"),
        (vrfy, "  VRFY address          ask whether an address exists"),
        (etrn, "  ETRN domain           have the mail for a domain sent now"),
        (true, "  NOOP                  do nothing"),
        (true, "  HELP                  list the commands"),
        (true, "  QUIT                  end the session"),
    ];
    let lines = lines.into_iter().filter_map(|(is_available, line)| is_available.then_some(Cow::from(line)));
    Reply { code: 214, status: Some(Status(2, 0, 0)), lines: lines.collect(), is_mixed: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_available_commands_are_listed() {
        let verbs = |available| {
            let lines = commands(available).lines().to_vec();
            let words = lines.iter().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
            words.map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        let available = Available { vrfy: true, ..Available::default() };
        for (available, want) in [
            (available, "HELO EHLO MAIL RCPT DATA RSET VRFY NOOP HELP QUIT"),
            (Available { starttls: true, ..available }, "HELO EHLO STARTTLS MAIL RCPT DATA RSET VRFY NOOP HELP QUIT"),
            (
                Available { starttls: true, auth: true, xclient: true, chunking: true, etrn: true, ..available },
                "HELO EHLO STARTTLS AUTH XCLIENT XFORWARD MAIL RCPT DATA BDAT RSET VRFY ETRN NOOP HELP QUIT",
            ),
            (Available { lmtp: true, ..available }, "LHLO MAIL RCPT DATA RSET VRFY NOOP HELP QUIT"),
            (Available::default(), "HELO EHLO MAIL RCPT DATA RSET NOOP HELP QUIT"),
        ] {
            assert_eq!(verbs(available), want);
        }
    }
}
