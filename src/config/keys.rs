//! Reads the keys of penfold.conf(5).
//!
//! Each table of the file has one function, in the order of the manual page. All errors are
//! reported, each with its place: unknown keys, wrong types, values out of bounds, and named files
//! that do not exist. An error in the TOML syntax hides all other errors.

use std::path::Path;
use std::time::Duration;

use super::defaults::{CONNECTIONS, WORKERS, defaults, own_name};
use super::dkim::dkim;
use super::document::{Errors, Section};
use super::domain::{Defaults, domains};
use super::filter::filter;
use super::local::local;
use super::policy;
use super::remote::remote;
use super::shared::shared;
use super::submission::submission;
use super::values;
use super::{
    Auth, Config, ConfigError, Dns, KeyPair, Kind, Limits, Listen, ListenTls, LogTo, OfferAuth, Queue, Relay, Report,
    Smtp, TableFile, Users, table,
};
use crate::endpoint::Endpoint;
use crate::history::Bounds;
use crate::json::Format;

/// The keywords of EHLO and the commands that `smtp.disable` can withhold.
const SMTP_KEYWORDS: &[&str] = &[
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "ENHANCEDSTATUSCODES",
    "STARTTLS",
    "XCLIENT",
    "AUTH",
    "CHUNKING",
    "BINARYMIME",
    "DSN",
    "SMTPUTF8",
    "ETRN",
    "LIMITS",
    "DELIVERBY",
    "FUTURERELEASE",
    "MT-PRIORITY",
    "REQUIRETLS",
    "VRFY",
    "HELP",
];

/// The maximum number of languages in `report.languages`: a report has all of them.
const MAX_LANGUAGES: usize = 4;

/// The port of SMTP, at which LMTP must not be used (RFC 2033 5).
const SMTP_PORT: u16 = 25;

/// Reads a configuration file.
///
/// # Errors
/// All errors in the file, in the order of lines; or one error, if the file cannot be read.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigError>> {
    let text = table::read_text(path).map_err(|error| vec![error])?;
    parse(path, &text)
}

/// Reads a configuration file. Returns its valid parts and all errors, in the order of lines. An
/// invalid value is replaced by its default, and a table file with an invalid path by an empty
/// table. The result is for callers that go on despite errors, for example to find the errors in
/// tables as well. The configuration is `None` if the file cannot be read, or is not TOML.
pub fn examine(path: &Path) -> (Option<Config>, Vec<ConfigError>) {
    match table::read_text(path) {
        Ok(text) => examine_text(path, &text),
        Err(error) => (None, vec![error]),
    }
}

/// Returns the configuration that an empty file gives on this host.
pub fn default() -> Config {
    defaults(&own_name())
}

/// Reads the text of a configuration file. Errors show `name` as the path of the file.
///
/// # Errors
/// All errors in the text, in the order of lines.
pub fn parse(name: &Path, text: &str) -> Result<Config, Vec<ConfigError>> {
    let (config, errors) = examine_text(name, text);
    config.filter(|_| errors.is_empty()).ok_or(errors)
}

/// Reads the text of a configuration file, like [`examine`]. Errors show `name` as the path of the file.
pub fn examine_text(name: &Path, text: &str) -> (Option<Config>, Vec<ConfigError>) {
    let errors = Errors::none(name, text);
    let config = errors.document().map(config).map(|config| Config { places: errors.places(), ..config });
    (config, errors.into_sorted())
}

/// The headers of optional tables, each with the keys that no other table has.
const OPTIONAL: &[(&str, &[&str])] = &[
    ("[[listen]]", &["address", "kind", "proxy", "xclient"]),
    ("[tls]", &["certificate", "key"]),
    ("[[domain]]", &["names"]),
    ("[[dkim]]", &["selector", "table"]),
    ("[[filter]]", &["protocol", "for", "on_failure"]),
];

