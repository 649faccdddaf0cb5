//! Applies the rules of [`strangers`](super::strangers) to a recipient, in their order.
//!
//! The caller provides the facts through [`LookUps`]. A fact is asked for only when the turn of its
//! rule comes, so that a session waits for no look-up that decides nothing. A session answers by
//! its look-ups and counts; an explanation answers without any effect.

use std::net::IpAddr;

use super::strangers::{self, Access, Listed, SenderDomain, SpfFound};
use super::{Mark, Reason, Verdict};
use crate::config::policy::{Greylist, Policy, Spf};

/// The facts that the rules need. Each is asked for at most once for a recipient.
pub trait LookUps {
    /// Asks the access table.
    fn access(&mut self) -> Access;

    /// Whether the client greets with a name or an address of this host.
    fn is_own_hello(&mut self) -> bool;

    /// Finds out whether the domain of the sender accepts mail.
    fn sender_domain(&mut self) -> SenderDomain;

    /// Finds the DNS lists that contain the client or its names.
    fn listed(&mut self) -> Listed;

    /// Called when the lists have not refused the client, so that SPF can begin.
    fn begin_spf(&mut self) {}

    /// Finds the result of SPF.
    fn spf(&mut self) -> SpfFound;

    /// Whether the client has a verified name.
    fn has_name(&mut self) -> bool;

    /// Asks the greylist about a client with this address. Returns the number of seconds until the
    /// recipient will be accepted; `None` if it is accepted now.
    fn greylist(&mut self, client: IpAddr) -> Option<u64>;

    /// Whether the message is within the limit of messages per hour.
    fn is_within_messages(&mut self) -> bool;
}

/// The recipient about which the rules decide.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The rules of the configuration.
    pub policy: &'a Policy,
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The name that the client gave in HELO or EHLO.
    pub hello: &'a str,
    /// The reverse-path in angle brackets.
    pub sender: &'a str,
    /// Whether the recipient is the postmaster of a local domain.
    pub is_postmaster: bool,
}

/// The decision about a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screened {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether a line of the access table has decided, so that the other rules were not applied.
    pub is_exempt: bool,
    /// The marks that the message gets if the recipient is accepted, each with its reason.
    pub marks: Vec<(Mark, Reason)>,
}

/// Applies the rules to a recipient that exists.
pub fn check(question: &Question<'_>, look_ups: &mut impl LookUps) -> Screened {
    let Access { verdict, marks } = look_ups.access();
    let is_exempt = verdict.is_some();
    let verdict = verdict.unwrap_or_else(|| usual(question, look_ups));
    Screened { verdict, is_exempt, marks }
}

/// Applies the rules that decide if no line of the access table does.
fn usual(question: &Question<'_>, look_ups: &mut impl LookUps) -> Verdict {
    let Question { policy, hello, sender, .. } = question;
    let is_own = policy.refuses_own_hello && look_ups.is_own_hello();
    strangers::own_hello(hello, is_own)
        .or_else(|| strangers::sender_domain(sender, look_ups.sender_domain()))
        .or_else(|| if question.is_postmaster { Verdict::Accept } else { doubts(question, look_ups) })
        .or_else(|| match policy.messages_per_hour {
            0 => Verdict::Accept,
            limit => strangers::messages(look_ups.is_within_messages(), limit),
        })
}

/// Applies the rules from which mail for the postmaster is exempt.
fn doubts(question: &Question<'_>, look_ups: &mut impl LookUps) -> Verdict {
    let Question { policy, client, .. } = *question;
    let listed = look_ups.listed();
    let verdict = strangers::lists(client, &listed, policy.dnsbl_threshold);
    if verdict != Verdict::Accept {
        return verdict;
    }
    look_ups.begin_spf();
    let found = (policy.spf == Spf::Refuse).then(|| look_ups.spf());
    let verdict = found.as_ref().map_or(Verdict::Accept, |found| strangers::spf(client, found));
    if verdict != Verdict::Accept {
        return verdict;
    }
    let Some(address) = client.filter(|_| policy.greylist != Greylist::None) else { return Verdict::Accept };
    let is_asked = policy.greylist == Greylist::All || {
        let has_name = look_ups.has_name();
        strangers::is_suspicious(has_name, &listed, &found.unwrap_or_else(|| look_ups.spf()))
    };
    if is_asked { strangers::greylist(look_ups.greylist(address)) } else { Verdict::Accept }
}

#[cfg(test)]
mod tests {
    use super::super::strangers::Action;
    use super::super::tests::shown;
    use super::*;
    use crate::config;
    use crate::policy::Source;

    /// Facts that a test sets, and the names of those that the rules have asked for.
    struct Facts {
        access: Option<Action>,
        is_own: bool,
        domain: SenderDomain,
        sum: i32,
        spf: SpfFound,
        left: Option<u64>,
        is_within: bool,
        asked: Vec<&'static str>,
    }

