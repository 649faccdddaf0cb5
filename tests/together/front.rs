//! haproxy in front of the penfolds, with the configuration of penfold-smtp(7), and a name server.

use std::net::{Ipv4Addr, SocketAddr};

use common::dns::Dns;
use common::{Daemon, Site, haproxy, unpacked};

use super::lan::{Host, Lan};

/// The last octet of the address of the front.
pub const FRONT: u8 = 8;
/// The last octets of the addresses of the hosts with penfold. The last host comes later.
pub const MTAS: [u8; 4] = [11, 12, 13, 14];
/// The last octet of the address of the name server.
const NAMES: u8 = 53;

/// The front door of the site.
pub struct Front {
    pub host: Host,
    haproxy: Option<Daemon>,
    site: Site,
}

impl Front {
    /// The front, where haproxy does not run yet, and a name server for the whole network. Without
    /// haproxy, reports the test as skipped and returns `None`.
    pub fn new(lan: &Lan) -> Option<Self> {
        unpacked::haproxy()?;
        let host = lan.host(FRONT);
        host.add(NAMES);
        host.inside(|| Dns::zone_at((Ipv4Addr::new(192, 0, 2, NAMES), 53).into(), ""));
        let site = Site::new();
        let hosts: Vec<_> = MTAS.iter().map(|&last| (Ipv4Addr::new(192, 0, 2, last), 25).into()).collect();
        haproxy::configure(&site, (host.address, 25).into(), &hosts);
        Some(Self { host, haproxy: None, site })
    }

    /// The address at which clients find the site.
    pub fn address(&self) -> SocketAddr {
        (self.host.address, 25).into()
    }

    /// Starts haproxy.
    pub fn open(&mut self) {
        self.haproxy = self.host.inside(|| haproxy::start(&self.site));
    }

    /// Waits until haproxy has found out that the fourth host is not there.
    #[cfg(feature = "shared-store")]
    pub fn wait_checked(&self) {
        let haproxy = self.haproxy.as_ref().expect("it is open");
        haproxy.wait_log(|line| line.contains("/mx4 is DOWN"));
    }

    /// Ends haproxy with all its connections.
    pub fn close(&mut self) {
        if let Some(haproxy) = self.haproxy.take() {
            haproxy.terminate();
        }
    }
}