fn config(mut top: Section<'_, '_>) -> Config {
    OPTIONAL.iter().for_each(|(header, keys)| top.may_have(header, keys));
    // At the top level, `tls` and `auth` are tables. If one of them is a text, it is probably meant
    // as a key of a listener, and the line [[listen]] above it is still commented out.
    top.refuse_text("tls", "here it is the table of certificates; a listener's tls belongs below [[listen]]");
    top.refuse_text("auth", "here it is the table of who may log in; a listener's auth belongs below [[listen]]");
    let hostname = top.take("hostname", values::host_name).unwrap_or_else(own_name);
    let default = defaults(&hostname);
    let tls: Vec<KeyPair> = top.sections_or_one("tls").into_iter().filter_map(key_pair).collect();
    top.refuse_text("domain", "here it is a table, [[domain]]; local domains are named in local.domains");
    let (mut local, gives_domains) = local(top.section("local"), default.local);
    let limits = limits(top.section("limits"), default.limits);
    let auth = auth(top.section("auth"), &local.users);
    let submission = submission(top.section("submission"), default.submission);
    let others = Defaults { auth: &auth, limits: &limits, submission: &submission };
    let domains = domains(&mut top, &mut local, gives_domains, &others);
    let (log, log_format) = log(top.section("log"), default.log, default.log_format);
    let config = Config {
        hostname,
        spool: top.take("spool", values::path).unwrap_or(default.spool),
        socket: top.take("socket", values::path).unwrap_or(default.socket),
        user: top.take("user", values::user).unwrap_or(default.user),
        listen: match top.sections("listen") {
            Some(sections) => listeners(sections, !tls.is_empty(), default.listen),
            None => default.listen,
        },
        tls,
        smtp: smtp(top.section("smtp"), default.smtp),
        limits,
        auth,
        submission,
        local,
        domains,
        relay: relay(top.section("relay"), default.relay),
        policy: policy::policy(top.section("policy"), default.policy),
        remote: remote(top.section("remote"), default.remote),
        dkim: dkim(&mut top),
        queue: queue(top.section("queue"), default.queue),
        report: report(top.section("report"), default.report),
        filters: top.sections("filter").unwrap_or_default().into_iter().filter_map(filter).collect(),
        shared: shared(top.section("shared")),
        dns: dns(top.section("dns"), default.dns),
        log,
        log_format,
        history: history(top.section("history"), default.history),
        places: default.places,
    };
    top.finish();
    config
}

/// Reads the tables of `[[listen]]`. If there are tables for the status page only, mail is accepted at
/// the default addresses.
fn listeners(sections: Vec<Section<'_, '_>>, has_certificate: bool, default: Vec<Listen>) -> Vec<Listen> {
    let mut given: Vec<_> = sections.into_iter().filter_map(|section| listen(section, has_certificate)).collect();
    if !given.is_empty() && given.iter().all(|listen| listen.kind == Kind::Status) {
        given.extend(default);
    }
    given
}

fn listen(mut section: Section<'_, '_>, has_certificate: bool) -> Option<Listen> {
    let address = section.take("address", values::listen_address);
    if !section.gives("address") {
        section.error("address", "missing; expected an address and a port, such as \"127.0.0.1:25\"");
    }
    let kind = match section.take("kind", values::word(&["smtp", "submission", "lmtp", "status"])) {
        Some("submission") => Kind::Submission,
        Some("lmtp") => Kind::Lmtp,
        Some("status") => Kind::Status,
        _ => Kind::Smtp,
    };
    let tls = match section.take("tls", values::word(&["none", "offered", "required", "implicit"])) {
        Some("none") => ListenTls::None,
        Some("required") => ListenTls::Required,
        Some("implicit") => ListenTls::Implicit,
        _ if kind == Kind::Status => ListenTls::None,
        _ => ListenTls::Offered,
    };
    if matches!(tls, ListenTls::Required | ListenTls::Implicit) && !has_certificate {
        section.error("tls", "needs a certificate: expected one in [tls]");
    }
    let auth = match (section.take("auth", values::word(&["none", "tls", "always"])), kind) {
        (Some("always"), _) => OfferAuth::Always,
        (Some("tls"), _) | (None, Kind::Submission) => OfferAuth::Tls,
        _ => OfferAuth::None,
    };
    let proxy = section.take_all("proxy", values::network).unwrap_or_default();
    let xclient = section.take_all("xclient", values::network).unwrap_or_default();
    check_kind(&mut section, kind, address.as_ref());
    section.finish();
    address.map(|address| Listen { address, kind, tls, auth, proxy, xclient, is_default: false })
}

