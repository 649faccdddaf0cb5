//! The connection and HELO: the identity of the client, and its rights.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::Query;
use super::query::{ORIGINS, Origin};
use super::scene::Scene;
use super::steps::{Effect, Stage, Steps};
use crate::address::Address;
use crate::config::{Filter, FilterGroup, FilterProtocol, Kind, Listen};
use crate::outcome::NoAnswer;
use crate::policy::{self, Facts, Source};
use crate::reply;
use crate::route::DomainClass;
use crate::screen;

/// The client of an explanation.
pub struct Client {
    /// Its address; `None` if it is not known, or if the client is a program on this host.
    pub address: Option<IpAddr>,
    /// Its verified name; the error is the reason why that is not known.
    pub name: Result<Option<String>, String>,
    /// The name in HELO. If the query has none, it is the one that is likely.
    pub hello: String,
    /// Whether the name in HELO is known: whether the query has it.
    pub is_hello_given: bool,
    /// The authenticated user: the account that the name in the query leads to, as after AUTH.
    pub login: Option<String>,
    /// The listener.
    pub listen: Listen,
    /// Whether it is a program on this host.
    pub is_local: bool,
    is_trusted: bool,
    /// The kind of the listener that the query names.
    wanted: Option<Kind>,
}

impl Client {
    /// The client that a query describes. If the query says nothing about a client or a sender in
    /// another domain, the client is a program on this host.
    pub fn of(scene: &Scene<'_>, query: &Query) -> Self {
        let is_ours = |address: &Address| scene.router.class_of(address.domain()) != DomainClass::Elsewhere;
        let from = query.from.as_deref().and_then(|text| super::path(text).ok()).flatten();
        let says_nothing = query.ip.is_none() && query.login.is_none() && query.helo.is_none();
        let is_local = match query.origin {
            Some(origin) => origin == Origin::Local,
            None => says_nothing && (query.from.is_none() || from.as_ref().is_some_and(is_ours)),
        };
        let listen = listener(scene, query, is_local);
        let address = query.ip.map(|ip| ip.to_canonical()).filter(|_| !is_local);
        let name = match address {
            Some(address) => name(scene, query, address),
            None => Ok(None),
        };
        let hello = query.helo.as_deref().map(|hello| policy::hello::printable(hello.as_bytes()));
        let hello = hello.unwrap_or_else(|| match (&name, address) {
            (Ok(Some(name)), _) => name.clone(),
            (_, Some(IpAddr::V4(ip))) => format!("[{ip}]"),
            (_, Some(IpAddr::V6(ip))) => format!("[IPv6:{ip}]"),
            (_, None) if is_local => scene.config.hostname.clone(),
            (_, None) => "client.invalid".to_owned(),
        });
        let is_trusted = policy::relay::is_trusted(&scene.config.relay.networks, is_local, address);
        let account = |name: &String| scene.logins.and_then(|logins| logins.login(name));
        let login = query.login.as_ref().filter(|_| !is_local);
        let login = login.map(|name| account(name).unwrap_or_else(|| name.clone()));
        let is_hello_given = query.helo.is_some();
        let wanted = match query.origin {
            Some(Origin::Listener(kind)) => Some(kind),
            _ => None,
        };
        Self { address, name, hello, is_hello_given, login, listen, is_local, is_trusted, wanted }
    }

