//! Decides for a session whether a recipient from a client that may not relay is accepted. The
//! rules use the access table, HELO, the sender's domain, DNS lists, SPF, the greylist and hourly
//! limits.
//!
//! Each rule is one function, so that the session waits only for the facts that a rule needs when
//! its turn comes. The order is that of `RULES`. The limit on unknown recipients
//! comes before the look-up of the recipient. If a line `ok` of the access table applies, the rules
//! after the access table are skipped. Mail for the postmaster of a local domain is exempt from the
//! DNS lists, SPF and the greylist, so that a client that they refuse can complain (RFC 5321
//! 4.5.1).

use std::fmt;
use std::net::IpAddr;

use super::{Facts, Line, Mark, Reason, Source, Verdict};
use crate::config::policy::Policy;
use crate::reply::{self, Reply, Status};

/// The names of the rules, in the order in which the session applies them.
#[cfg(test)]
const RULES: [&str; 8] =
    ["stranger-unknown", "access", "own-hello", "sender-exists", "dns-lists", "spf", "greylist", "stranger-messages"];

/// What a line of the access table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The recipient is accepted without further checks.
    Ok,
    /// The recipient is refused, permanently or temporarily, with this code, status and text.
    Refuse(u16, Status, Box<str>),
    /// The recipient is accepted, and the message gets this mark.
    Mark(Mark),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Refuse(code, status, text) if *code < 500 => write!(f, "defer {code} {status} {text}"),
            Self::Refuse(code, status, text) => write!(f, "reject {code} {status} {text}"),
            Self::Mark(Mark::Quarantine) => f.write_str("quarantine"),
            Self::Mark(Mark::Tag(name)) => write!(f, "tag {name}"),
        }
    }
}

/// A line of the access table that applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What the line says.
    pub action: Action,
    /// The file and the number of the line.
    pub line: Line,
    /// Whether a look-up has failed, so that it is unknown whether the line applies. A doubtful
    /// refusal becomes temporary, and any other doubtful action is ignored.
    pub is_doubtful: bool,
}

/// The result of the lines of the access table that apply to a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The decision; `None` if no line decides, so that the other rules apply.
    pub verdict: Option<Verdict>,
    /// The marks of the lines before the one that decides, each with its reason.
    pub marks: Vec<(Mark, Reason)>,
}

/// Whether the domain of the sender accepts mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderDomain {
    /// The domain has a mail exchanger or an address. A sender whose domain need not have one, such
    /// as the null sender, is good, too.
    Good,
    /// The domain has neither a mail exchanger nor an address.
    Missing,
    /// The domain has a null MX (RFC 7505).
    Null,
    /// The look-ups failed.
    Unknown,
}

/// The DNS lists that contain the client, the name in HELO or the domain of the sender.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The sum of the weights of these lists.
    pub sum: i32,
    /// The names of the lists with a positive weight.
    pub names: Vec<String>,
}

impl Listed {
    /// Adds the lists that contain the names of a client to those that contain its address.
    #[must_use]
    pub fn with(&self, names: &Self) -> Self {
        let all = self.names.iter().chain(&names.names).cloned().collect();
        Self { sum: self.sum.saturating_add(names.sum), names: all }
    }
}

/// The result of SPF, reduced to what matters for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpfFound {
    /// The client may use the domain, or the domain does not say.
    Good,
    /// The client probably may not use the domain.
    SoftFail,
    /// The client may not use the domain. The texts are the domain and the explanation of its
    /// owner, if there is one.
    Fail(Box<str>, Option<Box<str>>),
    /// The SPF records of this domain cannot be looked up now.
    Unknown(Box<str>),
}

/// Whether the domain of a sender is looked up. `is_elsewhere` says whether the domain is neither local nor one
/// of `relay.domains`.
pub fn needs_sender_domain(policy: &Policy, is_elsewhere: bool) -> bool {
    policy.refuses_sender_domain && is_elsewhere
}

/// Whether the unknown recipients of a client are limited. `client` is the client's address, if it
/// is known. `is_welcome` says whether the access table accepts all mail of an address.
pub fn limits_unknown(
    facts: &Facts<'_>,
    client: Option<IpAddr>,
    limit: usize,
    is_welcome: impl FnOnce(IpAddr) -> bool,
) -> bool {
    limit > 0 && !facts.may_relay() && client.is_some_and(|address| !is_welcome(address))
}

/// Decides by the lines of the access table, in their order of precedence.
pub fn access<'r>(rules: impl Iterator<Item = &'r Rule>) -> Access {
    let mut marks = Vec::new();
    for rule in rules {
        let reason = || Reason { rule: "access", source: Source::Line(rule.line.clone()) };
        let verdict = match &rule.action {
            Action::Ok | Action::Mark(_) if rule.is_doubtful => continue,
            Action::Ok => Verdict::Accept,
            Action::Mark(mark) => {
                marks.push((mark.clone(), reason()));
                continue;
            }
            Action::Refuse(code, status, text) => refusal(rule, *code, *status, text),
        };
        return Access { verdict: Some(verdict), marks };
    }
    Access { verdict: None, marks }
}

