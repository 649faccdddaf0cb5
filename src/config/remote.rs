//! Defines the settings of delivery to other hosts, `[remote]` of penfold.conf(5), and the hosts that
//! the configuration names.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::defaults::{MINUTE, optional};
use super::document::Section;
use super::keys::table_file;
use super::print::{Printer, contact, duration, list, path};
use super::{Families, Sources, TableFile, sources, values};
use crate::address::Address;
use crate::json::quote;

/// Whether this build can fetch the policies that `remote.mta_sts` is about.
pub(super) const HAS_MTA_STS: bool = cfg!(feature = "mta-sts");

/// The settings of delivery to other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The smart hosts for remote mail, the preferred one first. If there are none, the DNS is
    /// used.
    pub smarthosts: Vec<HostPort>,
    /// The hosts that are tried if all hosts of a destination could not be reached or have answered
    /// temporarily, the preferred one first.
    pub fallback: Vec<HostPort>,
    /// The sender routes table: senders whose mail leaves through other hosts.
    pub senders: TableFile,
    /// The credentials table: user name and password for each host.
    pub credentials: TableFile,
    /// The routes table: how domains that are not local, and single addresses, are reached.
    pub routes: TableFile,
    /// Whether TLS is used with hosts whose URL does not decide that.
    pub tls: RemoteTls,
    /// Whether hosts are verified by their TLSA records, where the name servers are trusted.
    pub dane: bool,
    /// The table of TLS policies: how connections for some domains and to some hosts are protected.
    pub tls_policies: TableFile,
    /// Whether the MTA-STS policies of other domains are followed.
    pub mta_sts: bool,
    /// The file of trusted authorities in PEM; `None` for those of the system.
    pub authorities: Option<PathBuf>,
    /// The maximum time for any stage of a dialogue. Many stages have a shorter limit of their own.
    pub timeout: Duration,
    /// The addresses from which this host connects to others.
    pub source: Sources,
    /// The families of addresses to which this host connects.
    pub families: Families,
    /// The name of this host in EHLO and HELO; `None` for `hostname`.
    pub hello: Option<String>,
    /// The table of how mail for some destinations and of some senders leaves this host.
    pub outgoing: TableFile,
    /// Whether only mail with a route in the routes table leaves this host.
    pub local_only: bool,
    /// The contact in TLS reports, which is also their sender. `None` if no reports are sent.
    pub tls_reports: Option<Address>,
    /// Whether the senders of forwarded messages are rewritten.
    pub srs: bool,
    /// The file with the secrets that authenticate rewritten senders.
    pub srs_secret: TableFile,
}

/// Whether TLS is used with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteTls {
    /// TLS is not used.
    None,
    /// TLS is used if the host supports it. The certificate is not verified.
    Opportunistic,
    /// TLS is required, with a verified certificate.
    Required,
}

/// The scheme of a host's URL, which says how TLS is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `smtp://` or no scheme: [`RemoteTls`] decides whether TLS is used.
    #[default]
    Smtp,
    /// `smtp+starttls://`: TLS is required, and begins with STARTTLS.
    StartTls,
    /// `smtps://`: TLS is required, and begins with the first byte (RFC 8314).
    Smtps,
    /// `lmtp://`: the host is a mail store. TLS is used as with `smtp://`, but not on a loopback
    /// address.
    Lmtp,
}

/// A host as the configuration names it: a name or address, a port, and the scheme of its URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name in lower case, or an IP address as text, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The scheme of the URL.
    pub scheme: Scheme,
}

/// Writes a text that differs between different hosts, such as `host:port`, `[address]:port` or
/// `smtps://host:port`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, scheme } = self;
        f.write_str(match scheme {
            Scheme::Smtp => "",
            Scheme::StartTls => "smtp+starttls://",
            Scheme::Smtps => "smtps://",
            Scheme::Lmtp => "lmtp://",
        })?;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The values that an empty file gives.
