//! Writes a configuration as the values of its keys, with the place that each value comes from.
//!
//! This is the reverse of `keys`: a configuration that is printed and read again has the same
//! values. A test compares the two, for all keys.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::policy::{Dmarc, DnsList, Greylist, Quarantine, Spf};
use super::{
    Auth, Config, Dkim, Filter, FilterGroup, FilterProtocol, KeyPair, Kind, Limits, Listen, ListenTls, LogTo, Network,
    OfferAuth, OnFailure, Places, Policy, Queue, Relay, domain, local, remote, submission,
};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::json::{Format, quote};

/// The value of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// The table of the key; empty for the top level.
    pub table: &'static str,
    /// The number of tables of that name before it.
    pub number: usize,
    /// Whether there can be several tables of that name.
    pub is_repeated: bool,
    /// The key.
    pub key: &'static str,
    /// The value in TOML.
    pub value: String,
    /// The line of the file; `None` if the file does not have the key, which then has its default.
    pub line: Option<usize>,
}

impl Printed {
    /// The name of the key with that of its table, such as `queue.workers`.
    pub fn name(&self) -> String {
        if self.table.is_empty() { self.key.to_owned() } else { format!("{}.{}", self.table, self.key) }
    }
}

/// Returns all keys of a configuration in the order of penfold.conf(5). Where the file has none of
/// the tables `[[tls]]`, `[[domain]]`, `[[dkim]]` and `[[filter]]`, these have no keys.
pub fn print(config: &Config) -> Vec<Printed> {
    let mut out = Printer { places: &config.places, printed: Vec::new(), table: ("", 0), is_repeated: false };
    out.key("hostname", quote(&config.hostname));
    out.key("spool", path(&config.spool));
    out.key("socket", path(&config.socket));
    out.key("user", quote(&config.user));
    if config.listen.is_empty() {
        out.key("listen", "[]".to_owned());
    }
    for (number, one) in config.listen.iter().enumerate() {
        listen(out.repeated("listen", number), one);
    }
    for (number, KeyPair { certificate, key }) in config.tls.iter().enumerate() {
        out.repeated("tls", number).key("certificate", path(certificate)).key("key", path(key));
    }
    out.table("smtp").key("disable", list(&config.smtp.disable, |word| quote(word)));
    limits(out.table("limits"), &config.limits);
    local::print(out.table("local"), &config.local);
    for (number, one) in config.domains.iter().enumerate() {
        domain::print(out.repeated("domain", number), one);
    }
    relay(out.table("relay"), &config.relay);
    policy(out.table("policy"), &config.policy);
    out.table("auth").key("users", auth(&config.auth));
    submission::print(out.table("submission"), &config.submission);
    remote::print(out.table("remote"), &config.remote);
    for (number, one) in config.dkim.iter().enumerate() {
        dkim(out.repeated("dkim", number), one);
    }
    queue(out.table("queue"), &config.queue);
    let report = &config.report;
    out.table("report").key("languages", list(&report.languages, |tag| quote(tag)));
    out.key("multilingual", report.multilingual.to_string()).key("texts", path(&report.texts.path));
    for (number, one) in config.filters.iter().enumerate() {
        filter(out.repeated("filter", number), one);
    }
    let store = config.shared.store.as_ref().map(ToString::to_string).unwrap_or_default();
    out.table("shared").key("store", quote(&store)).key("password", path(&config.shared.password.path));
    out.key("secret", path(&config.shared.secret.path));
    let dns = &config.dns;
    out.table("dns").key("nameservers", list(&dns.nameservers, |server| quote(&server.to_string())));
    out.key("timeout", duration(dns.timeout));
    out.key("trust_ad", dns.trust_ad.map_or_else(|| quote("loopback"), |flag| flag.to_string()));
    out.table("log").key("to", log_to(&config.log));
    out.key("format", quote(if config.log_format == Format::Json { "json" } else { "text" }));
    let history = config.history;
    out.table("history").key("size", if history.size == 0 { quote("0") } else { size(history.size) });
    out.key("keep", duration(history.keep));
    out.printed
}

/// The keys that were printed so far, and the table of the next ones.
pub(super) struct Printer<'a> {
    places: &'a Places,
    printed: Vec<Printed>,
    table: (&'static str, usize),
    is_repeated: bool,
}

