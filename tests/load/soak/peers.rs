//! The remote hosts of a soak, which misbehave at every stage, and a name server that sometimes
//! fails for the third host.
//!
//! one.test and two.test have routes to their hosts; three.test has two mail exchangers, of which
//! the preferred one always refuses the connection. If a host has accepted a message, the message
//! must be complete, whatever the host replied later. Healthy hosts accept all mail but that for
//! the user void.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use common::Site;
use common::chance::Chance;
use common::dns::{Answer, Dns, record};
use common::remote::{Conduct, Received, Remote, Sink, Then, listeners};

/// The stages at which a host can misbehave.
const STAGES: [&str; 8] = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY", ".", "QUIT"];

const REPLIES: [&str; 8] = [
    "421 4.3.2 going down",
    "450 4.2.1 not now",
    "451 4.7.1 later",
    "452 4.2.2 full",
    "550 5.1.1 no",
    "554 5.7.1 never",
    "250-half an answer",
    "I am not a mail server at all",
];

/// The hosts and their name server.
pub struct Peers {
    hosts: [Remote; 3],
    is_dns_well: Arc<AtomicBool>,
}

impl Peers {
    /// Starts healthy hosts, and makes the site route to them.
    pub fn new(site: &mut Site) -> Self {
        let mut both = listeners(2);
        let third = both.pop().expect("two");
        let port = third.local_addr().expect("bound").port();
        let hosts = [Remote::sink(), Remote::sink(), Remote::start(third, Conduct::Sink(Sink::default()))];
        let is_dns_well = Arc::new(AtomicBool::new(true));
        let is_well = Arc::clone(&is_dns_well);
        let zone = [
            record("three.test", "MX", "10 refuses.test"),
            record("three.test", "MX", "20 serves.test"),
            record("refuses.test", "A", &Ipv4Addr::new(127, 0, 0, 2).to_string()),
            record("serves.test", "A", &Ipv4Addr::new(127, 0, 0, 3).to_string()),
        ];
        let dns = Dns::start(move |name, kind| match is_well.load(Ordering::SeqCst) {
            false => Answer::servfail(),
            true => {
                let found = zone.iter().filter(|r| r.record_type() == kind && r.name.to_ascii() == format!("{name}."));
                Answer::records(found.cloned().collect())
            }
        });
        site.set("dns", "nameservers", &dns.nameservers());
        site.set("dns", "timeout", "\"1s\"");
        for (domain, host) in ["one.test", "two.test"].iter().zip(&hosts) {
            site.add("routes", &format!("{domain} {}", host.host_port()));
        }
        site.add("routes", &format!("three.test mx::{port}"));
        let peers = Self { hosts, is_dns_well };
        peers.heal();
        peers
    }

    /// Makes all hosts healthy.
    pub fn heal(&self) {
        self.is_dns_well.store(true, Ordering::SeqCst);
        self.hosts.iter().for_each(|host| host.behave(Conduct::Sink(well())));
    }

    /// Makes one host after the other misbehave for a while, until the end.
    pub fn misbehave(&self, mut chance: Chance, end: Instant) {
        while Instant::now() < end {
            let host = chance.pick(&self.hosts);
            let conduct = if chance.percent(40) { well() } else { ill(&mut chance) };
            host.behave(Conduct::Sink(conduct));
            self.is_dns_well.store(chance.percent(85), Ordering::SeqCst);
            chance.pause(50..600);
        }
    }

    /// Returns all messages that the hosts have accepted, and forgets them.
    pub fn take(&self) -> Vec<Received> {
        self.hosts.iter().flat_map(Remote::take).collect()
    }
}

fn well() -> Sink {
    Sink::default().reply("RCPT TO:<void", "550 5.1.1 nobody")
}

/// The rules of a host that misbehaves in a few ways, each a few times, and is healthy then.
fn ill(chance: &mut Chance) -> Sink {
    let mut sink = Sink::default();
    for _ in 0..chance.of(1..4) {
        let then = match chance.of(0..10) {
            0..6 => Then::Reply((*chance.pick(&REPLIES)).to_owned()),
            6 => Then::ReplyAndClose((*chance.pick(&REPLIES)).to_owned()),
            7 => Then::Close,
            8 => Then::Reset,
            _ => Then::Hang,
        };
        // A hanging session lasts until its timeout, so there is only one.
        let (at, times) = (*chance.pick(&STAGES), if then == Then::Hang { 1 } else { chance.of(1..8) });
        sink = sink.when(at, then, times);
    }
    let Sink { rules, .. } = well();
    sink.rules.extend(rules);
    sink
}