/// Reports an address that listeners of this kind must not have, and keys that have no effect with
/// this kind.
fn check_kind(section: &mut Section<'_, '_>, kind: Kind, address: Option<&Endpoint>) {
    match (kind, address) {
        (Kind::Lmtp, Some(Endpoint::Tcp(address))) if address.port() == SMTP_PORT => {
            section.error("kind", "LMTP must not use port 25; expected another port, such as 24");
        }
        (Kind::Status, Some(address)) if !address.is_loopback() => {
            let text = "kind = \"status\" needs a loopback address, such as \"127.0.0.1:8025\", or a Unix socket";
            section.error("address", text);
        }
        (Kind::Smtp | Kind::Submission, Some(Endpoint::Unix(_))) => {
            let text = "a Unix socket needs kind = \"lmtp\" or \"status\"; expected an address and a port";
            section.error("address", text);
        }
        _ => {}
    }
    for key in ["tls", "auth", "proxy", "xclient"] {
        if kind == Kind::Status && section.gives(key) {
            section.error(key, "has no effect with kind = \"status\"; remove it");
        }
    }
}

fn key_pair(mut section: Section<'_, '_>) -> Option<KeyPair> {
    let certificate = section.take("certificate", values::existing_file);
    let key = section.take("key", values::existing_file);
    for name in ["certificate", "key"] {
        if !section.gives(name) {
            section.error(name, "missing; expected the path of a file in PEM");
        }
    }
    section.finish();
    Some(KeyPair { certificate: certificate?, key: key? })
}

fn limits(mut section: Section<'_, '_>, default: Limits) -> Limits {
    let limits = Limits {
        connections: section.take("connections", values::count(CONNECTIONS)).unwrap_or(default.connections),
        connections_per_host: section
            .take("connections_per_host", values::count(CONNECTIONS))
            .unwrap_or(default.connections_per_host),
        message_size: section.take("message_size", values::message_size).unwrap_or(default.message_size),
        recipients: section.take("recipients", values::recipients).unwrap_or(default.recipients),
        command_timeout: section.take("command_timeout", values::duration).unwrap_or(default.command_timeout),
        data_timeout: section.take("data_timeout", values::duration).unwrap_or(default.data_timeout),
    };
    section.finish();
    limits
}

fn relay(mut section: Section<'_, '_>, default: Relay) -> Relay {
    let relay = Relay {
        networks: section.take_all("networks", values::network).unwrap_or(default.networks),
        domains: section.take_all("domains", values::domain).unwrap_or(default.domains),
        recipients: section.take("recipients", values::existing_file_or_none).unwrap_or(default.recipients),
        verify: section.take("verify", values::flag).unwrap_or(default.verify),
        etrn: section.take_all("etrn", values::domain_or_below).unwrap_or(default.etrn),
    };
    section.finish();
    relay
}

/// Reads the source of accounts. The default is the users file, if `local.users` names one.
fn auth(mut section: Section<'_, '_>, users: &Users) -> Auth {
    let default = match users {
        Users::File(path) => Auth::File(path.clone()),
        Users::System | Users::Dovecot(_) | Users::Any => Auth::None,
    };
    let auth = take_auth(&mut section, "users", default);
    section.finish();
    auth
}

/// Takes the source of accounts from a key. If the file names a users file, it must exist.
pub(super) fn take_auth(section: &mut Section<'_, '_>, key: &'static str, default: Auth) -> Auth {
    let auth = section.take(key, values::auth).unwrap_or(default);
    if let Auth::File(path) = &auth
        && section.gives(key)
        && let Err(text) = values::check_exists(path)
    {
        section.error(key, &text);
    }
    auth
}

