//! Several hosts of one site: a policy that one of them has fetched is in force at all of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use common::Site;
use common::dns::{Dns as NameServer, answer as answer_of};
use common::https::{Conduct, Server};
use common::namespace::in_a_network;
use common::redis::RedisDir;
use common::tls::Authority;

use super::{host, mail_host, publish};

const ZONE: &str = "a.test MX 10 mx.a.test\nmx.a.test A 192.0.2.100\nmta-sts.a.test A 192.0.2.1\n\
    b.test MX 10 mx.b.test\nmx.b.test A 192.0.2.101\nmta-sts.b.test A 192.0.2.2\n";
const RECORDS: &str = "_mta-sts.a.test TXT v=STSv1; id=1\n_mta-sts.b.test TXT v=STSv1; id=1\n";
const OURS: &str = "the secret of these hosts, 32 characters";
const THEIRS: &str = "the secret of other hosts, 32 characters";
/// What the log says when the store was too slow.
const ALONE: &str = "this host counts alone until the store answers";

/// The world around the hosts.
struct World {
    authority: Authority,
    name_server: NameServer,
    redis: RedisDir,
    web: [Server; 2],
}

impl World {
    /// Starts a new host, which knows nothing, and sends a message to a domain from there. Returns the log
    /// of the host up to the end of the attempt, and the number of policies that it has fetched. A host
    /// for which the store was too slow does not count.
    fn send(&self, secret: Option<&str>, domain: &str) -> (String, usize) {
        for _ in 0..20 {
            let mut site = Site::with("dns.timeout = \"2s\"\nqueue.retry_min = \"2d\"\nqueue.retry_max = \"2d\"");
            site.set("dns", "nameservers", &self.name_server.nameservers());
            site.set("shared", "store", &format!("{:?}", self.redis.url()));
            if let Some(secret) = secret {
                site.write("shared_secret", &format!("{secret}\n"));
                fs::set_permissions(site.path("shared_secret"), Permissions::from_mode(0o600)).expect("a mode");
                site.set("shared", "secret", &format!("{:?}", site.path("shared_secret")));
            }
            self.authority.trusted_by(&mut site);
            let before = self.fetched();
            let daemon = site.start();
            daemon.wait_words(&["counts are shared"]);
            let id = daemon.submit(&[&format!("elvis@{domain}")]);
            daemon.wait_log(|line| line.contains(&id) && (line.contains(" sent ") || line.contains(" deferred ")));
            if !daemon.log().contains(ALONE) {
                return (daemon.log(), self.fetched() - before);
            }
        }
        panic!("the store was never there all the time");
    }

    fn fetched(&self) -> usize {
        self.web.iter().map(|server| server.requests().len()).sum()
    }

    /// The key of the only policy in the store.
    fn key(&self) -> String {
        let keys = self.redis.ask(&["KEYS", "penfold:1:mta-sts:*"]);
        assert!(!keys.is_empty() && !keys.contains('\n'), "{keys}");
        keys
    }
}

