//! The facts for the rules about strangers, each shown as a step. Nothing is counted or recorded.

use std::net::IpAddr;
use std::time::Instant;

use super::client::Client;
use super::scene::Scene;
use super::steps::{Effect, Stage, Steps};
use crate::address::Address;
use crate::config::policy::{DnsList, Spf};
#[cfg(feature = "mailauth")]
use crate::dns::lookup::Until;
#[cfg(feature = "mailauth")]
use crate::mailauth::spf;
use crate::policy::screening;
use crate::policy::strangers::{self, Access, Listed, SenderDomain, SpfFound};
use crate::policy::{self, Source, Verdict};
use crate::route::DomainClass;
use crate::screen;
use crate::screen::access::{ClientName, Question};
use crate::submit::usage::Counted;

/// The look-ups about one recipient.
pub struct LookUps<'a> {
    pub scene: &'a Scene<'a>,
    pub client: &'a Client,
    /// Whether names are looked up in the DNS.
    pub uses_dns: bool,
    pub sender: Option<&'a Address>,
    pub recipient: &'a Address,
    /// The result of SPF, once it was asked for.
    pub spf: Option<SpfFound>,
    pub steps: &'a mut Steps,
}

impl LookUps<'_> {
    fn tell(&mut self, effect: Effect, rule: &'static str, text: impl Into<String>, key: &'static str) {
        self.steps.add_by(Stage::Rcpt, effect, rule, text, Some(Source::Key(key)));
    }

    /// Whether the DNS may be asked. If not, adds a step that says so.
    fn may_ask(&mut self, rule: &'static str, key: &'static str) -> bool {
        if !self.uses_dns {
            self.tell(Effect::Skipped, rule, "not looked up (--no-dns)", key);
        }
        self.uses_dns
    }

    /// Asks the lists for addresses, and then those for domains. Returns also their answers in words.
    fn ask_lists(&self) -> (Listed, Vec<String>) {
        let (scene, policy, until) = (self.scene, &self.scene.config.policy, Instant::now() + screen::TIME);
        let (lists, dns) = (scene.lists, scene.dns);
        let address = self.client.address.filter(|_| !policy.dnsbl.is_empty());
        let by_address = address.map(|address| lists.begin_address(dns, &policy.dnsbl, address, until));
        let hello = self.client.is_hello_given.then_some(self.client.hello.as_str());
        let names = [hello, self.sender.map(Address::domain)].into_iter().flatten();
        let names = names.filter(|_| !policy.sender_lists.is_empty());
        let by_name: Vec<_> = names.map(|name| lists.begin_domain(dns, &policy.sender_lists, name, until)).collect();
        let ((client, mut told), (names, more)) = (lists.explain(by_address), lists.explain(by_name));
        told.extend(more);
        (client.with(&names), told)
    }

    /// Finds the result of SPF, and adds it as a step.
    fn ask_spf(&mut self) -> SpfFound {
        if self.scene.config.policy.spf == Spf::None {
            return SpfFound::Good;
        }
        let Some(client) = self.client.address else {
            self.tell(Effect::Skipped, "spf", "SPF: the address of the client is not known (--ip)", "policy.spf");
            return SpfFound::Good;
        };
        if self.may_ask("spf", "policy.spf") { self.check_spf(client) } else { SpfFound::Good }
    }

    #[cfg(feature = "mailauth")]
    fn check_spf(&mut self, client: IpAddr) -> SpfFound {
        let (scene, until) = (self.scene, Instant::now() + screen::TIME);
        let (dns, here) = (Until { dns: scene.dns, until }, &scene.config.hostname);
        let hello = &self.client.hello;
        let mut results = vec![spf::check_hello(&dns, client, hello, here)];
        results.extend(self.sender.map(|sender| spf::check(&dns, client, hello, &sender.to_string(), here)));
        for checked in &results {
            let text = format!("SPF of {}: {} ({})", checked.domain, checked.result, checked.mechanism);
            self.tell(Effect::Fact, "spf", text, "policy.spf");
        }
        spf::found(&results)
    }

    #[cfg(not(feature = "mailauth"))]
    fn check_spf(&mut self, _: IpAddr) -> SpfFound {
        SpfFound::Good
    }
}

