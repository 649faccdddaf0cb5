//! Decides whether a received message is accepted, by its form, its size, signs of a mail loop,
//! DMARC, the word of trusted ARC sealers, and the room in the quarantine and in the mailboxes.

use super::{Facts, Source, Verdict};
use crate::config::{Kind, Limit};
use crate::reply;
use crate::smtp::{MAX_HOPS, MAX_OWN_DELIVERIES};

/// The facts about a received message.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// Whether the message contains a CR without LF, or an LF without CR.
    pub has_bare_newline: bool,
    /// Whether the message contains a NUL octet.
    pub has_nul: bool,
    /// The size of the message on the wire, in octets (RFC 1870 5).
    pub size: u64,
    /// The maximum size of a message to its recipients, in octets.
    pub max_size: Limit<u64>,
}

/// What the trace fields of a message show about a mail loop.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    /// The number of Received fields.
    pub hops: usize,
    /// The number of Delivered-To fields with an address in a local domain.
    pub own_deliveries: usize,
    /// Whether each recipient of the message appears in a Delivered-To field.
    pub was_delivered: bool,
}

/// What the author's domain asks for with DMARC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// The domain asks for nothing, or the message has passed DMARC.
    Nothing,
    /// Quarantine.
    Quarantine,
    /// Rejection.
    Reject,
    /// It is not known what the domain asks for, because a look-up has failed.
    Undecided,
    /// Nobody knows which domains to ask, because From is missing or cannot be read. The text says
    /// why.
    Unclear(&'static str),
}

/// The newest seal of a valid ARC chain.
#[derive(Debug, Clone, Copy)]
pub struct Seal<'a> {
    /// The domain of the sealer, with A-labels.
    pub domain: &'a str,
    /// Whether the sealer says that the message had passed DMARC when the sealer received it.
    pub says_passed: bool,
}

/// Whether a message is accepted although DMARC would refuse it or put it into quarantine, because
/// a sealer in `policy.arc_sealers` says that DMARC had passed.
pub fn is_vouched_for(is_obeyed: bool, asks: Asks, seal: Option<Seal<'_>>, sealers: &[String]) -> bool {
    let is_trusted = |seal: &Seal<'_>| sealers.iter().any(|sealer| sealer.eq_ignore_ascii_case(seal.domain));
    let is_failed = !matches!(asks, Asks::Nothing | Asks::Unclear(_));
    is_obeyed && is_failed && seal.is_some_and(|seal| seal.says_passed && is_trusted(&seal))
}

/// If `policy.dmarc` is `obey`, refuses a message whose author's domain asks for rejection. A
/// message is also refused if it is unknown what the domain asks for, since a stranger could
/// otherwise avoid the policy by a From field that is hard to read, or by look-ups that fail.
pub fn dmarc(is_obeyed: bool, asks: Asks, domain: &str) -> Verdict {
    let reply = match asks {
        Asks::Reject if is_obeyed => reply::message::dmarc_reject(domain),
        Asks::Unclear(reason) if is_obeyed => reply::message::dmarc_unclear(reason),
        Asks::Undecided if is_obeyed => reply::message::dmarc_undecided(domain),
        _ => return Verdict::Accept,
    };
    Verdict::refuse(reply, "dmarc", Source::Key("policy.dmarc"))
}

/// If the quarantine has no room, defers a message that would go into it.
pub fn quarantine(has_room: bool) -> Verdict {
    match has_room {
        true => Verdict::Accept,
        false => {
            let reply = reply::message::quarantine_full();
            Verdict::refuse(reply, "quarantine-room", Source::Key("policy.quarantine"))
        }
    }
}

/// Refuses a message of `size` bytes that fits into no mailbox of its recipients, by the rules of
/// [`super::rcpt::quota`].
pub fn quota(facts: &Facts<'_>, size: u64, full: impl FnOnce() -> Option<(bool, Source)>) -> Verdict {
    let full = if facts.is_local_user { None } else { full() };
    full.map_or(Verdict::Accept, |(is_final, source)| {
        Verdict::refuse(reply::message::mailboxes_full(size, is_final), "quota", source)
    })
}

