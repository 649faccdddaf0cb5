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

/// The cause of a failure or a delay, as far as it matters to a person. etc/languages/en.toml explains
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