impl screening::LookUps for LookUps<'_> {
    fn access(&mut self) -> Access {
        let Self { scene, client, .. } = *self;
        let name = match (&client.name, client.address) {
            (_, None) | (Err(_), _) => ClientName::Unknown,
            (Ok(Some(name)), _) => ClientName::Verified(name),
            (Ok(None), _) => ClientName::None,
        };
        let question = Question {
            address: client.address,
            name,
            hello: &client.hello,
            sender: self.sender,
            recipient: self.recipient,
        };
        let rules = scene.access.rules(&question);
        if rules.is_empty() {
            self.tell(Effect::Passed, "access", "no line of the access table applies", "policy.access");
        }
        for rule in &rules {
            let text =
                format!("the access table says {}{}", rule.action, if rule.is_doubtful { ", perhaps" } else { "" });
            self.steps.add_by(Stage::Rcpt, Effect::Fact, "access", text, Some(Source::Line(rule.line.clone())));
        }
        strangers::access(rules.iter())
    }

    fn is_own_hello(&mut self) -> bool {
        if !self.client.is_hello_given {
            self.tell(Effect::Skipped, "own-hello", "the name in HELO is not known (--helo)", "policy.own_hello");
            return false;
        }
        let own: Vec<IpAddr> = self.scene.config.bound_addresses().collect();
        let is_own = policy::hello::is_own(&self.client.hello, &self.scene.config.hostname, &own, self.client.address);
        if !is_own {
            self.tell(Effect::Passed, "own-hello", "the name in HELO is not that of this host", "policy.own_hello");
        }
        is_own
    }

    fn sender_domain(&mut self) -> SenderDomain {
        let (rule, key, scene) = ("sender-exists", "policy.sender_domain", self.scene);
        let domain = self.sender.map(Address::domain).filter(|domain| {
            let is_elsewhere = scene.router.class_of(domain) == DomainClass::Elsewhere;
            strangers::needs_sender_domain(&scene.config.policy, is_elsewhere)
        });
        let Some(domain) = domain else { return SenderDomain::Good };
        if !self.may_ask(rule, key) {
            return SenderDomain::Good;
        }
        let found = screen::sender_domain(&scene.dns.begin_mail_domain(domain, Instant::now() + screen::TIME).wait());
        let (effect, text) = match found {
            SenderDomain::Good => (Effect::Passed, format!("{domain} has a mail exchanger or an address")),
            SenderDomain::Missing => (Effect::Fact, format!("{domain} has neither a mail exchanger nor an address")),
            SenderDomain::Null => (Effect::Fact, format!("{domain} accepts no mail: it has a null MX")),
            SenderDomain::Unknown => (Effect::Fact, format!("the look-up of {domain} fails")),
        };
        self.tell(effect, rule, text, key);
        found
    }

    fn listed(&mut self) -> Listed {
        let policy = &self.scene.config.policy;
        if policy.dnsbl.is_empty() && policy.sender_lists.is_empty() || !self.may_ask("dns-lists", "policy.dnsbl") {
            return Listed::default();
        }
        if self.client.address.is_none() && !policy.dnsbl.is_empty() {
            let names: Vec<&str> = policy.dnsbl.iter().map(DnsList::name).collect();
            self.tell(Effect::Skipped, "dns-lists", format!("{}: no address", names.join(", ")), "policy.dnsbl");
        }
        let (listed, zones) = self.ask_lists();
        for zone in zones {
            self.tell(Effect::Fact, "dns-lists", zone, "policy.dnsbl");
        }
        let threshold = policy.dnsbl_threshold;
        if strangers::lists(None, &listed, threshold) == Verdict::Accept {
            let text = format!("the sum of the DNS lists is {}, below {threshold}", listed.sum);
            self.tell(Effect::Passed, "dns-lists", text, "policy.dnsbl_threshold");
        }
        listed
    }

    fn begin_spf(&mut self) {
        // With "mark", the rules need no result, but the message gets it.
        if self.scene.config.policy.spf == Spf::Mark {
            screening::LookUps::spf(self);
        }
    }

    fn spf(&mut self) -> SpfFound {
        if let Some(found) = &self.spf {
            return found.clone();
        }
        let found = self.ask_spf();
        self.spf.insert(found).clone()
    }

    fn has_name(&mut self) -> bool {
        matches!(self.client.name, Ok(Some(_)))
    }

    fn greylist(&mut self, client: IpAddr) -> Option<u64> {
        let (scene, sender) = (self.scene, self.sender.map(Address::to_string).unwrap_or_default());
        let delay = scene.config.policy.greylist_delay;
        let left = scene.greylist.peek(client, &sender, &self.recipient.to_string(), delay);
        if left.is_none() {
            self.tell(Effect::Passed, "greylist", "the client has passed the greylist", "policy.greylist");
        }
        left
    }

    fn is_within_messages(&mut self) -> bool {
        let limit = self.scene.config.policy.messages_per_hour;
        let Some(key) = self.client.stranger() else { return true };
        let count = self.scene.stranger_usage.total(&key, Counted::Messages);
        if count < limit {
            let text = format!("{key} has sent {count} of {limit} messages within the hour");
            self.tell(Effect::Passed, "stranger-messages", text, "policy.messages_per_hour");
        }
        count < limit
    }
}
