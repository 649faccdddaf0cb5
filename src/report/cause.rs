//! Finds the cause of a failure or a delay, from the table of causes for which there are texts.
//!
//! The enhanced status of the last attempt decides, if it is specific. An example of an unspecific
//! one is 5.7.1, which hosts use for spam, for block lists and for closed relays alike. Then the
//! words of the reply decide, after them the reply code, and at last a general cause. Each cause has
//! two texts in each language, in the files of etc/languages: what is wrong, and what the reader
//! can do.

use crate::outcome::{Fate, Outcome, Via};
use crate::reply::Reply;

use Cause::*;

/// The maximum number of characters of a reply in which words are searched.
const MAX_TEXT: usize = 2000;

/// The cause of a failure or a delay, as it is explained to the reader. etc/languages/en.toml explains
/// each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    NoMailbox,
    Moved,
    BadAddress,
    NoDomain,
    NoMailDomain,
    BrokenDomain,
    NotItsDomain,
    MailboxClosed,
    MailboxFull,
    SenderNotAllowed,
    TooBig,
    TooManyRecipients,
    BadMessage,
    Attachment,
    Malware,
    Spam,
    ForeignLetters,
    Unconvertible,
    BadSender,
    SenderUnproven,
    HostBlocked,
    HostUnnamed,
    RateLimited,
    Greylisted,
    Policy,
    Login,
    NoWayOut,
    TlsNotOffered,
    TlsFailed,
    TlsDemanded,
    Unreachable,
    ConnectionLost,
    NoAnswer,
    Loop,
    Busy,
    NoService,
    Trouble,
    Misconfigured,
    Program,
    Deadline,
    Misunderstood,
    Returned,
    Later,
    Refused,
}

/// All causes, with their names in the files of texts.
pub(super) const CAUSES: [(Cause, &str); 44] = [
    (NoMailbox, "no_mailbox"),
    (Moved, "moved"),
    (BadAddress, "bad_address"),
    (NoDomain, "no_domain"),
    (NoMailDomain, "no_mail_domain"),
    (BrokenDomain, "broken_domain"),
    (NotItsDomain, "not_its_domain"),
    (MailboxClosed, "mailbox_closed"),
    (MailboxFull, "mailbox_full"),
    (SenderNotAllowed, "sender_not_allowed"),
    (TooBig, "too_big"),
    (TooManyRecipients, "too_many_recipients"),
    (BadMessage, "bad_message"),
    (Attachment, "attachment"),
    (Malware, "malware"),
    (Spam, "spam"),
    (ForeignLetters, "foreign_letters"),
    (Unconvertible, "unconvertible"),
    (BadSender, "bad_sender"),
    (SenderUnproven, "sender_unproven"),
    (HostBlocked, "host_blocked"),
    (HostUnnamed, "host_unnamed"),
    (RateLimited, "rate_limited"),
    (Greylisted, "greylisted"),
    (Policy, "policy"),
    (Login, "login"),
    (NoWayOut, "no_way_out"),
    (TlsNotOffered, "tls_not_offered"),
    (TlsFailed, "tls_failed"),
    (TlsDemanded, "tls_demanded"),
    (Unreachable, "unreachable"),
    (ConnectionLost, "connection_lost"),
    (NoAnswer, "no_answer"),
    (Loop, "loop"),
    (Busy, "busy"),
    (NoService, "no_service"),
    (Trouble, "trouble"),
    (Misconfigured, "misconfigured"),
    (Program, "program"),
    (Deadline, "deadline"),
    (Misunderstood, "misunderstood"),
    (Returned, "returned"),
    (Later, "later"),
    (Refused, "refused"),
];

