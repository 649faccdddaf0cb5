//! Crashes by kill -9: acknowledged mail arrives, and arrives once.
//!
//! The real daemon is killed before the commit of a message, at random moments under load, and at
//! every step on disk. At the end of each test accepted mail is delivered, bounced or in the queue.
//! Power cuts are in tests/storage/powercut. The mailboxes are the server's own, or those of system
//! users.
//!
//! - `cases`: the messages whose way is stopped at every step
//! - `dropped`: messages in the drop directory
//! - `errors`: every step fails
//! - `hold`: the steps of `penfoldctl hold`, `release` and `remove`
//! - `homes`: the recipients as system users
//! - `points`: the daemon is stopped at every step
//! - `routes`: a recipient whose mail the routes hold
//! - `scene`: one message with a fault on its way
//! - `states`: the daemon is started on every state that a crash can leave

mod cases;
mod dropped;
mod errors;
mod hold;
mod homes;
mod points;
mod routes;
mod scene;
mod states;

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::Site;
use common::books::{Answer, Books, Letter, offer, offer_part};
use common::mounts::Mounts;
use common::remote::{Remote, Sink};
use nix::unistd::geteuid;

/// A source of random times, which differ from run to run.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        eprintln!("seed {seed}");
        Self(seed | 1)
    }

    fn sleep(&mut self, from: u64, to: u64) {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_millis(from + (self.0 >> 33) % (to - from)));
    }
}

fn site() -> Site {
    people(Site::new())
}

/// Adds all users of these tests to a site.
fn people(site: Site) -> Site {
    for user in ["ret", "ada", "bob", "cyd", "eve"] {
        site.add("users", &format!("{user}::"));
    }
    site.add("aliases", "list: ada, bob, cyd");
    site
}

fn books(site: &Site, user: &str) -> Books {
    Books::of(site.mail(user))
}

#[test]
fn nothing_is_kept_before_the_final_dot() {
    let site = site();
    // The client sends nothing, a little, more than the daemon keeps in memory, or all but the last
    // octet.
    for (octets, to) in
        [(0, "jon@razorback"), (60, "list@razorback"), (70_000, "jon@razorback"), (usize::MAX, "jon@razorback")]
    {
        let daemon = site.start();
        let mut wire = offer_part(daemon.address(), &[to], Letter::new("long"), octets).expect("a 354");
        daemon.kill9();
        assert_eq!(wire.read_line(), Ok(None), "a reply to a message that was not ended");
        let daemon = site.start();
        assert_eq!(offer(daemon.address(), &["jon@razorback"], Letter::new("next")), Answer::Taken);
        daemon.wait_mail(&site, "jon", 1);
        assert!(daemon.settles(&site));
        let found = books(&site, "jon");
        assert_eq!((found.letters("next"), found.total()), (1, 1));
        assert!(site.mail("ada").is_empty());
        fs::remove_dir_all(site.mailbox("jon")).expect("a mailbox");
        assert_eq!(fs::read_dir(site.path("spool/tmp")).expect("a spool").count(), 0);
    }
}

/// The recipients of the load: a mailbox into which the spool file is renamed, mailboxes that get
/// copies, another host, a recipient that bounces, and all of these together.
const LOAD: [&[&str]; 5] = [
    &["jon@razorback"],
    &["list@razorback"],
    &["far@far.test"],
    &["void@far.test"],
    &["jon@razorback", "list@razorback", "far@far.test", "void@far.test"],
];

/// A letter that a client has offered.
struct Offered {
    token: String,
    to: &'static [&'static str],
    is_taken: bool,
}

/// Plays a client that offers letters until the daemon has ended. Returns the letters.
fn client(address: std::net::SocketAddr, name: &str, offset: usize) -> Vec<Offered> {
    let mut offered = Vec::new();
    for number in 0.. {
        let (token, to) = (format!("{name}-{number}"), LOAD[(number + offset) % LOAD.len()]);
        let answer = offer(address, to, Letter::new(&token));
        let is_taken = match &answer {
            Answer::Taken => true,
            Answer::Lost => false,
            Answer::Refused(reply) => panic!("{token}: {reply}"),
        };
        offered.push(Offered { token, to, is_taken });
        if answer == Answer::Lost {
            break;
        }
    }
    offered
}

