//! Logs warnings about settings that are valid and yet probably mistakes.
//!
//! The warnings are logged at a start, by `-n` and at a reload. Each is one line, which begins with
//! the file and, if the file has the key or the line in question, with its place. Examples are table lines without effect, domains that
//! no other host can reach, a submission listener where nobody can log in, secrets that others may
//! read, changes that need a restart, and system limits that are too low. A mistake that one table
//! shows by itself is logged when that table is read.
//!
//! - `dane`: why hosts are not verified by their TLSA records
//! - `dkim`: keys that sign mail, and their DNS records
//! - `dovecot`: users that cannot be looked up at Dovecot
//! - `outgoing`: addresses from which this host cannot connect, and limits without effect
//! - `shared`: the password of a shared store, in clear
//! - `tables`: local mail that cannot be delivered or read

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use super::inherited::{is_overlapping, overlap};
use super::{capacity, permissions};
use crate::config::policy::{Dmarc, Spf};
use crate::config::{Auth, Config, ConfigError, Kind, Listen, ListenTls, Local, Network, OfferAuth, Users};
use crate::dns::Dns;
use crate::log;
use crate::privsep::{self, Rights};
use crate::screen;
use crate::screen::lists::Lists;

use crate::site::Settings;
use crate::submit::drop;

mod dane;
#[cfg(feature = "mailauth")]
mod dkim;
mod dovecot;
mod outgoing;
mod shared;
mod tables;

pub use dane::DaneCheck;

/// Logs all warnings except those that the other public functions in this module log. `sockets` are
/// the addresses that the server listens on.
pub fn log_all(settings: &Settings, rights: &Rights, sockets: &[SocketAddr]) {
    let config = &settings.config;
    capacity::warn(config);
    of_names(config, sockets);
    of_overlaps(config);
    of_open_relay(config);
    of_dmarc(config);
    of_queue(config);
    of_mailboxes(config, rights);
    of_drop_directory(config);
    tables::log_all(settings, rights);
    outgoing::log_all(settings);
    shared::log_all(settings);
    of_writable_files(config);
    of_certificates(settings);
    for (number, listen) in config.listen.iter().enumerate().filter(|(_, listen)| listen.kind == Kind::Submission) {
        if let Some(why) = why_nobody(config, listen, settings.logins.has_accounts()) {
            let whom = if config.relay.networks.is_empty() { "is empty" } else { "contains only this host" };
            let address = &listen.address;
            let at = at_listener(config, number);
            ::log::warn!("{at}listen {address}: no client can log in there: {why}; and relay.networks {whom}");
        }
    }
    let doubtful = settings.credentials.warnings(|host| settings.router.names_host(host));
    for warning in doubtful.into_iter().chain(senders(settings)).chain(open_to_all(settings)) {
        ::log::warn!("{warning}");
    }
}

/// The beginning of a warning about the listener with this number.
fn at_listener(config: &Config, number: usize) -> String {
    config.places.at(&format!("listen[{number}].address"))
}

/// Warns of a hostname without a domain, and of a local domain that no other host can reach.
fn of_names(config: &Config, sockets: &[SocketAddr]) {
    let hostname = &config.hostname;
    if !hostname.contains('.') && !config.remote.local_only {
        let at = config.places.at("hostname");
        ::log::warn!("{at}hostname {hostname} has no dot: other hosts may refuse mail from such a name; set hostname");
    }
    let is_for_others = |domain: &&String| {
        domain.contains('.')
            && *domain != hostname
            && !domain.ends_with(".localdomain")
            && !domain.ends_with(".localhost")
    };
    let has_front_end = config.listen.iter().any(|listen| !listen.proxy.is_empty() || !listen.xclient.is_empty());
    let is_alone = !sockets.is_empty() && sockets.iter().all(|socket| socket.ip().to_canonical().is_loopback());
    let mut domains = config.named_locals().filter_map(|(table, local)| {
        let number = local.domains.iter().position(|domain| is_for_others(&domain))?;
        let key = if table == "local" { "local.domains" } else { "domain.names" };
        let place = key.replacen(key.split('.').next()?, &table, 1);
        Some((key, format!("{place}[{number}]"), &local.domains[number]))
    });
    if let Some((key, place, domain)) = domains.next().filter(|_| is_alone && !has_front_end) {
        let at = config.places.at(&place);
        ::log::warn!("{at}{key} has {domain}, and only this host can connect: see [[listen]]");
    }
    let relayed = config.relay.domains.iter().enumerate();
    for (number, domain) in relayed.filter(|(_, domain)| config.is_local(domain)) {
        let at = config.places.at(&format!("relay.domains[{number}]"));
        ::log::warn!("{at}relay.domains has {domain}, which is also local: its mail stays on this host");
    }
}

