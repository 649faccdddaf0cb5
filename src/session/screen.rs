//! Screens clients that may not relay: begins the look-ups for the rules of `[policy]` at the
//! connection and at MAIL, and asks the rules at RCPT.
//!
//! Nothing here is done for clients that may relay. A rule waits only for the look-ups that it
//! needs. For all look-ups of one message together, a session waits at most [`screen::TIME`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::transaction::Transaction;
use super::{Phase, Session};
use crate::address::{self, Address};
use crate::config::Kind;
use crate::config::policy::{Greylist, Spf};
use crate::dns::{BegunDomain, MailDomain};
use crate::log;
use crate::outcome::NoAnswer;
use crate::policy::strangers::{self, Listed, SenderDomain};
use crate::policy::{Mark, Reason, Source, Verdict};
use crate::reply::Reply;
use crate::route::DomainClass;
use crate::screen::access::{ClientName, Question};
use crate::screen::background::{Background, Threads};
use crate::screen::{self, lists};
use crate::submit::usage::{Allowance, Counted};

/// After this number of refused recipients in a session, the reply to each further one is delayed,
/// if `policy.unknown_recipients_per_hour` sets a limit.
const FREE_REFUSALS: usize = 3;
/// The delay of the reply to a refused recipient.
const REFUSAL_DELAY: Duration = Duration::from_millis(500);

/// What is looked up about a client itself, for all messages of its session.
#[derive(Debug, Default)]
pub struct Client {
    /// The threads that look something up for the session.
    pub(super) threads: Threads,
    /// The look-up of the client's name; `None` before it begins, and when its result has been
    /// taken.
    name: Option<Background<Result<Option<String>, NoAnswer>>>,
    /// Whether the look-up of the client's name failed.
    pub(super) is_name_unknown: bool,
    /// The look-ups in `policy.dnsbl`; `None` before they begin, and when their results have been
    /// taken.
    lists: Option<lists::Asked>,
    /// The DNS lists that contain the client.
    listed: Option<Listed>,
    /// The name in HELO, and the SPF check of it.
    #[cfg(feature = "mailauth")]
    pub(super) hello_spf: Option<super::spf::Begun>,
    refused_recipients: usize,
    /// How long the session has waited for look-ups for the current message.
    pub(super) waited: Duration,
}

impl Client {
    /// The time until which the session may wait for look-ups that begin now: all look-ups for a
    /// message together have [`screen::TIME`].
    pub(super) fn until(&self) -> Instant {
        Instant::now() + screen::TIME.saturating_sub(self.waited)
    }
}

/// What is looked up for one message, and what the rules have found so far.
#[derive(Debug)]
pub struct Screening {
    domain: Option<BegunDomain>,
    sender_domain: SenderDomain,
    domain_lists: Vec<lists::Asked>,
    domains_listed: Option<Listed>,
    /// The domain of the sender, and the SPF check of the sender.
    #[cfg(feature = "mailauth")]
    pub(super) spf: Option<super::spf::Begun>,
    is_counted: bool,
    /// Whether the access table says ok for every recipient so far.
    is_exempt: bool,
    /// The marks of the message, each with its reason.
    marks: Vec<(Mark, Reason)>,
}

