//! Scripted stores that fail in every way, and the counts in a real Redis.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use common::redis::RedisDir;

use super::circuit::LIMIT;
use super::*;
use crate::config;
use crate::shared::{GreylistLimits, Greylisted, Shared};

/// What a busy machine adds to a time.
const SLACK: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_secs(20);

fn store(url: &str) -> SharedStore {
    let config = config::parse(Path::new("x"), &format!("[shared]\nstore = {url:?}\n")).expect("a configuration");
    let dns = config::Dns { nameservers: Vec::new(), timeout: Duration::from_secs(5), trust_ad: None };
    let store = SharedStore::new(&Arc::new(Dns::new(&dns)), "host.example");
    store.aim(&config, &Client::default(), None);
    store
}

fn question() -> Question {
    Question { script: "return {1}", keys: vec!["k".into()], arguments: Vec::new(), numbers: 1 }
}

/// Asks, and returns the answer with the time that it took.
fn timed(store: &SharedStore) -> (Option<Vec<u64>>, Duration) {
    let since = Instant::now();
    (store.ask(&question()), since.elapsed())
}

/// A store that answers the probe well, and every other question in its own way.
struct Liar {
    url: String,
    /// Whether it answers everything well.
    is_good: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Liar {
    fn start(lie: impl Fn(&mut dyn Write) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("redis://{}", listener.local_addr().expect("bound"));
        let (is_good, connections, lie) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::new(lie));
        let liar = Self { url, is_good: Arc::clone(&is_good), connections: Arc::clone(&connections) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let (is_good, lie) = (Arc::clone(&is_good), Arc::clone(&lie));
                thread::spawn(move || {
                    let (mut reader, mut writer) = (BufReader::new(&stream), &stream);
                    while let Some(words) = command(&mut reader) {
                        let is_probe = words.get(1).is_some_and(|script| script == crate::shared::PROBE);
                        if is_probe {
                            let number = words.last().expect("a number");
                            let _ = write!(writer, "*2\r\n:{number}\r\n:1\r\n");
                        } else if is_good.load(Ordering::Relaxed) {
                            let _ = writer.write_all(b"*1\r\n:1\r\n");
                        } else {
                            lie(&mut writer);
                            return;
                        }
                    }
                });
            }
        });
        liar
    }
}

/// Reads a command; `None` at the end.
fn command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut line = String::new();
    let mut number = |reader: &mut dyn BufRead, mark: char| {
        line.clear();
        reader.read_line(&mut line).ok()?;
        line.trim().strip_prefix(mark)?.parse::<usize>().ok()
    };
    let count = number(reader, '*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(reader, '$')? + 2];
        reader.read_exact(&mut word).ok()?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Some(words)
}

fn is_up(standing: &Standing) -> bool {
    matches!(standing, Standing::Up { .. })
}

