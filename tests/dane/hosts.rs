//! The hosts and zones of a table of cases.

use std::fmt::Write as _;

use common::network::Network;
use common::remote::{Conduct, Offer, Received, Remote, Sink};
use common::tls::{Authority, Leaf};
use common::zones::Zone;

/// The certificate of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// From the authority, for the name of the host.
    Good,
    /// The same, and the host sends the certificate of the authority, too.
    Chain,
    /// From an intermediate authority, whose certificate the host sends.
    Middle,
    /// Expired.
    Expired,
    /// Expired, with the certificate of the authority.
    ExpiredChain,
    /// For another name.
    Other,
    /// For another name, with the certificate of the authority.
    OtherChain,
    /// For the domain of the recipients instead of the host, with the certificate of the authority.
    DomainChain,
    /// Self-signed.
    Selfmade,
    /// As `Good`, by TLS 1.2.
    Old,
    /// The host does not offer STARTTLS.
    Nothing,
}

/// Changes the behaviour of a host.
pub type Change = fn(Sink) -> Sink;

/// A domain, its hosts and its records.
pub struct Case {
    /// The domain, without `.test`. Its last label is the zone.
    pub name: &'static str,
    pub shows: Shows,
    /// The data of TLSA records, see [`Pki::data`].
    pub records: &'static [&'static str],
    /// All records: `{d}` is the domain with its final dot, `{a}` and `{b}` are the addresses of its
    /// hosts, and a line with `{t}` stands for one line for each of `records`. Empty means [`USUAL`].
    pub zone: &'static str,
    /// Changes the behaviour of the first host.
    pub conduct: Change,
}

const USUAL: &str = "{d} MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} TLSA {t}\n";

impl Case {
    pub const fn new(
        name: &'static str,
        shows: Shows,
        records: &'static [&'static str],
        zone: &'static str,
        conduct: Change,
    ) -> Self {
        Self { name, shows, records, zone, conduct }
    }

    pub fn domain(&self) -> String {
        format!("{}.test", self.name)
    }

    fn text(&self, addresses: &[String; 2], data: &[String]) -> String {
        let usual = if self.zone.is_empty() { USUAL } else { self.zone };
        let text = usual.replace("{d}", &format!("{}.", self.domain())).replace("{a}", &addresses[0]);
        let text = text.replace("{b}", &addresses[1]);
        let mut lines = String::new();
        for line in text.lines() {
            match line.contains("{t}") {
                true => data.iter().for_each(|data| lines += &(line.replace("{t}", data) + "\n")),
                false => lines += &format!("{line}\n"),
            }
        }
        lines
    }
}

/// The certificates of all hosts come from here.
pub struct Pki {
    pub root: Authority,
    middle: Authority,
}

impl Pki {
    pub fn new() -> Self {
        let root = Authority::new();
        Self { middle: root.below(), root }
    }

    fn leaf(&self, shows: Shows, domain: &str) -> Option<Leaf> {
        let host = format!("mx.{domain}");
        Some(match shows {
            Shows::Good => self.root.leaf(&host, 90),
            Shows::Chain => self.root.full(&host, 90),
            Shows::Middle => self.middle.leaf(&host, 90),
            Shows::Expired => self.root.leaf(&host, -10),
            Shows::ExpiredChain => self.root.full(&host, -10),
            Shows::Other => self.root.leaf("other.example", 90),
            Shows::OtherChain => self.root.full("other.example", 90),
            Shows::DomainChain => self.root.full(domain, 90),
            Shows::Selfmade => Leaf::selfmade(&host),
            Shows::Old => self.root.leaf(&host, 90).old(),
            Shows::Nothing => return None,
        })
    }

    /// The data of a TLSA record. `3 1 1` is a record that matches the host, `2 1 1` one that
    /// matches the authority, `middle 2 1 1` one that matches the intermediate authority, and
    /// `wrong 3 1 1` one that matches nothing. After `raw` there is data as it stands in a zone.
    fn data(&self, leaf: Option<&Leaf>, record: &str) -> String {
        if let Some(raw) = record.strip_prefix("raw ") {
            return raw.to_owned();
        }
        let numbers = record.rsplit(' ').take(3).map(|number| number.parse().expect("a number"));
        let numbers: Vec<u8> = numbers.collect::<Vec<_>>().into_iter().rev().collect();
        let parameters: [u8; 3] = numbers.try_into().expect("three numbers");
        if record.starts_with("wrong ") {
            return Leaf::selfmade("wrong.example").association(parameters);
        }
        if record.starts_with("middle ") {
            return self.middle.association(parameters);
        }
        match (parameters, leaf) {
            ([0 | 2, ..], _) => self.root.association(parameters),
            (_, Some(leaf)) => leaf.association(parameters),
            (_, None) => Leaf::selfmade("absent.example").association(parameters),
        }
    }
}

/// The hosts of a case. The second takes all mail, under TLS with a certificate of its own making.
pub struct Hosts {
    pub first: Remote,
    pub second: Option<Remote>,
}

impl Hosts {
    /// All messages for a recipient, with whether the first host has got them.
    pub fn got(&self, recipient: &str) -> Vec<(bool, Received)> {
        let of = |remote: &Remote| remote.look(|seen| seen.messages.clone());
        let first = of(&self.first).into_iter().map(|message| (true, message));
        let second = self.second.iter().flat_map(of).map(|message| (false, message));
        let ours = |to: &String| to.contains(&format!("<{recipient}>"));
        first.chain(second).filter(|(_, message)| message.recipients.iter().any(ours)).collect()
    }
}

/// A network with the zones of all cases, and their hosts, in their order. `zones` have records of
/// their own, and get those of the cases.
pub fn start(cases: &[Case], zones: Vec<(&str, Zone)>) -> Option<(Network, Vec<Hosts>)> {
    start_with(&Pki::new(), cases, zones)
}

/// The same, with these certificates.
pub fn start_with(pki: &Pki, cases: &[Case], mut zones: Vec<(&str, Zone)>) -> Option<(Network, Vec<Hosts>)> {
    let mut sinks = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let domain = case.domain();
        let leaf = pki.leaf(case.shows, &domain);
        let addresses = ["192.0.2", "203.0.113"].map(|network| format!("{network}.{}", 100 + number));
        let data: Vec<String> = case.records.iter().map(|record| pki.data(leaf.as_ref(), record)).collect();
        for line in case.text(&addresses, &data).lines() {
            let owner = line.split(' ').next().unwrap_or_default().trim_end_matches('.');
            let is_in = |name: &str| owner.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
            let zone = zones.iter_mut().find(|(name, _)| is_in(name));
            zone.unwrap_or_else(|| panic!("no zone for {line}")).1.add(line);
        }
        sinks.push((addresses, leaf, case));
    }
    let network = Network::start(zones.into_iter().map(|(_, zone)| zone).collect())?;
    let start = |address: &str, sink: Sink| Remote::start(network.listener(address, 25), Conduct::Sink(sink));
    let with = |leaf: &Leaf| Sink { tls: Some(Offer::starttls(leaf)), ..Sink::default() };
    let hosts = sinks.into_iter().map(|([first, second], leaf, case)| Hosts {
        first: start(&first, (case.conduct)(leaf.as_ref().map(with).unwrap_or_default())),
        second: case.zone.contains("{b}").then(|| start(&second, with(&Leaf::selfmade("second.example")))),
    });
    let hosts = hosts.collect();
    Some((network, hosts))
}

/// A table, of whose columns each is as wide as its longest text.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "{cell:width$}  ").expect("memory");
        }
        text = text.trim_end().to_owned() + "\n";
    }
    text
}
