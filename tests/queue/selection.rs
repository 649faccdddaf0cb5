//! The queue listed, counted and changed by selectors: sender, recipient, domain, age and state.
//!
//! One daemon has messages in all states. The same commands are run without a daemon, as root, as
//! the server's user and as a stranger.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::programs::{code_and_text, command, feed, stranger};
use common::remote::{Conduct, Remote, Sink, Then};
use common::{Daemon, Site};
use nix::pty::openpty;

/// A site whose queue has a message in each state, with their ids in the order of the manual page:
/// running, ready, deferred, scheduled, held.
struct Scene {
    site: Site,
    daemon: Option<Daemon>,
    ids: [String; 5],
    /// The hosts of `slow.test` and `later.test`.
    remotes: [Remote; 2],
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
            remotes: [slow, deferring],
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
        (
            "reason",
            &[
                "1 not tried yet",
                "1 being tried for the first time",
                "1 451 4.7.1 <...> not now, in # minutes",
                "1 held: by ",
                "5 (all rows)",
            ],
        ),
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

#[test]
fn messages_are_changed_by_selectors_and_others_are_not() {
    let scene = Scene::new();
    let (site, daemon) = (&scene.site, scene.daemon.as_ref().expect("a daemon"));
    let [_, ready, deferred, scheduled, held] = &scene.ids;
    let done =
        |arguments: &[&str], text: &str| assert_eq!(ctl(site, arguments), (0, format!("{text}\n")), "{arguments:?}");
    // Several messages are changed only if that is confirmed. Without a terminal nobody is asked.
    for (arguments, code, text) in [
        (&["hold", "--from", "ann@x.test"][..], 64, " octets match: use -y to hold all of them"),
        (&["hold"], 64, "hold needs a queue id or a selector"),
        (&["hold", "--all", held], 64, "cannot be combined"),
        (&["remove", "--state", "sent"], 64, "expected running, ready, deferred, scheduled or held"),
        (&["remove", "--from", "nobody@x.test"], 69, "no message matches"),
        (&["bounce", "--reason", " ", held], 64, "--reason: expected a text"),
        (&["requeue", held], 69, "it is held: release it first"),
        (&["queue", "--by", "colour"], 64, "expected sender, domain, reason or age"),
    ] {
        let (ended, printed) = ctl(site, arguments);
        assert!(ended == code && printed.contains(text), "{arguments:?}: {ended} {printed}");
    }
    done(&["hold", "-y", "--from", "ann@x.test"], "2 messages held");
    assert_eq!(scene.listed(&["--state", "held"]), [2, 4]);
    done(&["release", "--to", "elvis@later.test"], "1 message released");
    daemon.wait_words(&[&format!("{deferred} released user=")]);
    assert_eq!(scene.listed(&["--state", "held"]), [4]);
    done(&["release", "--state", "scheduled", "--all"], "1 message released");
    daemon.wait_words(&[&format!("{scheduled} deferred to=<kept@later.test>")]);
    daemon.wait_running(site, 1);
    // A flush of several messages that are deferred.
    scene.remotes[1].behave(Conduct::Sink(Sink::default()));
    done(&["flush", "--yes", "--state", "deferred", "--domain", "@later.test"], "2 messages being tried");
    daemon.wait_words(&[&format!("{scheduled} sent to=<kept@later.test>")]);
    daemon.wait_words(&[&format!("{deferred} sent to=<ann@sub.later.test>")]);
    daemon.wait_words(&[&format!("{deferred} sent to=<elvis@later.test>")]);
    daemon.wait_words(&[&format!("{deferred} flushed user=")]);
    daemon.wait_running(site, 1);
    assert!(ctl(site, &["flush", "later.test"]).1.contains("nothing waits for later.test"));
    daemon.wait_words(&["- flushed node=later.test jobs=0 user="]);
    done(&["remove", "--state", "held"], "1 message removed");
    done(&["remove", ready, "--yes", &ready.to_lowercase()], "1 message removed");
    assert_eq!(scene.listed(&[]), [0]);

    for arguments in [&["hold", "--all"][..], &["bounce", held], &["requeue", held], &["flush", "--from", "<>"]] {
        let Some(mut stranger) = stranger(&command(site, "penfoldctl", arguments)) else { return };
        let (code, text) = code_and_text(&feed(&mut stranger, b""));
        assert!(code == 77 && text.contains("only root and nobody may "), "{arguments:?}: {code} {text}");
    }
}

/// Runs a command whose terminal gives this answer to its question. Returns its exit code, and what the
/// terminal and standard output have shown.
fn answered(site: &Site, arguments: &[&str], answer: &[u8]) -> (Option<i32>, String) {
    let terminal = openpty(None, None).expect("a terminal");
    let mut command = command(site, "penfoldctl", arguments);
    let copy = || Stdio::from(terminal.slave.as_fd().try_clone_to_owned().expect("a descriptor"));
    let child = command.stdin(copy()).stderr(copy()).stdout(Stdio::piped()).spawn().expect("it runs");
    drop(command);
    let mut master = fs::File::from(terminal.master);
    let (mut shown, mut octet) = (String::new(), [0]);
    while !shown.ends_with("[y/N] ") {
        master.read_exact(&mut octet).expect("a question");
        shown.push(octet[0].into());
    }
    master.write_all(answer).expect("it reads");
    let ended = child.wait_with_output().expect("it ends");
    drop(terminal.slave);
    // A terminal without a program at the other end gives an error after the last octet.
    let mut rest = Vec::new();
    let _ = master.read_to_end(&mut rest);
    shown += &String::from_utf8_lossy(&rest);
    (ended.status.code(), shown + &String::from_utf8_lossy(&ended.stdout))
}

#[test]
fn several_messages_are_changed_only_after_a_yes_on_the_terminal() {
    let scene = Scene::new();
    let question = |answer: &[u8]| answered(&scene.site, &["hold", "--from", "ann@x.test"], answer);
    for answer in [&b"\n"[..], b"n\n", b"yess\n", b"\x04"] {
        let (code, shown) = question(answer);
        assert!(code == Some(69) && shown.contains("penfoldctl: nothing was changed"), "{code:?} {shown}");
        let front = shown.split_once(" octets match. Do you want to hold all of them? [y/N] ").map(|(front, _)| front);
        assert!(front.is_some_and(|front| front.starts_with("2 messages with ")), "{shown}");
        assert_eq!(scene.listed(&["--state", "held"]), [4], "{answer:?}");
    }
    let (code, shown) = question(b"Y\n");
    assert!(code == Some(0) && shown.ends_with("2 messages held\n"), "{code:?} {shown}");
    assert_eq!(scene.listed(&["--state", "held"]), [2, 4]);
}

/// The server's user may do what root may.
#[test]
fn the_user_of_the_server_sees_and_changes_all_messages() {
    let scene = Scene::new();
    let [_, ready, deferred, scheduled, held] = &scene.ids;
    let Some(other) = stranger(&command(&scene.site, "penfoldctl", &[])) else { return };
    let as_server = |arguments: &[&str]| {
        let mut command = Command::new(other.get_program());
        // The tests' daemon runs as nobody.
        let given = other.get_args().map(|word| if word == "54321" { "65534".as_ref() } else { word });
        command.args(given).args(arguments);
        command.envs(other.get_envs().filter_map(|(name, value)| Some((name, value?))));
        code_and_text(&feed(&mut command, b""))
    };
    for (arguments, part) in [
        (&["queue"][..], "-- 5 messages, "),
        (&["queue", "--by", "sender"], "5  "),
        (&["show", deferred], "Goes to:      host:127.0.0.1:"),
        (&["show", "-H", held], "Received: "),
        (&["trace", deferred], "accepted from <Ann@x.test>"),
        (&["explain", "jon@razorback"], "250 "),
        (&["hosts"], "host:127.0.0.1:"),
        (&["stats"], ""),
        (&["status"], "penfoldd "),
        (&["config"], "hostname"),
        (&["hold", ready], "1 message held"),
        (&["release", ready], "1 message released"),
        (&["flush", deferred], ""),
        (&["requeue", deferred], "1 message requeued"),
        (&["bounce", held], "1 message returned"),
        (&["remove", scheduled], "1 message removed"),
    ] {
        let (code, text) = as_server(arguments);
        assert!(code == 0 && text.contains(part), "{arguments:?}: {code} {text}");
    }
    scene.daemon.as_ref().expect("a daemon").wait_words(&[&format!("{scheduled} removed "), " user=nobody"]);
}

#[test]
fn a_returned_message_is_reported_to_its_sender_with_the_reason() {
    let deferring = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
    let site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
    site.add("routes", &format!("later.test {}", deferring.host_port()));
    site.add("aliases", "both: jon, elvis@later.test, ann@later.test\n");
    let daemon = site.start();
    let waiting = daemon.submit_from("root@razorback.test", &["both@razorback"]);
    let held = daemon.submit_from("root@razorback.test", &["other@later.test"]);
    daemon.wait_words(&[&waiting, " deferred to=<ann@"]);
    daemon.wait_words(&[&held, " deferred to=<other@"]);
    assert_eq!(ctl(&site, &["hold", &held]).0, 0);
    let reason = "the company has moved\r\nto elsewhere";
    assert_eq!(ctl(&site, &["bounce", "--reason", reason, &waiting, &held]), (0, "2 messages returned\n".to_owned()));
    for (id, to) in [(&waiting, "elvis"), (&waiting, "ann"), (&held, "other")] {
        let words = [&format!("{id} failed to=<{to}@later.test>"), " reason=\"the company has moved  to elsewhere\""];
        daemon.wait_words(&words);
    }
    daemon.wait_words(&[&format!("{waiting} returned reason=\"the company has moved  to elsewhere\" user=")]);
    let reports = daemon.wait_mail(&site, "root", 2);
    assert!(daemon.settles(&site), "{}", daemon.log());
    let reports: String = reports.iter().map(|report| String::from_utf8_lossy(report).into_owned()).collect();
    for part in ["elvis@later.test", "ann@later.test", "other@later.test", "the company has moved to elsewhere"] {
        assert!(reports.contains(part), "{part}: {reports}");
    }
    assert!(!reports.contains("Final-Recipient: rfc822; jon@"), "{reports}");
    assert_eq!((site.mail("jon").len(), fs::read_dir(site.path("spool/note")).expect("a spool").count()), (1, 0));
}

#[test]
fn the_recipients_of_a_requeued_message_are_looked_up_anew() {
    let deferring = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
    let new_host = Remote::sink();
    let site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
    site.add("routes", &format!("later.test {}", deferring.host_port()));
    site.add("routes", &format!("new.test {}", new_host.host_port()));
    site.add("aliases", "both: jon, elvis@later.test\ngone: x@later.test\n");
    site.add("users", "ann::");
    let daemon = site.start();
    let to = ["both@razorback", "gone@razorback", "stays@later.test", "Ann@razorback.test"];
    let id = daemon.submit_from("root@razorback.test", &to);
    for to in ["elvis", "x", "stays"] {
        daemon.wait_words(&[&id, &format!(" deferred to=<{to}@later.test>")]);
    }
    // More recipients than before, so that the entry gets another name; jon and ann have the message already.
    site.write("aliases", "both: jon, ann, root, a@new.test, b@new.test, elvis@later.test\n");
    daemon.flush_until(&site, || ctl(&site, &["requeue", &id]) == (0, "1 message requeued\n".to_owned()));
    daemon.wait_words(&[&format!("{id} requeued to=6 user=")]);
    assert_eq!(new_host.messages(1)[0].recipients, ["<a@new.test>", "<b@new.test>"]);
    daemon.wait_words(&[&format!("{id} sent to=<root@razorback> orig=<both@razorback>")]);
    daemon.wait_words(&[&format!("{id} failed to=<gone@razorback>")]);
    daemon.wait_words(&[&format!("{id} bounced report=")]);
    // The message and the report.
    daemon.wait_mail(&site, "root", 2);
    let (_, listed) = ctl(&site, &["queue"]);
    assert!(
        listed.contains("<elvis@later.test>  deferred") && listed.contains("<stays@later.test>  deferred"),
        "{listed}"
    );
    assert!(!listed.contains("x@later.test") && listed.contains("-- 1 message, "), "{listed}");
    let (_, shown) = ctl(&site, &["show", &id]);
    assert!(shown.contains("replaced by other recipients"), "{shown}");
    // Without a change of the tables, the entry keeps its name, and nobody gets the message again.
    let before = site.spooled();
    daemon.flush_until(&site, || ctl(&site, &["requeue", &id]).0 == 0);
    daemon.wait_words(&[&format!("{id} requeued to=2 user=")]);
    assert_eq!(site.spooled(), before);
    site.write("aliases", "both: jon, root, b@new.test, c@new.test\n");
    daemon.flush_until(&site, || ctl(&site, &["requeue", &id]).0 == 0);
    assert_eq!(new_host.messages(2)[1].recipients, ["<c@new.test>"]);
    assert_eq!(["jon", "ann", "root"].map(|user| site.mail(user).len()), [1, 1, 2]);
    // It survives a restart.
    assert!(daemon.terminate().success());
    deferring.behave(Conduct::Sink(Sink::default()));
    let daemon = site.start();
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(deferring.messages(1)[0].recipients, ["<stays@later.test>"]);
}

/// A mailbox of a mail store is known by its user, whatever the detail and the case of the address.
#[test]
fn a_user_of_a_store_does_not_get_a_requeued_message_again() {
    let store = Remote::with(Sink::store().reply("RCPT TO:<ann", "451 4.7.1 not now"));
    let mut site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
    site.set("local", "mailbox", &format!("\"lmtp://{}\"", store.address));
    site.add("users", "ann::\neve::");
    site.write("aliases", "team: jon, ann\n");
    let daemon = site.start();
    let id = daemon.submit_from("", &["team@razorback", "jon+first@razorback"]);
    daemon.wait_words(&[&id, " sent to=<jon@razorback>"]);
    daemon.wait_words(&[&id, " sent to=<jon+first@razorback>"]);
    daemon.wait_words(&[&id, " deferred to=<ann@razorback>"]);
    let before = store.messages(1).len();
    // Two ways lead to jon, who has the message, and two lead to ann, who waits for it.
    site.write("aliases", "team: Jon+news, others, ann\nothers: JON, ann, eve\n");
    daemon.flush_until(&site, || ctl(&site, &["requeue", &id]) == (0, "1 message requeued\n".to_owned()));
    daemon.wait_words(&[&id, " sent to=<eve@razorback>"]);
    store.behave(Conduct::Sink(Sink::store()));
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    let all = store.messages(before + 1);
    let mut later: Vec<&String> = all[before..].iter().flat_map(|message| &message.recipients).collect();
    later.sort();
    assert_eq!(later, ["<ann@razorback>", "<eve@razorback>"]);
}

#[test]
fn messages_that_were_moved_by_hand_are_held_and_released_without_a_restart() {
    let deferring = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
    let site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
    site.add("routes", &format!("later.test {}", deferring.host_port()));
    let daemon = site.start();
    let id = daemon.submit(&["x@later.test"]);
    daemon.wait_until("it is in cur/", || site.spooled().iter().any(|path| path.starts_with(site.path("spool/cur"))));
    let file = site.spooled()[0].file_name().expect("a name").to_owned();
    let mv = |from: &str, to: &str| {
        fs::rename(site.path("spool").join(from).join(&file), site.path("spool").join(to).join(&file))
            .expect("a rename");
    };
    // The queue still knows it as a message in cur/.
    mv("cur", "hold");
    assert!(ctl(&site, &["queue"]).1.contains("  held\n"));
    assert_eq!(ctl(&site, &["hold", &id]), (0, "1 message held\n".to_owned()));
    assert_eq!(ctl(&site, &["release", &id]), (0, "1 message released\n".to_owned()));
    daemon.wait_until("it is in cur/", || site.path("spool/cur").join(&file).exists());
    mv("cur", "hold");
    assert_eq!(ctl(&site, &["release", &id]), (0, "1 message released\n".to_owned()));
    // The queue does not know a message that it has held.
    assert_eq!(ctl(&site, &["hold", &id]), (0, "1 message held\n".to_owned()));
    mv("hold", "cur");
    deferring.behave(Conduct::Sink(Sink::default()));
    assert_eq!(ctl(&site, &["release", &id]), (0, "1 message released\n".to_owned()));
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(deferring.messages(1)[0].recipients, ["<x@later.test>"]);
}