#[test]
fn a_store_that_lies_costs_one_answer_and_no_time_after_that() {
    let say = |text: &'static str| move |to: &mut dyn Write| _ = to.write_all(text.as_bytes());
    let forever = |text: &'static str| move |to: &mut dyn Write| while to.write_all(text.as_bytes()).is_ok() {};
    let slowly = |to: &mut dyn Write| {
        for octet in b"*1\r\n:111111111111111111111111111111111".iter().cycle() {
            if to.write_all(&[*octet]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    };
    type Lie = Box<dyn Fn(&mut dyn Write) + Send + Sync>;
    let lies: Vec<(&str, Lie)> = vec![
        ("OOM command not allowed", Box::new(say("-OOM command not allowed when used memory > 'maxmemory'.\r\n"))),
        ("READONLY", Box::new(say("-READONLY You can't write against a read only replica.\r\n"))),
        ("MOVED 1", Box::new(say("-MOVED 1 192.0.2.1:6379\r\n"))),
        ("NOAUTH", Box::new(say("-NOAUTH Authentication required.\r\n"))),
        ("LOADING", Box::new(say("-LOADING Redis is loading the dataset in memory\r\n"))),
        ("ERR a?b", Box::new(say("-ERR a\tb\r\n"))),
        ("a reply that is too long", Box::new(say("$2147483648\r\n"))),
        ("a line that is too long", Box::new(forever("+aaaaaaaaaaaaaaaa"))),
        ("an array of an unexpected length", Box::new(say("*1000000000\r\n"))),
        ("an answer of the wrong kind", Box::new(say("*2\r\n:1\r\n:1\r\n"))),
        ("an answer of the wrong kind", Box::new(say("*1\r\n:-1\r\n"))),
        ("an answer of the wrong kind", Box::new(say("*1\r\n$1\r\n1\r\n"))),
        ("an answer of the wrong kind", Box::new(say("+OK\r\n"))),
        ("not the protocol of Redis", Box::new(say("*1\r\n*1\r\n:1\r\n"))),
        ("not the protocol of Redis", Box::new(say("*1\r\n:99999999999999999999\r\n"))),
        ("not the protocol of Redis", Box::new(say("HTTP/1.1 400 Bad Request\r\n\r\n"))),
        ("not the protocol of Redis", Box::new(say(">2\r\n+message\r\n:1\r\n"))),
        ("more than one reply", Box::new(say("*1\r\n:1\r\n*1\r\n:1\r\n"))),
        ("it has closed the connection", Box::new(say("*1\r\n:"))),
        ("no answer in time", Box::new(slowly)),
        ("no answer in time", Box::new(|_: &mut dyn Write| thread::park_timeout(TIMEOUT))),
    ];
    for (why, lie) in lies {
        let liar = Liar::start(lie);
        let store = store(&liar.url);
        store.start();
        assert!(is_up(&store.circuit.wait(TIMEOUT, is_up)), "{why}");
        let (answer, took) = timed(&store);
        assert!(answer.is_none() && took < LIMIT + SLACK, "{why}: {answer:?} after {took:?}");
        let Standing::Away { why: said, .. } = store.standing().1 else { panic!("{why}: not away") };
        assert!(said.contains(why), "{why}: {said}");
        let before = liar.connections.load(Ordering::Relaxed);
        let since = Instant::now();
        assert!((0..1000).all(|_| store.ask(&question()).is_none()), "{why}");
        assert!(since.elapsed() < Duration::from_millis(500), "{why}: {:?}", since.elapsed());
        assert_eq!(liar.connections.load(Ordering::Relaxed), before, "{why}: sessions do not connect");
    }
}

#[test]
fn a_store_that_hangs_keeps_many_sessions_once_for_a_tenth_of_a_second() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let store = store(&format!("redis://{}", listener.local_addr().expect("bound")));
    let ask_all = || {
        let since = Instant::now();
        thread::scope(|scope| (0..50).for_each(|_| _ = scope.spawn(|| assert_eq!(store.ask(&question()), None))));
        since.elapsed()
    };
    let first = ask_all();
    assert!(first < LIMIT + SLACK, "{first:?}");
    store.circuit.wait(TIMEOUT, |standing| matches!(standing, Standing::Away { .. }));
    let second = ask_all();
    assert!(second < LIMIT, "{second:?}");
}

/// More sessions ask than the connections can carry.
#[test]
fn a_store_that_is_busy_does_not_count_as_away() {
    let is_busy_and_up = || {
        let liar = Liar::start(|to| {
            thread::sleep(Duration::from_millis(30));
            let _ = to.write_all(b"*1\r\n:1\r\n");
        });
        let store = store(&liar.url);
        store.start();
        assert!(is_up(&store.circuit.wait(TIMEOUT, is_up)));
        thread::scope(|scope| (0..40).for_each(|_| _ = scope.spawn(|| (0..5).for_each(|_| _ = timed(&store)))));
        is_up(&store.standing().1) && store.circuit.unasked() > 0
    };
    // On a busy machine a question that has not waited may have no answer in time, either.
    assert!((0..10).any(|_| is_busy_and_up()));
}

#[test]
fn a_store_that_comes_back_is_used_again() {
    let is_used_again = || {
        let liar = Liar::start(|to| _ = to.write_all(b"-LOADING\r\n"));
        let store = store(&liar.url);
        assert_eq!(store.ask(&question()), None);
        assert!(matches!(store.standing().1, Standing::Away { .. }));
        liar.is_good.store(true, Ordering::Relaxed);
        assert!(is_up(&store.circuit.wait(TIMEOUT, is_up)));
        let answer = store.ask(&question());
        // Nobody is left to try it.
        answer == Some(vec![1]) && liar.connections.load(Ordering::Relaxed) == 2
    };
    // On a busy machine an answer may come too late.
    assert!((0..10).any(|_| is_used_again()));
}

/// The first question of a process may come before the store was tried.
#[test]
fn a_store_that_answers_is_asked_from_the_first_question_on() {
    let redis = RedisDir::new();
    let Some(_running) = redis.start(&[]) else { return };
    let store = store(&redis.url());
    assert_eq!(store.ask(&question()), Some(vec![1]));
    // On a busy machine, some find no free connection in time.
    let ask = || (0..50).filter(|_| store.ask(&question()) != Some(vec![1])).count() as u64;
    let unasked: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("answers")).sum()
    });
    assert_eq!(unasked, store.unasked());
    let clients = redis.ask(&["CLIENT", "LIST"]);
    assert!(clients.lines().count() <= 5, "{clients}");
}