/// The causes that follow from subject and detail of a specific status (RFC 3463 and the registry
/// of its codes).
const STATUSES: &[(u16, u16, Cause)] = &[
    (1, 1, NoMailbox),
    (1, 2, NoDomain),
    (1, 3, BadAddress),
    (1, 4, NoMailbox),
    (1, 6, Moved),
    (1, 7, BadSender),
    (1, 8, BadSender),
    (1, 10, NoMailDomain),
    (2, 1, MailboxClosed),
    (2, 2, MailboxFull),
    (2, 3, TooBig),
    (2, 4, Misconfigured),
    (3, 1, Trouble),
    (3, 3, Unconvertible),
    (3, 4, TooBig),
    (3, 5, Misconfigured),
    (4, 2, ConnectionLost),
    (4, 3, NoAnswer),
    (4, 4, BrokenDomain),
    (4, 5, Busy),
    (4, 6, Loop),
    (5, 3, TooManyRecipients),
    (6, 1, Attachment),
    (6, 2, Unconvertible),
    (6, 3, Unconvertible),
    (6, 5, Unconvertible),
    (6, 7, ForeignLetters),
    (6, 8, ForeignLetters),
    (6, 9, ForeignLetters),
    (6, 10, ForeignLetters),
    (7, 2, SenderNotAllowed),
    (7, 4, TlsNotOffered),
    (7, 5, TlsFailed),
    (7, 8, Login),
    (7, 9, Login),
    (7, 10, TlsDemanded),
    (7, 11, Login),
    (7, 13, MailboxClosed),
    (7, 17, NoMailbox),
    (7, 18, NoMailbox),
    (7, 20, SenderUnproven),
    (7, 21, SenderUnproven),
    (7, 22, SenderUnproven),
    (7, 23, SenderUnproven),
    (7, 24, SenderUnproven),
    (7, 25, HostUnnamed),
    (7, 26, SenderUnproven),
    (7, 27, BadSender),
    (7, 28, RateLimited),
    (7, 29, SenderUnproven),
    // The codes of Exchange for groups and users that accept only certain senders.
    (7, 124, SenderNotAllowed),
    (7, 129, SenderNotAllowed),
    (7, 133, SenderNotAllowed),
    (7, 134, SenderNotAllowed),
    (7, 135, SenderNotAllowed),
    (7, 136, SenderNotAllowed),
];

/// The causes that words in a reply show; the first row with one of its texts counts. A reply is
/// compared in lower case, with one blank in place of all characters between words, and without
/// addresses.
const WORDS: &[(Cause, &[&str])] = &[
    (Greylisted, &["greylist", "graylist", "grey list"]),
    (TlsDemanded, &["starttls", "requires tls", "tls required", "tls is required", "encryption required"]),
    (Malware, &["virus", "malware", "infected", "trojan"]),
    (Attachment, &["attachment", "file type", "file extension", "filename extension"]),
    (HostUnnamed, &["reverse dns", " ptr ", " rdns ", "reverse host", "reverse name", "reverse lookup", " helo "]),
    (SenderUnproven, &[" spf ", " dkim ", " dmarc ", "unauthenticated"]),
    (
        HostBlocked,
        &[
            "blacklist",
            "blocklist",
            "block list",
            "black list",
            "blocked using",
            "dnsbl",
            " rbl ",
            "spamhaus",
            "spamcop",
            "reputation",
            " listed ",
            "your ip ",
            "banned",
        ],
    ),
    (TooManyRecipients, &["too many recipients"]),
    (
        TooBig,
        &["message size", "too large", "too big", "size limit", "size exceed", "exceeds maximum", "message too long"],
    ),
    (MailboxFull, &[" quota", "overquota", "box full", "box is full", "exceeded storage", "out of storage"]),
    (
        RateLimited,
        &[
            "rate limit",
            "ratelimit",
            "too many messages",
            "too many connections",
            "too much mail",
            "throttl",
            "too fast",
        ],
    ),
    (NotItsDomain, &[" relay ", " relaying ", "not hosted here", "not a local domain"]),
    (
        SenderNotAllowed,
        &["not a member", "members only", "subscriber", "not allowed to post", "allowed to send to", "only accepts"],
    ),
    (BadSender, &["sender address rejected", "sender rejected", "invalid sender", "sender verif", "bad sender"]),
    (MailboxClosed, &["disabled", "suspended", "inactive", "deactivated"]),
    (
        NoMailbox,
        &[
            "user unknown",
            "unknown user",
            "no such user",
            "recipient unknown",
            "unknown recipient",
            "no such recipient",
            "no mailbox",
            "no such mailbox",
            "mailbox unavailable",
            "mailbox not found",
            "user not found",
            "recipient not found",
            "invalid recipient",
            "unknown address",
            "no such address",
            "address unknown",
            "does not exist",
            "doesn t exist",
            "unrouteable address",
            "recipient address rejected",
        ],
    ),
    (Spam, &[" spam", "unsolicited", " junk ", " bulk "]),
    (Busy, &["too busy", "overload", "service unavailable", "not available now"]),
];

