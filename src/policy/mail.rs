//! Decides whether MAIL is accepted, by authentication, the declared size, the room in the spool
//! and the sender.

use super::{Facts, Source, Verdict};
use crate::address::{self, Address};
use crate::config::Limit;
use crate::reply;

/// The facts about a transaction at MAIL.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// The reverse-path as the client gave it; `None` for the null path `<>`.
    pub path: Option<&'a Address>,
    /// The reverse-path with a domain, which is added if the client gave none; `None` for the null
    /// path.
    pub sender: Option<&'a Address>,
    /// The declared size in octets; zero if none was declared.
    pub size: u64,
    /// The maximum size of a message, in octets (`limits.message_size`).
    pub max_size: u64,
    /// Whether the spool has room for the message.
    pub room: Room,
    /// Whether the client's account may use the sender.
    pub right: SenderRight,
}

/// Whether the spool has room for a message of the declared size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is enough room.
    Enough,
    /// There is not enough room.
    Short,
    /// The free space could not be determined.
    Unknown,
}

/// Whether an account may use a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderRight {
    /// The sender is the account's own or granted by the senders table, or there is no account.
    Granted,
    /// The account may not use the sender.
    Denied,
    /// The right is unknown, because the senders table or the rewrite table cannot be read.
    Unknown,
}

/// Checks a client before the arguments of MAIL are read. On a submission listener the client must
/// be authenticated or trusted.
pub fn precheck(facts: &Facts<'_>) -> Verdict {
    if facts.is_submission() && !facts.may_relay() {
        return Verdict::refuse(reply::sender::needs_login(), "login", Source::Key("listen.kind"));
    }
    Verdict::Accept
}

/// Checks MAIL with its arguments. The first rule that refuses decides.
pub fn check(facts: &Facts<'_>, mail: &Mail<'_>) -> Verdict {
    size(mail).or_else(|| room(mail)).or_else(|| domain(facts, mail)).or_else(|| right(mail))
}

fn size(mail: &Mail<'_>) -> Verdict {
    if mail.size > mail.max_size {
        let reply = reply::message::too_big(mail.max_size);
        return Verdict::refuse(reply, "size", Source::Key("limits.message_size"));
    }
    Verdict::Accept
}

fn room(mail: &Mail<'_>) -> Verdict {
    match mail.room {
        Room::Enough => Verdict::Accept,
        Room::Short => Verdict::refuse(reply::failure::no_storage(), "room", Source::Key("spool")),
        Room::Unknown => Verdict::refuse(reply::failure::local_error(), "room", Source::Failure),
    }
}

/// Refuses a sender without a domain. If the client may relay, the sender is accepted and gets the
/// local domain.
fn domain(facts: &Facts<'_>, mail: &Mail<'_>) -> Verdict {
    match mail.path {
        Some(path) if path.domain().is_empty() && !facts.may_relay() => {
            Verdict::refuse(reply::sender::needs_domain(), "sender-domain", Source::Standard("RFC 5321 2.3.5"))
        }
        _ => Verdict::Accept,
    }
}

fn right(mail: &Mail<'_>) -> Verdict {
    match mail.right {
        SenderRight::Granted => Verdict::Accept,
        SenderRight::Denied => {
            let reply = reply::sender::not_yours(&address::path(mail.sender));
            Verdict::refuse(reply, "sender-right", Source::Key("submission.senders"))
        }
        SenderRight::Unknown => Verdict::refuse(reply::failure::local_error(), "sender-right", Source::Failure),
    }
}

/// Refuses a message if its account, or its user on this host, has sent `limit` messages within an hour.
pub fn hourly(is_within: bool, limit: Limit<usize>) -> Verdict {
    let reply = || reply::sender::too_many_per_hour(limit.value);
    match is_within {
        true => Verdict::Accept,
        false => Verdict::refuse(reply(), "hourly-messages", Source::Key(limit.key)),
    }
}

/// Whether the client may ask that a message is kept until a time (FUTURERELEASE). RFC 4865 4.2
/// allows that only where mail is submitted. There a client has to log in before MAIL, unless its
/// network is trusted. A trusted client that has not logged in may not ask, because nobody answers
/// for the disk space.
pub fn may_hold(facts: &Facts<'_>) -> bool {
    facts.is_local_user || facts.is_submission() && (facts.login.is_some() || !facts.is_trusted)
}

