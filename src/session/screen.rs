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
use crate::dns::BegunDomain;
use crate::log;
use crate::outcome::NoAnswer;
use crate::policy::screening::{self, LookUps};
use crate::policy::strangers::{self, Listed, SenderDomain, SpfFound};
use crate::policy::{self, Mark, Reason, Source, Verdict, connect};
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

/// The look-ups of a session about one recipient.
struct Asked<'s, 'a> {
    session: &'s mut Session<'a>,
    screening: &'s mut Screening,
    hello: &'s str,
    sender: Option<&'s Address>,
    recipient: &'s Address,
}

impl LookUps for Asked<'_, '_> {
    fn access(&mut self) -> strangers::Access {
        self.session.access(self.hello, self.sender, self.recipient)
    }

    fn is_own_hello(&mut self) -> bool {
        let (session, hostname) = (&self.session, self.session.hostname());
        policy::hello::is_own(self.hello, hostname, &session.own_addresses(), session.client_address())
    }

    fn sender_domain(&mut self) -> SenderDomain {
        if let Some(asked) = self.screening.domain.take() {
            let begun = Instant::now();
            self.screening.sender_domain = screen::sender_domain(&asked.wait());
            self.session.screen.waited += begun.elapsed();
        }
        self.screening.sender_domain
    }

    fn listed(&mut self) -> Listed {
        self.session.listed(self.screening)
    }

    fn begin_spf(&mut self) {
        self.session.begin_late_spf(self.screening);
    }

    fn spf(&mut self) -> SpfFound {
        self.session.spf_found(self.screening)
    }

    fn has_name(&mut self) -> bool {
        self.session.verified_name().is_some()
    }

    fn greylist(&mut self, client: IpAddr) -> Option<u64> {
        let (sender, service) = (self.sender.map(Address::to_string).unwrap_or_default(), self.session.service);
        let delay = service.config.policy.greylist_delay;
        service.site.greylist.check(client, &sender, &self.recipient.to_string(), delay)
    }

    fn is_within_messages(&mut self) -> bool {
        self.session.count_of_stranger(self.screening)
    }
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
        let (facts, is_proxy) = (self.facts(), self.trusted_proxy.is_some());
        let is_welcome = |address| self.service.access.is_welcome(address);
        if delay.is_zero() || !connect::must_wait(&facts, self.client_address(), is_proxy, is_welcome) {
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
        let is_elsewhere = |domain: &str| service.router.class_of(domain) == DomainClass::Elsewhere;
        let foreign = domain.filter(|domain| strangers::needs_sender_domain(policy, is_elsewhere(domain)));
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
        let service = self.service;
        let hello = self.phase.hello().map(|hello| hello.name.clone()).unwrap_or_default();
        let is_local = service.router.class_of(recipient.domain()) == DomainClass::Local;
        let question = screening::Question {
            policy: &service.config.policy,
            client: self.client_address(),
            hello: &hello,
            sender: &address::path(sender),
            is_postmaster: is_local && recipient.local().eq_ignore_ascii_case("postmaster"),
        };
        let mut asked = Asked { session: self, screening, hello: &hello, sender, recipient };
        let screened = screening::check(&question, &mut asked);
        self.apply(screened.verdict)?;
        screening.is_exempt &= screened.is_exempt;
        for (mark, reason) in screened.marks {
            self.mark(screening, mark, reason);
        }
        Ok(())
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

    /// The addresses of this host that are known: that of the connection, and those of the listeners.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        let connected = self.input.source.own_address().map(|address| address.ip());
        connected.into_iter().chain(self.service.config.bound_addresses()).collect()
    }

    /// The DNS lists that contain the client, the name in HELO or the domain of the sender.
    fn listed(&mut self, screening: &mut Screening) -> Listed {
        let (lists, begun) = (&self.service.site.lists, Instant::now());
        let client = self.screen.listed.get_or_insert_with(|| lists.wait(self.screen.lists.take()));
        let domains = std::mem::take(&mut screening.domain_lists);
        let domains = screening.domains_listed.get_or_insert_with(|| lists.wait(domains));
        self.screen.waited += begun.elapsed();
        client.with(domains)
    }

    /// Returns no results, because SPF is not built in.
    #[cfg(not(feature = "mailauth"))]
    fn spf_results(&mut self, _: &mut Screening) {}

    /// Begins nothing, because SPF is not built in.
    #[cfg(not(feature = "mailauth"))]
    fn begin_late_spf(&mut self, _: &mut Screening) {}

    /// Returns the result that leads to no refusal, because SPF is not built in.
    #[cfg(not(feature = "mailauth"))]
    fn spf_found(&mut self, _: &mut Screening) -> SpfFound {
        SpfFound::Good
    }

    /// Counts a message for its client, when the first recipient has passed the other rules. Each
    /// message is counted only once. Returns whether the message is within the limit.
    fn count_of_stranger(&mut self, screening: &mut Screening) -> bool {
        let limit = self.service.config.policy.messages_per_hour;
        if std::mem::replace(&mut screening.is_counted, true) {
            return true;
        }
        let Some(key) = self.stranger() else { return true };
        let answer = self.service.site.stranger_usage.count(&key, Counted::Messages, limit);
        if answer == Allowance::Reached {
            log::limit_reached(&self.client.session, &key, "messages", limit);
        }
        screening.is_counted = answer == Allowance::Granted;
        screening.is_counted
    }

    /// The key under which the messages and unknown recipients of a client are counted.
    fn stranger(&self) -> Option<String> {
        self.client_address().map(|address| screen::host(address).to_string())
    }

    /// Refuses every recipient of a client that has named too many unknown ones.
    pub(super) fn unknown_recipients(&self) -> Verdict {
        let limit = self.service.config.policy.unknown_recipients_per_hour;
        let is_welcome = |address| self.service.access.is_welcome(address);
        if !strangers::limits_unknown(&self.facts(), self.client_address(), limit, is_welcome) {
            return Verdict::Accept;
        }
        let Some(key) = self.stranger() else { return Verdict::Accept };
        let is_within = self.service.site.stranger_usage.has_room(&key, Counted::Recipients, limit);
        strangers::unknown_recipients(is_within, limit)
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
    #[inline(never)]
    pub(super) fn greet(&mut self) -> std::io::Result<Verdict> {
        self.begin_lists();
        let is_early = self.speaks_early()?;
        Ok(connect::check(&self.facts(), is_early, self.hostname()))
    }
}