impl Session<'_> {
    /// The client's address; `None` if the client is a local process, or if its proxy does not know
    /// the address.
    pub(super) fn client_address(&self) -> Option<IpAddr> {
        self.client.address.filter(|_| !self.client.is_unidentified)
    }

    /// Begins to look up the client's address in DNS lists. Does nothing if that look-up has
    /// already begun.
    pub(super) fn begin_lists(&mut self) {
        let lists = &self.service.config.policy.dnsbl;
        let is_done = self.screen.lists.is_some() || self.screen.listed.is_some();
        if lists.is_empty() || is_done || self.client.listen.kind == Kind::Submission || self.facts().may_relay() {
            return;
        }
        let Some(address) = self.client_address() else { return };
        let (site, until) = (&self.service.site, Instant::now() + screen::TIME);
        self.screen.lists = Some(site.lists.begin_address(&site.dns, lists, address, until));
    }

    /// Waits for `policy.greet_delay`. Returns whether the client has sent something meanwhile.
    ///
    /// # Errors
    /// If the connection is closed or lost.
    pub(super) fn speaks_early(&mut self) -> std::io::Result<bool> {
        let delay = self.service.config.policy.greet_delay;
        let is_free = self.trusted_proxy.is_some() || self.is_secure() || self.client.listen.kind == Kind::Submission;
        let is_welcome = |address| self.service.access.is_welcome(address);
        if delay.is_zero() || is_free || self.facts().may_relay() || self.client_address().is_none_or(is_welcome) {
            return Ok(false);
        }
        let until = Instant::now() + delay;
        while Instant::now() < until && !self.is_stopping() {
            if self.input.source.has_input()? {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
        Ok(false)
    }

    /// Begins the look-ups for a message; `None` if the client may relay.
    pub(super) fn begin_screening(&mut self, sender: Option<&Address>) -> Option<Box<Screening>> {
        if self.facts().may_relay() {
            return None;
        }
        let until = Instant::now() + screen::TIME;
        self.screen.waited = Duration::ZERO;
        self.begin_lists();
        self.begin_name(until);
        let (service, hello) = (self.service, self.phase.hello().map(|hello| hello.name.clone()).unwrap_or_default());
        let (policy, site) = (&service.config.policy, &service.site);
        let domain = sender.map(Address::domain);
        let is_elsewhere = |domain: &&str| service.router.class_of(domain) == DomainClass::Elsewhere;
        let foreign = domain.filter(is_elsewhere).filter(|_| policy.refuses_sender_domain);
        let mut domain_lists = Vec::new();
        if !policy.sender_lists.is_empty() {
            let ask = |domain| site.lists.begin_domain(&site.dns, &policy.sender_lists, domain, until);
            domain_lists.extend([Some(hello.as_str()), domain].into_iter().flatten().map(ask));
        }
        Some(Box::new(Screening {
            domain: foreign.map(|domain| site.dns.begin_mail_domain(domain, until)),
            sender_domain: SenderDomain::Good,
            domain_lists,
            domains_listed: None,
            #[cfg(feature = "mailauth")]
            spf: self.begin_spf(&hello, sender, until),
            is_counted: false,
            is_exempt: true,
            marks: Vec::new(),
        }))
    }

    /// Begins to look up the client's name, which at least the log line of the message needs.
    fn begin_name(&mut self, until: Instant) {
        let Some(address) = self.client_address().filter(|address| !address.to_canonical().is_loopback()) else {
            return;
        };
        if self.screen.is_name_unknown && self.service.access.needs_name() {
            // The look-up that failed was for an earlier message, so the name is looked up again.
            (self.name, self.screen.is_name_unknown) = (None, false);
        }
        match &mut self.screen.name {
            // No thread was left for it at an earlier message.
            Some(asked) => asked.begin_late(until),
            None if self.name.is_none() => {
                let dns = Arc::clone(&self.service.site.dns);
                self.screen.name = Some(Background::begin(&self.screen.threads, address, until, move |until| {
                    dns.verified_name_until(address, until)
                }));
            }
            None => {}
        }
    }

    /// The client's verified name, for which the first call waits. A client without a known address
    /// has none.
    pub(super) fn verified_name(&mut self) -> Option<String> {
        let (dns, address) = (&self.service.site.dns, self.client_address()?);
        if let (None, Some(mut asked)) = (&self.name, self.screen.name.take()) {
            asked.begin_late(self.screen.until());
            let begun = Instant::now();
            let found = asked.wait().and_then(|found| found.clone().ok());
            self.screen.waited += begun.elapsed();
            self.screen.is_name_unknown = found.is_none();
            self.name = Some(found.flatten());
        }
        self.name.get_or_insert_with(|| dns.verified_name(address)).clone()
    }

    /// Asks the rules for a recipient that exists. The error is the reply that refuses it.
    pub(super) fn screen(&mut self, recipient: &Address) -> Result<(), Reply> {
        let Phase::InMail(_, transaction) = &mut self.phase else { return Ok(()) };
        let sender = transaction.envelope.sender.clone();
        let Some(mut screening) = transaction.screening.take() else { return Ok(()) };
        let checked = self.rules(&mut screening, sender.as_ref(), recipient);
        if let Phase::InMail(_, transaction) = &mut self.phase {
            transaction.screening = Some(screening);
        }
        checked
    }

    /// Hands the results over to the checks at the end of the message: the SPF results, the reason
    /// for quarantine, and whether the message is exempt.
    pub(super) fn finish_screening(&mut self, transaction: &mut Transaction) {
        let Some(mut screening) = transaction.screening.take() else { return };
        transaction.spf = self.spf_results(&mut screening);
        transaction.lookup_time += self.screen.waited;
        transaction.is_exempt = screening.is_exempt;
        let mut marks = screening.marks.iter();
        if let Some((_, reason)) = marks.find(|(mark, _)| *mark == Mark::Quarantine) {
            let line = match &reason.source {
                Source::Line(line) => line.to_string(),
                _ => reason.rule.to_owned(),
            };
            transaction.quarantine.get_or_insert(format!("{line} asks for quarantine"));
        }
    }

    fn rules(&mut self, screening: &mut Screening, sender: Option<&Address>, recipient: &Address) -> Result<(), Reply> {
        let hello = self.phase.hello().map(|hello| hello.name.clone()).unwrap_or_default();
        let access = self.access(&hello, sender, recipient);
        match access.verdict {
            Some(verdict) => self.apply(verdict)?,
            None => {
                self.usual_rules(screening, &hello, sender, recipient)?;
                screening.is_exempt = false;
            }
        }
        for (mark, reason) in access.marks {
            self.mark(screening, mark, reason);
        }
        Ok(())
    }

    /// Applies the rules that decide if no line of the access table does.
    fn usual_rules(
        &mut self,
        screening: &mut Screening,
        hello: &str,
        sender: Option<&Address>,
        recipient: &Address,
    ) -> Result<(), Reply> {
        let service = self.service;
        let policy = &service.config.policy;
        let is_own = policy.refuses_own_hello && self.is_own_hello(hello);
        self.apply(strangers::own_hello(hello, is_own))?;
        if let Some(asked) = screening.domain.take() {
            let begun = Instant::now();
            screening.sender_domain = match asked.wait() {
                MailDomain::Usable => SenderDomain::Good,
                MailDomain::NullMx => SenderDomain::Null,
                MailDomain::Absent => SenderDomain::Missing,
                MailDomain::Unknown(_) => SenderDomain::Unknown,
            };
            self.screen.waited += begun.elapsed();
        }
        self.apply(strangers::sender_domain(&address::path(sender), screening.sender_domain))?;
        let is_local = service.router.class_of(recipient.domain()) == DomainClass::Local;
        if !(is_local && recipient.local().eq_ignore_ascii_case("postmaster")) {
            self.doubts(screening, sender, recipient)?;
        }
        self.count_of_stranger(screening)
    }

    /// Applies the rules from which mail for the postmaster is exempt.
    fn doubts(
        &mut self,
        screening: &mut Screening,
        sender: Option<&Address>,
        recipient: &Address,
    ) -> Result<(), Reply> {
        let policy = &self.service.config.policy;
        let address = self.client_address();
        let listed = self.listed(screening);
        self.apply(strangers::lists(address, &listed, policy.dnsbl_threshold))?;
        self.begin_late_spf(screening);
        if policy.spf == Spf::Refuse {
            let found = self.spf_found(screening);
            self.apply(strangers::spf(address, &found))?;
        }
        let Some(address) = address.filter(|_| policy.greylist != Greylist::None) else { return Ok(()) };
        let is_asked = policy.greylist == Greylist::All || {
            let has_name = self.verified_name().is_some();
            strangers::is_suspicious(has_name, &listed, &self.spf_found(screening))
        };
        if !is_asked {
            return Ok(());
        }
        let sender = sender.map(Address::to_string).unwrap_or_default();
        let greylist = &self.service.site.greylist;
        let left = greylist.check(address, &sender, &recipient.to_string(), policy.greylist_delay);
        self.apply(strangers::greylist(left))
    }

    fn access(&mut self, hello: &str, sender: Option<&Address>, recipient: &Address) -> strangers::Access {
        let access = &self.service.access;
        let name = if access.needs_name() { self.verified_name() } else { None };
        let name = match &name {
            Some(name) => ClientName::Verified(name),
            None if self.screen.is_name_unknown || self.client_address().is_none() => ClientName::Unknown,
            None => ClientName::None,
        };
        access.ask(&Question { address: self.client_address(), name, hello, sender, recipient })
    }

    /// Adds a mark to the message, and logs it once.
    fn mark(&self, screening: &mut Screening, mark: Mark, reason: Reason) {
        if !screening.marks.iter().any(|(known, _)| *known == mark) {
            let shown = match &mark {
                Mark::Quarantine => ("as", "quarantine"),
                Mark::Tag(name) => ("tag", &**name),
            };
            if let Source::Line(line) = &reason.source {
                log::marked(&self.client.session, self.client.address, shown, line);
            }
            screening.marks.push((mark, reason));
        }
    }

    /// Whether another host pretends in HELO to be this host, by giving this host's name or one of
    /// its addresses as a literal.
    fn is_own_hello(&self, hello: &str) -> bool {
        let config = &self.service.config;
        let own = self.input.source.own_address().map(|address| address.ip().to_canonical());
        let bound = config.mail_sockets().map(|address| address.ip().to_canonical());
        let all: Vec<IpAddr> = own.into_iter().chain(bound.filter(|ip| !ip.is_unspecified())).collect();
        let client = self.client_address().map(|address| address.to_canonical());
        if client.is_some_and(|client| all.contains(&client)) {
            return false;
        }
        let is_literal = || {
            let literal = address::parse_domain(hello).ok().and_then(|text| address::literal(&text));
            literal.is_some_and(|literal| all.contains(&literal.to_canonical()))
        };
        let is_name = config.hostname.contains('.') && hello.eq_ignore_ascii_case(&config.hostname);
        is_name || is_literal()
    }

    /// The DNS lists that contain the client, the name in HELO or the domain of the sender.
    fn listed(&mut self, screening: &mut Screening) -> Listed {
        let (lists, begun) = (&self.service.site.lists, Instant::now());
        let client = self.screen.listed.get_or_insert_with(|| lists.wait(self.screen.lists.take()));
        let domains = std::mem::take(&mut screening.domain_lists);
        let domains = screening.domains_listed.get_or_insert_with(|| lists.wait(domains));
        self.screen.waited += begun.elapsed();
        let names = client.names.iter().chain(&domains.names).cloned().collect();
        Listed { sum: client.sum.saturating_add(domains.sum), names }
    }

    /// Returns no results, because SPF is not built in.
    #[cfg(not(feature = "mailauth"))]
    fn spf_results(&mut self, _: &mut Screening) {}

    /// Begins nothing, because SPF is not built in.
    #[cfg(not(feature = "mailauth"))]
    fn begin_late_spf(&mut self, _: &mut Screening) {}

    /// Returns the result that leads to no refusal, because SPF is not built in.
    #[cfg(not(feature = "mailauth"))]
    fn spf_found(&mut self, _: &mut Screening) -> strangers::SpfFound {
        strangers::SpfFound::Good
    }

    /// Counts a message for its client, when the first recipient has passed the other rules. Each
    /// message is counted only once.
    fn count_of_stranger(&mut self, screening: &mut Screening) -> Result<(), Reply> {
        let limit = self.service.config.policy.messages_per_hour;
        if limit == 0 || std::mem::replace(&mut screening.is_counted, true) {
            return Ok(());
        }
        let Some(key) = self.stranger() else { return Ok(()) };
        let answer = self.service.site.stranger_usage.count(&key, Counted::Messages, limit);
        if answer == Allowance::Reached {
            log::limit_reached(&self.client.session, &key, "messages", limit);
        }
        screening.is_counted = answer == Allowance::Granted;
        self.apply(strangers::messages(screening.is_counted, limit))
    }

    /// The key under which the messages and unknown recipients of a client are counted.
    fn stranger(&self) -> Option<String> {
        self.client_address().map(|address| screen::host(address).to_string())
    }

    /// Refuses every recipient of a client that has named too many unknown ones.
    pub(super) fn check_unknown_recipients(&self) -> Result<(), Reply> {
        let limit = self.service.config.policy.unknown_recipients_per_hour;
        let is_free = |address| self.service.access.is_welcome(address);
        if limit == 0 || self.facts().may_relay() || self.client_address().is_none_or(is_free) {
            return Ok(());
        }
        let Some(key) = self.stranger() else { return Ok(()) };
        let is_within = self.service.site.stranger_usage.has_room(&key, Counted::Recipients, limit);
        self.apply(strangers::unknown_recipients(is_within, limit))
    }

    /// Counts a refused recipient of a client, and delays the reply if there were many of them.
    pub(super) fn note_refused_recipient(&mut self, is_unknown: bool) {
        let limit = self.service.config.policy.unknown_recipients_per_hour;
        if limit == 0 || self.facts().may_relay() {
            return;
        }
        if let (true, Some(key)) = (is_unknown, self.stranger()) {
            let usage = &self.service.site.stranger_usage;
            usage.count(&key, Counted::Recipients, limit);
            if !usage.has_room(&key, Counted::Recipients, limit) {
                log::limit_reached(&self.client.session, &key, "unknown_recipients", limit);
            }
        }
        self.screen.refused_recipients += 1;
        if self.screen.refused_recipients > FREE_REFUSALS {
            self.wait_until(Instant::now() + REFUSAL_DELAY);
        }
    }

    /// The verdict about a client at the connection, before the banner.
    pub(super) fn greet(&mut self) -> std::io::Result<Verdict> {
        self.begin_lists();
        let is_early = self.speaks_early()?;
        Ok(crate::policy::connect::check(&self.facts(), is_early, self.hostname()))
    }
}
