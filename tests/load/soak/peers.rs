//! Three hosts for mail to go to, which misbehave at every stage, and a name server
//! that now and then cannot say where the third one is.
//!
//! one.test and two.test have routes to their hosts; three.test has two exchangers,
//! of which the preferred one always refuses the connection. What a host took it has
//! kept whole, whatever it said later. Healed, they are as other hosts are, but that
//! the one called void is nobody anywhere.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use common::Site;
use common::chance::Chance;
use common::dns::{Answer, Dns, record};
use common::remote::{Conduct, Received, Remote, Sink, Then, listeners};

/// Stages at which a host can do something else.
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
    /// Hosts that are well, and a site that knows them.
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

    /// All are well from now on.
    pub fn heal(&self) {
        self.is_dns_well.store(true, Ordering::SeqCst);
        self.hosts.iter().for_each(|host| host.behave(Conduct::Sink(well())));
    }

    /// Makes one or another misbehave and heal by turns until the end.
    pub fn misbehave(&self, mut chance: Chance, end: Instant) {
        while Instant::now() < end {
            let host = chance.pick(&self.hosts);
            let conduct = if chance.percent(40) { well() } else { ill(&mut chance) };
            host.behave(Conduct::Sink(conduct));
            self.is_dns_well.store(chance.percent(85), Ordering::SeqCst);
            chance.pause(50..600);
        }
    }

    /// All that they took, which they then forget.
    pub fn take(&self) -> Vec<Received> {
        self.hosts.iter().flat_map(Remote::take).collect()
    }
}

fn well() -> Sink {
    Sink::default().reply("RCPT TO:<void", "550 5.1.1 nobody")
}

/// A few tricks, each so many times, and then well.
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
        // Whoever hangs does so until the end of all, so that not many may.
        let (at, times) = (*chance.pick(&STAGES), if then == Then::Hang { 1 } else { chance.of(1..8) });
        sink = sink.when(at, then, times);
    }
    let Sink { rules, .. } = well();
    sink.rules.extend(rules);
    sink
}