pub(super) fn defaults() -> Remote {
    Remote {
        smarthosts: Vec::new(),
        fallback: Vec::new(),
        senders: optional("/etc/penfold/senders-via"),
        credentials: optional("/etc/penfold/credentials"),
        tls: RemoteTls::Opportunistic,
        dane: true,
        tls_policies: optional("/etc/penfold/tls-policies"),
        mta_sts: HAS_MTA_STS,
        authorities: None,
        routes: optional("/etc/penfold/routes"),
        timeout: Duration::from_secs(10 * MINUTE),
        source: Sources::default(),
        families: Families::default(),
        hello: None,
        outgoing: optional("/etc/penfold/outgoing"),
        local_only: false,
        tls_reports: None,
        srs: true,
        srs_secret: optional("/etc/penfold/srs_secret"),
    }
}

/// Reads `[remote]`.
pub(super) fn remote(mut section: Section<'_, '_>, default: Remote) -> Remote {
    let remote = Remote {
        smarthosts: section.take_all("smarthosts", values::smarthost).unwrap_or(default.smarthosts),
        fallback: section.take_all("fallback", values::smarthost).unwrap_or(default.fallback),
        senders: table_file(&mut section, "senders", default.senders),
        credentials: table_file(&mut section, "credentials", default.credentials),
        routes: table_file(&mut section, "routes", default.routes),
        tls: match section.take("tls", values::word(&["none", "opportunistic", "required"])) {
            Some("none") => RemoteTls::None,
            Some("required") => RemoteTls::Required,
            _ => default.tls,
        },
        dane: section.take("dane", values::flag).unwrap_or(default.dane),
        tls_policies: table_file(&mut section, "tls_policies", default.tls_policies),
        mta_sts: section.take("mta_sts", values::flag).unwrap_or(default.mta_sts),
        authorities: section.take("authorities", values::authorities).unwrap_or(default.authorities),
        timeout: section.take("timeout", values::duration).unwrap_or(default.timeout),
        source: sources::source(&mut section).unwrap_or(default.source),
        families: sources::families(&mut section).unwrap_or(default.families),
        hello: section.take("hello", values::hello).unwrap_or(default.hello),
        outgoing: table_file(&mut section, "outgoing", default.outgoing),
        local_only: section.take("local_only", values::flag).unwrap_or(default.local_only),
        tls_reports: section.take("tls_reports", values::contact).unwrap_or(default.tls_reports),
        srs: section.take("srs", values::flag).unwrap_or(default.srs),
        srs_secret: table_file(&mut section, "srs_secret", default.srs_secret),
    };
    if remote.mta_sts && !HAS_MTA_STS {
        section.error("mta_sts", "this penfold was built without MTA-STS");
    }
    if remote.local_only && !remote.smarthosts.is_empty() {
        section.error("local_only", "expected false, since there are smarthosts");
    }
    section.finish();
    remote
}

/// Prints `[remote]`.
pub(super) fn print(out: &mut Printer<'_>, remote: &Remote) {
    out.key("smarthosts", list(&remote.smarthosts, smart_host));
    out.key("fallback", list(&remote.fallback, smart_host)).key("senders", path(&remote.senders.path));
    out.key("credentials", path(&remote.credentials.path)).key("routes", path(&remote.routes.path));
    out.key(
        "tls",
        quote(match remote.tls {
            RemoteTls::None => "none",
            RemoteTls::Opportunistic => "opportunistic",
            RemoteTls::Required => "required",
        }),
    );
    out.key("dane", remote.dane.to_string());
    out.key("tls_policies", path(&remote.tls_policies.path));
    out.key("mta_sts", remote.mta_sts.to_string());
    out.key("authorities", remote.authorities.as_ref().map_or_else(|| quote("system"), |file| path(file)));
    out.key("timeout", duration(remote.timeout));
    sources::print(out, remote);
    out.key("outgoing", path(&remote.outgoing.path)).key("local_only", remote.local_only.to_string());
    out.key("tls_reports", contact(remote.tls_reports.as_ref()));
    out.key("srs", remote.srs.to_string()).key("srs_secret", path(&remote.srs_secret.path));
}

fn smart_host(host: &HostPort) -> String {
    quote(&match host.scheme {
        Scheme::Smtp => format!("smtp://{host}"),
        _ => host.to_string(),
    })
}
