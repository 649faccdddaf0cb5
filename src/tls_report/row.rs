//! Collects the facts about a connection that a TLS report shows, and reads and writes them for the
//! state directory.
//!
//! A row is one line of text with `|` between its parts. Names, policies and error texts come from
//! strangers. So unusual characters become `?`, and long texts are cut. A row that is read back may
//! be any text, because the file may be damaged.

use std::net::IpAddr;

use crate::aggregate::{Bounds, Facts};

/// The maximum length of a name, in octets.
const MAX_NAME: usize = 255;
/// The maximum length of an error text, in octets.
const MAX_REASON: usize = 200;
/// The maximum number of lines of a policy.
const MAX_LINES: usize = 50;
/// The maximum size of all lines of a policy. A blank counts as three octets, as in the journal.
const MAX_POLICY: usize = 2400;

/// The policy that was applied to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy<'a> {
    /// The domain has published no policy.
    None,
    /// DANE: the TLSA records of a host.
    Tlsa {
        /// The name of the mail host.
        host: &'a str,
        /// The records, each in the presentation format: four fields with a blank between them.
        records: &'a [String],
    },
    /// MTA-STS: the lines of the policy file. There are none if it could not be fetched.
    Sts {
        /// The lines, such as `mode: enforce`.
        lines: &'a [String],
    },
}

/// The two ends of a connection. What is unknown is empty or `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Session<'a> {
    /// The address of this host.
    pub local: Option<IpAddr>,
    /// The name of the mail host.
    pub host: &'a str,
    /// The name that the mail host has given in its greeting or in its reply to EHLO.
    pub hello: &'a str,
    /// The address of the mail host.
    pub remote: Option<IpAddr>,
}

/// How TLS went on one connection, or why a policy could not be applied.
#[derive(Debug, Clone, Copy)]
pub struct TlsResult<'a> {
    /// The policy that was applied.
    pub policy: Policy<'a>,
    /// The connection.
    pub session: Session<'a>,
    /// The failure: its result type of RFC 8460 4.3, and the failure in words. `None` if the
    /// connection is encrypted as the policy demands.
    pub failure: Option<(&'static str, &'a str)>,
}

/// The facts about a connection that a report shows. Connections with the same facts share a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The type of the policy: `tlsa`, `sts` or `no-policy-found`.
    pub policy_type: String,
    /// The host to which TLSA records belong; empty for other policies.
    pub policy_host: String,
    /// The lines of the policy.
    pub policy: Vec<String>,
    /// The failure; `None` if the connection has succeeded.
    pub failure: Option<Failure>,
}

/// A failure, with the connection on which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The result type of RFC 8460 4.3.
    pub result_type: String,
    /// The address of this host.
    pub local: Option<IpAddr>,
    /// The name of the mail host; empty if it is unknown.
    pub host: String,
    /// The name that the mail host has given; empty if it is unknown.
    pub hello: String,
    /// The address of the mail host.
    pub remote: Option<IpAddr>,
    /// The failure in words.
    pub reason: String,
}

/// The types of policies. Their order is that of [`Policy`].
const TYPES: [&str; 3] = ["no-policy-found", "tlsa", "sts"];

/// The result types of RFC 8460 4.3.
const RESULT_TYPES: [&str; 11] = [
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",
    "tlsa-invalid",
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
];

impl Row {
    /// Returns the row for a connection.
    pub fn new(result: &TlsResult<'_>) -> Self {
        let (policy_type, policy_host, lines): (_, _, &[String]) = match result.policy {
            Policy::None => (TYPES[0], "", &[]),
            Policy::Tlsa { host, records } => (TYPES[1], host, records),
            Policy::Sts { lines } => (TYPES[2], "", lines),
        };
        let Session { local, host, hello, remote } = result.session;
        let failure = |(result_type, why): (&str, &str)| Failure {
            result_type: result_type.to_owned(),
            local: local.map(|address| address.to_canonical()),
            host: name(host),
            hello: name(hello),
            remote: remote.map(|address| address.to_canonical()),
            reason: text(why, MAX_REASON),
        };
        Self {
            policy_type: policy_type.to_owned(),
            policy_host: name(policy_host),
            policy: bounded(lines),
            failure: result.failure.map(failure),
        }
    }

