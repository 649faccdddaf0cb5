//! Decides which errors and replies in a delivery attempt are temporary and which are final.
//!
//! The decisions cover exit codes of commands, errors of the operating system, DNS look-ups, broken
//! connections and replies of other hosts. A doubtful failure is temporary, because a bounce cannot
//! be taken back.

use std::io;

use super::{Fate, NoAnswer, Outcome, Via};
use crate::reply::{Reply, Status};
use crate::sys::command::Ended;

impl Outcome {
    /// Returns the outcome of delivery to a command. The exit code (see sysexits(3)) decides, and
    /// the output goes into the reason for a failure. If the system or the command's configuration
    /// caused the failure, or a signal ended the command, the failure is temporary.
    pub fn from_command(ended: Ended, output: &str) -> Self {
        let (fate, status, what) = match ended {
            Ended::Code(0) => (Fate::Delivered, Status(2, 0, 0), ""),
            Ended::Code(64) => (Fate::Failed, Status(5, 3, 0), "it was used wrongly"),
            Ended::Code(65) => (Fate::Failed, Status(5, 6, 0), "the message is malformed"),
            Ended::Code(66) => (Fate::Failed, Status(5, 3, 0), "it has nothing to read"),
            Ended::Code(67) => (Fate::Failed, Status(5, 1, 1), "no such user"),
            Ended::Code(68) => (Fate::Failed, Status(5, 1, 2), "no such host"),
            Ended::Code(69) => (Fate::Failed, Status(5, 3, 0), "it is not available"),
            Ended::Code(70) => (Fate::Failed, Status(5, 3, 0), "it has a bug"),
            Ended::Code(71) => (Fate::Deferred, Status(4, 3, 0), "trouble with the system"),
            Ended::Code(72) => (Fate::Deferred, Status(4, 3, 0), "trouble with a file of the system"),
            Ended::Code(73) => (Fate::Deferred, Status(4, 3, 0), "it cannot make a file"),
            Ended::Code(74) => (Fate::Deferred, Status(4, 3, 0), "trouble with input or output"),
            Ended::Code(75) => (Fate::Deferred, Status(4, 3, 0), "not now"),
            Ended::Code(76) => (Fate::Failed, Status(5, 5, 0), "trouble with a protocol"),
            Ended::Code(77) => (Fate::Failed, Status(5, 7, 0), "permission denied"),
            Ended::Code(78) => (Fate::Deferred, Status(4, 3, 5), "it is not configured correctly"),
            Ended::Code(126) => (Fate::Deferred, Status(4, 3, 5), "it may not be run"),
            Ended::Code(127) => (Fate::Deferred, Status(4, 3, 5), "there is no such command"),
            Ended::Code(_) => (Fate::Failed, Status(5, 3, 0), ""),
            Ended::Signal(_) => (Fate::Deferred, Status(4, 3, 0), ""),
            Ended::Late => (Fate::Deferred, Status(4, 3, 0), "the command took too long and was killed"),
        };
        let mut why = match ended {
            Ended::Code(0) => String::new(),
            Ended::Code(code) if what.is_empty() => format!("the command ended with code {code}"),
            Ended::Code(code) => format!("the command ended with code {code}: {what}"),
            Ended::Signal(signal) => format!("the command was ended by signal {signal}"),
            Ended::Late => what.to_owned(),
        };
        let clean: String = output.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if !clean.is_empty() && fate != Fate::Delivered {
            why = format!("{why}; it said: {clean}");
        }
        Self { is_quoted: true, ..Self::new(fate, status, why) }.via(Via::Command)
    }

