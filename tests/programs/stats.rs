//! `penfoldctl stats` and `penfoldctl top`: what happened to mail, in numbers, from a live and a dead
//! daemon.

use std::fs;
use std::process::{Command, Stdio};

use common::programs::{code_and_text, command, login, sendmail, stranger};
use common::remote::{Remote, Sink, Then};
use common::{Daemon, Site};

/// A site whose routes send mail for accepts.test and defers.test to a host that defers the first
/// recipient, and a daemon that has seen mail of all kinds.
fn busy() -> (Site, Daemon, Remote) {
    let remote = Remote::with(Sink::default().when("RCPT", Then::Reply("452 4.2.2 mailbox full".to_owned()), 1));
    let mut site = Site::new();
    site.set("policy", "spf", "\"none\"");
    let port = remote.address.port();
    site.write("routes", &format!("accepts.test 127.0.0.1:{port}\ndefers.test 127.0.0.1:{port}\n"));
    let daemon = site.start();
    daemon.submit_from("greg@example.com", &["jon@razorback"]);
    daemon.submit_from("greg@example.com", &["jon@razorback", "root@razorback"]);
    assert_eq!(code_and_text(&sendmail(&site, &["jon"], b"hello\n")), (0, String::new()));
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<win@example.com>", "250");
    client.ask("RCPT TO:<nobody-here@razorback>", "550 5.1.1");
    daemon.submit_from("win@example.com", &["x@defers.test"]);
    daemon.wait_words(&[" deferred to=<x@defers.test>"]);
    daemon.submit_from("win@example.com", &["x@accepts.test"]);
    daemon.wait_words(&[" sent to=<x@accepts.test>"]);
    daemon.wait_mail(&site, "jon", 3);
    daemon.wait_mail(&site, "root", 1);
    daemon.wait_running(&site, 0);
    (site, daemon, remote)
}

