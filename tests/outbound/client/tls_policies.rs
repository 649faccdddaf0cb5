//! The table of TLS policies: what each level demands of a host, and when a kept connection may be
//! used for another domain.

use super::*;
use common::remote::Offer;
use common::tls::Leaf;
use penfold::config::RemoteTls;

const NAME: &str = "mx.example.test";
const ZONE: &str = "example.test MX 10 mx.example.test\nstrict.test MX 10 mx.example.test\n\
                    other.test MX 10 mx.example.test\nmx.example.test A 127.0.0.1";

/// A sender that trusts `authority`, and whose table of TLS policies has these lines.
fn sender(authority: &Authority, lines: &str) -> (Sender, NameServer) {
    let zone = NameServer::zone(ZONE);
    let mut sender = Sender::asking(&zone, Vec::new());
    sender.believe(authority);
    sender.rule(lines);
    (sender, zone)
}

fn offering(leaf: &Leaf) -> Remote {
    Remote::with(Sink { tls: Some(Offer::starttls(leaf)), ..Sink::default() })
}

fn smart_host(remote: &Remote) -> HostTarget {
    HostTarget::hosts(vec![HostPort { host: NAME.into(), port: remote.address.port(), scheme: Scheme::Smtp }])
}

#[test]
fn each_level_has_its_effect() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (ours, own) = (authority.leaf(NAME, 300), Leaf::selfmade("else.test"));
    let (key, whole) = (own.association([3, 1, 1]), own.association([3, 0, 2]));
    let print = |association: &str| association.rsplit(' ').next().expect("data").to_owned();
    let wrong = print(&ours.association([3, 1, 1]));
    let own_prints = format!("required fingerprints={wrong},{}", print(&key));
    let own_print = format!("required fingerprints={}", print(&whole));
    let wrong_print = format!("required fingerprints={wrong}");
    let (elsewhere, foreign) = (authority.leaf("host.test", 300), stranger.leaf(NAME, 300));
    for (leaf, base, level, want) in [
        (&ours, RemoteTls::Required, "none", Ok("-")),
        (&own, RemoteTls::Required, "opportunistic", Ok("")),
        (&ours, RemoteTls::None, "required", Ok("authority")),
        (&own, RemoteTls::None, "required", Err("not from a trusted authority")),
        (&foreign, RemoteTls::None, "required", Err("not from a trusted authority")),
        (&elsewhere, RemoteTls::None, "required", Err("not valid for name")),
        (&elsewhere, RemoteTls::None, "required names=x.test,Host.test", Ok("authority")),
        (&ours, RemoteTls::None, "required names=x.test,host.test", Err("not valid for name")),
        (&elsewhere, RemoteTls::None, "required names=x.test", Err("not valid for name")),
        (&own, RemoteTls::None, &own_prints, Ok("fingerprint")),
        (&own, RemoteTls::None, &own_print, Ok("fingerprint")),
        (&own, RemoteTls::None, &wrong_print, Err("fingerprint")),
    ] {
        let remote = offering(leaf);
        let (mut sender, _zone) = sender(&authority, &format!("{NAME} {level}\n"));
        sender.config.remote.tls = base;
        let outcome = sender.send_one(&smart_host(&remote));
        match want {
            Ok(verified) => {
                assert_eq!(outcome.fate, Delivered, "{level}: {outcome:?}");
                assert_eq!(remote.messages(1)[0].tls, verified != "-", "{level}");
                assert_eq!(outcome.tls.verified_by(), verified.trim_matches('-'), "{level}");
            }
            Err(words) => {
                assert_eq!(shown(&outcome), (Deferred, "4.7.5".into()), "{level}: {outcome:?}");
                assert!(outcome.why.contains(words), "{level}: {outcome:?}");
                remote.look(|seen| assert!(seen.connections == 1 && seen.messages.is_empty(), "{level}"));
            }
        }
    }
}

#[test]
fn mail_waits_for_an_invalid_line() {
    let authority = Authority::new();
    let remote = offering(&authority.leaf(NAME, 300));
    let (mut sender, _zone) = sender(&authority, &format!("{NAME} requird\n"));
    let outcome = sender.send_one(&smart_host(&remote));
    assert_eq!(shown(&outcome), (Deferred, "4.3.5".into()), "{outcome:?}");
    assert!(outcome.why.ends_with(":1:17: expected none, opportunistic, required or dane"), "{outcome:?}");
    assert_eq!(remote.look(|seen| seen.connections), 0);
}

#[test]
fn a_kept_connection_serves_only_domains_with_the_same_policy() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let send = |remote: &Remote, lines: &str| {
        let (mut sender, _zone) = sender(&authority, lines);
        let port = remote.address.port();
        ["example.test", "other.test", "strict.test"].map(|domain| sender.send_one(&mx(domain, port)).fate)
    };
    let remote = offering(&authority.leaf(NAME, 300));
    assert_eq!(send(&remote, "strict.test required\n"), [Delivered; 3]);
    assert_eq!(remote.look(|seen| seen.connections), 2);
    let remote = offering(&stranger.leaf(NAME, 300));
    assert_eq!(send(&remote, "strict.test required\n"), [Delivered, Delivered, Deferred]);
    assert_eq!(remote.look(|seen| (seen.connections, seen.messages.len())), (2, 2));
    let remote = offering(&authority.leaf(NAME, 300));
    assert_eq!(send(&remote, &format!("* required\nother.test required names=x.test,{NAME}\n")), [Delivered; 3]);
    assert_eq!(remote.look(|seen| seen.connections), 3);
}

#[test]
fn a_changed_line_applies_to_a_kept_connection() {
    let authority = Authority::new();
    let remote = offering(&Leaf::selfmade(NAME));
    let (mut sender, _zone) = sender(&authority, "");
    assert_eq!(sender.send_one(&smart_host(&remote)).fate, Delivered);
    sender.rule(&format!("{NAME} required\n"));
    assert_eq!(sender.send_one(&smart_host(&remote)).fate, Deferred);
    assert_eq!(remote.look(|seen| (seen.connections, seen.messages.len())), (2, 1));
}

/// The table changes while a message is sent over the kept connection, which is in plaintext.
#[test]
fn a_line_that_changes_during_a_transfer_applies_to_the_next_message() {
    let remote = Remote::with(Sink::default().when("DATA", Then::Pause(LIMIT / 3), usize::MAX));
    let (mut sender, _zone) = sender(&Authority::new(), &format!("{NAME} opportunistic\n"));
    let table = sender.policies.as_ref().expect("a table").0.clone();
    let to = smart_host(&remote);
    assert_eq!(sender.send_one(&to).fate, Delivered);
    thread::scope(|scope| {
        scope.spawn(|| {
            let is_data = |command: &&common::remote::Command| command.line == "DATA";
            remote.wait("the second message", |seen| seen.commands.iter().filter(is_data).count() == 2);
            fs::write(&table, format!("{NAME} required\n")).expect("a table");
        });
        assert_eq!(sender.send_one(&to).fate, Delivered);
    });
    let outcome = sender.send_one(&to);
    assert_eq!((outcome.fate, remote.look(|seen| (seen.connections, seen.messages.len()))), (Deferred, (2, 2)));
}