    /// Returns the outcome of an attempt that failed with an error of the operating system. The
    /// failure is always temporary. `doing` names the operation, such as
    /// `create /home/jon/Maildir/tmp/x`.
    pub fn from_io(doing: &str, error: &io::Error) -> Self {
        use nix::errno::Errno;
        let status = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC) => Status(4, 3, 1),
            None if error.kind() == io::ErrorKind::StorageFull => Status(4, 3, 1),
            Some(Errno::EDQUOT | Errno::EFBIG) => Status(4, 2, 2),
            Some(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                Status(4, 2, 0)
            }
            _ => Status(4, 3, 0),
        };
        Self::deferred(status, format!("{doing}: {}", text(error)))
    }

    /// Returns the outcome of an attempt whose DNS look-up of `name`, a domain or a host, found no
    /// records. If the name or its records do not exist, the failure is final (RFC 5321 5.1). If
    /// the look-up itself failed, for example with SERVFAIL, the failure is temporary.
    pub fn from_dns(name: &str, trouble: &NoAnswer) -> Self {
        let why = format!("{name}: {trouble}");
        match trouble {
            NoAnswer::NxDomain | NoAnswer::BadName => Self::failed(Status(5, 1, 2), why),
            NoAnswer::NoData => {
                Self::failed(Status(5, 1, 2), format!("{name}: the domain has no mail exchanger and no address"))
            }
            NoAnswer::ServFail | NoAnswer::Refused | NoAnswer::Timeout | NoAnswer::Other(_) => {
                Self::deferred(Status(4, 4, 3), why)
            }
        }
    }

    /// Returns the outcome of an attempt whose connection broke. The failure is always temporary.
    /// `doing` is the stage of the dialogue, such as `waiting for the reply to DATA`.
    /// `may_be_accepted` says that the host may have accepted the message before the connection
    /// broke.
    pub fn from_connection(doing: &str, error: &io::Error, may_be_accepted: bool) -> Self {
        let timed_out = matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
        let mut why = match error.kind() {
            _ if timed_out => format!("timed out while {doing}"),
            io::ErrorKind::UnexpectedEof => format!("the connection was closed while {doing}"),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                format!("the connection was lost while {doing}")
            }
            _ => format!("{doing}: {}", text(error)),
        };
        if may_be_accepted {
            why.push_str("; the message may arrive twice");
        }
        let connected = !doing.starts_with("connecting");
        Self::deferred(if connected { Status(4, 4, 2) } else { Status(4, 4, 1) }, why)
    }

    /// Returns the outcome that follows from the code of a remote host's reply to `command`. A code
    /// of 2xx means a delivery, 5xx a final failure, and any other code a temporary failure.
    pub fn from_reply(command: &'static str, reply: Reply) -> Self {
        let (fate, class) = match reply.code() {
            200..=299 => (Fate::Delivered, 2),
            500..=599 => (Fate::Failed, 5),
            _ => (Fate::Deferred, 4),
        };
        // An enhanced status is ignored if its class is not the first digit of the reply code.
        let status = reply.status().filter(|s| s.0 == class).unwrap_or(Status(class, 0, 0));
        let why = format!("the host said to {command}: {reply}");
        Self { reply: Some(reply), answered: command, ..Self::new(fate, status, why) }
    }

    /// Returns the outcome of a reply to MAIL, RCPT or DATA, from a host that the configuration
    /// names. If the reply demands authentication (RFC 4954 6), the failure is temporary: the
    /// demand is no verdict about the message, and the postmaster can change the configuration.
    /// `logged_in` says that this client has authenticated. `starttls` says that the host offers
    /// TLS, but the connection does not use TLS.
    pub fn from_reply_of_configured_host(command: &'static str, reply: Reply, logged_in: bool, starttls: bool) -> Self {
        if !reply.wants_login() {
            return Self::from_reply(command, reply);
        }
        let why = match (logged_in, starttls) {
            (true, _) => "the host requires other credentials than those configured for it",
            (false, true) => "the host requires authentication or TLS, and is configured with neither",
            (false, false) => "the host requires authentication, and there are no credentials for it",
        };
        let status = reply.status().filter(|s| s.0 == 5 && s.1 == 7);
        let Status(_, subject, detail) = status.unwrap_or(Status(5, 7, if logged_in { 8 } else { 0 }));
        let why = format!("{why}: it said to {command}: {reply}");
        let outcome = Self::deferred(Status(4, subject, detail), why);
        Self { reply: Some(reply), answered: command, ..outcome }
    }
}