/// The text that a command prints on standard output.
fn printed(site: &Site, arguments: &[&str]) -> String {
    let output = command(site, "penfoldctl", arguments).stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Asserts that JSON has these members among others, in the order in which they are written.
fn assert_has(json: &str, members: &[&str]) {
    for member in members {
        assert!(json.contains(member), "{member}\n{json}");
    }
}

#[test]
fn numbers_are_kept_and_shown_by_a_live_and_a_dead_daemon() {
    let (site, daemon, _remote) = busy();
    let login = login();
    let text = printed(&site, &["stats"]);
    for line in [
        "        5  messages, ",
        "        6  recipients\n",
        "        4  messages from clients without a login\n",
        "        1  from programs on this host\n",
        "        4  into Maildirs\n",
        "        1  to other hosts\n",
        "        1  defers.test  mailbox full\n",
        "        1  unknown-user\n",
        "        1  [127.0.0.1]\n",
        &format!("        1  {login}, 1 recipient\n"),
        "        2  <greg@example.com>\n",
        "        1  accepts.test\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let account = format!(r#""account":[{{"account":"{login}","count":1}}]"#);
    let members = [
        r#""accepted":[{"from":"network","count":4},{"from":"local","count":1}]"#,
        r#""deferred":[{"destination":"defers.test","reason":"mailbox_full","count":1}]"#,
        r#""sent_to":[{"destination":"accepts.test","count":1}]"#,
        r#""tls_out":[{"version":"none","count":1}]"#,
        r#""sender":[{"sender":"<greg@example.com>","count":2},{"sender":"<win@example.com>","count":2}"#,
        &account,
        r#""delays":[{"place":"local","count":4,"#,
    ];
    assert_has(&printed(&site, &["stats", "--json"]), &members);
    let report = printed(&site, &["stats", "--report", "--since", "1h"]);
    assert!(report.starts_with("N") && report.contains("\nMail from ") && report.contains("accepts.test"), "{report}");
    let metrics = printed(&site, &["stats", "--openmetrics"]);
    assert_has(
        &metrics,
        &[
            "penfold_up 1\n",
            "penfold_accepted_messages_total{from=\"network\"} 4\n",
            "penfold_queue_messages 1\n",
            "penfold_queue_destination_jobs{destination=",
            "penfold_delay_seconds_count{place=\"local\"} 4\n",
            "penfold_spool_free_bytes ",
        ],
    );
    assert!(
        metrics.ends_with("\n# EOF\n") && !metrics.contains("greg@") && !metrics.contains("127.0.0.1]\""),
        "{metrics}"
    );
    let text = printed(&site, &["stats", "--prometheus"]);
    assert!(text.contains("# TYPE penfold_accepted_messages_total counter\n") && !text.contains("# EOF"), "{text}");
    assert!(printed(&site, &["stats", "--since", "1s", "--until", "now", "--limit", "1"]).starts_with("Mail from "));
    let view = printed(&site, &["top"]);
    assert!(view.starts_with("penfoldd, up ") && view.contains("queue        1 message, "), "{view}");
    assert_eq!(printed(&site, &["top", "-n", "2", "-d", "1"]).matches("penfoldd, up ").count(), 2);
    // Other users see nothing, whether the daemon runs or not.
    let forbidden = |arguments: &[&str]| {
        let Some(mut other) = stranger(&command(&site, "penfoldctl", arguments)) else { return };
        let (code, text) = code_and_text(&other.output().expect("it runs"));
        assert!(code == 77 && text.starts_with("penfoldctl: only root and "), "{arguments:?}: {code} {text}");
    };
    for arguments in [&["stats"][..], &["stats", "--openmetrics"], &["top"]] {
        forbidden(arguments);
    }
    assert!(daemon.terminate().success());
    forbidden(&["stats"]);
    // A session under inetd adds to what the daemon has kept. Whatever else is in the file is skipped.
    let path = site.path("spool/state/stats");
    let mut kept = fs::read(&path).expect("a file");
    kept.extend_from_slice(b"\n\xff\0 garbage\n00000000 1 1 accepted|network=5\npartial");
    fs::write(&path, kept).expect("written");
    one_session(&site, "greg@example.com");
    let dead = printed(&site, &["stats", "--json"]);
    assert_has(
        &dead,
        &[r#""accepted":[{"from":"network","count":5},{"from":"local","count":1}]"#, members[1], members[2]],
    );
    assert_has(&dead, &[r#""sender":[{"sender":"<greg@example.com>","count":3}"#, r#""place":"local","count":5,"#]);
    assert!(printed(&site, &["stats", "--until", "2026-01-01"]).ends_with("Nothing was counted.\n"));
    let metrics = printed(&site, &["stats", "--openmetrics"]);
    assert_has(&metrics, &["penfold_up 0\n", "penfold_queue_messages 1\n", "penfold_held_messages 0\n"]);
    assert!(!metrics.contains("_total"), "{metrics}");
    assert_eq!(code_and_text(&command(&site, "penfoldctl", &["top"]).output().expect("it runs")).0, 75);
    // A daemon that starts again goes on with what is kept.
    let _daemon = site.start();
    assert_has(&printed(&site, &["stats", "--json"]), &[r#""accepted":[{"from":"network","count":5},"#]);
}

/// Runs a session of `penfoldd -i`, which accepts and delivers a message to jon.
fn one_session(site: &Site, sender: &str) {
    let text = format!("HELO x\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<jon@razorback>\r\nDATA\r\n\r\n.\r\nQUIT\r\n");
    site.write("session", &text);
    let mut script = Command::new("/usr/bin/python3");
    let program = site.penfoldd(&["-i"]);
    let code = "
import socket, subprocess, sys
ours, theirs = socket.socketpair()
text = open(sys.argv[1], 'rb').read()
child = subprocess.Popen(sys.argv[2:], stdin=theirs, stdout=theirs)
theirs.close()
file = ours.makefile('rwb')
for line in [b''] + text.splitlines(True):
    file.write(line)
    file.flush()
    if line not in (b'\\r\\n',):
        print(file.readline())
sys.exit(child.wait())";
    script.args(["-c", code]).arg(site.path("session")).arg(program.get_program()).args(program.get_args());
    let output = script.output().expect("Python");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn wrong_options_are_told() {
    let site = Site::new();
    site.configure();
    for (arguments, text) in [
        (&["stats", "--since", "soon"][..], "--since 'soon': expected a time such as 12h"),
        (&["stats", "--since", "1h", "--until", "2h"], "--since is not before --until"),
        (&["stats", "--limit", "0"], "--limit '0': expected a number from 1 to 1000"),
        (&["stats", "--json", "--report"], "--report and --json exclude each other"),
        (&["stats", "--openmetrics", "--since", "1h"], "--openmetrics has the numbers since the start"),
        (&["stats", "x"], "'x' is one argument too many"),
        (&["top", "-d", "0"], "--delay '0': expected a number from 1 to 3600"),
    ] {
        let (code, printed) = code_and_text(&command(&site, "penfoldctl", arguments).output().expect("it runs"));
        assert!(code == 64 && printed.starts_with(&format!("penfoldctl: {text}")), "{arguments:?}: {code} {printed}");
    }
}