/// The causes that follow from a reply code without anything more specific.
const CODES: &[(u16, Cause)] = &[
    (421, Busy),
    (452, Trouble),
    (500, Misunderstood),
    (501, Misunderstood),
    (502, Misunderstood),
    (503, Misunderstood),
    (504, Misunderstood),
    (521, NoService),
    (551, Moved),
    (552, TooBig),
    (553, BadAddress),
    (555, Misunderstood),
    (556, NoMailDomain),
];

impl Cause {
    /// Returns the cause that an outcome shows.
    pub(super) fn of(outcome: &Outcome) -> Self {
        let (_, subject, detail) = (outcome.status.0, outcome.status.1, outcome.status.2);
        let (reply, is_final) = (outcome.reply.as_ref(), outcome.fate == Fate::Failed);
        let words = words(reply.map_or_else(|| outcome.why.clone(), Reply::to_string).as_str());
        if reply.is_some_and(Reply::wants_login) {
            return if has_any(&words, &["starttls", " tls ", "encrypt"]) { TlsDemanded } else { Login };
        }
        if reply.is_none()
            && let Some(cause) = of_own(outcome, &words)
        {
            return cause;
        }
        let by_status = || STATUSES.iter().find(|row| (row.0, row.1) == (subject, detail)).map(|row| row.2);
        let by_words = || WORDS.iter().find(|row| has_any(&words, row.1)).map(|row| row.0);
        let by_code = || CODES.iter().find(|row| reply.is_some_and(|reply| reply.code() == row.0)).map(|row| row.1);
        let general = || match (subject, detail) {
            (2, _) | (3, 0) => Some(Trouble),
            (3, 2) => Some(if is_final { NoService } else { Busy }),
            (5, _) => Some(Misunderstood),
            (6, _) => Some(BadMessage),
            (7, 1..) if is_final => Some(Policy),
            _ => None,
        };
        by_status().or_else(by_words).or_else(by_code).or_else(general).unwrap_or(if is_final {
            Refused
        } else {
            Later
        })
    }

    /// Returns the name of the cause in the files of texts.
    pub(super) fn name(self) -> &'static str {
        CAUSES.iter().find(|(cause, _)| *cause == self).map_or("refused", |(_, name)| name)
    }
}

/// Returns the cause of a failure that this host has found itself, without a reply.
fn of_own(outcome: &Outcome, words: &str) -> Option<Cause> {
    let is_final = outcome.fate == Fate::Failed;
    Some(match (outcome.status.1, outcome.status.2) {
        (1, 1 | 2) | (3, 5) => return None,
        _ if outcome.via == Some(Via::Command) => {
            if is_final {
                Program
            } else {
                Trouble
            }
        }
        // Only an administrator ends an attempt that has not begun.
        (0, 0) if is_final && outcome.via.is_none() && outcome.host.is_empty() => Returned,
        (4, 0 | 1) => Unreachable,
        // The router has refused the recipient, because no mail leaves this host.
        (4, 4) if outcome.via == Some(Via::Maildir) => NoWayOut,
        (4, 4) if !is_final => Misconfigured,
        (3, 3) | (4, 7) => Deadline,
        (5, 0) => Misunderstood,
        (7, 0) if !is_final => Login,
        (7, 4) if !words.contains("starttls") => Login,
        _ => return None,
    })
}