/// Warns of listening addresses that cannot both be bound.
fn of_overlaps(config: &Config) {
    for (index, listen) in config.listen.iter().enumerate() {
        let before = config.listen.get(..index).unwrap_or_default();
        if let Some(other) = before.iter().find(|other| is_overlapping(&other.address, &listen.address)) {
            let (at, overlap) = (at_listener(config, index), overlap(&other.address, &listen.address));
            ::log::warn!("{at}listen {}: {overlap}", listen.address);
        }
    }
}

/// Warns of networks in relay.networks that are too large to belong to one site.
fn of_open_relay(config: &Config) {
    for (number, network) in config.relay.networks.iter().enumerate().filter(|(_, network)| is_too_wide(network)) {
        let Network { address, prefix } = network;
        let at = config.places.at(&format!("relay.networks[{number}]"));
        ::log::warn!(
            "{at}relay.networks has {address}/{prefix}: this is an open relay, because it includes unknown hosts"
        );
    }
}

/// Warns if DMARC refuses mail although SPF is not evaluated, and of keys that have no effect with
/// this value of `policy.dmarc`.
fn of_dmarc(config: &Config) {
    let (policy, at) = (&config.policy, |key| config.places.at(key));
    if policy.dmarc == Dmarc::Obey && policy.spf == Spf::None {
        let at = at("policy.spf");
        ::log::warn!("{at}policy.spf is none: with policy.dmarc = obey, mail that only SPF vouches for is refused");
    }
    if policy.dmarc != Dmarc::Obey && !policy.arc_sealers.is_empty() {
        let at = at("policy.arc_sealers");
        ::log::warn!("{at}policy.dmarc is not obey: policy.arc_sealers has no effect");
    }
    if policy.dmarc == Dmarc::None && policy.dmarc_reports.is_some() {
        let at = at("policy.dmarc_reports");
        ::log::warn!("{at}policy.dmarc is none: no DMARC reports are sent");
    }
}

/// Warns of a warning to the sender that would come after the report, and of a message that would
/// be tried only once.
fn of_queue(config: &Config) {
    let queue = &config.queue;
    let expire = queue.expire_after;
    let is_set = config.places.of_key("queue.warn_after").is_some();
    if is_set && queue.warn_after >= expire {
        let at = config.places.at("queue.warn_after");
        ::log::warn!("{at}queue.warn_after is not below queue.expire_after: no sender is warned before the report");
    }
    if queue.retry_min >= expire {
        let at = config.places.at("queue.retry_min");
        ::log::warn!("{at}queue.retry_min is not below queue.expire_after: each message is tried only once");
    }
}

/// Whether a network is larger than any private network and any network assigned to one site.
fn is_too_wide(network: &Network) -> bool {
    match network.address {
        IpAddr::V4(_) => network.prefix < 8,
        // The first 96 bits of an IPv4-mapped address are fixed, so a prefix of 104 bits stands for
        // one of 8 bits in IPv4.
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => network.prefix < 104,
        IpAddr::V6(address) => {
            let is_private = address.is_unique_local() && network.prefix >= 7
                || address.is_unicast_link_local() && network.prefix >= 10;
            network.prefix < 16 && !is_private
        }
    }
}

/// Warns if clients can use TLS, but no certificate is for the hostname.
fn of_certificates(settings: &Settings) {
    let (config, server) = (&settings.config, settings.tls.server.as_ref());
    let hostname = &config.hostname;
    let is_shown = config.listen.iter().any(|listen| listen.tls != ListenTls::None);
    let is_missing = server.is_some_and(|server| !server.is_for(hostname));
    if is_shown && is_missing && hostname.contains('.') {
        let at = config.places.at("tls[0].certificate");
        ::log::warn!(
            "{at}no certificate is for the hostname {hostname}: clients that know this host by that name will not trust it"
        );
    }
}

