//! Reads what the outcome of a call-out says about the recipient.

use crate::outcome::{Fate, Outcome};
use crate::policy::rcpt::NextHost;
use crate::reply::Status;

/// Returns what the outcome says. Only a reply to RCPT can be about the recipient: a host that refuses
/// MAIL dislikes the null sender or this host. The same is true of a reply to RCPT that is about
/// policy, the sender or the protocol. A failure without a reply was found by this host, such as a
/// domain that does not exist, and would end a delivery too.
pub(super) fn read(outcome: &Outcome) -> NextHost {
    match (outcome.fate, &outcome.reply) {
        (Fate::Delivered, _) => NextHost::Accepted,
        (_, Some(reply)) if outcome.answered == "RCPT" => of_rcpt(reply.code(), outcome.status),
        (Fate::Failed, None) => NextHost::Refused(outcome.status),
        _ => NextHost::NoAnswer,
    }
}

/// Whether the outcome shows that the host cannot be asked about other recipients either for now.
pub(super) fn is_about_host(outcome: &Outcome) -> bool {
    let is_of_rcpt = outcome.answered == "RCPT" && outcome.reply.as_ref().is_some_and(|reply| reply.code() != 421);
    read(outcome) == NextHost::NoAnswer && !is_of_rcpt
}

/// Reads a reply to RCPT that is not positive. `status` has the details 0.0 if the reply has no enhanced
/// status.
fn of_rcpt(code: u16, status: Status) -> NextHost {
    let Status(class, subject, detail) = status;
    match (code, class, subject, detail) {
        // RFC 5321 4.2.3 has 452 and 552 for insufficient storage.
        (_, 4 | 5, 2, 2) | (452 | 552, _, 0, 0) => NextHost::Full(class == 5),
        (..500, ..) => NextHost::NoAnswer,
        // These are about the sender, and about policy.
        (_, _, 1, 7 | 8) | (_, _, 7, _) => NextHost::NoAnswer,
        // Exchange Online says 5.4.1 for a recipient that does not exist.
        (_, _, 1, 0 | 1 | 6) | (550, _, 4, 1) | (550 | 551 | 553, _, 0, 0) => NextHost::Unknown,
        (_, _, 1, _) => NextHost::Refused(status),
        // The command was not understood, or needs authentication or TLS.
        (500..=504 | 530..=538 | 555, ..) | (_, _, 5, _) => NextHost::NoAnswer,
        _ => NextHost::Refused(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::ReplyReader;

    fn outcome(command: &'static str, line: &str) -> Outcome {
        let reply = ReplyReader::default().line(line.as_bytes()).ok().flatten().expect(line);
        Outcome::from_reply(command, reply)
    }

    #[test]
    fn replies_to_rcpt_are_told_apart() {
        use NextHost::{Accepted, Full, NoAnswer, Refused, Unknown};
        for (line, want) in [
            ("250 2.1.5 ok", Accepted),
            ("250 ok", Accepted),
            ("251 will forward", Accepted),
            ("252 cannot verify", Accepted),
            ("550 5.1.1 User unknown", Unknown),
            ("550 no such user", Unknown),
            ("551 not here", Unknown),
            ("553 no such mailbox", Unknown),
            ("554 5.1.1 unknown", Unknown),
            ("550 5.1.0 Address rejected", Unknown),
            ("550 5.1.6 moved", Unknown),
            ("550 5.4.1 Recipient address rejected: Access denied", Unknown),
            ("552 5.2.2 Quota exceeded", Full(true)),
            ("552 mailbox full", Full(true)),
            ("522 5.2.2 over quota", Full(true)),
            ("452 4.2.2 Quota exceeded", Full(false)),
            ("450 4.2.2 over quota", Full(false)),
            ("452 insufficient storage", Full(false)),
            ("452 4.3.1 Insufficient system storage", NoAnswer),
            ("452 4.5.3 Too many recipients", NoAnswer),
            ("450 4.2.0 Greylisted", NoAnswer),
            ("451 4.7.1 Greylisting in action", NoAnswer),
            ("450 4.1.1 unknown for now", NoAnswer),
            ("451 try later", NoAnswer),
            ("550 5.7.1 Null sender refused", NoAnswer),
            ("554 5.7.1 blocked by a list", NoAnswer),
            ("550 5.1.8 Sender domain unknown", NoAnswer),
            ("550 5.1.7 bad sender", NoAnswer),
            ("530 5.7.0 Authentication required", NoAnswer),
            ("500 5.5.2 what?", NoAnswer),
            ("501 syntax error", NoAnswer),
            ("501 5.1.3 malformed address", Refused(Status(5, 1, 3))),
            ("503 need MAIL", NoAnswer),
            ("555 unknown parameter", NoAnswer),
            ("550 5.5.1 no MAIL yet", NoAnswer),
            ("550 5.2.1 disabled", Refused(Status(5, 2, 1))),
            ("550 5.1.2 bad domain", Refused(Status(5, 1, 2))),
            ("553 5.6.7 not in ASCII", Refused(Status(5, 6, 7))),
            ("556 5.1.10 null MX", Refused(Status(5, 1, 10))),
            ("554 no", Refused(Status(5, 0, 0))),
            // Neither class nor code is one of a reply to RCPT.
            ("354 go on", NoAnswer),
            ("120 wait", NoAnswer),
        ] {
            assert_eq!(read(&outcome("RCPT", line)), want, "{line}");
        }
    }

    #[test]
    fn other_outcomes_say_nothing_unless_this_host_has_found_them() {
        for line in ["550 5.1.1 unknown", "550 no null sender", "451 later", "552 5.2.2 full"] {
            ["MAIL", "EHLO", "the connection"].iter().for_each(|command| {
                assert_eq!(read(&outcome(command, line)), NextHost::NoAnswer, "{command} {line}");
            });
        }
        assert_eq!(read(&Outcome::deferred(Status(4, 4, 1), "timed out")), NextHost::NoAnswer);
        for (command, line, is_host) in [
            ("RCPT", "450 4.2.0 Greylisted", false),
            ("RCPT", "550 5.7.1 no null sender", false),
            ("RCPT", "550 5.1.1 unknown", false),
            ("RCPT", "421 4.3.2 shutting down", true),
            ("MAIL", "550 no null sender", true),
            ("EHLO", "451 later", true),
        ] {
            assert_eq!(is_about_host(&outcome(command, line)), is_host, "{command} {line}");
        }
        assert!(is_about_host(&Outcome::deferred(Status(4, 4, 1), "timed out")));
        let loops = Outcome::failed(Status(5, 4, 6), "loops");
        assert_eq!(read(&loops), NextHost::Refused(Status(5, 4, 6)));
    }
}
