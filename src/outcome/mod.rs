//! What became of one recipient in one attempt; the world's errors turned into fates.
//!
//! The tables here are the only place that decides whether trouble is temporary
//! or final: for the operating system, for DNS, for connections and for the
//! replies of other hosts. Doubt defers: a bounce cannot be taken back.

use std::fmt;
use std::io;

use crate::reply::{Reply, Status};
use crate::sys::command::Ended;

/// The three ways in which an attempt can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// In the mailbox, or in the hands of the next host.
    Delivered,
    /// Not now; tried again later.
    Deferred,
    /// Not at all; the sender is told.
    Failed,
}

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Sent, later, or never.
    pub fate: Fate,
    /// The enhanced status code (RFC 3463).
    pub status: Status,
    /// One sentence for people, without control characters.
    pub why: String,
    /// Where it was tried: a mailbox, or `mx.example.org[192.0.2.1]:25`. Empty if nowhere.
    pub host: Box<str>,
    /// The remote host's own words, if it said any.
    pub reply: Option<Reply>,
    /// The command that `reply` answers, or nothing.
    pub answered: &'static str,
    /// How the connection to `host` was encrypted.
    pub tls: Encryption,
    /// What carried out the attempt, once it is known.
    pub via: Option<Via>,
    /// Whether `why` is for people as it is: it quotes a command.
    pub is_quoted: bool,
}

/// What an attempt showed of a destination, whatever became of the message.
#[derive(Debug, Clone, Default)]
pub enum Contact {
    /// Nothing: no host was asked.
    #[default]
    None,
    /// A host answered up to EHLO at least; what it said last, if that was no success.
    Answered(Option<Box<Outcome>>),
    /// No host answered: why.
    Unreachable(Box<Outcome>),
    /// Every address that may be tried has as many connections as it may have.
    AtLimit,
    /// It was given up before its time, because others waited for the worker.
    Postponed,
}

/// What carried out an attempt for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Delivery into a Maildir. Also stands for recipients on this host that fail or wait
    /// without an attempt.
    Maildir,
    /// Delivery into an mbox file.
    Mbox,
    /// A command.
    Command,
    /// The recipient's `.forward`.
    Forward,
    /// An alias with a list or an owner.
    List,
    /// SMTP to another host.
    Smtp,
}

impl Via {
    /// The word for the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Maildir => "maildir",
            Self::Mbox => "mbox",
            Self::Command => "command",
            Self::Forward => "forward",
            Self::List => "list",
            Self::Smtp => "smtp",
        }
    }
}

/// How a connection was encrypted: a line of [`WAYS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encryption(u8);

/// Version and cipher suite, as the log has them: those that rustls and ring have.
const WAYS: [(&str, &str); 12] = [
    ("", ""),
    ("-", ""),
    ("TLS1.2", ""),
    ("TLS1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("TLS1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("TLS1.2", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("TLS1.2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("TLS1.2", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS1.3", "TLS_AES_256_GCM_SHA384"),
    ("TLS1.3", "TLS_AES_128_GCM_SHA256"),
    ("TLS1.3", "TLS_CHACHA20_POLY1305_SHA256"),
];

impl Encryption {
    /// There was no connection.
    pub const NO_CONNECTION: Self = Self(0);
    /// Not at all.
    pub const CLEAR: Self = Self(1);

    /// By TLS, with a cipher suite in IANA's words.
    pub fn by_tls(cipher: &str) -> Self {
        let way = WAYS.iter().position(|(_, name)| *name == cipher && !cipher.is_empty());
        Self(way.and_then(|way| u8::try_from(way).ok()).unwrap_or(2))
    }

    /// `TLS1.3`, `-` for not at all; nothing where there was no connection.
    pub fn name(self) -> &'static str {
        WAYS.get(usize::from(self.0)).map_or("", |way| way.0)
    }

    /// The cipher suite; nothing without one.
    pub fn cipher(self) -> &'static str {
        WAYS.get(usize::from(self.0)).map_or("", |way| way.1)
    }
}

/// Every way in which a look-up in the DNS ends without records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The name does not exist.
    NxDomain,
    /// The name exists, without records of the type.
    NoData,
    /// The server could not find out.
    ServFail,
    /// The server did not want to.
    Refused,
    /// No server answered in time.
    Timeout,
    /// No name that the DNS could hold.
    BadName,
    /// Anything else, in the resolver's words.
    Other(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NxDomain => "no such domain",
            Self::NoData => "no such record",
            Self::ServFail => "the name server could not find out (SERVFAIL)",
            Self::Refused => "the name server refused to answer",
            Self::Timeout => "the name server did not answer in time",
            Self::BadName => "not a valid domain name",
            Self::Other(text) => text,
        })
    }
}