fn refusal(rule: &Rule, code: u16, status: Status, text: &str) -> Verdict {
    let (code, status) = match rule.is_doubtful && code >= 500 {
        true => (450, Status(4, status.1, status.2)),
        false => (code, status),
    };
    refuse(reply::stranger::access(code, status, text), "access", Source::Line(rule.line.clone()))
}

/// Refuses a client that greets with a name or an address of this host.
pub fn own_hello(hello: &str, is_own: bool) -> Verdict {
    match is_own {
        true => refuse(reply::stranger::own_hello(hello), "own-hello", Source::Key("policy.own_hello")),
        false => Verdict::Accept,
    }
}

/// Refuses a sender whose domain accepts no mail, because replies and reports to the sender could
/// not be delivered. `sender` is the reverse-path in angle brackets.
pub fn sender_domain(sender: &str, domain: SenderDomain) -> Verdict {
    let reply = match domain {
        SenderDomain::Good => return Verdict::Accept,
        SenderDomain::Missing => reply::stranger::no_such_domain(&sender),
        SenderDomain::Null => reply::stranger::null_exchanger(&sender),
        SenderDomain::Unknown => reply::stranger::unknown_domain(&sender),
    };
    refuse(reply, "sender-exists", Source::Key("policy.sender_domain"))
}

/// Refuses a client if the weights of the lists that contain it have a sum of at least `threshold`.
pub fn lists(client: Option<IpAddr>, listed: &Listed, threshold: i32) -> Verdict {
    if listed.sum < threshold {
        return Verdict::Accept;
    }
    refuse(reply::stranger::listed(client, &listed.names.join(", ")), "dns-lists", Source::Key("policy.dnsbl"))
}

/// Refuses a client that, according to SPF, may not use the domain of HELO or of the sender. The
/// caller asks only if `policy.spf` is `refuse`.
pub fn spf(client: Option<IpAddr>, found: &SpfFound) -> Verdict {
    let reply = match found {
        SpfFound::Good | SpfFound::SoftFail => return Verdict::Accept,
        SpfFound::Fail(domain, why) => reply::stranger::spf_fail(domain, client, why.as_deref()),
        SpfFound::Unknown(domain) => reply::stranger::spf_trouble(domain),
    };
    refuse(reply, "spf", Source::Key("policy.spf"))
}

/// Returns whether `policy.greylist = "suspicious"` applies to a client. A client is suspicious if
/// it has no verified name, because few servers lack one. A client is suspicious, too, if it is on
/// a DNS list or has the SPF result softfail, and was not refused for that. A client whose lists
/// have a negative sum is never suspicious.
pub fn is_suspicious(has_name: bool, listed: &Listed, found: &SpfFound) -> bool {
    listed.sum >= 0 && (!has_name || listed.sum > 0 || *found == SpfFound::SoftFail)
}

/// Defers a recipient that the greylist will accept after `left` seconds. If `left` is `None`, the
/// recipient is accepted now.
pub fn greylist(left: Option<u64>) -> Verdict {
    match left {
        Some(seconds) => refuse(reply::stranger::greylisted(seconds), "greylist", Source::Key("policy.greylist")),
        None => Verdict::Accept,
    }
}

/// Defers a message if its client has sent more than `limit` messages within an hour
/// (`policy.messages_per_hour`).
pub fn messages(is_within: bool, limit: usize) -> Verdict {
    match is_within {
        true => Verdict::Accept,
        false => refuse(
            reply::stranger::too_many_messages(limit),
            "stranger-messages",
            Source::Key("policy.messages_per_hour"),
        ),
    }
}

/// Defers a recipient if its client has named more than `limit` unknown recipients within an hour
/// (`policy.unknown_recipients_per_hour`).
pub fn unknown_recipients(is_within: bool, limit: usize) -> Verdict {
    match is_within {
        true => Verdict::Accept,
        false => refuse(
            reply::stranger::too_many_unknown(limit),
            "stranger-unknown",
            Source::Key("policy.unknown_recipients_per_hour"),
        ),
    }
}

fn refuse(reply: Reply, rule: &'static str, source: Source) -> Verdict {
    Verdict::refuse(reply, rule, source)
}

#[cfg(test)]
mod tests {
    use super::super::tests::shown;
    use super::*;

    fn rule(action: Action, is_doubtful: bool) -> Rule {
        let line = Line { file: std::path::Path::new("access").into(), number: 7 };
        Rule { action, line, is_doubtful }
    }