fn queue(mut section: Section<'_, '_>, default: Queue) -> Queue {
    let (retry_min, retry_max) = retry(&mut section, (default.retry_min, default.retry_max));
    let queue = Queue {
        workers: section.take("workers", values::count(WORKERS)).unwrap_or(default.workers),
        workers_per_destination: section
            .take("workers_per_destination", values::count(WORKERS))
            .unwrap_or(default.workers_per_destination),
        retry_min,
        retry_max,
        expire_after: section.take("expire_after", values::seconds).unwrap_or(default.expire_after),
        warn_after: section.take("warn_after", values::seconds_or_never).unwrap_or(default.warn_after),
    };
    section.finish();
    queue
}

fn report(mut section: Section<'_, '_>, default: Report) -> Report {
    let languages = section.take_all("languages", values::language).unwrap_or(default.languages);
    if languages.len() > MAX_LANGUAGES {
        section.error("languages", &format!("expected at most {MAX_LANGUAGES} languages"));
    }
    let texts = match section.take("texts", values::existing_directory) {
        Some(path) => TableFile { path, required: true },
        None => default.texts,
    };
    let multilingual = section.take("multilingual", values::flag).unwrap_or(default.multilingual);
    section.finish();
    Report { languages, multilingual, texts }
}

/// Reads the first and the maximum interval between attempts.
fn retry(section: &mut Section<'_, '_>, default: (Duration, Duration)) -> (Duration, Duration) {
    let min = section.take("retry_min", values::seconds);
    let max = section.take("retry_max", values::seconds);
    // The two intervals are compared only if neither is invalid. If one is missing, its default is
    // compared.
    let comparable = min.is_some() == section.gives("retry_min") && max.is_some() == section.gives("retry_max");
    let last = if max.is_some() { ("retry_max", "at least retry_min") } else { ("retry_min", "at most retry_max") };
    let (min, max) = (min.unwrap_or(default.0), max.unwrap_or(default.1));
    if comparable && min > max {
        section.error(last.0, &format!("expected {}", last.1));
    }
    (min, max)
}

fn smtp(mut section: Section<'_, '_>, default: Smtp) -> Smtp {
    let disable = section.take_all("disable", values::keyword(SMTP_KEYWORDS)).unwrap_or(default.disable);
    section.finish();
    Smtp { disable }
}

fn dns(mut section: Section<'_, '_>, default: Dns) -> Dns {
    let dns = Dns {
        nameservers: section.take_all("nameservers", values::nameserver).unwrap_or(default.nameservers),
        timeout: section.take("timeout", values::duration).unwrap_or(default.timeout),
        trust_ad: section.take("trust_ad", values::trust_ad).unwrap_or(default.trust_ad),
    };
    section.finish();
    dns
}

fn log(mut section: Section<'_, '_>, to: LogTo, format: Format) -> (LogTo, Format) {
    let to = section.take("to", values::log_to).unwrap_or(to);
    let format = match section.take("format", values::word(&["text", "json"])) {
        Some("json") => Format::Json,
        Some(_) => Format::Text,
        None => format,
    };
    section.finish();
    (to, format)
}

fn history(mut section: Section<'_, '_>, default: Bounds) -> Bounds {
    let history = Bounds {
        size: section.take("size", values::history_size).unwrap_or(default.size),
        keep: section.take("keep", values::duration).unwrap_or(default.keep),
    };
    section.finish();
    history
}

/// Reads the path of a table file. If the configuration names the file, it must exist. An empty text
/// stands for an empty table.
pub(super) fn table_file(section: &mut Section<'_, '_>, key: &'static str, default: TableFile) -> TableFile {
    match section.take(key, values::existing_file_or_none) {
        Some(Some(path)) => TableFile { path, required: true },
        Some(None) => TableFile::none(),
        // The path is invalid. The default file is not read, because this configuration does not use
        // it, and its errors must not be reported.
        None if section.gives(key) => TableFile::none(),
        None => default,
    }
}