impl Outcome {
    /// Arrived. `why` may be empty.
    pub fn delivered(why: impl Into<String>) -> Self {
        Self::new(Fate::Delivered, Status(2, 0, 0), why)
    }

    /// Not now.
    pub fn deferred(status: Status, why: impl Into<String>) -> Self {
        Self::new(Fate::Deferred, status, why)
    }

    /// Never.
    pub fn failed(status: Status, why: impl Into<String>) -> Self {
        Self::new(Fate::Failed, status, why)
    }

    fn new(fate: Fate, status: Status, why: impl Into<String>) -> Self {
        Self {
            fate,
            status,
            why: why.into(),
            host: Box::default(),
            reply: None,
            answered: "",
            tls: Encryption::default(),
            via: None,
            is_quoted: false,
        }
    }

    /// The same outcome of an attempt that was carried out by this.
    #[must_use]
    pub fn via(mut self, what: Via) -> Self {
        self.via = Some(what);
        self
    }

    /// The fate of a message that was given to a command, and what that said: the codes
    /// are those of sysexits(3). What the system, or whoever wrote the command down,
    /// can mend is temporary, and so is a command that somebody has killed.
    pub fn from_command(ended: Ended, said: &str) -> Self {
        let (fate, status, what) = match ended {
            Ended::Code(0) => (Fate::Delivered, Status(2, 0, 0), ""),
            Ended::Code(64) => (Fate::Failed, Status(5, 3, 0), "it was used wrongly"),
            Ended::Code(65) => (Fate::Failed, Status(5, 6, 0), "the message is not as it should be"),
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
            Ended::Code(78) => (Fate::Deferred, Status(4, 3, 5), "it is not set up right"),
            Ended::Code(126) => (Fate::Deferred, Status(4, 3, 5), "it may not be run"),
            Ended::Code(127) => (Fate::Deferred, Status(4, 3, 5), "there is no such command"),
            Ended::Code(_) => (Fate::Failed, Status(5, 3, 0), ""),
            Ended::Signal(_) => (Fate::Deferred, Status(4, 3, 0), ""),
            Ended::Late => (Fate::Deferred, Status(4, 3, 0), "the command takes too long and was stopped"),
        };
        let mut why = match ended {
            Ended::Code(0) => String::new(),
            Ended::Code(code) if what.is_empty() => format!("the command ended with code {code}"),
            Ended::Code(code) => format!("the command ended with code {code}: {what}"),
            Ended::Signal(signal) => format!("the command was ended by signal {signal}"),
            Ended::Late => what.to_owned(),
        };
        let clean: String = said.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if !clean.is_empty() && fate != Fate::Delivered {
            why = format!("{why}; it said: {clean}");
        }
        Self { is_quoted: true, ..Self::new(fate, status, why) }.via(Via::Command)
    }

    /// The same, tried at `host`.
    #[must_use]
    pub fn at(mut self, host: impl Into<String>) -> Self {
        self.host = host.into().into();
        self
    }

    /// The same, over a connection that was encrypted like this.
    #[must_use]
    pub fn over(mut self, tls: Encryption) -> Self {
        self.tls = tls;
        self
    }