fn has_any(words: &str, texts: &[&str]) -> bool {
    texts.iter().any(|text| words.contains(text))
}

/// Returns a text in lower case, with one blank in place of all characters between words, at the
/// front and at the end. Addresses are left out, because their names mean nothing here.
fn words(text: &str) -> String {
    let text: String = text.chars().take(MAX_TEXT).flat_map(char::to_lowercase).collect();
    let mut words = " ".to_owned();
    for part in text.split_whitespace().filter(|part| !part.contains('@')) {
        for word in part.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            words.push_str(word);
            words.push(' ');
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::NoAnswer as Lookup;
    use crate::reply::Status;

    #[test]
    fn replies_of_hosts_show_their_causes() {
        for (reply, cause) in [
            ("550 5.1.1 <spam@x.org>: Recipient address rejected: User unknown", NoMailbox),
            ("550 No such user here", NoMailbox),
            ("550 5.0.0 quota@x.org... User unknown", NoMailbox),
            ("550 5.4.1 Recipient address rejected: Access denied", NoMailbox),
            ("550 5.5.0 Requested action not taken: mailbox unavailable", NoMailbox),
            ("550 5.1.6 has moved", Moved),
            ("551 User not local; please try <a@y.org>", Moved),
            ("553 5.1.3 what is that?", BadAddress),
            ("550 5.1.2 no", NoDomain),
            ("556 Domain does not accept mail", NoMailDomain),
            ("554 5.7.1 <a@x.org>: Relay access denied", NotItsDomain),
            ("550 relaying denied", NotItsDomain),
            ("550 5.2.1 The email account that you tried to reach is disabled.", MailboxClosed),
            ("554 account suspended", MailboxClosed),
            ("452 4.2.2 The email account is over quota", MailboxFull),
            ("552 Mailbox is full", MailboxFull),
            ("552 Requested mail action aborted: exceeded storage allocation", MailboxFull),
            ("550 5.7.133 sender not authenticated for group", SenderNotAllowed),
            ("550 5.7.1 You are not a member of this list", SenderNotAllowed),
            ("552 5.3.4 no", TooBig),
            ("552 Message size exceeds fixed limit", TooBig),
            ("552 no", TooBig),
            ("452 4.5.3 Too many recipients", TooManyRecipients),
            ("550 5.6.0 no From", BadMessage),
            ("552 5.7.0 This message was blocked because of its attachment", Attachment),
            ("554 5.7.1 The message contains a virus (Eicar)", Malware),
            ("550 5.7.1 Message rejected as spam", Spam),
            ("554 5.6.7 SMTPUTF8 please", ForeignLetters),
            ("550 5.1.8 sender", BadSender),
            ("550 <jon@y.org>: Sender address rejected: Domain not found", BadSender),
            ("550 5.7.26 Unauthenticated email from y.org is not accepted", SenderUnproven),
            ("550 5.7.1 SPF check failed", SenderUnproven),
            ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", HostBlocked),
            ("550 5.7.1 Your IP has a poor reputation", HostBlocked),
            ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", HostBlocked),
            ("550 5.7.25 no PTR", HostUnnamed),
            ("450 4.7.1 Client host rejected: cannot find your reverse hostname", HostUnnamed),
            ("421 4.7.28 Gmail has detected an unusual rate of mail", RateLimited),
            ("451 too many messages, slow down", RateLimited),
            ("450 4.2.0 <a@x.org>: Recipient address rejected: Greylisted", Greylisted),
            ("451 4.7.1 Graylisting in action", Greylisted),
            ("550 5.7.1 no", Policy),
            ("530 5.7.0 Authentication required", Login),
            ("530 5.7.0 Must issue a STARTTLS command first", TlsDemanded),
            ("550 5.7.10 encryption needed", TlsDemanded),
            ("554 5.4.6 hop count exceeded", Loop),
            ("421 4.3.2 shutting down", Busy),
            ("421 bye", Busy),
            ("450 4.4.5 congested", Busy),
            ("521 no mail here", NoService),
            ("550 5.3.2 no mail here", NoService),
            ("452 4.3.1 Insufficient system storage", Trouble),
            ("451 4.3.0 Mail server temporarily rejected message", Trouble),
            ("451 4.3.5 Server configuration problem", Misconfigured),
            ("503 5.5.1 bad sequence", Misunderstood),
            ("501 what?", Misunderstood),
            ("451 not now", Later),
            ("451 4.7.1 not now", Later),
            ("550 go away", Refused),
            ("554 5.7.0 no", Refused),
            ("999 ?", Later),
        ] {
            let reply = Reply::read_all(format!("{reply}\r\n").as_bytes()).expect(reply);
            assert_eq!(Cause::of(&Outcome::from_reply("RCPT TO", reply.clone())), cause, "{reply}");
        }
    }

    #[test]
    fn outcomes_without_a_reply_show_their_causes() {
        let command = |code| Outcome::from_command(crate::sys::command::Ended::Code(code), "spam");
        let eof = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let deferred = |subject, detail, why: &str| Outcome::deferred(Status(4, subject, detail), why);
        let failed = |subject, detail, why: &str| Outcome::failed(Status(5, subject, detail), why);
        for (outcome, cause) in [
            (failed(1, 1, "User unknown"), NoMailbox),
            (Outcome::from_dns("x.org", &Lookup::NxDomain), NoDomain),
            (Outcome::from_dns("x.org", &Lookup::Timeout), NoAnswer),
            (failed(1, 10, "x.org: null MX"), NoMailDomain),
            (failed(4, 4, "x.org: only private addresses"), BrokenDomain),
            (failed(4, 4, "No mail leaves this host").via(Via::Maildir), NoWayOut),
            (deferred(4, 4, "mx has no address"), Misconfigured),
            (deferred(4, 1, "timed out while connecting"), Unreachable),
            (deferred(4, 0, "no host could be tried"), Unreachable),
            (Outcome::from_connection("waiting for the reply to DATA", &eof, false), ConnectionLost),
            (failed(4, 6, "mail for x.org loops back to this host"), Loop),
            (failed(4, 7, "the deadline of the message has passed"), Deadline),
            (failed(3, 3, "the message has a deadline"), Deadline),
            (failed(3, 4, "the host wants at most 1"), TooBig),
            (failed(6, 3, "cannot be converted"), Unconvertible),
            (failed(6, 9, "the header is not in ASCII"), ForeignLetters),
            (deferred(5, 0, "the host said nothing"), Misunderstood),
            (deferred(7, 0, "logging in: bad password"), Login),
            (deferred(7, 4, "no common mechanism"), Login),
            (deferred(7, 4, "the host does not offer STARTTLS"), TlsNotOffered),
            (deferred(7, 5, "bad certificate"), TlsFailed),
            (Outcome::from_io("write", &std::io::Error::from_raw_os_error(28)), Trouble),
            (Outcome::from_io("write", &std::io::Error::from_raw_os_error(122)), MailboxFull),
            (deferred(2, 0, "the mailbox is gone"), Trouble),
            (deferred(3, 5, "the list is empty"), Misconfigured),
            (command(67), NoMailbox),
            (command(69), Program),
            (command(75), Trouble),
            (command(78), Misconfigured),
            (failed(7, 1, "no"), Policy),
            (failed(0, 0, "they moved"), Returned),
            (failed(0, 0, "").via(Via::Smtp), Refused),
            (deferred(0, 0, ""), Later),
        ] {
            assert_eq!(Cause::of(&outcome), cause, "{outcome:?}");
        }
    }
}
