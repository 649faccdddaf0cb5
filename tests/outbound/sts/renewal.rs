//! Policies while time passes: a destination that has taken mail publishes one, and policies are
//! renewed before they end. The clock of the daemon is set by libfaketime.

use std::sync::{Arc, Mutex};

use common::Site;
use common::clock::Clock;
use common::dns::{Dns as NameServer, answer as answer_of};
use common::https::Server;
use common::namespace::in_a_network;
use common::remote::{Remote, Seen};
use common::tls::Authority;

use super::{host, mail_host, publish};

#[test]
fn a_proven_destination_waits_for_its_first_policy_and_policies_are_renewed() {
    in_a_network(&["192.0.2.1/24"], || {
        let authority = Authority::new();
        let policy = "version: STSv1\nmode: enforce\nmx: mx.a.test\nmax_age: 86400\n";
        let web = Server::start("192.0.2.1", &authority.leaf(&host("a"), 300).config, publish(policy));
        // The mail host has no TLS, so no mail may go there once the policy is known.
        let (plain, other) = (mail_host("192.0.2.100", None), mail_host("192.0.2.101", None));
        let zone =
            "a.test MX 10 mx.a.test\nmx.a.test A 192.0.2.100\nmta-sts.a.test A 192.0.2.1\nb.test A 192.0.2.101\n";
        let shown = Arc::new(Mutex::new(zone.to_owned()));
        let zone_of = Arc::clone(&shown);
        let name_server = NameServer::start(move |name, kind| {
            let mut answer = answer_of(&zone_of.lock().expect("a zone"), name, kind);
            answer.records.iter_mut().for_each(|record| record.ttl = 0);
            answer
        });
        let mut site = Site::with("dns.timeout = \"2s\"\nqueue.retry_min = \"2d\"\nqueue.retry_max = \"2d\"");
        site.set("dns", "nameservers", &name_server.nameservers());
        authority.trusted_by(&mut site);
        let Some(clock) = Clock::new(&site) else { return };
        let daemon = clock.start(&site, false);
        let id = daemon.submit(&["elvis@a.test"]);
        daemon.wait_words(&[&id, "sent", "tls=-"]);
        // For a kept connection nothing is looked up.
        let ended = |host: &Remote, count: usize| {
            let quits = |seen: &Seen| seen.commands.iter().filter(|command| command.line == "QUIT").count();
            host.wait("the end of the connection", |seen| quits(seen) == count);
        };
        ended(&plain, 1);
        shown.lock().expect("a zone").push_str("_mta-sts.a.test TXT v=STSv1; id=1\n");
        let id = daemon.submit(&["elvis@a.test"]);
        daemon.wait_words(&[&id, "deferred", "TLS is required"]);
        assert_eq!((plain.messages(1).len(), web.requests().len()), (1, 1));
        // After half of its lifetime the policy is renewed, while mail goes to another domain.
        for (at, (by, requests)) in [("+11h", 1), ("+13h", 2), ("+26h", 3)].into_iter().enumerate() {
            clock.set(by);
            let id = daemon.submit(&["elvis@b.test"]);
            daemon.wait_words(&[&id, "sent"]);
            ended(&other, at + 1);
            daemon.wait_until("a renewal", || web.requests().len() >= requests);
            assert_eq!(web.requests().len(), requests, "{by}");
        }
        assert_eq!((other.messages(3).len(), plain.messages(1).len()), (3, 1));
    });
}
