//! A host dies in the middle of everything, and another host sends what its spool has.

use std::sync::atomic::Ordering;
use std::thread;

use common::stop::Stop;

use super::front::Front;
use super::lan::Lan;
use super::load::{Load, Sent};
use super::redis::{Redis, SHARED};
use super::site::{DOMAINS, Mta, Store, move_spool};

/// The number of clients, each with a user of its own.
const CLIENTS: usize = 6;
/// The number of letters between two events.
const SOME: usize = 25;
/// The number of replies that a store withholds before the host dies.
const WITHHELD: usize = 2;

/// A store, Redis and haproxy restart, and then a host is cut off and dies while two stores have taken
/// messages from it, and have not said so. A fourth host sends what the spool of the dead one has; a
/// third host is cut off for a while. Every letter that a client got a 250 for is in both mailboxes.
/// The copies that are too many are at most those about which the sender has got no reply.
#[test]
fn nothing_acknowledged_is_lost_when_a_host_dies_under_load() {
    let Some(lan) = Lan::new() else { return };
    let Some(mut front) = Front::new(&lan) else { return };
    let Some(mut stores) = Store::all(&lan) else { return };
    let Some(mut redis) = Redis::start(&lan) else { return };
    // Each message is counted in Redis, but the limit is not reached.
    let settings = if cfg!(feature = "shared-store") { SHARED } else { "" };
    let settings = format!("policy.messages_per_hour = 1000000\n{settings}");
    let start = |(name, last)| Mta::start(lan.host(last), Mta::site(name, last, &settings));
    let [first, second, third] = [("mx1", 11), ("mx2", 12), ("mx3", 13)].map(start);
    front.open();
    let (load, to) = (Load::default(), front.address());
    let clients = lan.host(40);
    let fourth = thread::scope(|scope| {
        let _stop = Stop(&load.stopped);
        for number in 0..CLIENTS {
            let (load, user) = (&load, format!("u{number}"));
            let clients = &clients;
            scope.spawn(move || clients.inside(|| load.send(to, &format!("{user}x"), &user, &DOMAINS)));
        }
        load.wait_more(2 * SOME);
        stores[0].close();
        load.wait_more(SOME);
        let before = stores[0].gate.passed_to(second.host.address);
        assert!(stores[0].open());
        load.wait_more(SOME);
        redis.close();
        load.wait_more(SOME);
        redis.open();
        front.close();
        front.open();
        load.wait_more(SOME);

        // The hosts have found out that the first store is there again.
        let has_some = || stores[0].gate.passed_to(second.host.address) > before + WITHHELD;
        second.daemon.wait_until("mail in the store that has restarted", has_some);
        // From here on the second host learns nothing about what the stores take from it.
        let address = second.host.address;
        stores.iter().for_each(|store| store.gate.withhold(address));
        stores.iter().for_each(|store| store.gate.wait_withheld(WITHHELD));
        let passed = || stores.iter().map(|store| store.gate.passed_to(address)).sum::<usize>();
        let is_recorded = || second.daemon.log().matches(" sent to=<").count() == passed();
        second.daemon.wait_until("the last replies", is_recorded);
        lan.cut(&second.host);
        load.wait_more(SOME);

        // As long as it lives, no other host gets its spool.
        let (host, mut site) = (lan.host(14), Mta::site("mx4", 14, &settings));
        site.set("", "spool", &format!("{:?}", second.site.path("spool")));
        let refusal = Mta::try_start(&host, &site).map(|_| ()).expect_err("two hosts with one spool");
        assert!(refusal.contains("/spool is in use by another penfoldd"), "{refusal}");

        let (dead, _) = second.die();
        let left = dead.spooled().len();
        assert!(left >= WITHHELD, "only {left} messages in the spool of the dead host");
        let moved = move_spool(&dead, &site);
        site.set("", "spool", &format!("{moved:?}"));
        let fourth = Mta::start(host, site);
        load.wait_more(SOME);

        // Another host is cut off, but lives and comes back.
        lan.cut(&third.host);
        load.wait_more(SOME);
        lan.mend(&third.host);
        load.wait_more(SOME);
        load.stopped.store(true, Ordering::Relaxed);
        fourth
    });
    for mta in [&first, &third, &fourth] {
        assert!(mta.daemon.flush_until(&mta.site, || mta.site.spooled().is_empty()), "{}", mta.daemon.log());
        let log = mta.daemon.log();
        assert!(!log.contains(" failed to=") && !log.contains("panicked"), "{log}");
    }
    check(&load.sent(), &stores);
}

/// Compares what was acknowledged with what the stores have.
fn check(sent: &Sent, stores: &[Store]) {
    let (mut files, mut doubled) = (0, 0);
    for (store, domain) in stores.iter().zip(DOMAINS) {
        let books = store.books(domain);
        for letter in &sent.taken {
            let of_user = books.iter().find(|(user, _)| *user == letter.user);
            let copies = of_user.map_or(0, |(_, books)| books.letters(&letter.token));
            assert!(copies > 0, "{} for {}@{domain} is lost", letter.token, letter.user);
            // A client that got no reply has sent the letter again, as it must.
            let expected = 1 + sent.unanswered.get(&letter.token).copied().unwrap_or(0);
            doubled += copies.saturating_sub(expected);
        }
        files += books.iter().map(|(_, books)| books.total()).sum::<usize>();
    }
    let passed: usize = stores.iter().map(|store| store.gate.passed()).sum();
    let withheld: usize = stores.iter().map(|store| store.gate.withheld()).sum();
    let unanswered: usize = sent.unanswered.values().sum();
    println!(
        "{} letters in {files} files; {} without a reply to the host, {withheld} of them withheld; \
         {doubled} doubled; {unanswered} without a reply to the client; {} refusals",
        sent.taken.len(),
        files - passed,
        sent.refusals.len(),
    );
    assert!(doubled <= files - passed, "{doubled} doubled, {} without a reply", files - passed);
    // Otherwise the host would not have died between a dot and its reply.
    assert!(doubled >= WITHHELD);
}
