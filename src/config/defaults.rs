//! Defines the default of each key of the configuration, and the bounds of numbers.
//!
//! The defaults stand in one literal, in the order of penfold.conf(5). They are safe on any
//! machine: the server listens on loopback addresses only, and only the machine itself may relay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::shared::no_store;
use super::{
    Auth, Config, Dns, Domains, Limits, Listen, Local, LogTo, MailboxTemplate, Network, Places, Queue, Relay, Report,
    Smtp, TableFile, Users, policy, remote, submission,
};
use crate::address::parse_domain;
use crate::history::Bounds;
use crate::json::Format;

/// The maximum value of any duration. The current time plus this duration cannot overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);
/// The bounds of `limits.connections` and `limits.connections_per_host`.
pub(super) const CONNECTIONS: RangeInclusive<usize> = 1..=100_000;
/// The bounds of `limits.message_size`, in octets. RFC 5321 4.5.3.1.7 requires at least 64 KiB. The
/// maximum is 1 TiB, so that sums of sizes cannot overflow.
pub(super) const MESSAGE_SIZE: RangeInclusive<u64> = 64 << 10..=1 << 40;
/// The bounds of quotas, in bytes. A smaller one would refuse common messages.
pub(super) const QUOTA: RangeInclusive<u64> = 64 << 10..=1 << 46;
/// The allowed sizes of the history.
pub(super) const HISTORY_SIZE: RangeInclusive<u64> = 1 << 20..=2 << 30;
/// The bounds of `limits.recipients`; RFC 5321 4.5.3.1.8 requires at least 100.
pub(super) const RECIPIENTS: RangeInclusive<usize> = 100..=100_000;
/// The bounds of `submission.messages_per_hour` and `submission.recipients_per_hour`.
pub(super) const PER_HOUR: RangeInclusive<usize> = 1..=10_000_000;
/// The bounds of `queue.workers` and `queue.workers_per_destination`.
pub(super) const WORKERS: RangeInclusive<usize> = 1..=1000;

pub(super) const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The default of `local.mailbox` for users of the system.
pub(super) const MAILBOX_IN_HOME: &str = "~/Maildir";
/// The default of `local.mailbox` if there is a users file, because its users have no home
/// directories.
pub(super) const MAILBOX_WITHOUT_HOME: &str = "/var/mail/{domain}/{user}";

/// Returns the configuration that an empty file gives on a host with the name `hostname`.
pub(super) fn defaults(hostname: &str) -> Config {
    Config {
        hostname: hostname.to_owned(),
        spool: "/var/spool/penfold".into(),
        socket: "/run/penfold/penfold.sock".into(),
        user: "penfold".into(),
        listen: [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            .map(|ip| Listen { is_default: true, ..Listen::at(SocketAddr::from((ip, 25))) })
            .into(),
        tls: Vec::new(),
        limits: Limits {
            connections: 1000,
            connections_per_host: 50,
            message_size: 50 << 20,
            recipients: 1000,
            command_timeout: Duration::from_secs(5 * MINUTE),
            data_timeout: Duration::from_secs(10 * MINUTE),
        },
        local: local(hostname),
        domains: Domains::default(),
        relay: relay(),
        smtp: Smtp::default(),
        policy: policy::defaults(optional("/etc/penfold/access"), optional("/etc/penfold/always_bcc")),
        auth: Auth::None,
        submission: submission::defaults(),
        remote: remote::defaults(),
        dkim: Vec::new(),
        queue: Queue {
            workers: 200,
            workers_per_destination: 20,
            retry_min: Duration::from_secs(5 * MINUTE),
            retry_max: Duration::from_secs(4 * HOUR),
            expire_after: Duration::from_secs(5 * 24 * HOUR),
            warn_after: Duration::from_secs(4 * HOUR),
        },
        report: Report { languages: Vec::new(), multilingual: false, texts: optional("/etc/penfold/languages") },
        filters: Vec::new(),
        shared: no_store(),
        dns: Dns { nameservers: Vec::new(), timeout: Duration::from_secs(10), trust_ad: None },
        log: LogTo::Syslog,
        log_format: Format::Text,
        history: Bounds { size: 64 << 20, keep: Duration::from_secs(30 * 24 * HOUR) },
        places: Places::default(),
    }
}

fn local(hostname: &str) -> Local {
    Local {
        domains: local_names(hostname, &own_name()),
        users: Users::System,
        mailbox: MailboxTemplate::Maildir(MAILBOX_IN_HOME.into()),
        aliases: optional("/etc/aliases"),
        virtual_table: optional("/etc/penfold/virtual"),
        subaddress: Some('+'),
        postmaster: "root".into(),
        catch_all: None,
        quota: None,
        refuses_over_quota: false,
    }
}

/// A table file that need not exist.
pub(super) fn optional(path: &str) -> TableFile {
    TableFile { path: PathBuf::from(path), required: false }
}

/// Returns this host's full name, without asking the DNS. If the name from gethostname(2) has a
/// dot, it is the full name. Otherwise, the full name is the first name in hosts(5) that begins
/// with the short name and a dot or, if there is none, the short name itself. If the result is not
/// a valid domain, returns `localhost`.
pub(super) fn own_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    parse_domain(full_name(&name, &hosts)).map_or_else(|_| "localhost".to_owned(), String::from)
}

/// Returns the domains that are local by default: the hostname, localhost, and the system's name
/// with and without its domain. Programs on this host send mail to all of these names. A name
/// without a dot never belongs to another host.
fn local_names(hostname: &str, system_name: &str) -> Vec<String> {
    let short = system_name.split('.').next().unwrap_or(system_name);
    let short = parse_domain(short).map(String::from).ok();
    let mut names = vec![hostname.to_owned()];
    for name in [Some("localhost".to_owned()), Some(system_name.to_owned()), short].into_iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn full_name<'a>(name: &'a str, hosts: &'a str) -> &'a str {
    if name.contains('.') {
        return name;
    }
    let without_comment = |line: &'a str| line.split('#').next().unwrap_or_default();
    let mut names = hosts.lines().flat_map(|line| without_comment(line).split_whitespace().skip(1));
    names.find(|full| full.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))).unwrap_or(name)
}

fn relay() -> Relay {
    Relay {
        networks: vec![
            Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
            Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
        ],
        domains: Vec::new(),
        recipients: None,
        verify: false,
        etrn: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_this_host_are_local() {
        for (hostname, system_name, names) in [
            ("web.x.org", "web.x.org", &["web.x.org", "localhost", "web"][..]),
            ("web", "web", &["web", "localhost"]),
            ("mail.x.org", "web.x.org", &["mail.x.org", "localhost", "web.x.org", "web"]),
            ("localhost", "localhost", &["localhost"]),
            ("localhost.localdomain", "localhost.localdomain", &["localhost.localdomain", "localhost"]),
        ] {
            assert_eq!(local_names(hostname, system_name), names);
        }
    }

    #[test]
    fn a_short_name_is_completed_from_the_hosts_file() {
        let hosts = "127.0.0.1 localhost.localdomain localhost\n# ::1 web.no\n10.0.0.9 webmail.x.org web.x.org web # web.y.org\n";
        for (name, full) in
            [("web", "web.x.org"), ("web.z.org", "web.z.org"), ("mail", "mail"), ("localhost", "localhost.localdomain")]
        {
            assert_eq!(full_name(name, hosts), full);
        }
    }
}