/// Warns if the server's user cannot read the configuration. A reload reads it as that user.
pub fn of_configuration(file: &Path) {
    if fs::File::open(file).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
        let (file, user) = (file.display(), privsep::user_name());
        ::log::warn!("{file}: the user {user} must be able to read it: SIGHUP will change nothing");
    }
}

/// Returns warnings about changes that need a restart, and about a new value of `user` with which a
/// restart would fail.
pub fn of_changes(started: &Config, fresh: &Config, rights: &Rights) -> Vec<String> {
    let warning = |key: &str, text: String| format!("{}{key}{text}", fresh.places.at(key));
    let changed = needs_restart(started, fresh).into_iter();
    let mut warnings: Vec<_> =
        changed.map(|key| warning(key, " has changed: that needs a restart".to_owned())).collect();
    let user = &fresh.user;
    if *user != started.user && rights.has_monitor() {
        let fault = match rights.user_named(user) {
            Ok(None) => Some(format!("there is no such user as {user}")),
            Ok(Some(found)) if found.uid == 0 => Some("the server must not run as root".to_owned()),
            _ => None,
        };
        warnings.extend(fault.map(|fault| warning("user", format!(": {fault}: the next start will fail"))));
    }
    warnings
}

/// Returns the changed keys that need a restart.
fn needs_restart(started: &Config, fresh: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut note = |differs: bool, key| keys.extend(differs.then_some(key));
    note(started.listen != fresh.listen, "listen");
    note(started.user != fresh.user, "user");
    note(started.spool != fresh.spool, "spool");
    note(started.socket != fresh.socket, "socket");
    note(started.submission.drop != fresh.submission.drop, "submission.drop");
    note(started.queue.workers != fresh.queue.workers, "queue.workers");
    note(started.dns != fresh.dns, "dns");
    note(started.log != fresh.log, "log.to");
    note(started.log_format != fresh.log_format, "log.format");
    keys
}

/// Warns if system users get mail in their homes, but there is no monitor to start agents.
pub fn of_homes(config: &Config, rights: &Rights) {
    let is_at_home = |local: &Local| local.users == Users::System && local.mailbox.path().is_some();
    if let Some((table, _)) =
        config.named_locals().find(|(_, local)| is_at_home(local)).filter(|_| !rights.has_monitor())
    {
        let (user, at) = (privsep::user_name(), config.places.at(&format!("{table}.users")));
        let table = table_of(&table);
        ::log::warn!("{at}{table}.users is \"system\": mail waits for every home that {user} may not write to");
    }
}

/// Warns if system users are to have mailboxes in a directory where they may not create files. An
/// agent, the process that delivers to a user's mailbox, has only the rights of that user.
fn of_mailboxes(config: &Config, rights: &Rights) {
    let is_theirs = |local: &Local| local.users == Users::System && !local.domains.is_empty() && rights.has_monitor();
    for (table, local) in config.named_locals().filter(|(_, local)| is_theirs(local)) {
        of_mailbox(config, &table, local);
    }
}

fn of_mailbox(config: &Config, table: &str, local: &Local) {
    let Some(template) = local.mailbox.path().filter(|template| !template.starts_with('~')) else { return };
    let place = match template.split_once('{') {
        Some((before, _)) => Path::new(before.rfind('/').filter(|&at| at > 0).map_or("/", |at| &before[..at])),
        None => Path::new(template),
    };
    let found = place.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?.mode())));
    if let Some((path, mode)) = found.filter(|(_, mode)| mode & 0o002 == 0) {
        let (path, mode, at) = (path.display(), mode & 0o7777, config.places.at(&format!("{table}.mailbox")));
        let table = table_of(table);
        ::log::warn!(
            "{at}{table}.mailbox: not every user may write to {path} (mode {mode:03o}): mail for users without a mailbox there waits"
        );
    }
}

