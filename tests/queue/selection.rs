//! The queue listed, counted and changed by selectors: sender, recipient, domain, age and state.
//!
//! One daemon has messages in all states. The same commands are run without a daemon, as root, as
//! the server's user and as a stranger.

use std::time::Duration;

use common::programs::{code_and_text, command, feed};
use common::remote::{Remote, Sink, Then};
use common::{Daemon, Site};

/// A site whose queue has a message in each state, with their ids in the order of the manual page:
/// running, ready, deferred, scheduled, held.
struct Scene {
    site: Site,
    daemon: Option<Daemon>,
    ids: [String; 5],
    _remotes: [Remote; 2],
}

fn ctl(site: &Site, arguments: &[&str]) -> (i32, String) {
    let mut command = command(site, "penfoldctl", arguments);
    code_and_text(&feed(command.env("TZ", "XST-3"), b""))
}

/// Submits a message as a local user who wants it kept. Returns its queue id.
fn submit_for_later(site: &Site, to: &str) -> String {
    let dialogue = format!(
        "EHLO x\r\nMAIL FROM:<later@razorback.test> HOLDFOR=86400\r\nRCPT TO:<{to}>\r\nDATA\r\n\r\nx\r\n.\r\nQUIT\r\n"
    );
    let output = feed(&mut command(site, "sendmail", &["-bs"]), dialogue.as_bytes());
    let replies = String::from_utf8(output.stdout).expect("ASCII");
    let (before, _) = replies.split_once(" Message accepted").unwrap_or_else(|| panic!("{replies}"));
    before.rsplit(' ').next().expect("an id").to_owned()
}

impl Scene {
    fn new() -> Self {
        let slow = Remote::with(Sink::default().when("MAIL", Then::Pause(Duration::from_secs(600)), 9));
        let deferring = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 <x@y> not now, in 17 minutes"));
        let mut site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
        site.set("queue", "workers_per_destination", "1");
        site.add("routes", &format!("slow.test {}", slow.host_port()));
        site.add("routes", &format!("later.test {}", deferring.host_port()));
        site.add("routes", &format!("sub.later.test {}", deferring.host_port()));
        site.add("aliases", "both: jon, elvis@later.test, ann@sub.later.test\n");
        let mut start = site.penfoldd(&["-d"]);
        let daemon = Daemon::spawn({
            start.env("TZ", "XST-3");
            start
        });
        let running = daemon.submit_from("", &["run@slow.test"]);
        slow.wait("MAIL", |seen| seen.commands.iter().any(|command| command.line.starts_with("MAIL")));
        let ready = daemon.submit_from("a@slow.test", &["wait@slow.test"]);
        let deferred = daemon.submit_from("Ann@X.test", &["both@razorback"]);
        daemon.wait_words(&[&deferred, " deferred to=<elvis@"]);
        daemon.wait_words(&[&deferred, " deferred to=<ann@"]);
        let scheduled = submit_for_later(&site, "kept@later.test");
        let held = daemon.submit_from("ann@x.test", &["held@later.test"]);
        daemon.wait_words(&[&held, " deferred to=<held@"]);
        assert_eq!(ctl(&site, &["hold", &held]).0, 0);
        Self {
            site,
            daemon: Some(daemon),
            ids: [running, ready, deferred, scheduled, held],
            _remotes: [slow, deferring],
        }
    }

    /// The numbers of the messages that `queue` lists with these options, by their place in `ids`.
    fn listed(&self, options: &[&str]) -> Vec<usize> {
        let (code, text) = ctl(&self.site, &[&["queue", "--json"], options].concat());
        assert_eq!(code, 0, "{text}");
        let ids = text.lines().filter_map(|line| line.strip_prefix("{\"id\":\"")?.get(..19));
        let place = |id: &str| self.ids.iter().position(|known| known == id).unwrap_or_else(|| panic!("{id}: {text}"));
        ids.map(place).collect()
    }
}

#[test]
fn messages_in_all_states_are_listed_and_counted() {
    let mut scene = Scene::new();
    for (options, listed) in [
        (&[][..], &[0, 1, 2, 3, 4][..]),
        (&["--state", "running"], &[0]),
        (&["--state", "ready"], &[1]),
        (&["--state", "deferred"], &[2]),
        (&["--state=scheduled"], &[3]),
        (&["--state", "held"], &[4]),
        (&["--from", "<>"], &[0]),
        (&["--from", "ann@x.test"], &[2, 4]),
        (&["--from", "ann@x.test", "--limit", "1"], &[2]),
        (&["--from", "@slow.test"], &[1]),
        (&["--to", "both"], &[2]),
        (&["--to", "elvis@later.test", "--state", "deferred"], &[2]),
        (&["--to", "jon@razorback"], &[]),
        (&["--domain", "later.test"], &[2, 3, 4]),
        (&["--domain", "@later.test", "--from=ann"], &[2, 4]),
        (&["--domain", "slow.test"], &[0, 1]),
        (&["--age", "1h"], &[]),
        (&["--age", "0s", "--domain", "sub.later.test"], &[2]),
    ] {
        assert_eq!(scene.listed(options), listed, "{options:?}");
    }
    let (_, text) = ctl(&scene.site, &["queue"]);
    for part in [
        "<run@slow.test>  being tried for ",
        ": waiting for the reply to MAIL for ",
        "<wait@slow.test>  not tried yet\n",
        "<elvis@later.test>  deferred, next 20",
        " XST, [127.0.0.1]:",
        "<kept@later.test>  not before 20",
        "  held: by ",
        "-- 5 messages, ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(ctl(&scene.site, &["queue", "--limit", "2"]).1.contains("-- 2 messages, "));
    for (by, rows) in [
        ("sender", &["2 <ann@x.test>", "1 <a@slow.test>", "1 <>", "1 <later@razorback.test>", "5 (all rows)"][..]),
        ("domain", &["3 later.test", "2 slow.test", "1 sub.later.test", "6 (all rows)"]),
        ("reason", &["2 not tried yet", "1 451 4.7.1 <...> not now, in # minutes", "1 held: by ", "5 (all rows)"]),
        ("age", &["5 <5m", "5 (all rows)"]),
    ] {
        let (code, text) = ctl(&scene.site, &["queue", "--by", by]);
        let (lines, rest): (Vec<&str>, _) = (text.lines().collect(), text.contains("-- 5 messages, "));
        assert!(code == 0 && rest && lines[0].ends_with(by), "{text}");
        for row in rows {
            let (count, name) = row.split_once(' ').expect("a count");
            let is_row =
                |line: &str| line.trim_start().starts_with(&format!("{count} ")) && line.contains(&format!("  {name}"));
            assert!(lines.iter().any(|line| is_row(line)), "{row}: {text}");
        }
    }
    let (_, json) = ctl(&scene.site, &["queue", "--by", "domain", "--json", "--limit", "1"]);
    assert!(
        json.starts_with("{\"domain\":\"later.test\",\"messages\":3,\"octets\":") && json.contains("\"under_5m\":3,"),
        "{json}"
    );
    assert!(json.contains("\n{\"domain\":\"(others)\",\"messages\":3,"), "{json}");

    // Without a daemon nothing runs, and the states follow from the spool.
    assert!(scene.daemon.take().expect("a daemon").terminate().success());
    assert_eq!(scene.listed(&["--state", "ready"]), [0, 1]);
    assert_eq!(scene.listed(&["--state", "running"]), [0; 0]);
    assert_eq!(scene.listed(&["--domain", "later.test", "--state", "deferred"]), [2]);
    assert!(ctl(&scene.site, &["queue", "--by", "domain"]).1.contains("  later.test\n"));
}