#[test]
fn acknowledged_mail_arrives_once() {
    arrives_and_once(site(), None);
}

#[test]
fn acknowledged_mail_arrives_once_in_home_directories() {
    if geteuid().is_root() && Mounts::new("true").is_some() {
        let mut site = site();
        let homes = homes::settle_beside(&mut site);
        arrives_and_once(site, Some(homes));
    } else {
        common::skipped("only root can deliver to others");
    }
}

fn arrives_and_once(mut site: Site, homes: Option<Mounts>) {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 15;
    let remote = Remote::with(Sink::default().reply("RCPT TO:<void", "550 5.1.1 no such user"));
    let (mut chance, mut offered) = (Chance::new(), Vec::new());
    site.set("queue", "retry_min", "\"1s\"");
    site.add("routes", &format!("far.test {}", remote.host_port()));
    let start = || homes.as_ref().map_or_else(|| site.start(), |homes| homes.start(&site));
    for round in 0..ROUNDS {
        let daemon = start();
        let address = daemon.address();
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|n| scope.spawn(move || client(address, &format!("r{round}c{n}"), n))).collect();
            chance.sleep(5, 400);
            daemon.kill9();
            for client in clients {
                offered.extend(client.join().expect("a client"));
            }
        });
    }
    let daemon = start();
    assert!(daemon.settles(&site), "left in the spool: {:?}\n{}", site.spooled(), daemon.log());
    assert!(offered.iter().filter(|o| o.is_taken).count() > ROUNDS, "too few for a test");
    audit(&site, &remote, &offered);
    if homes.is_some() {
        homes::check(&site);
    }
    assert_eq!(fs::read_dir(site.path("spool/bad")).expect("a spool").count(), 0);
    for user in ["jon", "ada", "bob", "cyd", "ret"] {
        assert_eq!(
            fs::read_dir(site.mailbox(user).join("tmp")).map_or(0, Iterator::count),
            0,
            "left in tmp/ of {user}"
        );
    }
}

/// Asserts that accepted mail is delivered or bounced. Mail without a 250 must be complete for all
/// its recipients, or for none.
fn audit(site: &Site, remote: &Remote, offered: &[Offered]) {
    let local: Vec<Books> = ["jon", "ada", "bob", "cyd"].iter().map(|user| books(site, user)).collect();
    let reports = books(site, "ret");
    let mut far: HashMap<String, usize> = HashMap::new();
    for message in remote.look(|seen| seen.messages.clone()) {
        let text = String::from_utf8(message.data).expect("ASCII").replace("\r\n", "\n");
        let token = text.lines().find_map(|l| l.strip_prefix("Subject: ")).expect("a token").to_owned();
        assert!(text.ends_with(&Letter::new(&token).text()), "{token} is not whole");
        *far.entry(token).or_default() += 1;
    }
    let (mut delivered, mut bounced) = (0, 0);
    for Offered { token, to, is_taken } in offered {
        let mut seen: Vec<(&str, usize)> = Vec::new();
        let is_for = |name: &str| to.iter().any(|recipient| recipient.starts_with(name));
        if is_for("jon@") {
            seen.push(("jon", local[0].letters(token)));
        }
        if is_for("list@") {
            seen.extend(["ada", "bob", "cyd"].into_iter().zip(&local[1..]).map(|(user, b)| (user, b.letters(token))));
        }
        delivered += seen.iter().map(|(_, count)| count).sum::<usize>();
        if is_for("void@") {
            seen.push(("the sender's report", reports.reports(token)));
            bounced += reports.reports(token);
        }
        if is_for("far@") {
            // SMTP allows another host to get a message twice if the connection is lost.
            seen.push(("far", far.get(token).copied().unwrap_or(0).min(1)));
        }
        let expected = if *is_taken { 1 } else { seen[0].1.min(1) };
        assert!(seen.iter().all(|(_, count)| *count == expected), "{token} taken={is_taken}: {seen:?}");
    }
    assert_eq!(local.iter().map(Books::total).sum::<usize>(), delivered, "mail that nobody has sent");
    assert_eq!(reports.total(), bounced, "reports of nothing");
}