/// Checks the form and the size of a message, as soon as its text has ended.
pub fn precheck(message: &Message) -> Verdict {
    if message.has_bare_newline {
        return Verdict::refuse(reply::message::bare_newline(), "bare-newline", Source::Standard("RFC 5321 2.3.8"));
    }
    if message.has_nul {
        return Verdict::refuse(reply::message::nul(), "nul", Source::Standard("RFC 5321 4.5.2"));
    }
    if message.size > message.max_size.value {
        let reply = reply::message::too_big(message.max_size.value);
        return Verdict::refuse(reply, "size", Source::Key(message.max_size.key));
    }
    Verdict::Accept
}

/// Checks a message for loops, before the message is committed to the spool. Only a client that may
/// relay may send a message that was already delivered to the same recipients.
pub fn check(facts: &Facts<'_>, trace: &Trace) -> Verdict {
    if trace.hops >= MAX_HOPS || trace.own_deliveries >= MAX_OWN_DELIVERIES {
        return Verdict::refuse(reply::message::mail_loop(), "loop", Source::Standard("RFC 5321 6.3"));
    }
    if trace.was_delivered && !facts.may_relay() {
        return Verdict::refuse(reply::message::delivered_before(), "loop", Source::Standard("RFC 9228"));
    }
    Verdict::Accept
}

/// Whether a message gets the signature of its author's domain, if there is a key for that domain.
///
/// The messages that are signed are those of clients that may relay: authenticated users, hosts in
/// `relay.networks`, and local programs. If a message is only relayed for such a client, and
/// already has our signature, it gets another one: a list or a filter on its way may have broken
/// the first, and a second valid one does no harm. Mail of strangers is never signed, so that
/// nobody else can get our signature. Neither is mail that comes by LMTP: another host has accepted
/// it, from anybody, for local recipients.
pub fn is_signed(facts: &Facts<'_>) -> bool {
    facts.may_relay() && facts.listener != Kind::Lmtp
}