#[test]
fn a_policy_is_fetched_by_one_host_and_in_force_at_all_that_know_the_secret() {
    in_a_network(&["192.0.2.1/24", "192.0.2.2/32"], || {
        let redis = RedisDir::new();
        let Some(_running) = redis.start(&[]) else { return };
        let shown = Arc::new(Mutex::new(ZONE.to_owned() + RECORDS));
        let zone_of = Arc::clone(&shown);
        let name_server = NameServer::start(move |name, kind| answer_of(&zone_of.lock().expect("a zone"), name, kind));
        // The mail hosts have no TLS, so no mail may go there once the policy is known.
        let _mail_hosts = [mail_host("192.0.2.100", None), mail_host("192.0.2.101", None)];
        let authority = Authority::new();
        let policy = "version: STSv1\nmode: enforce\nmx: mx.a.test\nmx: mx.b.test\nmax_age: 86400\n";
        let serve = |address: &str, name: &str| {
            Server::start(address, &authority.leaf(&host(name), 300).config, publish(policy))
        };
        let web = [serve("192.0.2.1", "a"), serve("192.0.2.2", "b")];
        let world = World { authority, name_server, redis, web };
        let enforced = |(log, fetched): (String, usize), want: usize, says: &str| {
            assert!(fetched == want && log.contains(says) && log.contains("TLS is required"), "{fetched}: {log}");
        };
        let (alone, taken) = ("the policy 1 was fetched: enforce", "another host has fetched the policy 1: enforce");

        // Without a secret, each host fetches, and keeps nothing for others.
        enforced(world.send(None, "a.test"), 1, alone);
        assert_eq!(world.redis.ask(&["KEYS", "*:mta-sts:*"]), "");
        enforced(world.send(Some(OURS), "a.test"), 1, alone);
        enforced(world.send(Some(OURS), "a.test"), 0, taken);
        let (key, seconds) =
            (world.key(), |key: &str| world.redis.ask(&["TTL", key]).parse::<u64>().expect("a number"));
        assert!((80_000..=86_400).contains(&seconds(&key)), "{}", seconds(&key));
        let sealed = world.redis.ask(&["GET", &key]);
        assert!(!sealed.is_empty() && !sealed.contains("test") && !key.contains("test"), "{key} {sealed}");

        // Nobody can put the policy of a domain into the place of another one, or write one without the secret.
        world.redis.ask(&["DEL", &key]);
        enforced(world.send(Some(OURS), "b.test"), 1, alone);
        let other = world.key();
        let foreign = "no host with this shared.secret has put there";
        for (forged, is_seal) in [(sealed.as_str(), true), ("", false), ("x", true), (&"A".repeat(70_000), false)] {
            world.redis.ask(&["SET", &other, forged]);
            let (log, fetched) = world.send(Some(OURS), "b.test");
            assert_eq!(log.contains(foreign), is_seal, "{log}");
            enforced((log, fetched), 1, alone);
        }
        // Neither is the store taken for one that lies.
        world.redis.ask(&["EVAL", "return redis.call('SET', KEYS[1], '\\255')", "1", &other]);
        enforced(world.send(Some(OURS), "b.test"), 1, alone);
        world.redis.ask(&["DEL", &other]);
        world.redis.ask(&["LPUSH", &other, "x"]);
        enforced(world.send(Some(OURS), "b.test"), 1, alone);
        enforced(world.send(Some(OURS), "b.test"), 0, taken);
        enforced(world.send(Some(THEIRS), "b.test"), 1, alone);

        // An attacker who hides the record gains nothing at a new host, as long as another one knew it.
        world.redis.ask(&["SET", &key, &sealed]);
        *shown.lock().expect("a zone") = ZONE.to_owned();
        enforced(world.send(Some(OURS), "a.test"), 0, taken);
        let (log, fetched) = world.send(None, "a.test");
        assert!(fetched == 0 && log.contains(" sent ") && log.contains("tls=-"), "{log}");
        *shown.lock().expect("a zone") = format!("{ZONE}_mta-sts.a.test SERVFAIL\n");
        enforced(world.send(Some(OURS), "a.test"), 0, taken);

        // A new record, and a store that has the old policy.
        *shown.lock().expect("a zone") = ZONE.to_owned() + &RECORDS.replace("id=1", "id=2");
        enforced(world.send(Some(OURS), "a.test"), 1, "the policy 2 was fetched: enforce");
        enforced(world.send(Some(OURS), "a.test"), 0, "another host has fetched the policy 2: enforce");

        // An attacker who forges a record, whose policy cannot be fetched, gains nothing either.
        *shown.lock().expect("a zone") = ZONE.to_owned() + &RECORDS.replace("id=1", "id=3");
        world.web.iter().for_each(|server| server.behave(Conduct::Close));
        let (log, _) = world.send(Some(OURS), "a.test");
        assert!(log.contains("another host has fetched the policy 2") && log.contains("TLS is required"), "{log}");
        let (log, _) = world.send(None, "a.test");
        assert!(log.contains("the policy 3 cannot be fetched") && log.contains(" sent "), "{log}");
    });
}