impl Printer<'_> {
    fn table(&mut self, name: &'static str) -> &mut Self {
        (self.table, self.is_repeated) = ((name, 0), false);
        self
    }

    fn repeated(&mut self, name: &'static str, number: usize) -> &mut Self {
        (self.table, self.is_repeated) = ((name, number), true);
        self
    }

    pub(super) fn key(&mut self, key: &'static str, value: String) -> &mut Self {
        let (table, number) = self.table;
        let name = match (table, self.is_repeated) {
            ("", _) => key.to_owned(),
            (table, true) => format!("{table}[{number}].{key}"),
            (table, false) => format!("{table}.{key}"),
        };
        let line = self.places.of_key(&name).map(|(line, _)| line);
        self.printed.push(Printed { table, number, is_repeated: self.is_repeated, key, value, line });
        self
    }
}

fn listen(out: &mut Printer<'_>, listen: &Listen) {
    out.key("address", endpoint(&listen.address));
    out.key(
        "kind",
        quote(match listen.kind {
            Kind::Smtp => "smtp",
            Kind::Submission => "submission",
            Kind::Lmtp => "lmtp",
            Kind::Status => "status",
        }),
    );
    if listen.kind == Kind::Status {
        return;
    }
    out.key(
        "tls",
        quote(match listen.tls {
            ListenTls::None => "none",
            ListenTls::Offered => "offered",
            ListenTls::Required => "required",
            ListenTls::Implicit => "implicit",
        }),
    );
    out.key(
        "auth",
        quote(match listen.auth {
            OfferAuth::None => "none",
            OfferAuth::Tls => "tls",
            OfferAuth::Always => "always",
        }),
    );
    out.key("proxy", list(&listen.proxy, network)).key("xclient", list(&listen.xclient, network));
}

fn limits(out: &mut Printer<'_>, limits: &Limits) {
    out.key("connections", limits.connections.to_string());
    out.key("connections_per_host", limits.connections_per_host.to_string());
    out.key("message_size", size(limits.message_size));
    out.key("recipients", limits.recipients.to_string());
    out.key("command_timeout", duration(limits.command_timeout));
    out.key("data_timeout", duration(limits.data_timeout));
}

fn relay(out: &mut Printer<'_>, relay: &Relay) {
    out.key("networks", list(&relay.networks, network));
    out.key("domains", list(&relay.domains, |domain| quote(domain)));
    out.key("recipients", relay.recipients.as_ref().map_or_else(|| quote(""), |file| path(file)));
    out.key("verify", relay.verify.to_string());
    out.key("etrn", list(&relay.etrn, |domain| quote(domain)));
}

fn policy(out: &mut Printer<'_>, policy: &Policy) {
    let refuses = |is_refused| quote(if is_refused { "refuse" } else { "accept" });
    out.key("access", path(&policy.access.path)).key("always_bcc", path(&policy.always_bcc.path));
    out.key("dnsbl", list(&policy.dnsbl, dns_list)).key("dnsbl_threshold", policy.dnsbl_threshold.to_string());
    out.key("sender_lists", list(&policy.sender_lists, dns_list));
    out.key("greet_delay", if policy.greet_delay.is_zero() { quote("0s") } else { duration(policy.greet_delay) });
    out.key("own_hello", refuses(policy.refuses_own_hello));
    out.key("sender_domain", refuses(policy.refuses_sender_domain));
    out.key(
        "spf",
        quote(match policy.spf {
            Spf::None => "none",
            Spf::Mark => "mark",
            Spf::Refuse => "refuse",
        }),
    );
    out.key(
        "dmarc",
        quote(match policy.dmarc {
            Dmarc::None => "none",
            Dmarc::Mark => "mark",
            Dmarc::Obey => "obey",
        }),
    );
    out.key("arc_sealers", list(&policy.arc_sealers, |domain| quote(domain)));
    out.key("dmarc_reports", contact(policy.dmarc_reports.as_ref()));
    out.key(
        "greylist",
        quote(match policy.greylist {
            Greylist::None => "none",
            Greylist::Suspicious => "suspicious",
            Greylist::All => "all",
        }),
    );
    out.key("greylist_delay", duration(policy.greylist_delay));
    out.key(
        "quarantine",
        quote(&match &policy.quarantine {
            Quarantine::Hold => "hold".to_owned(),
            Quarantine::Folder(folder) => folder.to_string(),
        }),
    );
    out.key("messages_per_hour", policy.messages_per_hour.to_string());
    out.key("unknown_recipients_per_hour", policy.unknown_recipients_per_hour.to_string());
}