    /// The facts for the rules.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            address: self.address,
            name: self.name.as_ref().ok().and_then(Option::as_deref),
            hello: Some(&self.hello),
            // The rules for passwords are not asked about.
            is_encrypted: self.login.is_some(),
            login: self.login.as_deref(),
            listener: self.listen.kind,
            is_trusted: self.is_trusted,
            is_local_user: self.is_local,
        }
    }

    /// Adds the steps of the connection and of HELO. Returns whether the session goes on.
    pub fn greet(&self, scene: &Scene<'_>, steps: &mut Steps) -> bool {
        self.introduce(scene, steps);
        if !(self.is_listener(scene, steps) && self.is_account(scene, steps)) {
            return false;
        }
        let (config, facts) = (scene.config, self.facts());
        let is_welcome = |address| scene.access.is_welcome(address);
        let is_proxy = policy::connect::is_trusted_proxy(&self.listen.xclient, self.address);
        let delay = config.policy.greet_delay;
        if !delay.is_zero() && policy::connect::must_wait(&facts, self.address, is_proxy, is_welcome) {
            let text = format!("the banner comes after {} s; a client that speaks earlier is refused", delay.as_secs());
            steps.add_by(Stage::Connect, Effect::Fact, "early", text, Some(Source::Key("policy.greet_delay")));
        }
        let (is_lmtp, verb) = match self.listen.kind {
            Kind::Lmtp => (true, "LHLO"),
            _ => (false, "EHLO"),
        };
        if !self.is_local {
            steps.reply(
                Stage::Connect,
                &reply::connection::banner(&config.hostname, if is_lmtp { "LMTP" } else { "ESMTP" }),
            );
        }
        if !self.is_hello_given && !self.is_local && self.address.is_none() {
            steps.command(Stage::Hello, verb);
            let text = "the name in HELO is not known (--helo): no rule about it is applied";
            steps.add(Stage::Hello, Effect::Skipped, text);
            return true;
        }
        steps.command(Stage::Hello, format!("{verb} {}", self.hello));
        if !self.is_hello_given && !self.is_local {
            steps.add(Stage::Hello, Effect::Fact, "this name is assumed, because none was given (--helo)");
        }
        if !steps.judge(Stage::Hello, policy::hello::check(&facts, &self.hello)) {
            return false;
        }
        steps.reply(Stage::Hello, &reply::hello::helo(&config.hostname, &self.hello));
        true
    }

    fn introduce(&self, scene: &Scene<'_>, steps: &mut Steps) {
        let (stage, networks) = (Stage::Connect, &scene.config.relay.networks);
        let mut fact = |text: String| steps.add(stage, Effect::Fact, text);
        match (self.address, &self.name) {
            _ if self.is_local => fact("the client is a program on this host, as with sendmail(8)".to_owned()),
            (Some(address), Ok(Some(name))) => {
                fact(format!("the client is [{address}], and its verified name is {name}"))
            }
            (Some(address), Ok(None)) => fact(format!("the client is [{address}], which has no verified name")),
            (Some(address), Err(why)) => fact(format!("the client is [{address}], whose name is not known: {why}")),
            (None, _) => fact("the address of the client is not known (--ip): some rules cannot be applied".to_owned()),
        }
        if !self.is_local {
            let origin = Origin::Listener(self.listen.kind);
            let kind = ORIGINS.iter().find(|(_, other)| *other == origin).map_or("", |(name, _)| name);
            fact(match self.listen.tcp() {
                // The one that `listener` has made.
                Some(address) if address.port() == 0 && address.ip().is_unspecified() => {
                    format!("it comes to a listener of the kind {kind}")
                }
                _ => format!("it connects to {}, a listener of the kind {kind}", self.listen.address),
            });
        }
        let network = self.address.and_then(|address| networks.iter().find(|network| network.contains(address)));
        let (text, key) = match (&self.login, network) {
            (Some(login), _) => (format!("it may relay, because it has logged in as {login}"), None),
            (None, _) if self.is_local => ("it may relay, because it is on this host".to_owned(), None),
            (None, Some(network)) => {
                let text = format!("it may relay, because its address is in {}/{}", network.address, network.prefix);
                (text, Some(Source::Key("relay.networks")))
            }
            (None, None) => {
                let text = "it may not relay: its address is in no trusted network, and it has not logged in";
                (text.to_owned(), Some(Source::Key("relay.networks")))
            }
        };
        steps.add_by(stage, Effect::Fact, "", text, key);
        for filter in scene.config.filters.iter().filter(|filter| filter.groups.contains(&self.group())) {
            steps.add_by(stage, Effect::Skipped, "", filter_text(filter), Some(Source::Key("filter.socket")));
        }
    }

    /// Whether there is a listener of the kind that the query names. If not, adds a step that says so.
    fn is_listener(&self, scene: &Scene<'_>, steps: &mut Steps) -> bool {
        let Some(kind) = self.wanted else { return true };
        let is_there = scene.config.listen.iter().any(|listen| listen.kind == kind);
        if !is_there {
            let name = ORIGINS.iter().find(|(_, other)| *other == Origin::Listener(kind)).map_or("", |(name, _)| name);
            let text = format!("no client can connect: there is no [[listen]] of the kind {name}");
            steps.add_by(Stage::Connect, Effect::Refused, "", text, Some(Source::Key("listen")));
        }
        is_there
    }

    /// Whether the account that the query names can log in, as far as that is known. If not, says so.
    /// A trusted proxy may give any name.
    fn is_account(&self, scene: &Scene<'_>, steps: &mut Steps) -> bool {
        let Some(login) = self.login.as_deref().filter(|_| self.listen.xclient.is_empty()) else { return true };
        let text = match scene.logins.map(|logins| (logins.has_sources(), logins.has_account(login))) {
            Some((true, Some(true))) => return true,
            Some((true, Some(false))) => format!("there is no account {login} that can log in"),
            Some((false, _)) => "nobody can log in: the configuration names no accounts".to_owned(),
            Some((true, None)) | None => {
                let text = format!("whether there is an account {login} is not known here");
                steps.add_by(Stage::Connect, Effect::Skipped, "", text, Some(Source::Key("auth.users")));
                return true;
            }
        };
        steps.add_by(Stage::Connect, Effect::Refused, "", text, Some(Source::Key("auth.users")));
        false
    }

    /// The group of clients to which filters count this one.
    fn group(&self) -> FilterGroup {
        let facts = self.facts();
        policy::relay::filter_group(&facts)
    }

    /// The key under which the messages and unknown recipients of a client are counted.
    pub fn stranger(&self) -> Option<String> {
        self.address.map(|address| screen::host(address).to_string())
    }
}

