//! A limit for all hosts together.

use std::net::{SocketAddr, TcpStream};
use std::thread;

use common::client::Client;
use data_encoding::BASE64;

use super::front::Front;
use super::lan::{Host, Lan};
use super::redis::{Redis, SHARED};
use super::site::Mta;

/// The password "pencil".
const SCRAM: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
/// The accounts. Each is used only if the machine was too busy for the one before.
const ACCOUNTS: [&str; 4] = ["mary", "elvis", "ada", "bob"];
/// The limit that is the default for an account.
const LIMIT: usize = 300;
/// The connections with which an account sends.
const CONNECTIONS: usize = 6;
/// What the log of a host says when it has had no answer from the store.
const ALONE: &str = "this host counts alone until the store answers";

/// A client that has logged in.
fn login(from: &Host, to: SocketAddr, account: &str) -> Client {
    let mut client = Client::new(from.inside(|| TcpStream::connect(to).expect("it accepts")));
    client.ehlo();
    client.ask(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0{account}\0pencil").as_bytes())), "235 ");
    client
}

/// Begins messages until the limit is reached, and returns how many there were.
fn exhaust(mut client: Client, account: &str) -> usize {
    for count in 0..=3 * LIMIT {
        let reply = client.ask(&format!("MAIL FROM:<{account}@example.com>"), "");
        if reply.starts_with("450 4.7.1 Your limit of 300 ") {
            return count;
        }
        assert!(reply.starts_with("250 "), "{reply}");
        client.ask("RSET", "250 ");
    }
    panic!("no limit");
}

/// How many times the hosts have got no answer from the store.
fn alone(mtas: &[Mta]) -> usize {
    mtas.iter().map(|mta| mta.daemon.log().matches(ALONE).count()).sum()
}

/// An account sends through three hosts at once as much as it can. All three together take as many
/// messages as the limit says, and then none of them takes any more. When the store is gone, each host
/// counts alone, and says so once.
#[test]
fn a_limit_of_300_an_hour_is_300_for_three_hosts_together() {
    let Some(lan) = Lan::new() else { return };
    let Some(mut front) = Front::new(&lan) else { return };
    let Some(mut redis) = Redis::start(&lan) else { return };
    let mtas = [("mx1", 11), ("mx2", 12), ("mx3", 13)].map(|(name, last)| {
        let settings = format!(
            "local.domains = [\"example.com\"]\nlisten.auth = \"always\"\nlisten.kind = \"submission\"\n{SHARED}"
        );
        let site = Mta::site(name, last, &settings);
        ACCOUNTS.iter().for_each(|account| site.add("users", &format!("{account}:{SCRAM}:")));
        Mta::start(lan.host(last), site)
    });
    front.open();
    front.wait_checked();
    let clients = lan.host(40);
    // A question to the store takes at most 100 ms, and this machine may be busy with other things.
    let account = ACCOUNTS.into_iter().find(|account| {
        let before = alone(&mtas);
        let sent: usize = thread::scope(|scope| {
            let connections: Vec<_> = (0..CONNECTIONS).map(|_| login(&clients, front.address(), account)).collect();
            let send = |client| scope.spawn(move || exhaust(client, account));
            let sending: Vec<_> = connections.into_iter().map(send).collect();
            sending.into_iter().map(|client| client.join().expect("no panic in a client")).sum()
        });
        let answered = alone(&mtas) == before;
        assert!(!answered || sent == LIMIT, "{sent} messages");
        answered
    });
    let account = account.expect("a store that answers in time");
    // Each host had a part of it.
    for mta in &mtas {
        let refused = mta.daemon.log().matches("Your limit of 300 ").count();
        assert!(refused > 0, "{}", mta.daemon.log());
        login(&clients, (mta.host.address, 25).into(), account)
            .ask(&format!("MAIL FROM:<{account}@example.com>"), "450 4.7.1 ");
    }

    redis.close();
    for mta in &mtas {
        let before = mta.daemon.log().matches(ALONE).count();
        let mut client = login(&clients, (mta.host.address, 25).into(), account);
        // It has taken less than the limit itself.
        client.ask(&format!("MAIL FROM:<{account}@example.com>"), "250 ");
        mta.daemon.wait_until("a warning", || mta.daemon.log().matches(ALONE).count() > before);
    }
    let answers = |mta: &Mta| mta.daemon.log().matches("answers again after").count();
    let before = mtas.each_ref().map(answers);
    redis.open();
    for (mta, before) in mtas.iter().zip(before) {
        mta.daemon.wait_until("the store", || answers(mta) > before);
    }
}