    impl LookUps for Facts {
        fn access(&mut self) -> Access {
            let verdict = self.access.as_ref().map(|action| match action {
                Action::Ok => Verdict::Accept,
                _ => strangers::sender_domain("<>", SenderDomain::Missing),
            });
            let reason = Reason { rule: "access", source: Source::Failure };
            Access { verdict, marks: vec![(Mark::Quarantine, reason)] }
        }

        fn is_own_hello(&mut self) -> bool {
            self.asked.push("own");
            self.is_own
        }

        fn sender_domain(&mut self) -> SenderDomain {
            self.asked.push("domain");
            self.domain
        }

        fn listed(&mut self) -> Listed {
            self.asked.push("lists");
            Listed { sum: self.sum, names: Vec::new() }
        }

        fn begin_spf(&mut self) {
            self.asked.push("begin");
        }

        fn spf(&mut self) -> SpfFound {
            self.asked.push("spf");
            self.spf.clone()
        }

        fn has_name(&mut self) -> bool {
            self.asked.push("name");
            true
        }

        fn greylist(&mut self, _: IpAddr) -> Option<u64> {
            self.asked.push("greylist");
            self.left
        }

        fn is_within_messages(&mut self) -> bool {
            self.asked.push("messages");
            self.is_within
        }
    }

    fn facts() -> Facts {
        Facts {
            access: None,
            is_own: false,
            domain: SenderDomain::Good,
            sum: 0,
            spf: SpfFound::Good,
            left: None,
            is_within: true,
            asked: Vec::new(),
        }
    }

    #[test]
    fn a_fact_is_asked_for_only_if_the_rules_before_it_accept() {
        let fail = SpfFound::Fail("x.example".into(), None);
        let all = "own domain lists begin spf greylist messages";
        for (facts, is_postmaster, want, asked) in [
            (facts(), false, "accept", all),
            (Facts { access: Some(Action::Ok), ..facts() }, false, "accept", ""),
            (Facts { is_own: true, ..facts() }, false, "refuse 550 own-hello", "own"),
            (Facts { domain: SenderDomain::Null, ..facts() }, false, "refuse 550 sender-exists", "own domain"),
            (Facts { sum: 1, ..facts() }, false, "refuse 550 dns-lists", "own domain lists"),
            (Facts { spf: fail, ..facts() }, false, "refuse 550 spf", "own domain lists begin spf"),
            (Facts { left: Some(9), ..facts() }, false, "defer 451 greylist", "own domain lists begin spf greylist"),
            (Facts { is_within: false, ..facts() }, false, "defer 450 stranger-messages", all),
            (Facts { sum: 1, left: Some(9), ..facts() }, true, "accept", "own domain messages"),
        ] {
            let mut facts = facts;
            let mut policy = config::default().policy;
            policy.refuses_own_hello = true;
            (policy.spf, policy.greylist, policy.messages_per_hour) = (Spf::Refuse, Greylist::All, 1);
            policy.dnsbl_threshold = 1;
            let client = "192.0.2.1".parse().ok();
            let question = Question { policy: &policy, client, hello: "x", sender: "<>", is_postmaster };
            let screened = check(&question, &mut facts);
            assert_eq!((shown(&screened.verdict).as_str(), facts.asked.join(" ").as_str()), (want, asked));
            assert_eq!((screened.is_exempt, screened.marks.len()), (facts.access.is_some(), 1));
        }
    }

    /// With `suspicious`, the result of SPF decides whether the greylist is asked. It is asked for
    /// once, even if it could have refused the client before.
    #[test]
    fn the_greylist_may_be_for_suspicious_clients_only() {
        for (spf, sum, client, asked) in [
            (Spf::Refuse, 0, Some("192.0.2.1"), "domain lists begin spf name"),
            (Spf::Mark, 0, Some("192.0.2.1"), "domain lists begin name spf"),
            (Spf::Mark, 1, Some("192.0.2.1"), "domain lists begin name spf greylist"),
            (Spf::Mark, 1, None, "domain lists begin"),
        ] {
            let (mut facts, mut policy) = (Facts { sum, ..facts() }, config::default().policy);
            (policy.spf, policy.greylist, policy.messages_per_hour) = (spf, Greylist::Suspicious, 0);
            (policy.refuses_own_hello, policy.dnsbl_threshold) = (false, 2);
            let client = client.and_then(|client| client.parse().ok());
            let question = Question { policy: &policy, client, hello: "x", sender: "<>", is_postmaster: false };
            check(&question, &mut facts);
            assert_eq!(facts.asked.join(" "), asked, "{spf:?} {sum}");
        }
    }
}
