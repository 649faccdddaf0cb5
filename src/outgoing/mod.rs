//! Decides how mail leaves this host: from which addresses, under which name, over IPv4 or IPv6, and
//! how fast.
//!
//! - `limits`: the limits on the mail for one destination
//! - `table`: the table `remote.outgoing`
//!
//! The table has lines for destinations and lines for senders. Each setting comes from the first line
//! that has it: the line of the sender, that of the sender's domain, that of the destination, those of
//! the domains above it, and that of `*`. The last resort is the configuration. The limits are for a
//! destination as the queue knows it: mail of senders that have a line is a destination of its own.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::address::Address;
use crate::config::table::Watched;
use crate::config::{Config, ConfigError, Families, Family, Sources};
use crate::destination::{Destination, HostTarget, SenderKey};

mod limits;
mod table;
#[cfg(test)]
mod tests;

pub use limits::{Limits, Period, Rate, Reason};
use table::{Settings, Table};

/// The table, and what the configuration says where the table says nothing.
#[derive(Debug)]
pub struct Outgoing {
    table: Watched<Table>,
    own: Settings,
}

/// What applies to mail for one destination.
#[derive(Debug)]
pub struct Rules {
    /// How this host connects. The error is that of a line because of which mail waits.
    pub way: Result<Way, String>,
    /// The limits.
    pub limits: Limits,
    /// The number of the line that decides about the limits; `None` if there are no limits.
    pub line: Option<usize>,
}

/// A source address in the table.
#[derive(Debug)]
pub struct Source {
    /// The number of the line.
    pub line: usize,
    /// The address.
    pub address: IpAddr,
    /// The name in EHLO, if the line has one.
    pub hello: Option<Arc<str>>,
}

/// How this host connects to the hosts of a destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The addresses from which this host connects. If there are none, the system chooses.
    pub source: Sources,
    /// The families of addresses, the preferred one first.
    pub families: Families,
    /// The name in EHLO, HELO or LHLO; `None` for that of the configuration.
    pub hello: Option<Arc<str>>,
}

impl Outgoing {
    /// Reads the table. Returns the table and its errors. If the settings of a line have an error, mail
    /// to which the line applies waits.
    pub fn begin(config: &Config) -> (Self, Vec<ConfigError>) {
        let remote = &config.remote;
        let (table, errors) = Watched::open_tolerant(&remote.outgoing, Table::read, Table::unreadable);
        let own = Settings {
            source: Some(remote.source),
            families: Some(remote.families.clone()),
            hello: remote.hello.as_deref().map(Arc::from),
            limits: Limits::default(),
        };
        (Self { table, own }, errors)
    }

    /// The key of the line for a sender; `None` if the table has none. No sender is the null sender.
    pub fn sender_key(&self, sender: Option<&Address>) -> Option<SenderKey> {
        self.table.current().sender_key(sender)
    }

    /// The destination of mail from a sender: if the table has a line for the sender, mail of such
    /// senders is a destination of its own.
    #[must_use]
    pub fn for_sender(&self, destination: Destination, sender: Option<&Address>) -> Destination {
        match destination {
            Destination::Remote(target, _) if !target.is_store() => {
                Destination::Remote(target, self.sender_key(sender))
            }
            other => other,
        }
    }

    /// What applies to mail for a destination.
    pub fn rules(&self, target: &HostTarget, sender: Option<&str>) -> Rules {
        let (mut settings, mut line, mut error) = (Settings::default(), None, None);
        for row in self.table.current().rows(target, sender) {
            match &row.settings {
                Ok(more) => {
                    let before = settings.limits;
                    settings.add(more);
                    line = line.or_else(|| (settings.limits != before).then_some(row.line));
                }
                Err(why) => error = error.or_else(|| Some(why.clone())),
            }
        }
        // The configuration is about other hosts, and not about stores of this site.
        if !target.is_store() {
            settings.add(&self.own);
        }
        let Settings { source, families, hello, limits } = settings;
        let way = Way { source: source.unwrap_or_default(), families: families.unwrap_or_default(), hello };
        Rules { way: error.map_or(Ok(way), Err), limits, line }
    }

    /// The limits on the mail for a destination.
    pub fn limits(&self, destination: &Destination) -> Limits {
        match destination {
            Destination::Remote(target, sender) => self.rules(target, sender.as_deref()).limits,
            _ => Limits::default(),
        }
    }

    /// The source addresses in the table, in the order of the lines.
    pub fn sources(&self) -> Vec<Source> {
        let table = self.table.current();
        let all = table.all().filter_map(|(line, settings)| Some((line, settings.source?, settings.hello.clone())));
        let mut all: Vec<Source> = all
            .flat_map(|(line, sources, hello)| {
                sources.all().map(move |address| Source { line, address, hello: hello.clone() })
            })
            .collect();
        all.sort_by_key(|source| source.line);
        all
    }

    /// The numbers and the keys of the lines for domains and hosts that have a rate or a pause, in the
    /// order of the lines.
    pub fn paced_keys(&self) -> Vec<(usize, String)> {
        let table = self.table.current();
        let mut all: Vec<_> = table.paced().map(|(line, key)| (line, key.to_owned())).collect();
        all.sort_unstable();
        all
    }

    /// The path of the table.
    pub fn path(&self) -> &Path {
        self.table.path()
    }
}

impl Settings {
    /// Adds what another line says where this one says nothing.
    fn add(&mut self, other: &Self) {
        self.source = self.source.or(other.source);
        self.families = self.families.take().or_else(|| other.families.clone());
        self.hello = self.hello.take().or_else(|| other.hello.clone());
        let (limits, more) = (&mut self.limits, other.limits);
        limits.rate = limits.rate.or(more.rate);
        limits.pause = limits.pause.or(more.pause);
        limits.connections = limits.connections.or(more.connections);
    }
}

impl Way {
    /// The place of an address in the order in which the addresses of equal hosts are tried; `None` if
    /// this host does not connect to it: its family is not among those of the configuration, or has no
    /// source address although the other family has one.
    pub fn place(&self, address: IpAddr) -> Option<usize> {
        let family = Family::of(address);
        let has_source =
            self.source == Sources::default() || self.is_exempt(address) || self.source.of(family).is_some();
        self.families.place(family).filter(|_| has_source)
    }

    /// The address from which this host connects to `address`; `None` if the system chooses.
    pub fn source_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.source.of(Family::of(address)).filter(|_| !self.is_exempt(address))
    }

    /// Whether the source addresses do not apply to an address, because it is on loopback and they are
    /// not: programs on this host may accept connections from loopback only.
    fn is_exempt(&self, address: IpAddr) -> bool {
        address.is_loopback() && !self.source.of(Family::of(address)).is_some_and(|source| source.is_loopback())
    }

    /// Why no address of these hosts can be used.
    pub fn no_address(&self, hosts: &str) -> String {
        let families: Vec<Family> = [Family::V4, Family::V6]
            .into_iter()
            .filter(|family| self.families.place(*family).is_some())
            .filter(|family| self.source == Sources::default() || self.source.of(*family).is_some())
            .collect();
        match *families {
            [family] => format!("{hosts}: no host has an {family} address, and no other family is used"),
            _ => format!("{hosts}: remote.families and remote.source leave no address to connect to"),
        }
    }
}
