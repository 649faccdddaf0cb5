//! Decides whether RCPT is accepted, by the limits on recipients, the rules for relaying and the
//! existence of the user.
//!
//! A new check at RCPT needs a rule here, and a field of [`Rcpt`] for each fact that the rule uses.

use super::relay::{self, Domain};
use super::{Facts, Source, Verdict};
use crate::address::Address;
use crate::config::{Kind, Limit};
use crate::reply::{self, Status};
use crate::smtp::MAX_FINAL_RECIPIENTS;

/// The facts about a recipient before the look-up.
#[derive(Debug, Clone, Copy)]
pub struct Rcpt<'a> {
    /// The forward-path, completed with a domain.
    pub recipient: &'a Address,
    /// The class of the recipient's domain.
    pub domain: Domain,
    /// The number of recipients that were accepted earlier in the transaction.
    pub accepted: usize,
    /// The maximum number of recipients of a message (`limits.recipients`).
    pub max_recipients: usize,
    /// The size of the message that the client has declared, in octets; 0 if it has declared none.
    pub size: u64,
    /// The maximum size of a message for the domain of the recipient.
    pub max_size: Limit<u64>,
    /// The key that names the users of the domain.
    pub users: &'static str,
}

/// The facts about a recipient after the look-up.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The result of the look-up.
    pub lookup: Lookup<'a>,
    /// The number of recipients that the transaction has already, after the expansion of aliases.
    pub final_recipients: usize,
}

/// The result of looking up a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The recipient stands for this number of final recipients, which are counted after the
    /// expansion of aliases.
    Found(usize),
    /// The recipient leads to no mailbox.
    Unknown,
    /// The routes table refuses the recipient, with this status and text.
    Refused(Status, &'a str),
    /// The recipient cannot be looked up now.
    Failed,
}

/// What the next host says about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHost {
    /// It accepts the recipient.
    Accepted,
    /// There is no such recipient.
    Unknown,
    /// The mailbox is full. The value says whether the host calls that permanent.
    Full(bool),
    /// It refuses the recipient for another reason, with this status of class 5.
    Refused(Status),
    /// It has not answered, or its answer says nothing about the recipient.
    NoAnswer,
}

/// Applies the rules of RCPT in their order, except those for strangers after the look-up (see
/// [`screening`](super::screening)). `bounces` is the verdict of [`only_bounces`]. `unknown` is
/// called for the limit on unknown recipients, and `find` looks the recipient up. Each is called
/// only when its turn comes.
pub fn decide<'f>(
    facts: &Facts<'_>,
    rcpt: &Rcpt<'_>,
    bounces: impl FnOnce() -> Verdict,
    unknown: impl FnOnce() -> Verdict,
    find: impl FnOnce() -> Found<'f>,
) -> Verdict {
    precheck(facts, rcpt).or_else(bounces).or_else(unknown).or_else(|| check(facts, rcpt, &find()))
}

/// Defers a recipient if its account has sent to `limit` recipients within an hour.
pub fn hourly(is_within: bool, limit: Limit<usize>) -> Verdict {
    let reply = || reply::recipient::too_many_per_hour(limit.value);
    match is_within {
        true => Verdict::Accept,
        false => Verdict::refuse(reply(), "hourly-recipients", Source::Key(limit.key)),
    }
}

/// Checks a recipient before its look-up: the limit on recipients, and the right to relay.
pub fn precheck(facts: &Facts<'_>, rcpt: &Rcpt<'_>) -> Verdict {
    limit(facts, rcpt).or_else(|| permission(facts, rcpt)).or_else(|| size(rcpt))
}

/// Refuses a recipient whose domain takes no message of the declared size.
fn size(rcpt: &Rcpt<'_>) -> Verdict {
    if rcpt.size <= rcpt.max_size.value {
        return Verdict::Accept;
    }
    Verdict::refuse(reply::message::too_big(rcpt.max_size.value), "size", Source::Key(rcpt.max_size.key))
}

/// Checks a recipient after its look-up.
pub fn check(_: &Facts<'_>, rcpt: &Rcpt<'_>, found: &Found<'_>) -> Verdict {
    let recipient = rcpt.recipient;
    match found.lookup {
        Lookup::Found(count) if count + found.final_recipients > MAX_FINAL_RECIPIENTS => {
            Verdict::refuse(reply::recipient::too_many(), "final-recipients", Source::Key("local.aliases"))
        }
        Lookup::Found(_) => Verdict::Accept,
        Lookup::Unknown => {
            let key = if rcpt.domain == Domain::Relay { "relay.recipients" } else { rcpt.users };
            Verdict::refuse(reply::recipient::unknown_user(recipient), "unknown-user", Source::Key(key))
        }
        Lookup::Refused(status, text) => {
            let reply = reply::recipient::refused(recipient, status, text);
            Verdict::refuse(reply, "route", Source::Key("remote.routes"))
        }
        Lookup::Failed => {
            Verdict::refuse(reply::recipient::temporary_failure(recipient), "unknown-user", Source::Failure)
        }
    }
}

