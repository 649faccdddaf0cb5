//! Users that Dovecot knows, with a Dovecot that is slow, wrong, hostile or not there.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::client::TEXT;
use common::clock::Clock;
use common::dovecot::stand_in;
use common::remote::Remote;
use common::{Daemon, Site, own};
use nix::sys::socket::Backlog;
use nix::unistd::{User, geteuid};

const HANDSHAKE: &str = "VERSION\t1\t2\nSPID\t77\n";
/// The time that a look-up may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A stand-in for Dovecot, which runs until the process of the tests ends.
struct Userdb {
    /// The names that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
    /// The number of connections at this moment.
    open: Arc<AtomicUsize>,
}

impl Userdb {
    /// Listens at `path`. `answer` makes the rest of an answer after the id from a name, or `None` if
    /// the connection ends instead.
    fn at(path: &Path, answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let _ = std::fs::remove_file(path);
        let socket = UnixListener::bind(path).expect("a socket");
        own(path);
        let userdb = Self { asked: Arc::default(), open: Arc::default() };
        let (asked, open) = (Arc::clone(&userdb.asked), Arc::clone(&userdb.open));
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for peer in socket.incoming().map_while(Result::ok) {
                let (asked, open, answer) = (asked.clone(), open.clone(), answer.clone());
                thread::spawn(move || {
                    open.fetch_add(1, Ordering::SeqCst);
                    converse(BufReader::new(peer), |name| {
                        asked.lock().expect("no panic").push(name.to_owned());
                        answer(name)
                    });
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        userdb
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

fn converse(mut peer: BufReader<UnixStream>, answer: impl Fn(&str) -> Option<String>) -> Option<()> {
    peer.get_mut().write_all(HANDSHAKE.as_bytes()).ok()?;
    let mut line = String::new();
    loop {
        line.clear();
        peer.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let fields: Vec<&str> = line.trim_end_matches('\n').split('\t').collect();
        match fields.as_slice() {
            ["VERSION", "1", _] => {}
            ["USER", id, name, "service=lmtp"] => {
                let answer = answer(name)?;
                let (verb, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
                peer.get_mut().write_all(format!("{verb}\t{id}{rest}\n").as_bytes()).ok()?;
            }
            _ => panic!("an unknown request: {line}"),
        }
    }
}

/// A site whose users are those of a Dovecot. The homes are below `mail`.
fn site() -> Site {
    let mut site = Site::with("relay.networks = []\nauth.users = \"none\"");
    let (socket, mail) = (site.path("userdb"), site.path("mail"));
    site.set("local", "users", &format!("\"dovecot:{}\"", socket.display()));
    site.set("local", "mailbox", &format!("\"{}/~/box\"", mail.display()));
    site
}

/// Asks for a recipient, and checks the beginning of the reply.
fn rcpt(daemon: &Daemon, address: &str, wanted: &str) -> String {
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask(&format!("RCPT TO:<{address}>"), wanted)
}

/// The id of the user that the server runs as.
fn uid() -> u32 {
    let server = if geteuid().is_root() { User::from_name("nobody") } else { User::from_uid(geteuid()) };
    server.ok().flatten().expect("a user").uid.as_raw()
}

#[test]
fn dovecot_decides_who_exists_and_where_the_home_is() {
    let site = site();
    let mail = site.path("mail").display().to_string();
    let place = mail.clone();
    let userdb = Userdb::at(&site.path("userdb"), move |name| {
        Some(match name.split('@').next().expect("a name") {
            "jon" => format!("USER \t{name}\tuid={}\tgid=1\thome={mail}/a/jon\tquota_rule=*:storage=1M", uid()),
            "jo+hn" => format!("USER \t{name}\thome={mail}/a/john"),
            "up" => format!("USER \t{name}\thome={mail}/../spool"),
            "out" => format!("USER \t{name}\thome=/etc"),
            "same" => format!("USER \t{name}\thome={mail}"),
            "loose" => format!("USER \t{name}\thome=a/jon"),
            "bare" => format!("USER \t{name}"),
            "other" => format!("USER \t{name}\tuid={}\thome={mail}/a/other", uid() + 1),
            "ill" => "FAIL \treason=the directory is away".to_owned(),
            "mute" => "FAIL".to_owned(),
            _ => "NOTFOUND".to_owned(),
        })
    });
    let daemon = site.start();
    // A start looks up the recipients of the postmaster's mail.
    userdb.asked();
    let names = ["jon@razorback", "JON+list@Razorback", "jo+hn@razorback.test"];
    daemon.greeted().send("anna@example.net", &names, TEXT);
    daemon.wait_words(&[" sent to=<jon@razorback> via=maildir"]);
    daemon.wait_words(&[" sent to=<JON+list@razorback> via=maildir"]);
    daemon.wait_words(&[" sent to=<jo+hn@razorback.test> via=maildir"]);
    let count = |home: &str| std::fs::read_dir(format!("{place}/a/{home}/box/new")).expect("a Maildir").count();
    assert_eq!((count("jon"), count("john")), (2, 1));
    // Each name is asked for once, the whole address first.
    let asked = userdb.asked();
    let mut once = asked.clone();
    once.sort();
    once.dedup();
    assert_eq!(once, ["jo+hn@razorback.test", "jon+list@razorback", "jon@razorback"], "{asked:?}");
    assert_eq!(once.len(), asked.len(), "{asked:?}");

    rcpt(&daemon, "nobody@razorback", "550 5.1.1 ");
    for (name, why) in [
        ("up", "spool is not below "),
        ("out", "the home directory /etc is not below "),
        ("same", "is not below "),
        ("loose", "the home directory a/jon is not below "),
        ("bare", "the answer names no home directory"),
        ("other", "the mailbox belongs to the user id "),
        ("ill", "the directory is away"),
        ("mute", "it reports a temporary failure: its log says why"),
    ] {
        let reply = rcpt(&daemon, &format!("{name}@razorback"), "451 4.3.0 ");
        assert!(!reply.contains("etc") && !reply.contains(&place), "{reply}");
        daemon.wait_log(|line| line.contains(&format!("recipient <{name}@razorback>: ")) && line.contains(why));
    }
    userdb.asked();
    // Dovecot is not asked for names that could mean another user or another path.
    for name in ["\"jon@example.org\"", "\"../jon\"", "\".jon\"", "\"a/b\""] {
        rcpt(&daemon, &format!("{name}@razorback"), "550 5.1.1 ");
    }
    assert_eq!(userdb.asked(), [""; 0]);
    // Failures are not remembered, and that a user does not exist is.
    rcpt(&daemon, "nobody@razorback", "550 5.1.1 ");
    rcpt(&daemon, "ill@razorback", "451 ");
    assert_eq!(userdb.asked(), ["ill@razorback"]);
    let explained = site.penfoldctl(&["explain", "up@razorback"]);
    assert!(explained.contains("is not below"), "{explained}");
    assert!(!site.path("spool/box").exists() && !Path::new("/etc/box").exists());
}

#[test]
fn a_dovecot_that_lies_defers_mail() {
    let long = "x".repeat(100_000);
    for (said, why) in [
        ("", "unexpected end of file"),
        ("VERSION\t2\t0\nSPID\t1\n", "unexpected end of file"),
        ("SPID\t1\n", "unexpected end of file"),
        ("VERSION\t1\t2\nMECH\tPLAIN\nSPID\t1\nDONE\n", "of the kind auth-client, not auth-userdb"),
        ("VERSION\t1\t2\nSPID\t1\nUSER\t2\tjon\n", "unexpected end of file"),
        ("VERSION\t1\t2\nSPID\t1\nUSER\t1\n", "its answer is malformed"),
        ("VERSION\t1\t2\nSPID\t1\nUSER\t1\tjon\tuid=x\n", "its answer is malformed"),
        ("VERSION\t1\t2\nSPID\t1\nUSER\t1\tjon\thome=/a\u{1}n\n", "its answer is malformed"),
        ("VERSION\t1\t2\nSPID\t1\nUSER\t1\tjon\thome=/a\thome=/b\n", "its answer is malformed"),
        (&long, "a line is too long"),
        (&"NEWS\n".repeat(1000), "it does not use version 1"),
        (&format!("{HANDSHAKE}{}", "NEWS\n".repeat(1000)), "its answer is malformed"),
    ] {
        let site = site();
        stand_in(&site.path("userdb"), said);
        let daemon = site.start();
        let begun = Instant::now();
        rcpt(&daemon, "jon@razorback", "451 4.3.0 ");
        assert!(begun.elapsed() < LIMIT, "{said:.80}");
        daemon.wait_log(|line| line.contains("recipient <jon@razorback>: ask Dovecot at ") && line.contains(why));
    }
}

/// A Dovecot that says nothing delays one look-up, and not those after it.
#[test]
fn a_dovecot_that_hangs_delays_one_recipient() {
    hangs(false);
}

#[test]
fn a_dovecot_whose_queue_of_connections_is_full_delays_one_recipient() {
    hangs(true);
}

fn hangs(is_full: bool) {
    let site = site();
    // A start looks up these two, and would wait, too.
    site.write("aliases", "root: anna@example.net\npostmaster: anna@example.net\n");
    let path = site.path("userdb");
    let socket = UnixListener::bind(&path).expect("a socket");
    own(&path);
    let mut waiting = Vec::new();
    if is_full {
        nix::sys::socket::listen(&socket, Backlog::new(0).expect("small")).expect("a queue");
        waiting.push(UnixStream::connect(&path).expect("room for one"));
    }
    let daemon = site.start();
    let begun = Instant::now();
    rcpt(&daemon, "jon@razorback", "451 4.3.0 ");
    assert!((LIMIT / 2..LIMIT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let begun = Instant::now();
    (0..5).for_each(|number| drop(rcpt(&daemon, &format!("jon{number}@razorback"), "451 4.3.0 ")));
    assert!(begun.elapsed() < LIMIT / 2, "{:?}", begun.elapsed());
    daemon.wait_log(|line| line.contains("it has not answered in time a moment ago"));
    // It is asked again.
    drop((socket, waiting));
    Userdb::at(&path, |_| Some("NOTFOUND".to_owned()));
    daemon.wait_until("an answer", || rcpt(&daemon, "no@razorback", "").starts_with("550 "));
}

/// A message for users of whom nothing is remembered waits for Dovecot by itself: no other message does.
#[test]
fn a_slow_dovecot_delays_only_mail_for_its_users() {
    let mut site = site();
    let Some(clock) = Clock::new(&site) else { return };
    site.set("relay", "networks", "[\"127.0.0.0/8\"]");
    let remote = Remote::sink();
    site.write("routes", &format!("far.test {}\n", remote.host_port()));
    let mail = site.path("mail").display().to_string();
    let is_slow = Arc::new(AtomicUsize::new(0));
    let slow = Arc::clone(&is_slow);
    let _userdb = Userdb::at(&site.path("userdb"), move |name| {
        if slow.load(Ordering::SeqCst) > 0 {
            thread::sleep(LIMIT / 2);
        }
        Some(format!("USER \t{name}\thome={mail}/{name}"))
    });
    let daemon = clock.start(&site, true);
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    (0..8).for_each(|number| drop(client.ask(&format!("RCPT TO:<jon{number}@razorback>"), "250 ")));
    client.ask("DATA", "354 ");
    // The answers are forgotten before the message ends.
    clock.set("+70s");
    is_slow.store(1, Ordering::SeqCst);
    client.ask(&format!("{TEXT}."), "250 ");
    let begun = Instant::now();
    daemon.greeted().send("anna@example.net", &["elvis@far.test"], TEXT);
    remote.messages(1);
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    is_slow.store(0, Ordering::SeqCst);
    daemon.wait_until("the mail of all", || daemon.log().matches(" sent to=<jon").count() == 8);
}

#[test]
fn a_dovecot_that_is_not_there_defers_mail() {
    let site = site();
    let daemon = site.start();
    rcpt(&daemon, "a@razorback", "451 4.3.0 ");
    daemon.wait_log(|line| line.contains("ask Dovecot at ") && line.contains("No such file"));
    // No connection stays, because it would keep an old process of Dovecot alive.
    let userdb = Userdb::at(&site.path("userdb"), |_| Some("NOTFOUND".to_owned()));
    rcpt(&daemon, "a@razorback", "550 5.1.1 ");
    daemon.wait_until("the end of the connection", || userdb.open.load(Ordering::SeqCst) == 0);
}

/// Many sessions share few connections.
#[test]
fn many_sessions_share_few_connections() {
    let site = site();
    let (busy, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let peak = Arc::clone(&most);
    let userdb = Userdb::at(&site.path("userdb"), move |_| {
        most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
        busy.fetch_sub(1, Ordering::SeqCst);
        Some("NOTFOUND".to_owned())
    });
    let daemon = site.start();
    userdb.asked();
    thread::scope(|scope| {
        for client in 0..40 {
            let daemon = &daemon;
            scope.spawn(move || {
                (0..5).for_each(|number| drop(rcpt(daemon, &format!("u{client}n{number}@razorback"), "550 ")));
            });
        }
    });
    assert_eq!(userdb.asked().len(), 200);
    assert!((2..=8).contains(&peak.load(Ordering::SeqCst)), "{peak:?}");
}
