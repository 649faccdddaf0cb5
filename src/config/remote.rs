//! Defines the settings of delivery to other hosts, and the hosts that the configuration names.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::TableFile;
use crate::address::Address;

/// Whether this build can fetch the policies that `remote.mta_sts` is about.
pub(super) const HAS_MTA_STS: bool = cfg!(feature = "mta-sts");

/// The settings of delivery to other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The smart hosts for remote mail, the preferred one first. If there are none, the DNS is
    /// used.
    pub smarthosts: Vec<HostPort>,
    /// The credentials table: user name and password for each host.
    pub credentials: TableFile,
    /// The routes table: how domains that are not local are reached.
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