/// Whether a report of a failure may contain the whole message (RET=FULL). Otherwise anybody could
/// have any text sent to a forged sender. `is_sender_proven` says that SPF has passed for the sender.
pub fn may_be_returned_whole(facts: &Facts<'_>, is_sender_proven: bool) -> bool {
    facts.may_relay() || is_sender_proven
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, SUBMITTER, TRUSTED, USER, shown};
    use super::*;

    #[test]
    fn the_form_comes_before_the_size() {
        let max_size = Limit { value: 10, key: "limits.message_size" };
        let good = Message { has_bare_newline: false, has_nul: false, size: 10, max_size };
        for (message, want) in [
            (good, "accept"),
            (Message { size: 11, ..good }, "refuse 552 size"),
            (Message { size: 11, has_nul: true, ..good }, "refuse 554 nul"),
            (Message { size: 11, has_nul: true, has_bare_newline: true, ..good }, "refuse 554 bare-newline"),
        ] {
            assert_eq!(shown(&precheck(&message)), want, "{message:?}");
        }
    }

    #[test]
    fn dmarc_is_obeyed_also_if_a_policy_cannot_be_found() {
        for (asks, want) in [
            (Asks::Nothing, "accept"),
            (Asks::Quarantine, "accept"),
            (Asks::Reject, "refuse 550 dmarc"),
            (Asks::Undecided, "defer 451 dmarc"),
            (Asks::Unclear("there is no From"), "refuse 550 dmarc"),
        ] {
            assert_eq!(shown(&dmarc(true, asks, "x.test")), want, "{asks:?}");
            assert_eq!(dmarc(false, asks, "x.test"), Verdict::Accept, "{asks:?}");
        }
    }

    #[test]
    fn only_a_trusted_sealer_vouches_for_a_message() {
        let good = Seal { domain: "lists.example", says_passed: true };
        let sealers = ["gate.example".to_owned(), "lists.example".to_owned()];
        for (is_obeyed, asks, seal, want) in [
            (true, Asks::Reject, Some(good), true),
            (true, Asks::Quarantine, Some(good), true),
            (true, Asks::Undecided, Some(good), true),
            (true, Asks::Nothing, Some(good), false),
            (true, Asks::Unclear("there is no From"), Some(good), false),
            (false, Asks::Reject, Some(good), false),
            (true, Asks::Reject, None, false),
            (true, Asks::Reject, Some(Seal { says_passed: false, ..good }), false),
            (true, Asks::Reject, Some(Seal { domain: "Lists.Example", ..good }), true),
            (true, Asks::Reject, Some(Seal { domain: "a.lists.example", ..good }), false),
            (true, Asks::Reject, Some(Seal { domain: "example", ..good }), false),
            (true, Asks::Reject, Some(Seal { domain: "", ..good }), false),
        ] {
            assert_eq!(is_vouched_for(is_obeyed, asks, seal, &sealers), want, "{is_obeyed} {asks:?} {seal:?}");
            assert!(!is_vouched_for(is_obeyed, asks, seal, &[]), "nobody is trusted by default");
        }
    }

    #[test]
    fn a_full_quarantine_defers() {
        assert_eq!(shown(&quarantine(true)), "accept");
        assert_eq!(shown(&quarantine(false)), "defer 451 quarantine-room");
    }

    #[test]
    fn a_message_that_fits_into_no_mailbox_is_refused_unless_a_program_has_sent_it() {
        let program = Facts { is_local_user: true, is_trusted: true, ..SUBMITTER };
        for (facts, full, want) in [
            (STRANGER, None, "accept"),
            (STRANGER, Some(false), "defer 452 quota"),
            (STRANGER, Some(true), "refuse 552 quota"),
            (program, Some(true), "accept"),
        ] {
            let full = full.map(|is_final| (is_final, Source::Key("domain.quota")));
            assert_eq!(shown(&quota(&facts, 1000, || full)), want, "{facts:?}");
        }
    }

    #[test]
    fn only_mail_of_clients_that_may_relay_is_signed() {
        let local = Facts { address: None, is_local_user: true, ..TRUSTED };
        let relaying = Facts { listener: Kind::Smtp, ..USER };
        for facts in [TRUSTED, USER, local, relaying] {
            assert!(is_signed(&facts), "{facts:?}");
        }
        let by_lmtp = [TRUSTED, USER].map(|facts| Facts { listener: Kind::Lmtp, ..facts });
        for facts in [STRANGER, SUBMITTER].into_iter().chain(by_lmtp) {
            assert!(!is_signed(&facts), "{facts:?}");
        }
    }

    #[test]
    fn loops_are_found_by_trace_fields() {
        let good = Trace { hops: MAX_HOPS - 1, own_deliveries: MAX_OWN_DELIVERIES - 1, was_delivered: false };
        for (facts, trace, want) in [
            (STRANGER, good, "accept"),
            (STRANGER, Trace { hops: MAX_HOPS, ..good }, "refuse 554 loop"),
            (TRUSTED, Trace { hops: MAX_HOPS, ..good }, "refuse 554 loop"),
            (TRUSTED, Trace { own_deliveries: MAX_OWN_DELIVERIES, ..good }, "refuse 554 loop"),
            (STRANGER, Trace { was_delivered: true, ..good }, "refuse 554 loop"),
            (TRUSTED, Trace { was_delivered: true, ..good }, "accept"),
            (USER, Trace { was_delivered: true, ..good }, "accept"),
        ] {
            assert_eq!(shown(&check(&facts, &trace)), want, "{facts:?} {trace:?}");
        }
    }
}