/// The text of an error, without its number.
fn text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error ").map_or(text.clone(), |(text, _)| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_errors_defer() {
        for code in 1..134 {
            let outcome = Outcome::from_io("write x", &io::Error::from_raw_os_error(code));
            assert_eq!((outcome.fate, outcome.status.0), (Fate::Deferred, 4), "errno {code}");
        }
        for trouble in [NoAnswer::ServFail, NoAnswer::Refused, NoAnswer::Timeout, NoAnswer::Other("?".into())] {
            assert_eq!(Outcome::from_dns("x.org", &trouble).fate, Fate::Deferred);
        }
        for trouble in [NoAnswer::NxDomain, NoAnswer::NoData, NoAnswer::BadName] {
            assert_eq!(Outcome::from_dns("x.org", &trouble).fate, Fate::Failed);
        }
    }

    #[test]
    fn the_code_of_a_reply_decides_and_a_status_of_another_class_is_ignored() {
        let fate = |line: &[u8]| {
            let outcome = Outcome::from_reply("DATA", Reply::read_all(line).expect("a reply"));
            (outcome.fate, outcome.status)
        };
        assert_eq!(fate(b"250 2.6.0 ok\r\n"), (Fate::Delivered, Status(2, 6, 0)));
        assert_eq!(fate(b"451 4.7.1 greylisted\r\n"), (Fate::Deferred, Status(4, 7, 1)));
        assert_eq!(fate(b"550 no\r\n"), (Fate::Failed, Status(5, 0, 0)));
        assert_eq!(fate(b"550 4.1.1 confused\r\n"), (Fate::Failed, Status(5, 0, 0)));
        assert_eq!(fate(b"354 what?\r\n"), (Fate::Deferred, Status(4, 0, 0)));
    }

    #[test]
    fn a_configured_host_that_requires_authentication_defers_the_message() {
        const NONE: &str =
            "the host requires authentication, and there are no credentials for it: it said to MAIL: 530";
        for (line, logged_in, starttls, fate, status, words) in [
            ("530 5.7.0 log in", false, false, Fate::Deferred, Status(4, 7, 0), NONE),
            ("530 log in", false, false, Fate::Deferred, Status(4, 7, 0), NONE),
            (
                "530 log in",
                true,
                false,
                Fate::Deferred,
                Status(4, 7, 8),
                "other credentials than those configured for it",
            ),
            ("530 5.7.0 STARTTLS", false, true, Fate::Deferred, Status(4, 7, 0), "requires authentication or TLS"),
            ("535 5.7.8 who?", true, false, Fate::Deferred, Status(4, 7, 8), "said to MAIL: 535 5.7.8 who?"),
            ("534 5.7.9 weak", false, false, Fate::Deferred, Status(4, 7, 9), "534"),
            ("538 5.7.11 in clear", false, false, Fate::Deferred, Status(4, 7, 11), "538"),
            ("530 4.7.0 confused", false, false, Fate::Deferred, Status(4, 7, 0), NONE),
            ("550 5.7.1 spam", false, false, Fate::Failed, Status(5, 7, 1), "the host said to MAIL"),
            ("554 5.7.0 virus", true, false, Fate::Failed, Status(5, 7, 0), "the host said to MAIL"),
        ] {
            let reply = Reply::read_all(format!("{line}\r\n").as_bytes()).expect(line);
            let outcome = Outcome::from_reply_of_configured_host("MAIL", reply, logged_in, starttls);
            assert_eq!((outcome.fate, outcome.status), (fate, status), "{line}");
            assert!(outcome.why.contains(words) && outcome.reply.is_some(), "{outcome:?}");
        }
    }
}
