//! Where an accepted message goes: the expansion of its address, the final recipients, their
//! mailboxes and hosts.

use std::collections::{HashMap, HashSet};

use super::Query;
use super::client::Client;
use super::scene::Scene;
use super::steps::{Effect, Stage, Steps};
use crate::address::Address;
use crate::aliases::Member;
use crate::config::{RemoteTls, Store};
use crate::deliver::quota;
use crate::deliver::remote::fallback::fallback_of;
use crate::deliver::remote::plan::{Plan, plan};
use crate::destination::{Destination, HostTarget, SenderKey};
use crate::envelope::{Action, MessageTls, Recipient};
use crate::log;
use crate::outcome::{Fate, Outcome};
use crate::outgoing::{self, Rules};
use crate::policy::{self, Source};
use crate::route::copies::is_same;
use crate::route::{Expansion, Found, Route, RoutedMail, Sender, Traced, Visit};
use crate::users::{Contents, Mailbox, Owner, Size};

/// The maximum number of final recipients that are shown.
const MAX_RECIPIENTS: usize = 50;
/// The maximum number of destinations whose hosts are looked up.
const MAX_PLANS: usize = 5;

/// Adds the steps of the way of a message for a recipient.
/// `sender` is the sender of the message; `None` if MAIL is refused.
pub fn tell(
    scene: &Scene<'_>,
    query: &Query,
    sender: Option<&Option<Address>>,
    (named, traced): (&Address, &Traced),
    steps: &mut Steps,
) {
    let mail = sender.map_or_else(RoutedMail::default, |sender| RoutedMail::from_sender(sender.as_ref()));
    let mail = RoutedMail { is_submitted: Client::of(scene, query).facts().may_relay(), ..mail };
    let mut way = Way::new(scene, query.uses_dns, (MessageTls::Default, mail), steps);
    traced.visits.iter().for_each(|visit| way.visit(visit));
    way.follow(named, traced.expansion.clone());
    if let Expansion::Finals(finals) = &traced.expansion {
        way.copies(named, finals);
    }
}

/// Adds the step of the route of one recipient of a message in the queue. The message is given by what
/// it demands of TLS, and by what its route depends on.
pub fn tell_recipient(
    scene: &Scene<'_>,
    uses_dns: bool,
    (message, mail): (MessageTls, RoutedMail<'_>),
    recipient: &Recipient,
    steps: &mut Steps,
) {
    Way::new(scene, uses_dns, (message, mail), steps).recipient(recipient);
}

struct Way<'a> {
    scene: &'a Scene<'a>,
    uses_dns: bool,
    /// What the message demands of TLS.
    message: MessageTls,
    /// What the route depends on beside the recipient.
    mail: RoutedMail<'a>,
    /// The key of the line for the sender in the table `remote.outgoing`; `None` if it has none.
    sender: Option<SenderKey>,
    steps: &'a mut Steps,
    /// The number of final recipients so far.
    told: usize,
    /// The names of the destinations whose hosts were shown, and whether all hosts of each are down.
    planned: HashMap<String, bool>,
    /// The lists whose members were shown.
    lists: HashSet<Address>,
}