pub(super) fn contact(address: Option<&Address>) -> String {
    quote(&address.map_or("none".to_owned(), ToString::to_string))
}

fn dkim(out: &mut Printer<'_>, dkim: &Dkim) {
    match dkim {
        Dkim::Table(table) => out.key("table", path(table)),
        Dkim::Key(one) => {
            out.key("domain", quote(&one.domain)).key("selector", quote(&one.selector)).key("key", path(&one.key))
        }
    };
}

fn queue(out: &mut Printer<'_>, queue: &Queue) {
    out.key("workers", queue.workers.to_string());
    out.key("workers_per_destination", queue.workers_per_destination.to_string());
    out.key("retry_min", duration(queue.retry_min)).key("retry_max", duration(queue.retry_max));
    out.key("expire_after", duration(queue.expire_after));
    out.key("warn_after", if queue.warn_after.is_zero() { quote("0") } else { duration(queue.warn_after) });
}

fn filter(out: &mut Printer<'_>, filter: &Filter) {
    out.key(
        "socket",
        match &filter.socket {
            Endpoint::Tcp(address) => quote(&format!("inet:{address}")),
            other => endpoint(other),
        },
    );
    out.key(
        "protocol",
        quote(match filter.protocol {
            FilterProtocol::Milter => "milter",
            FilterProtocol::Policy => "policy",
        }),
    );
    let group = |group: &FilterGroup| {
        quote(match group {
            FilterGroup::Strangers => "strangers",
            FilterGroup::Submission => "submission",
            FilterGroup::Local => "local",
        })
    };
    out.key("for", list(&filter.groups, group));
    out.key(
        "on_failure",
        quote(match filter.on_failure {
            OnFailure::Accept => "accept",
            OnFailure::Defer => "defer",
        }),
    );
    out.key("timeout", duration(filter.timeout));
}

pub(super) fn list<T>(values: &[T], print: impl Fn(&T) -> String) -> String {
    format!("[{}]", values.iter().map(print).collect::<Vec<_>>().join(", "))
}

pub(super) fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

pub(super) fn auth(auth: &Auth) -> String {
    let with = |kind: &str, file: &PathBuf| quote(&format!("{kind}:{}", file.display()));
    match auth {
        Auth::None => quote("none"),
        Auth::File(file) => with("file", file),
        Auth::Dovecot(socket) => with("dovecot", socket),
    }
}

fn log_to(to: &LogTo) -> String {
    match to {
        LogTo::Syslog => quote("syslog"),
        LogTo::Stderr => quote("stderr"),
        LogTo::File(file) => path(file),
    }
}

fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp(address) => quote(&address.to_string()),
        Endpoint::Unix(socket) => quote(&format!("unix:{}", socket.display())),
    }
}

fn network(network: &Network) -> String {
    let bits = match network.address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    quote(&if network.prefix == bits {
        network.address.to_string()
    } else {
        format!("{}/{}", network.address, network.prefix)
    })
}

fn dns_list(list: &DnsList) -> String {
    let answers = list.answers.as_ref().map(|answers| format!("={answers}")).unwrap_or_default();
    let weight = if list.weight == 1 { String::new() } else { format!("*{}", list.weight) };
    quote(&format!("{}{answers}{weight}", list.zone))
}

/// A duration with the largest unit in which it is a whole number.
pub(super) fn duration(duration: Duration) -> String {
    let (milliseconds, units) =
        (duration.as_millis(), [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]);
    let unit = units.into_iter().find(|(unit, _)| milliseconds.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "ms"));
    quote(&format!("{}{name}", milliseconds / unit))
}

/// A size with the largest unit in which it is a whole number.
pub(super) fn size(octets: u64) -> String {
    let unit =
        [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")].into_iter().find(|(unit, _)| octets.is_multiple_of(*unit));
    unit.map_or_else(|| octets.to_string(), |(unit, name)| quote(&format!("{}{name}", octets / unit)))
}