    /// The fate of what the operating system refused: `doing` is what was tried,
    /// such as `create /home/jon/Maildir/tmp/x`.
    pub fn from_io(doing: &str, error: &io::Error) -> Self {
        use nix::errno::Errno;
        let status = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC) => Status(4, 3, 1),
            None if error.kind() == io::ErrorKind::StorageFull => Status(4, 3, 1),
            Some(Errno::EDQUOT | Errno::EFBIG) => Status(4, 2, 2),
            Some(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                Status(4, 2, 0)
            }
            // Doubt is temporary: a bounce cannot be taken back.
            _ => Status(4, 3, 0),
        };
        Self::deferred(status, format!("{doing}: {error}"))
    }

    /// The fate of a domain (or host) `name` that the DNS says nothing good about.
    /// A name that does not exist is final (RFC 5321 5.1), trouble in asking is not.
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

    /// The fate of a connection that broke: `doing` is the stage of the dialogue,
    /// such as `waiting for the reply to DATA`. `unsure` is whether the host may
    /// have taken the message all the same.
    pub fn from_connection(doing: &str, error: &io::Error, unsure: bool) -> Self {
        let timed_out = matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
        let mut why = match error.kind() {
            _ if timed_out => format!("timed out while {doing}"),
            io::ErrorKind::UnexpectedEof => format!("the connection was closed while {doing}"),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                format!("the connection was lost while {doing}")
            }
            _ => format!("{doing}: {error}"),
        };
        if unsure {
            why.push_str("; the message may arrive twice");
        }
        let connected = !doing.starts_with("connecting");
        Self::deferred(if connected { Status(4, 4, 2) } else { Status(4, 4, 1) }, why)
    }

    /// The fate that another host's reply to `command` stands for. What is
    /// neither success nor refusal is a host that is out of its mind: later.
    pub fn from_reply(command: &'static str, reply: Reply) -> Self {
        let (fate, class) = match reply.code() {
            200..=299 => (Fate::Delivered, 2),
            500..=599 => (Fate::Failed, 5),
            _ => (Fate::Deferred, 4),
        };
        // A status of another class than the code is nonsense; the code counts.
        let status = reply.status().filter(|s| s.0 == class).unwrap_or(Status(class, 0, 0));
        let why = format!("the host said to {command}: {reply}");
        Self { reply: Some(reply), answered: command, ..Self::new(fate, status, why) }
    }

    /// The same for a command of a transaction, from a host that the configuration
    /// names. That it wants a login (RFC 4954 4.7.8 and 6) is no word about the
    /// message, and for whoever wrote the configuration to mend: later. `logged_in` is
    /// whether that was done, `starttls` whether the host offers TLS that is not used.
    pub fn from_reply_of_our_host(command: &'static str, reply: Reply, logged_in: bool, starttls: bool) -> Self {
        if !reply.wants_login() {
            return Self::from_reply(command, reply);
        }
        let why = match (logged_in, starttls) {
            (true, _) => "the host wants a login other than the one there is for it",
            (false, true) => "the host wants a login or TLS first, and is configured with neither",
            (false, false) => "the host wants a login, and there are no credentials for it",
        };
        let status = reply.status().filter(|s| s.0 == 5 && s.1 == 7);
        let Status(_, subject, detail) = status.unwrap_or(Status(5, 7, if logged_in { 8 } else { 0 }));
        let why = format!("{why}: it said to {command}: {reply}");
        let outcome = Self::deferred(Status(4, subject, detail), why);
        Self { reply: Some(reply), answered: command, ..outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_defers() {
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
    fn the_code_of_a_reply_decides_and_its_status_must_agree() {
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
    fn that_a_host_of_ours_wants_a_login_is_no_refusal() {
        const NONE: &str = "the host wants a login, and there are no credentials for it: it said to MAIL: 530";
        for (line, logged_in, starttls, fate, status, words) in [
            ("530 5.7.0 log in", false, false, Fate::Deferred, Status(4, 7, 0), NONE),
            ("530 log in", false, false, Fate::Deferred, Status(4, 7, 0), NONE),
            ("530 log in", true, false, Fate::Deferred, Status(4, 7, 8), "a login other than the one there is for it"),
            ("530 5.7.0 STARTTLS", false, true, Fate::Deferred, Status(4, 7, 0), "wants a login or TLS first"),
            ("535 5.7.8 who?", true, false, Fate::Deferred, Status(4, 7, 8), "said to MAIL: 535 5.7.8 who?"),
            ("534 5.7.9 weak", false, false, Fate::Deferred, Status(4, 7, 9), "534"),
            ("538 5.7.11 in clear", false, false, Fate::Deferred, Status(4, 7, 11), "538"),
            ("530 4.7.0 confused", false, false, Fate::Deferred, Status(4, 7, 0), NONE),
            ("550 5.7.1 spam", false, false, Fate::Failed, Status(5, 7, 1), "the host said to MAIL"),
            ("554 5.7.0 virus", true, false, Fate::Failed, Status(5, 7, 0), "the host said to MAIL"),
        ] {
            let reply = Reply::read_all(format!("{line}\r\n").as_bytes()).expect(line);
            let outcome = Outcome::from_reply_of_our_host("MAIL", reply, logged_in, starttls);
            assert_eq!((outcome.fate, outcome.status), (fate, status), "{line}");
            assert!(outcome.why.contains(words) && outcome.reply.is_some(), "{outcome:?}");
        }
    }
}
