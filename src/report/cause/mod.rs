//! Finds the cause of a failure or a delay, from the table of causes for which there are texts.
//!
//! The enhanced status of the last attempt decides, if it is specific. An example of an unspecific
//! one is 5.7.1, which hosts use for spam, for block lists and for closed relays alike. Then the
//! words of the reply decide, after them a status that some hosts use for other things than its
//! standard says, the reply code, and at last a general cause. The words are those of large providers
//! and of other mail servers. Each cause has two texts in each language, in the files of
//! etc/languages: what is wrong, and what the reader can do.
//!
//! - `tables`: the statuses, words and codes that show a cause

mod tables;

use crate::outcome::{Fate, Outcome, Via};
use crate::reply::Reply;

use Cause::*;
use tables::{CODES, DOUBTFUL, STATUSES, WORDS, WORDS_OF_DELAYS, WORDS_OF_FAILURES};

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
        let find =
            |rows: &[(u16, u16, Self)]| rows.iter().find(|row| (row.0, row.1) == (subject, detail)).map(|row| row.2);
        let by_status = || find(STATUSES).or_else(|| find(DOUBTFUL).filter(|_| reply.is_none()));
        let of_fate = if is_final { WORDS_OF_FAILURES } else { WORDS_OF_DELAYS };
        let by_words = || WORDS.iter().chain(of_fate).find(|row| has_any(&words, row.1)).map(|row| row.0);
        let by_words = || match (subject, detail) {
            // The text of most replies with this status is a remark of no interest here.
            (1, 1) if is_final => by_words().filter(|cause| matches!(cause, MailboxFull | MailboxClosed)),
            _ => by_words(),
        };
        // A delay with one of these codes says only that the mailbox cannot be used now.
        let by_doubtful = || find(DOUBTFUL).filter(|_| is_final || !matches!((subject, detail), (1 | 2 | 4, 1)));
        let by_code = || CODES.iter().find(|row| reply.is_some_and(|reply| reply.code() == row.0)).map(|row| row.1);
        let general = || match (subject, detail) {
            (2, _) | (3, 0) => Some(Trouble),
            (3, 2) => Some(if is_final { NoService } else { Busy }),
            (5, _) => Some(Misunderstood),
            (6, _) => Some(BadMessage),
            (7, 1..) if is_final => Some(Policy),
            _ => None,
        };
        let general_or_none = || general().unwrap_or(if is_final { Refused } else { Later });
        by_status().or_else(by_words).or_else(by_doubtful).or_else(by_code).unwrap_or_else(general_or_none)
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
mod tests;
