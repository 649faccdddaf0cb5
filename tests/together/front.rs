//! haproxy in front of the penfolds, with the configuration of penfold-smtp(7), and a name server.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use common::dns::Dns;
use common::{Daemon, Site, pages, unpacked};

use super::lan::{Host, Lan};

/// The last octet of the address of the front.
pub const FRONT: u8 = 8;
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
        let page = pages::page("penfold-smtp.7");
        let (_, example) = page.split_once("listen smtp-of-all\n").expect("the example");
        let (example, _) = example.split_once(".Ed\n").expect("its end");
        // The test does not wait as long as a site may until a host counts as dead. The fourth host
        // is one that may come.
        let last = "server mx3 192.0.2.13:25\n";
        let mut text = example.to_owned();
        for (of_page, of_test) in [
            ("inter 2s", "inter 500ms"),
            ("timeout check 5s", "timeout check 2s"),
            (last, &format!("{last}    server mx4 192.0.2.14:25\n")),
        ] {
            assert!(text.contains(of_page), "no {of_page:?} in {text}");
            text = text.replace(of_page, of_test);
        }
        site.write("haproxy.cfg", &format!("listen smtp\n{text}"));
        Some(Self { host, haproxy: None, site })
    }

    /// The address at which clients find the site.
    pub fn address(&self) -> SocketAddr {
        (self.host.address, 25).into()
    }

    /// Starts haproxy.
    pub fn open(&mut self) {
        let mut command = unpacked::haproxy().expect("it was there");
        command.args(["-W", "-db", "-f"]).arg(self.site.path("haproxy.cfg")).stdin(Stdio::null());
        let ready = |line: &str| line.contains("Loading success").then_some(25);
        let started = self.host.inside(|| Daemon::spawn_until(command, ready));
        self.haproxy = Some(started.unwrap_or_else(|log| panic!("haproxy does not start:\n{log}")));
    }

    /// Ends haproxy with all its connections.
    pub fn close(&mut self) {
        if let Some(haproxy) = self.haproxy.take() {
            haproxy.terminate();
        }
    }
}