/// Returns the name of a table without its number: `domain` for `domain[0]`.
fn table_of(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

/// Warns if the drop directory cannot be used, and says which command makes it.
fn of_drop_directory(config: &Config) {
    let Some(directory) = &config.submission.drop else { return };
    let Some(why) = drop::fault(directory) else { return };
    let (at, path) = (config.places.at("submission.drop"), directory.display());
    let command = drop::command(directory, &config.user);
    ::log::warn!("{at}submission.drop: {path}: {why}: sendmail cannot keep mail there; make it so: {command}");
}

/// Warns if a start would find no syslog, no valid TZ, or no spool.
pub fn of_a_start(settings: &Settings, foreground: bool) {
    let config = &settings.config;
    if !foreground {
        log::warn_of_missing_syslog(&config.log);
    }
    log::warn_of_zone();
    if matches!(config.spool.try_exists(), Ok(false)) {
        let at = config.places.at("spool");
        ::log::warn!("{at}spool: {} does not exist: the start will create it", config.spool.display());
    }
}

/// Warns if mail would be signed with keys that are not in the DNS.
#[cfg(feature = "mailauth")]
pub fn of_keys(settings: &Settings) {
    dkim::log_all(settings);
}

/// Warns of sockets of Dovecot at which users cannot be looked up.
pub fn of_dovecot(config: &Config) {
    dovecot::log_all(config);
}

/// Warns of DNS lists that count for nothing, because they do not answer or contain everything.
pub fn of_dns_lists(config: &Config) {
    let (addresses, domains) = (&config.policy.dnsbl, &config.policy.sender_lists);
    if addresses.is_empty() && domains.is_empty() {
        return;
    }
    let (lists, dns, until) = (Lists::default(), Dns::new(&config.dns), Instant::now() + screen::TIME);
    let asked = lists.begin_address(&dns, addresses, Ipv4Addr::LOCALHOST.into(), until);
    let asked = [asked, lists.begin_domain(&dns, domains, "penfold.invalid", until)];
    lists.wait(asked);
}

/// Returns warnings for lines of the senders table whose accounts are not in the users file. If a
/// listener accepts XCLIENT, which can name any account, returns none.
fn senders(settings: &Settings) -> Vec<ConfigError> {
    match settings.logins.has_accounts() && settings.config.listen.iter().all(|listen| listen.xclient.is_empty()) {
        true => settings.senders.unused(|name| settings.logins.has_account(name).unwrap_or(true)),
        false => Vec::new(),
    }
}

/// Returns the reason why no client can use a submission listener; `None` if some client can.
fn why_nobody(config: &Config, listen: &Listen, has_accounts: bool) -> Option<&'static str> {
    let is_trusted = |network: &Network| listen.address.is_loopback() || !is_loopback(network);
    if config.relay.networks.iter().any(is_trusted) || !listen.xclient.is_empty() {
        return None;
    }
    match listen.auth {
        OfferAuth::None => Some("auth is \"none\""),
        _ if !has_accounts && config.auth == Auth::None => Some("auth.users is \"none\""),
        _ if !has_accounts => Some("the users file has no secret"),
        OfferAuth::Tls if listen.tls == ListenTls::None => Some("auth needs TLS, and tls is \"none\""),
        OfferAuth::Tls if config.tls.is_empty() => Some("auth needs TLS, and there is no certificate"),
        _ => None,
    }
}

fn is_loopback(network: &Network) -> bool {
    network.address.to_canonical().is_loopback() && network.prefix >= 8
}

/// Warns of the configuration and its tables if every system user may change them. A table of
/// aliases names commands that run with the rights of others.
fn of_writable_files(config: &Config) {
    let names = permissions::Names::of(config.places.file(), config);
    let mut paths: Vec<_> = names.paths().collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        let mode = fs::metadata(path).map_or(0, |found| found.mode() & 0o777);
        if mode & 0o002 != 0 {
            let file = path.display();
            ::log::warn!("{file}: every user of this host may change it (mode {mode:03o})");
        }
    }
}

/// Returns warnings for files with secrets that every system user may read.
fn open_to_all(settings: &Settings) -> Vec<ConfigError> {
    let config = &settings.config;
    let sources = config.domains.iter().map(|domain| &domain.auth).chain([&config.auth]);
    let users: BTreeSet<_> = sources
        .filter_map(|auth| match auth {
            Auth::File(path) if settings.logins.has_accounts() => Some(path),
            _ => None,
        })
        .collect();
    let files = config.tls.iter().map(|pair| &pair.key).chain(users);
    let mut warnings: Vec<_> = files.filter_map(|file| is_open(file)).collect();
    #[cfg(feature = "mailauth")]
    warnings.extend(settings.keys.all().iter().filter_map(|named| is_open(named.path())));
    warnings
}

fn is_open(file: &Path) -> Option<ConfigError> {
    let mode = fs::metadata(file).ok()?.mode() & 0o777;
    (mode & 0o004 != 0).then(|| ConfigError::whole(file, format!("others may read it (mode {mode:03o})")))
}