    /// Whether all texts are such as [`Row::new`] makes them.
    fn is_clean(&self) -> bool {
        let names = self.failure.iter().flat_map(|failure| [&failure.host, &failure.hello]).chain([&self.policy_host]);
        names.into_iter().all(|one| name(one) == *one)
            && self.failure.iter().all(|failure| text(&failure.reason, MAX_REASON) == failure.reason)
            && bounded(&self.policy) == self.policy
    }

    /// Whether two rows are about the same policy.
    pub(super) fn has_policy_of(&self, other: &Self) -> bool {
        (&self.policy_type, &self.policy_host, &self.policy) == (&other.policy_type, &other.policy_host, &other.policy)
    }
}

/// A row has at most 4 KiB, usually 300 octets. Rows are held in memory for ten minutes, so that a busy
/// domain writes about a hundred records a day.
impl Facts for Row {
    const BOUNDS: Bounds = Bounds {
        name: "tls-reports",
        max_size: 8 << 20,
        max_wait: 600,
        max_pending: 1000,
        domain_rows: 50,
        domain_bytes: 256 << 10,
        report_rows: 500,
    };

    fn to_text(&self) -> String {
        let mut out = format!("{}|{}|{}", self.policy_type, self.policy_host, self.policy.len());
        for line in &self.policy {
            out += &format!("|{line}");
        }
        if let Some(Failure { result_type, local, host, hello, remote, reason }) = &self.failure {
            let (local, remote) = (shown(*local), shown(*remote));
            out += &format!("|{result_type}|{local}|{host}|{hello}|{remote}|{reason}");
        }
        out
    }

    fn parse(row: &str) -> Option<Self> {
        let mut parts = row.split('|');
        let (policy_type, policy_host, count) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        let policy: Vec<String> = parts.by_ref().take(count).map(str::to_owned).collect();
        let rest: Vec<&str> = parts.collect();
        let failure = match *rest.as_slice() {
            [] => None,
            [result_type, local, host, hello, remote, reason] => Some(Failure {
                result_type: RESULT_TYPES.contains(&result_type).then(|| result_type.to_owned())?,
                local: address(local)?,
                host: host.to_owned(),
                hello: hello.to_owned(),
                remote: address(remote)?,
                reason: reason.to_owned(),
            }),
            _ => return None,
        };
        let found = Self { policy_type: policy_type.to_owned(), policy_host: policy_host.to_owned(), policy, failure };
        let is_good = TYPES.contains(&policy_type) && count == found.policy.len() && found.is_clean();
        is_good.then_some(found)
    }
}

fn shown(address: Option<IpAddr>) -> String {
    address.map_or_else(String::new, |address| address.to_string())
}

fn address(text: &str) -> Option<Option<IpAddr>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

/// A name, with `?` for every character that a name of a host does not have.
fn name(text: &str) -> String {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '*');
    text.chars().take(MAX_NAME).map(|c| if usual(c) { c } else { '?' }).collect()
}

/// A text of at most `max` characters in printable ASCII without `|`.
fn text(text: &str, max: usize) -> String {
    let usual = |c: char| matches!(c, ' '..='~') && c != '|';
    text.chars().take(max).map(|c| if usual(c) { c } else { '?' }).collect()
}

/// The lines of a policy, as far as they have room. Whole lines are left out.
fn bounded(lines: &[String]) -> Vec<String> {
    let mut left = MAX_POLICY;
    let mut all = Vec::new();
    for line in lines.iter().take(MAX_LINES) {
        let line = text(line, MAX_POLICY);
        let size = line.chars().map(|c| if matches!(c, ' ' | '%') { 3 } else { 1 }).sum::<usize>() + 1;
        let Some(rest) = left.checked_sub(size) else { continue };
        left = rest;
        all.push(line);
    }
    all
}