    #[test]
    fn the_first_line_of_the_access_table_that_decides_ends_the_checks() {
        let ok = || Action::Ok;
        let no = || Action::Refuse(550, Status(5, 7, 1), "no".into());
        let later = || Action::Refuse(450, Status(4, 7, 1), "later".into());
        let (hold, tag) = (|| Action::Mark(Mark::Quarantine), || Action::Mark(Mark::Tag("x".into())));
        for (rules, want, marks) in [
            (vec![], None, 0),
            (vec![rule(ok(), false), rule(no(), false)], Some("accept"), 0),
            (vec![rule(no(), false), rule(ok(), false)], Some("refuse 550 access"), 0),
            (vec![rule(later(), false)], Some("defer 450 access"), 0),
            (vec![rule(hold(), false), rule(tag(), false)], None, 2),
            (vec![rule(hold(), false), rule(ok(), false), rule(tag(), false)], Some("accept"), 1),
            // The first line is doubtful, because a look-up has failed. So nobody is accepted or
            // permanently refused because of it.
            (vec![rule(no(), true), rule(ok(), false)], Some("defer 450 access"), 0),
            (vec![rule(later(), true)], Some("defer 450 access"), 0),
            (vec![rule(ok(), true), rule(hold(), true)], None, 0),
        ] {
            let access = access(rules.iter());
            assert_eq!(access.verdict.as_ref().map(shown).as_deref(), want, "{rules:?}");
            assert_eq!(access.marks.len(), marks, "{rules:?}");
        }
    }

    #[test]
    fn a_line_of_a_table_is_the_reason() {
        let rules = [rule(Action::Refuse(554, Status(5, 7, 1), "no".into()), false)];
        let Some(Verdict::Refuse(reply, reason)) = access(rules.iter()).verdict else { panic!() };
        assert_eq!(
            (reply.to_string(), reason.to_string()),
            ("554 5.7.1 no".into(), "rule=access table=access:7".into())
        );
    }

    #[test]
    fn every_rule_has_its_reply() {
        let client = "192.0.2.1".parse().ok();
        let listed = |sum| Listed { sum, names: vec!["a.example".into(), "b.example".into()] };
        let fail = |why: Option<&str>| SpfFound::Fail("x.example".into(), why.map(Into::into));
        for (verdict, want) in [
            (own_hello("mx.example", false), "accept"),
            (own_hello("mx.example", true), "550 5.7.1 HELO mx.example is this host, and not yours"),
            (sender_domain("<a@b.c>", SenderDomain::Good), "accept"),
            (
                sender_domain("<a@b.c>", SenderDomain::Missing),
                "550 5.1.8 <a@b.c> The domain of the sender accepts no mail: it does not exist",
            ),
            (
                sender_domain("<a@b.c>", SenderDomain::Null),
                "550 5.7.27 <a@b.c> The domain of the sender accepts no mail",
            ),
            (
                sender_domain("<a@b.c>", SenderDomain::Unknown),
                "451 4.4.3 <a@b.c> The domain of the sender cannot be looked up now, please try again later",
            ),
            (lists(client, &listed(1), 2), "accept"),
            (lists(client, &Listed::default(), 1), "accept"),
            (
                lists(client, &listed(2), 2),
                "550 5.7.1 Mail from [192.0.2.1] is refused because of a.example, b.example",
            ),
            (spf(client, &SpfFound::Good), "accept"),
            (spf(client, &SpfFound::SoftFail), "accept"),
            (spf(client, &fail(None)), "550 5.7.23 SPF: x.example does not permit mail from [192.0.2.1]"),
            (
                spf(client, &fail(Some("see http://x.example"))),
                "550 5.7.23 SPF: x.example does not permit mail from [192.0.2.1]: see http://x.example",
            ),
            (
                spf(client, &SpfFound::Unknown("x.example".into())),
                "451 4.7.24 SPF of x.example cannot be looked up now, please try again later",
            ),
            (greylist(None), "accept"),
            (greylist(Some(300)), "451 4.7.1 Greylisted, please try again in 300 seconds"),
            (messages(true, 10), "accept"),
            (messages(false, 10), "450 4.7.1 The limit of 10 messages an hour is reached; please try again later"),
            (unknown_recipients(true, 10), "accept"),
            (
                unknown_recipients(false, 10),
                "450 4.7.1 The limit of 10 unknown recipients an hour is reached; please try again later",
            ),
        ] {
            match &verdict {
                Verdict::Accept => assert_eq!("accept", want),
                Verdict::Refuse(reply, reason) | Verdict::Defer(reply, reason) => {
                    assert_eq!(reply.to_string(), want);
                    assert!(RULES.contains(&reason.rule), "{reason}");
                }
            }
        }
    }

    #[test]
    fn a_client_is_suspicious_for_three_reasons() {
        let listed = |sum| Listed { sum, names: Vec::new() };
        for (has_name, sum, found, want) in [
            (true, 0, SpfFound::Good, false),
            (false, 0, SpfFound::Good, true),
            (true, 1, SpfFound::Good, true),
            (true, 0, SpfFound::SoftFail, true),
            (false, -1, SpfFound::SoftFail, false),
        ] {
            assert_eq!(is_suspicious(has_name, &listed(sum), &found), want, "{has_name} {sum} {found:?}");
        }
    }
}