/// Several hosts with a real Redis.
struct Hosts(Vec<(Arc<SharedStore>, Shared)>);

impl Hosts {
    fn new(redis: &RedisDir, count: usize) -> Self {
        let host = |_| {
            let store = Arc::new(store(&redis.url()));
            store.examine();
            (Arc::clone(&store), Shared::in_store(store))
        };
        Self((0..count).map(host).collect())
    }

    /// Whether the store has answered all the time. On a busy machine it may not answer in time.
    fn are_together(&self) -> bool {
        self.0.iter().all(|(store, _)| is_up(&store.standing().1))
    }
}

/// Repeats a test until the store has answered in time all the time.
fn together(count: usize, test: impl Fn(&RedisDir, &[Shared])) {
    for _ in 0..20 {
        let redis = RedisDir::new();
        let Some(_running) = redis.start(&[]) else { return };
        let hosts = Hosts::new(&redis, count);
        let shared: Vec<Shared> = hosts.0.iter().map(|(_, shared)| shared.clone()).collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&redis, &shared)));
        match result {
            Ok(()) => return,
            Err(panic) if hosts.are_together() => std::panic::resume_unwind(panic),
            Err(_) => {}
        }
    }
    panic!("the store was never there all the time");
}

#[test]
fn a_limit_of_300_is_300_for_all_hosts_together() {
    together(3, |redis, hosts| {
        let granted = AtomicUsize::new(0);
        thread::scope(|scope| {
            for host in hosts.iter().cycle().take(6) {
                scope.spawn(|| {
                    let count =
                        (0..100).filter(|_| host.count("account-message", "jon", 300).expect("an answer")).count();
                    granted.fetch_add(count, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(granted.load(Ordering::Relaxed), 300);
        assert_eq!(hosts[0].total("account-message", "jon"), Some(300));
        assert_eq!(hosts[0].total("account-message", "mary"), Some(0));
        let key = redis.ask(&["--raw", "KEYS", "penfold:1:account-message:*"]);
        let slot: u64 = redis.ask(&["--raw", "HKEYS", &key]).lines().next().expect("a slot").parse().expect("a number");
        assert!((3800..=3900).contains(&redis.ask(&["--raw", "TTL", &key]).parse::<i64>().expect("seconds")));
        // What was counted an hour ago no longer counts, nor does garbage.
        redis.ask(&["DEL", &key]);
        for (field, value) in [(slot - 13, "300"), (slot + 20, "300"), (slot - 1, "299"), (slot - 2, "x"), (0, "-7")] {
            redis.ask(&["HSET", &key, &field.to_string(), value]);
        }
        assert_eq!(hosts[1].count("account-message", "jon", 300), Some(true));
        assert_eq!(hosts[2].count("account-message", "jon", 300), Some(false));
    });
}

#[test]
fn the_greylist_lets_a_client_try_again_elsewhere() {
    const LIMITS: GreylistLimits =
        GreylistLimits { delay: Duration::from_secs(1), tried_within: 100, passed_for: 200, max_waiting: 3 };
    together(2, |redis, hosts| {
        let passed = |host: usize, network: &str, pair: &str| {
            let until = Instant::now() + TIMEOUT;
            while Instant::now() < until {
                match hosts[host].greylist(network, pair, LIMITS) {
                    Some(Greylisted::Passed) => return true,
                    Some(Greylisted::Waits(1)) => thread::sleep(Duration::from_millis(50)),
                    other => panic!("{other:?}"),
                }
            }
            false
        };
        assert_eq!(hosts[0].greylist("a", "pair", LIMITS), Some(Greylisted::Waits(1)));
        assert_eq!(hosts[1].greylist_peek("a", "other", LIMITS), Some(Greylisted::Waits(1)));
        assert!(passed(1, "a", "pair"));
        assert_eq!(hosts[0].greylist("a", "other", LIMITS), Some(Greylisted::Passed));
        assert_eq!(hosts[0].greylist_peek("a", "other", LIMITS), Some(Greylisted::Passed));
        hosts[0].greylist_passed("b", LIMITS);
        assert_eq!(hosts[1].greylist("b", "pair", LIMITS), Some(Greylisted::Passed));
        // A flood of pairs is not kept, and garbage does not pass.
        (0..10).for_each(|pair| _ = hosts[0].greylist("c", &pair.to_string(), LIMITS));
        for key in redis.ask(&["--raw", "KEYS", "penfold:1:greylist:*"]).lines() {
            assert!(redis.ask(&["--raw", "HLEN", key]).parse::<u32>().expect("a number") <= 3);
            let fields = redis.ask(&["--raw", "HKEYS", key]);
            for (field, value) in fields.lines().zip(["x", "1", "99999999999"]) {
                redis.ask(&["HSET", key, field, value]);
            }
        }
        for pair in 0..10 {
            assert_eq!(hosts[1].greylist("c", &pair.to_string(), LIMITS), Some(Greylisted::Waits(1)), "{pair}");
        }
        for key in redis.ask(&["--raw", "KEYS", "*"]).lines() {
            assert!(redis.ask(&["--raw", "TTL", key]).parse::<i64>().expect("seconds") > 0, "{key} expires");
        }
    });
}

/// A host that has learned from another one that a network has passed knows it without the store, too.
#[test]
fn a_host_remembers_what_the_shared_greylist_has_said() {
    use crate::screen::greylist::Greylist;
    use crate::state::State;
    let scratch = std::env::temp_dir().join(format!("penfold-shared-greylist-{}", std::process::id()));
    let client = "192.0.2.1".parse().expect("an address");
    let delay = Duration::from_secs(1);
    together(2, |_, hosts| {
        let _ = std::fs::remove_dir_all(&scratch);
        let [one, other] = [0, 1].map(|host| {
            let directory = scratch.join(host.to_string());
            std::fs::create_dir_all(&directory).expect("a directory");
            let alone = move || Greylist::kept(&State::at(&directory));
            (alone().together(&hosts[host]), alone)
        });
        assert_eq!(one.0.check(client, "a@b", "jon@x", delay), Some(1));
        let until = Instant::now() + TIMEOUT;
        while other.0.peek(client, "a@b", "jon@x", delay).is_some() && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(other.1().check(client, "c@d", "jon@x", delay), Some(1), "alone");
        assert_eq!(other.0.check(client, "a@b", "jon@x", delay), None);
        assert_eq!(other.1().check(client, "e@f", "jon@x", delay), None, "alone");
        assert_eq!(one.0.check(client, "e@f", "jon@x", delay), None);
        assert_eq!(one.1().check(client, "g@h", "jon@x", delay), None, "alone");
    });
    let _ = std::fs::remove_dir_all(&scratch);
}

/// A key that somebody else has written is removed or not believed, and the store stays in use.
#[test]
fn no_content_of_a_key_stops_the_counts() {
    const LIMITS: GreylistLimits =
        GreylistLimits { delay: Duration::from_secs(9), tried_within: 100, passed_for: 200, max_waiting: 3 };
    together(1, |redis, hosts| {
        let login = crate::shared::Login { client: "c", account: "a", max: (20, 20) };
        let ask_all = |why: &str| {
            assert!(hosts[0].total("kind", "jon").is_some_and(|count| count < 9), "{why}");
            assert_eq!(hosts[0].count("kind", "jon", 300), Some(true), "{why}");
            assert_eq!(hosts[0].greylist("n", "pair", LIMITS), Some(Greylisted::Waits(9)), "{why}");
            assert!(hosts[0].failures(login).is_some(), "{why}");
            let failures = hosts[0].failed(login).unwrap_or_else(|| panic!("{why}"));
            assert!((1..20).contains(&failures.client) && (1..20).contains(&failures.account), "{why}: {failures:?}");
        };
        let keys = || redis.ask(&["--raw", "KEYS", "*"]).lines().map(str::to_owned).collect::<Vec<_>>();
        ask_all("nothing");
        for key in keys() {
            redis.ask(&["SET", &key, "x"]);
        }
        // A mark of the greylist is a key of any type.
        ask_all("strings");
        for value in ["-5", "1.3", "007", "nan", "-inf", "0x10", "1e3", "9223372036854775807", ""] {
            for key in keys() {
                for field in redis.ask(&["--raw", "HKEYS", &key]).lines() {
                    redis.ask(&["HSET", &key, field, value]);
                }
            }
            ask_all(value);
        }
    });
}

#[test]
fn failed_logins_count_for_all_hosts() {
    use crate::sasl::throttle::{MAX_PER_ACCOUNT, MAX_PER_CLIENT, Throttle};
    let host = |number: u32| Some(std::net::IpAddr::from([192, 0, 2, u8::try_from(number % 250).expect("small")]));
    together(3, |_, hosts| {
        let throttles: Vec<Throttle> = hosts.iter().map(|_| Throttle::default()).collect();
        throttles.iter().zip(hosts).for_each(|(throttle, shared)| throttle.share(shared.clone()));
        throttles[2].succeeded(host(9), "Jon");
        let delays: Vec<u128> =
            (0..6).map(|at| throttles[at % 2].failed(host(1), &format!("user{at}")).as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000]);
        (6..MAX_PER_CLIENT - 1).for_each(|at| _ = throttles[at as usize % 2].failed(host(1), ""));
        assert!(throttles.iter().all(|throttle| !throttle.is_blocked(host(1), "")));
        throttles[0].failed(host(1), "");
        assert!(throttles.iter().all(|throttle| throttle.is_blocked(host(1), "") && !throttle.is_blocked(host(2), "")));
        (0..MAX_PER_ACCOUNT).for_each(|at| _ = throttles[at as usize % 2].failed(host(at + 10), "jon"));
        assert!(throttles.iter().all(|throttle| throttle.is_blocked(host(2), "jon")));
        assert!(throttles.iter().all(|throttle| !throttle.is_blocked(host(9), "JON")), "it has authenticated before");
        // A host that stands alone now goes on with its own counts.
        assert!(!Throttle::default().is_blocked(host(1), ""));
    });
}