impl<'a> Way<'a> {
    fn new(
        scene: &'a Scene<'a>,
        uses_dns: bool,
        (message, mail): (MessageTls, RoutedMail<'a>),
        steps: &'a mut Steps,
    ) -> Self {
        let sender = match mail.sender {
            Sender::Unknown => None,
            Sender::Null => scene.outgoing.sender_key(None),
            Sender::Address(sender) => scene.outgoing.sender_key(Some(sender)),
        };
        let (planned, lists) = (HashMap::new(), HashSet::new());
        Self { scene, uses_dns, message, mail, sender, steps, told: 0, planned, lists }
    }

    fn add(&mut self, effect: Effect, text: impl Into<String>, source: Option<Source>) {
        self.steps.add_by(Stage::Way, effect, "", text, source);
    }

    /// Adds the steps of one address of the expansion.
    fn visit(&mut self, visit: &Visit) {
        let Visit { address, found, members, count } = visit;
        let source = self.scene.router.source(address, *found);
        let more = if *count > members.len() { format!(" and {} more", count - members.len()) } else { String::new() };
        let members = members.join(", ") + &more;
        let text = match found {
            Found::Virtual => format!("{address} stands in the virtual table for {members}"),
            Found::CatchAll => format!("{address} matches the catch-all line of its domain, and stands for {members}"),
            Found::Alias => format!("{address} is an alias for {members}"),
            Found::List => format!("{address} is an alias that is expanded at delivery"),
            Found::Postmaster => format!("{address} is the postmaster, and stands for {members}"),
            Found::CatchAllKey => format!("{address} is unknown, and its mail goes to {members}"),
            Found::Elsewhere | Found::Routed | Found::Direct | Found::NoTable | Found::LastResort => return,
        };
        self.add(Effect::Fact, text, source);
    }

    /// Adds the steps of the final recipients of an address.
    fn follow(&mut self, address: &Address, expansion: Expansion) {
        match expansion {
            Expansion::Finals(finals) => {
                for recipient in finals.iter().take(MAX_RECIPIENTS) {
                    let original = (recipient.address != *address).then(|| address.clone());
                    self.recipient(&Recipient { original, ..recipient.clone() });
                }
                if finals.len() > MAX_RECIPIENTS {
                    self.add(Effect::Fact, format!("and {} more recipients", finals.len() - MAX_RECIPIENTS), None);
                }
            }
            Expansion::Unknown => self.add(Effect::Refused, format!("{address}: there is no such user"), None),
            Expansion::Refused(status, why) => {
                let source = self.scene.router.route_source(&Recipient::new(address.clone()), &self.mail);
                self.add(Effect::Refused, format!("{address}: refused by the routes: {status} {why}"), source);
            }
            Expansion::Temporary(why) => self.add(Effect::Deferred, format!("{address}: not known now: {why}"), None),
        }
    }

    /// Adds the steps of the copies of a message.
    fn copies(&mut self, named: &Address, finals: &[Recipient]) {
        let router = self.scene.router;
        let sender = match self.mail.sender {
            Sender::Address(sender) => Some(sender),
            _ => None,
        };
        let all = finals.iter().map(|to| &to.address).chain([named]);
        let copies = match router.copies_of(sender, all) {
            Ok(copies) => copies,
            Err(why) => return self.add(Effect::Deferred, format!("the copies are not known now: {why}"), None),
        };
        for copy in copies {
            let (address, source) = (&copy.address, Some(Source::Line(copy.line.clone())));
            if sender.is_some_and(|sender| is_same(sender, address)) {
                self.add(Effect::Fact, format!("no copy goes to {address}: it is the sender"), source);
                continue;
            }
            match router.recipients_of_copy(&copy) {
                Ok(finals) => {
                    let names: Vec<String> = finals.iter().map(|to| to.address.to_string()).collect();
                    let others = names.len() != 1 || names[0] != address.to_string();
                    let lead = if others { format!(", which leads to {}", names.join(", ")) } else { String::new() };
                    self.add(Effect::Fact, format!("a copy goes to {address}{lead}"), source);
                }
                Err((why, true)) => self.add(Effect::Deferred, format!("the copy for {address}: {why}"), source),
                Err((why, false)) => self.add(Effect::Fact, format!("no copy goes to {address}: {why}"), source),
            }
        }
    }

    /// Adds the step of the route of a final recipient.
    fn recipient(&mut self, recipient: &Recipient) {
        self.told += 1;
        let (address, router) = (&recipient.address, self.scene.router);
        let route = router.route_of(recipient, &self.mail);
        let source = || router.route_source(recipient, &self.mail);
        let local = || router.source(address, Found::NoTable);
        match &route {
            Route::Mailbox(mailbox) => {
                let text = mailbox_text(mailbox, &recipient.action);
                self.add(Effect::Fact, format!("{address}: {text}"), local());
                self.quota(mailbox, recipient);
                self.steps.goal(text, false);
            }
            Route::Command(command, _) => {
                self.add(Effect::Fact, format!("{address}: command |{command}"), None);
                self.steps.goal(format!("command |{command}"), false);
            }
            Route::List => self.list(address),
            Route::Replaced => self.add(Effect::Fact, format!("{address}: other recipients have replaced it"), None),
            Route::Remote(target) => {
                let source = source().or_else(local);
                let sender = self.sender.clone().filter(|_| !target.is_store());
                let name = Destination::Remote(target.clone(), sender).listed_name();
                self.add(Effect::Fact, format!("{address}: {name}"), source);
                let is_down = self.hosts(target);
                self.steps.goal(name, is_down);
            }
            Route::Discard(why) => {
                self.add(Effect::Fact, format!("{address}: accepted, and then removed without a report"), source());
                self.steps.goal(why.clone(), false);
            }
            Route::Hold(why) => {
                self.add(Effect::Fact, format!("{address}: accepted, and then held: {why}"), source());
                self.steps.goal("held until an administrator releases it".to_owned(), false);
            }
            Route::Unknown => self.add(Effect::Refused, format!("{address}: there is no such user"), None),
            Route::Refused(status, why) => {
                self.add(Effect::Refused, format!("{address}: refused by the routes: {status} {why}"), source());
            }
            Route::Temporary(_, why) => {
                self.add(Effect::Deferred, format!("{address}: it waits: {why}"), source());
            }
        }
    }

    /// Adds the step of the quota of a mailbox, and of its use.
    fn quota(&mut self, mailbox: &Mailbox, recipient: &Recipient) {
        let (Some(quota), scene) = (mailbox.quota, self.scene) else { return };
        let limit = Size(quota.limit);
        let contents = scene.agents.map_or(Err("no daemon runs".to_owned()), |agents| {
            quota::explain(agents, scene.router, mailbox, recipient, 0)
        });
        let text = match contents {
            Ok(Some(Contents { size, messages })) => {
                let percent = u128::from(size) * 100 / u128::from(quota.limit.max(1));
                format!("it holds {messages} messages, {} of at most {limit} ({percent} %)", Size(size))
            }
            Ok(None) => format!("it may hold {limit}; it is not counted while a .forward exists"),
            Err(why) => format!("it may hold {limit}; how much it holds is not known: {why}"),
        };
        let source = scene.router.source_of_quota(std::slice::from_ref(recipient), quota);
        self.add(Effect::Fact, format!("    {text}"), Some(source));
    }

    /// Adds the steps of the members of an alias that is expanded at delivery. The files of a list are read
    /// only then.
    fn list(&mut self, address: &Address) {
        if self.told > MAX_RECIPIENTS || !self.lists.insert(address.clone()) {
            return;
        }
        let (router, source) = (self.scene.router, self.scene.router.source(address, Found::List));
        let list = match router.list(address) {
            Err(why) => return self.add(Effect::Deferred, format!("{address}: not known now: {why}"), source),
            Ok(None) => return self.add(Effect::Refused, format!("{address}: there is no such user"), source),
            Ok(Some(list)) => list,
        };
        if let Some(owner) = &list.owner {
            self.add(Effect::Fact, format!("{address}: the list sends as its owner <{owner}>"), source.clone());
        }
        let mut others = Vec::new();
        for member in list.members {
            match member {
                Member::Include(file) => {
                    self.add(Effect::Fact, format!("{address}: the list in {file}, read at delivery"), source.clone());
                    self.steps.goal(format!("the list in {file}"), false);
                }
                other => others.push(other),
            }
        }
        if !others.is_empty() {
            let expansion = router.expand_members(address, &others, None);
            self.follow(address, expansion);
        }
    }

    /// Adds the steps of the hosts of a destination, in the order in which they are tried. Returns whether all
    /// of them are down.
    fn hosts(&mut self, target: &HostTarget) -> bool {
        let name = target.to_string();
        if let Some(is_down) = self.planned.get(&name) {
            return *is_down;
        }
        let is_socket = matches!(target, HostTarget::Store(Store::Socket(_)));
        if is_socket || self.planned.len() >= MAX_PLANS {
            return false;
        }
        let is_down = self.plan_by_rules(target, false);
        let sender = match self.mail.sender {
            Sender::Address(sender) => Some(sender),
            _ => None,
        };
        // Mail that waits because of a wrong line does not fall back.
        let is_wrong = self.scene.outgoing.rules(target, self.sender.as_deref()).way.is_err();
        let fallback = fallback_of(&self.scene.config.remote, self.scene.credentials, target, sender);
        let fallback = fallback.filter(|_| !is_wrong);
        let is_fallback_down = fallback.filter(|_| self.uses_dns).is_none_or(|fallback| {
            let text = "    if none of them takes the message now, the fallback hosts are tried";
            self.add(Effect::Fact, text, Some(Source::Key("remote.fallback")));
            self.plan_by_rules(&fallback, true)
        });
        let is_down = is_down && is_fallback_down;
        self.planned.insert(name, is_down);
        is_down
    }

    /// Adds the steps of the hosts, and of the line of the table `remote.outgoing` that limits the mail.
    fn plan_by_rules(&mut self, target: &HostTarget, is_fallback: bool) -> bool {
        let Rules { way, limits, line } = self.scene.outgoing.rules(target, self.sender.as_deref());
        let limits = if is_fallback { limits.of_fallback() } else { limits };
        if let Some(number) = line.filter(|_| limits != outgoing::Limits::default()) {
            let file = self.scene.outgoing.path().into();
            let source = Some(Source::Line(policy::Line { file, number }));
            self.add(Effect::Fact, format!("    limits: {limits}"), source);
        }
        match way {
            Ok(way) => self.plan(target, &way, is_fallback),
            Err(why) => {
                self.add(Effect::Deferred, format!("it waits: {why}"), None);
                false
            }
        }
    }

    fn plan(&mut self, target: &HostTarget, from: &outgoing::Way, is_fallback: bool) -> bool {
        if !self.uses_dns {
            self.add(Effect::Skipped, "its hosts are not looked up (--no-dns)", None);
            return false;
        }
        let scene = self.scene;
        let (hostname, rules) = (&scene.config.hostname, scene.tls_rules());
        let Plan { groups, failures } =
            plan((target, from, is_fallback), hostname, rules, scene.credentials, scene.dns, scene.local, self.message);
        let (mut hosts, mut down_hosts) = (0, 0);
        for (number, address) in groups.iter().enumerate().flat_map(|(n, group)| group.iter().map(move |a| (n + 1, a)))
        {
            let login = address.login.as_ref().map(|user| format!(", logs in as {user}")).unwrap_or_default();
            let (tls, source) = match &address.tls {
                Ok(policy) => (policy.to_string(), Some(policy.reason.source.clone())),
                Err(outcome) => (format!("not used now: {}", outcome.why), None),
            };
            let is_default = scene.config.remote.tls == RemoteTls::Opportunistic;
            let source = source.filter(|source| !(is_default && *source == Source::Key("remote.tls")));
            let place = address.source.map(|ip| format!(", from {ip}")).unwrap_or_default();
            let hello = from.hello.as_ref().map(|name| format!(", as {name}")).unwrap_or_default();
            self.add(Effect::Fact, format!("    {number}. {}, {tls}{login}{place}{hello}", address.host), source);
            hosts += 1;
            if let Some(down) =
                scene.down.iter().find(|down| (&down.address, down.source) == (&address.place, address.source))
            {
                down_hosts += 1;
                let (since, probe) = (log::span(down.since.as_secs()), log::span(down.next_probe.as_secs()));
                let text = format!("       down for {since}, tried again in {probe}: {}", down.why.why);
                self.add(Effect::Fact, text, None);
            }
        }
        let has_hosts = groups.iter().any(|group| !group.is_empty());
        failures.iter().for_each(|outcome| self.failure(outcome, has_hosts));
        hosts > 0 && hosts == down_hosts
    }

    fn failure(&mut self, outcome: &Outcome, has_hosts: bool) {
        let effect = match outcome.fate {
            _ if has_hosts => Effect::Fact,
            Fate::Deferred => Effect::Deferred,
            _ => Effect::Refused,
        };
        self.add(effect, outcome.why.clone(), None);
    }
}

/// Describes a mailbox, and the conditions that are checked only at the delivery.
fn mailbox_text(mailbox: &Mailbox, action: &Action) -> String {
    let kind = if mailbox.is_mbox { "mbox" } else { "Maildir" };
    let condition = match &mailbox.owner {
        Owner::User(_) if *action == Action::Deliver => ", unless the user's .forward says otherwise",
        Owner::User(account) if mailbox.path.starts_with(&account.home) => ", if the home directory exists",
        _ => "",
    };
    format!("{kind} {}{condition}", mailbox.path.display())
}