/// Whether the client may set a deadline (DELIVERBY). Others could use it to have reports sent to a
/// forged sender.
pub fn may_set_deadline(facts: &Facts<'_>) -> bool {
    facts.may_relay()
}

/// Whether the client may demand that a message goes only over TLS (REQUIRETLS). Its session must
/// itself use TLS (RFC 8689 2). The control socket, where local users submit mail, leads to no
/// other host.
pub fn may_require_tls(facts: &Facts<'_>) -> bool {
    facts.is_encrypted || facts.is_local_user
}

/// The highest priority that the client may give to a message (RFC 6710 4.1).
pub fn max_priority(facts: &Facts<'_>) -> i8 {
    if facts.may_relay() { 9 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, SUBMITTER, TRUSTED, USER, shown};
    use super::*;

    #[test]
    fn submission_needs_a_login_or_a_trusted_client() {
        let trusted = Facts { is_trusted: true, ..SUBMITTER };
        for (facts, want) in [
            (STRANGER, "accept"),
            (TRUSTED, "accept"),
            (SUBMITTER, "refuse 530 login"),
            (trusted, "accept"),
            (USER, "accept"),
        ] {
            assert_eq!(shown(&precheck(&facts)), want, "{facts:?}");
        }
    }

    #[test]
    fn only_submitted_mail_is_kept_and_only_mail_that_may_be_relayed_hurries() {
        let logged_in = Facts { login: Some("jon"), ..SUBMITTER };
        let trusted = Facts { is_trusted: true, ..SUBMITTER };
        let program = Facts { is_local_user: true, is_trusted: true, ..STRANGER };
        for (facts, may_hold, max) in [
            (STRANGER, false, 0),
            (TRUSTED, false, 9),
            // EHLO offers FUTURERELEASE here, and MAIL demands a login.
            (SUBMITTER, true, 0),
            (trusted, false, 9),
            (logged_in, true, 9),
            (program, true, 9),
            (Facts { login: Some("jon"), ..STRANGER }, false, 9),
        ] {
            assert_eq!((super::may_hold(&facts), max_priority(&facts)), (may_hold, max), "{facts:?}");
        }
    }

    #[test]
    fn only_a_message_that_comes_by_tls_or_from_this_host_can_require_tls() {
        for (facts, want) in [
            (STRANGER, false),
            (Facts { is_encrypted: true, ..STRANGER }, true),
            (TRUSTED, false),
            (USER, true),
            (Facts { is_encrypted: false, ..USER }, false),
            (Facts { is_local_user: true, ..TRUSTED }, true),
        ] {
            assert_eq!(may_require_tls(&facts), want, "{facts:?}");
        }
    }

    #[test]
    fn a_sender_is_checked_rule_by_rule() {
        let address = |text: &str| Address::parse(text).expect(text);
        let (jon, bare, completed) = (address("jon@far.test"), address("jon"), address("jon@razorback.test"));
        let good = Mail {
            path: Some(&jon),
            sender: Some(&jon),
            size: 10,
            max_size: 10,
            room: Room::Enough,
            right: SenderRight::Granted,
        };
        let short = Mail { path: Some(&bare), sender: Some(&completed), ..good };
        for (facts, mail, want) in [
            (STRANGER, good, "accept"),
            (STRANGER, Mail { path: None, sender: None, ..good }, "accept"),
            (STRANGER, Mail { size: 11, ..good }, "refuse 552 size"),
            (TRUSTED, Mail { size: u64::MAX, ..good }, "refuse 552 size"),
            (TRUSTED, Mail { room: Room::Short, ..good }, "defer 452 room"),
            (TRUSTED, Mail { room: Room::Unknown, ..good }, "defer 451 room"),
            (STRANGER, short, "refuse 553 sender-domain"),
            (SUBMITTER, short, "refuse 553 sender-domain"),
            (TRUSTED, short, "accept"),
            (USER, short, "accept"),
            (USER, Mail { right: SenderRight::Denied, ..good }, "refuse 550 sender-right"),
            (USER, Mail { right: SenderRight::Unknown, ..good }, "defer 451 sender-right"),
            // If several rules apply, the first one decides.
            (USER, Mail { size: 11, room: Room::Short, right: SenderRight::Denied, ..good }, "refuse 552 size"),
            (USER, Mail { room: Room::Short, right: SenderRight::Denied, ..good }, "defer 452 room"),
        ] {
            assert_eq!(shown(&check(&facts, &mail)), want, "{facts:?} {mail:?}");
        }
    }
}