/// Whether a recipient is the postmaster of a local domain, who always exists (RFC 5321 4.5.1).
pub fn is_postmaster(domain: Domain, recipient: &Address) -> bool {
    domain == Domain::Local && recipient.local().eq_ignore_ascii_case("postmaster")
}

/// Decides by what the next host says about a recipient, after all other rules.
pub fn next_host(to: &Address, key: &'static str, answer: NextHost) -> Verdict {
    let reply = match answer {
        NextHost::Accepted => return Verdict::Accept,
        NextHost::Unknown => reply::recipient::unknown_user(to),
        NextHost::Full(is_lasting) => reply::recipient::mailbox_full(to, is_lasting),
        NextHost::Refused(status) => reply::recipient::refused(to, status, "The next host refuses this recipient"),
        NextHost::NoAnswer => reply::recipient::no_answer(to),
    };
    Verdict::refuse(reply, "next-host", Source::Key(key))
}

/// The key because of which the next host is asked about a recipient in a domain of this class. `users`
/// is the key that names the users of the domain.
pub fn next_host_key(domain: Domain, users: &'static str) -> &'static str {
    if domain == Domain::Relay { "relay.verify" } else { users }
}

/// Refuses a recipient address that this host has made by rewriting a sender (`is_rewritten`),
/// unless the sender of the message is null: only bounces go to such an address. Otherwise anybody
/// who has seen the address could send any mail to the original sender through this host.
pub fn only_bounces(rcpt: &Rcpt<'_>, is_rewritten: bool, has_sender: bool) -> Verdict {
    if !is_rewritten || !has_sender {
        return Verdict::Accept;
    }
    Verdict::refuse(reply::recipient::only_bounces(rcpt.recipient), "only-bounces", Source::Key("remote.srs"))
}

/// Refuses a recipient whose mailbox has no room for the message. `full` says whether it is so,
/// whether such mail is returned at once (`local.over_quota`), and what sets the quota. It is not called for a local process:
/// the queue has time to wait for room, and a program that calls sendmail(8) has not.
pub fn quota(facts: &Facts<'_>, recipient: &Address, full: impl FnOnce() -> Option<(bool, Source)>) -> Verdict {
    let full = if facts.is_local_user { None } else { full() };
    full.map_or(Verdict::Accept, |(is_final, source)| {
        Verdict::refuse(reply::recipient::mailbox_full(recipient, is_final), "quota", source)
    })
}

/// Checks the limit on recipients. The limit does not apply to a local process, because a program
/// that calls sendmail(8) cannot send the rest in another message.
fn limit(facts: &Facts<'_>, rcpt: &Rcpt<'_>) -> Verdict {
    if rcpt.accepted >= rcpt.max_recipients && !facts.is_local_user {
        return Verdict::refuse(reply::recipient::too_many(), "recipients", Source::Key("limits.recipients"));
    }
    Verdict::Accept
}

/// Checks the right to relay. LMTP is for local recipients only, whatever rights the client has.
fn permission(facts: &Facts<'_>, rcpt: &Rcpt<'_>) -> Verdict {
    if facts.listener == Kind::Lmtp && rcpt.domain != Domain::Local {
        return Verdict::refuse(reply::recipient::not_local(rcpt.recipient), "lmtp", Source::Key("listen.kind"));
    }
    if relay::is_permitted(facts, rcpt.domain, rcpt.recipient) {
        return Verdict::Accept;
    }
    Verdict::refuse(reply::recipient::relaying_denied(rcpt.recipient), "relay", Source::Key("relay.networks"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, SUBMITTER, TRUSTED, USER, shown};
    use super::*;

    #[test]
    fn the_limit_and_relaying_are_checked_before_the_look_up() {
        let [recipient, odd] =
            ["jon@razorback.test", "jon%far.test@razorback.test"].map(|text| Address::parse(text).expect(text));
        let max_size = Limit { value: 10, key: "domain.message_size" };
        let (domain, max_recipients, users) = (Domain::Local, 10, "local.users");
        let good = Rcpt { recipient: &recipient, domain, accepted: 9, max_recipients, size: 10, max_size, users };
        let (relay, other) = (Rcpt { domain: Domain::Relay, ..good }, Rcpt { domain: Domain::Other, ..good });
        let lmtp = |facts| Facts { listener: Kind::Lmtp, ..facts };
        let program = Facts { is_local_user: true, is_trusted: true, ..SUBMITTER };
        for (facts, rcpt, want) in [
            (STRANGER, good, "accept"),
            (STRANGER, relay, "accept"),
            (STRANGER, Rcpt { recipient: &odd, ..relay }, "refuse 550 relay"),
            (TRUSTED, Rcpt { recipient: &odd, ..relay }, "accept"),
            (STRANGER, other, "refuse 550 relay"),
            (SUBMITTER, other, "refuse 550 relay"),
            (TRUSTED, other, "accept"),
            (USER, other, "accept"),
            (lmtp(STRANGER), good, "accept"),
            (lmtp(STRANGER), relay, "refuse 550 lmtp"),
            (lmtp(TRUSTED), relay, "refuse 550 lmtp"),
            (lmtp(USER), other, "refuse 550 lmtp"),
            (STRANGER, Rcpt { accepted: 10, ..good }, "defer 452 recipients"),
            (USER, Rcpt { accepted: 10, ..good }, "defer 452 recipients"),
            (program, Rcpt { accepted: 10_000, ..other }, "accept"),
            (STRANGER, Rcpt { size: 11, ..good }, "refuse 552 size"),
            (USER, Rcpt { size: 11, ..good }, "refuse 552 size"),
            // If several rules apply, the first one decides.
            (STRANGER, Rcpt { size: 11, ..other }, "refuse 550 relay"),
            (STRANGER, Rcpt { accepted: 10, ..other }, "defer 452 recipients"),
        ] {
            assert_eq!(shown(&precheck(&facts, &rcpt)), want, "{facts:?} {rcpt:?}");
        }
    }

    #[test]
    fn the_next_host_decides_with_its_own_status() {
        let recipient = Address::parse("jon@razorback.test").expect("an address");
        for key in ["relay.verify", "local.users"] {
            for (answer, want) in [
                (NextHost::Unknown, "550 5.1.1"),
                (NextHost::Full(true), "552 5.2.2"),
                (NextHost::Full(false), "452 4.2.2"),
                (NextHost::Refused(Status(5, 2, 1)), "550 5.2.1"),
                (NextHost::NoAnswer, "451 4.4.3"),
            ] {
                let (Verdict::Refuse(reply, reason) | Verdict::Defer(reply, reason)) =
                    next_host(&recipient, key, answer)
                else {
                    panic!("{answer:?} is accepted");
                };
                assert!(reply.to_string().starts_with(want), "{reply}");
                assert_eq!((reason.rule, reason.source), ("next-host", Source::Key(key)));
            }
            assert_eq!(next_host(&recipient, key, NextHost::Accepted), Verdict::Accept);
        }
    }

    #[test]
    fn a_full_mailbox_is_refused_except_for_programs_on_this_host() {
        let recipient = Address::parse("jon@razorback.test").expect("an address");
        let program = Facts { is_local_user: true, is_trusted: true, ..SUBMITTER };
        for (facts, full, want) in [
            (STRANGER, None, "accept"),
            (STRANGER, Some(false), "defer 452 quota"),
            (USER, Some(true), "refuse 552 quota"),
            (program, Some(true), "accept"),
        ] {
            let full = full.map(|is_final| (is_final, Source::Key("domain.quota")));
            assert_eq!(shown(&quota(&facts, &recipient, || full)), want, "{facts:?}");
        }
    }

    #[test]
    fn the_look_up_decides_for_all_clients_alike() {
        let recipient = Address::parse("jon@razorback.test").expect("an address");
        let max_size = Limit { value: 10, key: "limits.message_size" };
        let (domain, max_recipients, users) = (Domain::Local, 10, "local.users");
        let rcpt = Rcpt { recipient: &recipient, domain, accepted: 0, max_recipients, size: 0, max_size, users };
        for (lookup, final_recipients, want) in [
            (Lookup::Found(1), 0, "accept"),
            (Lookup::Found(1), MAX_FINAL_RECIPIENTS - 1, "accept"),
            (Lookup::Found(1), MAX_FINAL_RECIPIENTS, "defer 452 final-recipients"),
            (Lookup::Found(MAX_FINAL_RECIPIENTS + 1), 0, "defer 452 final-recipients"),
            (Lookup::Unknown, 0, "refuse 550 unknown-user"),
            (Lookup::Refused(Status(5, 7, 1), "no"), 0, "refuse 550 route"),
            (Lookup::Failed, 0, "defer 451 unknown-user"),
        ] {
            for facts in [STRANGER, TRUSTED, USER] {
                let found = Found { lookup, final_recipients };
                assert_eq!(shown(&check(&facts, &rcpt, &found)), want, "{found:?}");
            }
        }
    }
}