/// Looks up the verified name of a client.
fn name(scene: &Scene<'_>, query: &Query, address: IpAddr) -> Result<Option<String>, String> {
    if !query.uses_dns && !address.is_loopback() {
        return Err("--no-dns".to_owned());
    }
    let until = Instant::now() + screen::TIME;
    scene.dns.verified_name_until(address, until).map_err(|why: NoAnswer| why.to_string())
}

/// The listener to which the client connects: the first one of the kind in the query or, if the
/// query names none, one for other hosts, or for submission if the client logs in.
fn listener(scene: &Scene<'_>, query: &Query, is_local: bool) -> Listen {
    let listeners = &scene.config.listen;
    let of = |kind| listeners.iter().find(|listen| listen.kind == kind).cloned();
    let made = |kind| Listen { kind, ..Listen::at(SocketAddr::from(([0, 0, 0, 0], 0))) };
    match query.origin {
        _ if is_local => made(Kind::Submission),
        Some(Origin::Listener(kind)) => of(kind).unwrap_or_else(|| made(kind)),
        _ if query.login.is_some() => {
            of(Kind::Submission).or_else(|| of(Kind::Smtp)).unwrap_or_else(|| made(Kind::Submission))
        }
        _ => of(Kind::Smtp).unwrap_or_else(|| made(Kind::Smtp)),
    }
}

/// Names a filter that a session would ask.
fn filter_text(filter: &Filter) -> String {
    let kind = match filter.protocol {
        FilterProtocol::Milter => "the milter",
        FilterProtocol::Policy => "the policy service",
    };
    format!("{kind} at {} would be asked; its answer is not known", filter.socket)
}

/// The default sender: the user's own address, the postmaster for a program on this host, and the
/// null reverse-path for other clients.
pub fn default_sender(scene: &Scene<'_>, client: &Client) -> String {
    match &client.login {
        Some(login) => {
            let identity = scene.senders.identity(login);
            identity.map(|identity| identity.primary().to_string()).unwrap_or_default()
        }
        None if client.is_local => scene.router.postmaster().to_string(),
        None => String::new(),
    }
}
