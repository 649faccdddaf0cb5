//! The programs that use the control socket: the exit codes and messages of sendmail, mailq,
//! newaliases and penfoldctl. The daemon is busy, absent or misbehaves, or the input of a program
//! cannot be read. Each row is a sentence of the programs' manual pages.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;

use common::clock::Clock;
use common::homes::{FIRST, passwd};
use common::mounts::Mounts;
use common::programs::{code_and_text, command, feed, program, sendmail, stranger};
use common::{Daemon, Site, TIMEOUT, unpacked};
use nix::unistd::geteuid;

/// A stand-in for the daemon. The first client gets the first answer, the second client the second,
/// and so on; all further clients get the last answer. The stand-in runs until the process of the
/// tests ends.
fn stand_in(site: &Site, says: &'static [&'static str]) {
    site.configure();
    let listener = UnixListener::bind(site.path("penfold.sock")).expect("a socket");
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut stream = stream;
            let mut request = String::new();
            let _ = BufReader::new(&stream).read_line(&mut request);
            let _ = stream.write_all(says[number.min(says.len() - 1)].as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // The rest of the request is read, so that the program is not interrupted while it
            // writes.
            let _ = stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.read_to_end(&mut Vec::new()));
        }
    });
}

#[test]
fn programs_report_the_answer_of_the_daemon() {
    const BUSY: &str = "too many connections\n";
    const GONE: &str = "";
    const THREAD: &str = "the system has no thread for another client\n";
    let down = "ok\n421 4.3.0 razorback.test Going down\r\n";
    for (name, arguments, says, code, words) in [
        ("sendmail", &["jon"][..], GONE, 75, "sendmail: the mail system does not answer: * message not sent"),
        (
            "sendmail",
            &["jon"],
            THREAD,
            75,
            "sendmail: the mail system does not answer: the system has no thread*: message not sent",
        ),
        ("sendmail", &["jon"], "what?\n", 75, "sendmail: the mail system does not answer: what?: message not sent"),
        ("sendmail", &["jon"], "ok\n", 75, "sendmail: the mail system does not answer: * message not sent"),
        ("sendmail", &["jon"], "ok\nnonsense\r\n", 75, "sendmail: the mail system does not answer: * message not sent"),
        ("sendmail", &["jon"], down, 75, "sendmail: 421 4.3.0 razorback.test Going down: message not sent"),
        (
            "sendmail",
            &["-bs"],
            THREAD,
            75,
            "421 4.3.0 The mail system is not running*sendmail: the mail system does not answer: *",
        ),
        ("sendmail", &["-bv", "jon"], BUSY, 75, "sendmail: the mail system does not answer: too many connections"),
        ("sendmail", &["-bv", "jon"], GONE, 75, "sendmail: the mail system does not answer: *"),
        ("sendmail", &["-q"], BUSY, 75, "sendmail: ask the daemon: too many connections"),
        ("mailq", &[], BUSY, 75, "mailq: list the queue in *: too many connections"),
        ("mailq", &[], THREAD, 75, "mailq: list the queue in *: the system has no thread for another client"),
        ("penfoldctl", &["queue"], BUSY, 75, "penfoldctl: list the queue in *: too many connections"),
        ("penfoldctl", &["queue"], GONE, 74, "penfoldctl: list the queue in *: *"),
        ("penfoldctl", &["queue"], "permission denied\n", 77, "penfoldctl: only root and * may list the queue"),
        ("penfoldctl", &["queue"], "ok\n-- the list ends here: x\n", 0, "-- the list ends here: x"),
        ("penfoldctl", &["queue"], "ok\n\x1b[2J\tj\u{f6}n\u{9b}2J\r\x7f\n", 0, "?[2J\tj\u{f6}n?2J??"),
        ("penfoldctl", &["queue"], "no\x1b[2J\n", 75, "penfoldctl: list the queue in *: no?[2J"),
        (
            "penfoldctl",
            &["flush"],
            THREAD,
            75,
            "penfoldctl: ask the daemon: the system has no thread for another client",
        ),
        ("penfoldctl", &["flush"], GONE, 74, "penfoldctl: ask the daemon: *"),
        ("penfoldctl", &["flush"], "permission denied\n", 77, "penfoldctl: only root and * may run the queue"),
        ("penfoldctl", &["flush", "x"], "ok\n0\n", 69, "penfoldctl: nothing waits for x"),
        ("penfoldctl", &["flush", "x"], "ok\n2\n", 0, ""),
    ] {
        let site = Site::new();
        stand_in(&site, Box::leak(Box::new([says])));
        let (ended, printed) = code_and_text(&feed(&mut command(&site, name, arguments), b"hello\n"));
        let printed = printed.trim_end().replace("\r\n", "");
        assert!(
            ended == code && common::dialog::matches(words, &printed),
            "{name} {arguments:?} {says:?}: {ended} {printed}"
        );
    }
}

#[test]
fn sendmail_retries_for_a_minute_without_a_connection() {
    let site = Site::new();
    let whole = "ok\n220 x\r\n250 x\r\n250 x\r\n250 x\r\n354 x\r\n250 x\r\n221 x\r\n";
    stand_in(&site, Box::leak(Box::new(["too many connections\n", "too many connections\n", whole])));
    assert_eq!(code_and_text(&sendmail(&site, &["jon"], b"hello\n")), (0, String::new()));
    let site = Site::new();
    stand_in(&site, &["too many connections\n"]);
    let Some(clock) = Clock::new(&site) else { return };
    let (mut slow, begun) = (command(&site, "sendmail", &["jon"]), std::time::Instant::now());
    clock.hurry(&mut slow, 50);
    let (code, printed) = code_and_text(&feed(&mut slow, b"hello\n"));
    assert_eq!((code, printed.as_str()), (75, "sendmail: too many connections: message not sent\n"));
    let took = begun.elapsed().as_millis() * 50;
    assert!((60_000..200_000).contains(&took), "{took}");
}

/// A Python script that takes this many connections of each of several users, prints how many it
/// got, and keeps them until its input ends.
const HOLD: &str = "
import os, socket, sys
path, count, users = sys.argv[1], int(sys.argv[2]), [int(uid) for uid in sys.argv[3:]]
held = []
for uid in users:
    os.seteuid(uid)
    for _ in range(count):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(path)
        # One who is not let in hears why, and may find nobody who listens.
        try:
            s.sendall(b'submit hold\\n')
        except BrokenPipeError:
            pass
        heard = s.recv(100)
        held.append((s, heard))
    os.seteuid(0)
print(sum(heard.startswith(b'ok') for _, heard in held), flush=True)
sys.stdin.read()
";

#[test]
fn connections_are_limited_by_user_and_in_total() {
    if !geteuid().is_root() {
        return common::skipped("only root can run a command as another user");
    }
    if Command::new("python3").arg("-V").output().is_err() {
        return common::skipped("python3 is not installed");
    }
    let user = |n: u32| (54_400 + n).to_string();
    let others: Vec<String> = (0..10).map(user).collect();
    for (users, count, have, full, free) in [
        (vec![user(0)], 41, 40, user(0), user(1)),
        (vec!["0".to_owned()], 201, 200, "0".to_owned(), user(1)),
        (others, 40, 400, user(11), "0".to_owned()),
    ] {
        let site = Site::new();
        let _daemon = site.start();
        let mut holder = Command::new("python3");
        holder.args(["-c", HOLD]).arg(site.path("penfold.sock")).arg(count.to_string()).args(&users);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut held = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut held).expect("a line");
        assert_eq!(held.trim(), have.to_string(), "{users:?}");
        for (uid, is_let_in) in [(full, false), (free, true)] {
            let inside = command(&site, "sendmail", &["-bv", "jon"]);
            let mut asks = Command::new("setpriv");
            asks.args(["--reuid", &uid, "--clear-groups"]).arg(inside.get_program()).args(inside.get_args());
            let (code, printed) = code_and_text(&feed(asks.env("PENFOLD_CONFIG", site.path("penfold.conf")), b""));
            assert_eq!(code == 0, is_let_in, "{uid} beside {users:?}: {printed}");
            assert_eq!(printed.contains("too many connections"), !is_let_in, "{uid} beside {users:?}: {printed}");
        }
        drop(holder.stdin.take());
        assert!(holder.wait().expect("a child").success());
    }
}

#[test]
fn a_rejection_exits_with_a_code_of_sysexits() {
    let site = Site::with("limits.recipients = 100");
    let codes = ["5.1.2", "5.1.1", "5.1.3", "5.7.1", "5.3.2"].map(|code| format!("c{code}.test error:{code} no\n"));
    site.write("routes", &codes.concat());
    let daemon = site.start();
    for (to, code) in [
        ("x@c5.1.2.test", 68),
        ("x@[224.0.0.1]", 68),
        ("x@c5.1.1.test", 67),
        ("x@c5.1.3.test", 65),
        ("x@c5.7.1.test", 77),
        ("x@c5.3.2.test", 69),
    ] {
        let (ended, printed) = code_and_text(&sendmail(&site, &["jon", to], b"hello\n"));
        assert!(
            ended == code && printed.starts_with("sendmail: 550 5.") && printed.ends_with(": message not sent\n"),
            "{printed}"
        );
    }
    // A message may have at most 40000 recipients. This message has more, so no recipient gets it.
    site.write("users", &(0..40_001).map(|n| format!("u{n}::\n")).collect::<String>());
    let all =
        |count: u32| format!("To: {}\n\nhello\n", (0..count).map(|n| format!("u{n}")).collect::<Vec<_>>().join(",\n "));
    let (code, printed) = code_and_text(&sendmail(&site, &["-t"], all(40_001).as_bytes()));
    assert!(code == 75 && printed.starts_with("sendmail: 452 4.5.3 "), "{code} {printed}");
    assert!(site.spooled().is_empty() && !daemon.log().contains(" accept "), "{}", daemon.log());
}

#[test]
fn a_message_that_cannot_be_read_or_stored_is_not_sent() {
    let site = Site::new();
    let daemon = site.start();
    let mut from_directory = command(&site, "sendmail", &["jon"]);
    from_directory.stdin(File::open("/").expect("a directory"));
    let output = from_directory.output().expect("it runs");
    assert_eq!(code_and_text(&output), (74, "sendmail: Is a directory (os error 21): message not sent\n".to_owned()));
    let (code, printed) = code_and_text(&sendmail(&site, &["-f", "a@x.org, b@x.org", "jon"], b"hello\n"));
    assert_eq!((code, printed.as_str()), (64, "sendmail: option -f needs one address\n"));
    let Some(mounts) = Mounts::new("mount -t tmpfs -o size=2m tmpfs /mnt") else { return };
    let mut outside = command(&site, "sendmail", &["jon"]);
    outside.env("TMPDIR", "/mnt");
    let mut full = mounts.inside(&outside);
    let output = feed(&mut full, "hello\n".repeat(700_000).as_bytes());
    assert_eq!(
        code_and_text(&output),
        (74, "sendmail: No space left on device (os error 28): message not sent\n".to_owned())
    );
    assert!(site.mail("jon").is_empty() && !daemon.log().contains(" accept "), "{}", daemon.log());
    // A message that fits on the disk leaves no file behind.
    assert_eq!(code_and_text(&feed(&mut full, "hello\n".repeat(200_000).as_bytes())), (0, String::new()));
    daemon.wait_mail(&site, "jon", 1);
    assert_eq!(fs::read_dir(mounts.path("/mnt".as_ref())).expect("a directory").count(), 0);
}

#[test]
fn the_configuration_is_the_one_that_is_named() {
    let site = Site::new();
    site.write("aliases", "one: jon\n");
    let _daemon = site.start();
    let path = site.path("penfold.conf").display().to_string();
    for (name, arguments, says) in [
        ("sendmail", &["-C", &path, "-bv", "one"][..], "one@razorback -> jon@razorback: mailbox "),
        ("mailq", &["-C", &path], "-- queue is empty\n"),
        ("newaliases", &["-C", &path], "/"),
        ("penfoldctl", &["-f", &path, "queue"], "-- queue is empty\n"),
    ] {
        let mut program = command(&site, name, arguments);
        let (code, printed) = code_and_text(&feed(program.env("PENFOLD_CONFIG", "/nonexistent/penfold.conf"), b""));
        assert!(code == 0 && printed.starts_with(says), "{name}: {code} {printed}");
    }
    // If the configuration names an aliases file, the file must exist; a file at the default path
    // need not.
    fs::remove_file(site.path("aliases")).expect("a table");
    let (code, printed) = code_and_text(&feed(&mut command(&site, "newaliases", &[]), b""));
    assert!(
        code == 78 && printed.starts_with(&path) && printed.contains(": local.aliases: expected a file; "),
        "{printed}"
    );
    assert_eq!(printed.lines().count(), 1, "{printed}");
    let mut nowhere = command(&site, "newaliases", &["-C", "/nonexistent/x"]);
    assert_eq!(code_and_text(&feed(&mut nowhere, b"")).0, 78);
    // newaliases is not concerned with errors in other files.
    site.write("aliases", "one: jon\n");
    site.add("penfold.conf", "nonsense = 1");
    let (code, printed) = code_and_text(&feed(&mut command(&site, "newaliases", &[]), b""));
    assert!(code == 0 && printed.ends_with("/aliases: 1 alias\n"), "{printed}");
}

#[test]
fn waiting_mail_is_tried_by_id_or_domain() {
    let site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
    site.write("routes", "far.test error:4.2.1 later\n");
    let daemon = site.start();
    let id = daemon.submit(&["x@far.test"]);
    let attempts = || daemon.log().matches(" deferred to=<x@far.test>").count();
    daemon.wait_until("an attempt", || attempts() == 1);
    for (number, option) in
        [format!("-qI{id}"), "-qRfar.test".to_owned(), "-q".to_owned(), "-q5m".to_owned()].iter().enumerate()
    {
        // The command is repeated, because a flush has no effect on an attempt that is just ending.
        daemon.wait_until(option, || {
            assert_eq!(code_and_text(&sendmail(&site, &[option], b"")), (0, String::new()), "{option}");
            attempts() > number + 1
        });
    }
    let (code, printed) = code_and_text(&sendmail(&site, &["-qI00000000000000000AA"], b""));
    assert_eq!((code, printed.as_str()), (69, "sendmail: nothing waits for 00000000000000000AA\n"));
}

#[test]
fn a_user_sends_as_anyone_and_sees_what_he_sent_unless_clients_are_hidden() {
    for hidden in [false, true] {
        let site = Site::with(&format!("submission.hide_client = {hidden}"));
        site.write("routes", "far.test error:4.2.1 later\n");
        let daemon = site.start();
        let as_mary = command(&site, "sendmail", &["-f", "mary@elsewhere.test", "x@far.test"]);
        let Some(mut as_mary) = stranger(&as_mary) else { return };
        assert_eq!(code_and_text(&feed(&mut as_mary, b"From: mary@elsewhere.test\n\nhello\n")), (0, String::new()));
        daemon.wait_words(&[" accept from=<mary@elsewhere.test>", " uid=54321 "]);
        let mut mailq = stranger(&command(&site, "mailq", &[])).expect("root");
        let (code, printed) = code_and_text(&feed(&mut mailq, b""));
        assert_eq!((code, printed.contains("<x@far.test>")), (0, !hidden), "{printed}");
        let (_, all) = code_and_text(&feed(&mut command(&site, "mailq", &[]), b""));
        assert!(all.contains("<x@far.test>"), "{all}");
    }
}

#[test]
fn sendmail_cannot_start_a_missing_penfoldd() {
    let site = Site::new();
    site.configure();
    // penfoldd is missing both in the program's directory and in the path.
    let mut start = command(&site, "sendmail", &["-bd"]);
    let (code, printed) = code_and_text(&feed(start.env("PATH", "/nonexistent"), b""));
    assert!(code == 69 && printed.starts_with("sendmail: start penfoldd: "), "{code} {printed}");
    assert!(UnixStream::connect(site.path("penfold.sock")).is_err());
}

#[test]
fn a_client_that_stops_reading_leaves_no_line_in_the_log() {
    let site = Site::new();
    let mut command = site.penfoldd(&["-d"]);
    command.env("PENFOLD_LOG", "debug");
    let daemon = Daemon::spawn(command);
    for _ in 0..20 {
        let mut client = UnixStream::connect(site.path("penfold.sock")).expect("a connection");
        client.write_all(b"status\n").expect("a request");
    }
    (0..3).for_each(|_| drop(site.penfoldctl(&["status"])));
    assert!(!daemon.log().contains("control: "), "{}", daemon.log());
}

/// A reader such as head(1) closes the pipe when it has enough. No program calls that an error.
#[test]
fn a_closed_pipe_is_no_error() {
    let site = Site::new();
    let _daemon = site.start();
    for (name, arguments) in [
        ("penfoldctl", &["help"][..]),
        ("penfoldctl", &["help", "queue"]),
        ("penfoldctl", &["-h"]),
        ("penfoldctl", &["queue", "--help"]),
        ("penfoldctl", &["--version"]),
        ("penfoldctl", &["completion", "bash"]),
        ("penfoldctl", &["config"]),
        ("penfoldctl", &["status"]),
        ("penfoldctl", &["hosts"]),
        ("penfoldctl", &["queue"]),
        ("penfoldctl", &["stats"]),
        ("penfoldctl", &["top"]),
        ("penfoldctl", &["explain", "jon@razorback"]),
        ("penfoldctl", &["reload"]),
        ("sendmail", &["--help"]),
        ("sendmail", &["--version"]),
        ("sendmail", &["-bv", "jon"]),
        ("mailq", &[]),
        ("newaliases", &[]),
        ("penfoldd", &["--help"]),
        ("penfoldd", &["--version"]),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = if name == "penfoldd" { site.penfoldd(arguments) } else { command(&site, name, arguments) };
        let ended = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().expect("it runs");
        let (code, text) = code_and_text(&ended);
        assert_eq!((code, &*text), (0, ""), "{name} {arguments:?}");
    }
}

#[test]
fn before_the_first_start_the_queue_is_empty() {
    let mut site = Site::new();
    site.configure();
    for (name, arguments) in [("mailq", &[][..]), ("sendmail", &["-bp"]), ("penfoldctl", &["queue"])] {
        let output = feed(&mut command(&site, name, arguments), b"");
        let printed = format!("-- queue is empty\n{name}: no daemon has run yet\n");
        assert_eq!(code_and_text(&output), (0, printed), "{name}");
    }
    assert_eq!(fs::read_dir(site.path("spool")).expect("a spool").count(), 0);
    let nowhere = format!("{:?}", site.path("nowhere"));
    site.set("", "spool", &nowhere);
    site.configure();
    let (code, printed) = code_and_text(&feed(&mut command(&site, "mailq", &[]), b""));
    assert!(code == 69 && printed.starts_with("mailq: list the queue in "), "{code} {printed}");
    if geteuid().is_root() {
        site.set("", "user", "\"nosuchuser\"");
        site.configure();
        let (code, printed) = code_and_text(&feed(&mut command(&site, "mailq", &[]), b""));
        assert!(code == 78 && printed.contains(": become user nosuchuser: "), "{code} {printed}");
    }
}

/// Runs sendmail with a file as standard input. Returns the exit code, and the rest of the file
/// that another process with the same open file can still read.
fn left(site: &Site, arguments: &[&str], text: &str, from: u64) -> (i32, String) {
    site.write("message", text);
    let mut file = File::open(site.path("message")).expect("a file");
    file.seek(SeekFrom::Start(from)).expect("a place");
    let shared = file.try_clone().expect("a descriptor");
    let status = command(site, "sendmail", arguments).stdin(shared).stderr(Stdio::null()).status().expect("it runs");
    let mut rest = String::new();
    file.read_to_string(&mut rest).expect("text");
    (status.code().unwrap_or(-1), rest)
}

#[test]
fn a_message_in_a_file_that_is_not_sent_can_be_read_again() {
    let site = Site::new();
    let text = format!("before\nSubject: x\n\n{}", "hello\n".repeat(40_000));
    let begin = "before\n".len();
    let daemon = site.start();
    assert_eq!(left(&site, &["jon"], &text, begin as u64), (0, String::new()));
    for (arguments, code) in [(&["nosuch"][..], 67), (&["-t"], 64), (&["-f", "a b", "jon"], 65)] {
        assert_eq!(left(&site, arguments, &text, begin as u64), (code, text[begin..].to_owned()), "{arguments:?}");
    }
    daemon.wait_mail(&site, "jon", 1);
    drop(daemon);
    for from in [0, begin] {
        assert_eq!(left(&site, &["jon"], &text, from as u64), (75, text[from..].to_owned()));
    }
    // The input stays readable so that a mail program can save a message that it could not send.
    let Some(mut mail) = unpacked::bsd_mailx() else { return };
    site.write("mailrc", &format!("set sendmail={}\n", program(&site, "sendmail").display()));
    mail.args(["-n", "-s", "hello", "root"]).current_dir(site.path("")).env("HOME", site.path(""));
    mail.env("MAILRC", site.path("mailrc")).env("PENFOLD_CONFIG", site.path("penfold.conf"));
    let output = feed(&mut mail, b"How are you?\n");
    let kept = fs::read_to_string(site.path("dead.letter")).unwrap_or_default();
    assert!(kept.contains("\nSubject: hello\n") && kept.ends_with("\nHow are you?\n"), "{output:?}: {kept:?}");
}

#[test]
fn verifying_an_address_exits_with_the_code_of_sending() {
    let site = Site::with("remote.local_only = true");
    let list = site.path("staff").display().to_string();
    site.write("routes", "far.test error:4.2.1 later\nold.test error:5.1.2 closed\n");
    site.write(
        "aliases",
        &format!(
            "staff: :include:{list}, root, :include:/nonexistent/x\nteam: jon, staff, group\nowner-team: root\n\
             group: team, nosuch\nowner-group: root\naway: x@elsewhere.test\nsome: nosuch, jon\ndoubt: nosuch, x@far.test\n"
        ),
    );
    let mailbox = |user: &str| format!("{user}@razorback: mailbox {}\n", site.mailbox(user).display());
    let to = |from: &str, whither: &str| format!("{from}@razorback -> {whither}");
    let lists = |from: &str| format!("{from}: list {list}\n{from}: list /nonexistent/x\n");
    let daemon = site.start();
    for (addresses, code, says) in [
        (&["jon"][..], 0, mailbox("jon")),
        (&["some"], 0, to("some", "nosuch@razorback: user unknown\n") + &to("some", &mailbox("jon"))),
        (&["staff"], 0, lists("staff@razorback") + &to("staff", &mailbox("root"))),
        (&["team"], 0, {
            let staff = lists("team@razorback -> staff@razorback");
            let unknown = to("team", "nosuch@razorback: user unknown\n");
            to("team", &mailbox("jon")) + &staff + &unknown + &to("team", &mailbox("root"))
        }),
        (&["nosuch"], 67, "nosuch@razorback: user unknown\n".to_owned()),
        (&["x@old.test"], 68, "x@old.test: 5.1.2 closed\n".to_owned()),
        (&["x@elsewhere.test"], 69, "x@elsewhere.test: 5.4.4 No mail leaves this host\n".to_owned()),
        (&["away"], 69, "away@razorback: 5.4.4 No mail leaves this host\n".to_owned()),
        (&["x@far.test"], 75, "x@far.test: not known now: later\n".to_owned()),
        (&["doubt"], 75, {
            to("doubt", "nosuch@razorback: user unknown\n") + &to("doubt", "x@far.test: not known now: later\n")
        }),
        (&["jon", "x@far.test", "nosuch"], 75, {
            mailbox("jon") + "x@far.test: not known now: later\nnosuch@razorback: user unknown\n"
        }),
    ] {
        assert_eq!(
            code_and_text(&sendmail(&site, &[&["-bv"], addresses].concat(), b"")),
            (code, says),
            "{addresses:?}"
        );
    }
    for (address, code) in [("nosuch", 67), ("x@old.test", 68), ("x@elsewhere.test", 69), ("away", 69)] {
        assert_eq!(code_and_text(&sendmail(&site, &[address], b"hello\n")).0, code, "{address}");
    }
    drop(daemon);
    // With home directories the answer is no promise that the mail can be delivered.
    let mut site = Site::with("local.mailbox = \"~/Maildir\"\nauth.users = \"none\"");
    site.set("local", "users", "\"system\"");
    site.write("aliases", "me: \\jon\n");
    let home = site.path("home/jon");
    let users = [("jon", FIRST, FIRST, home.clone()), ("lost", FIRST + 1, FIRST + 1, "/nonexistent".into())];
    let without = ("homeless", FIRST + 2, FIRST + 2, "".into());
    if !geteuid().is_root() {
        return common::skipped("only root can have other users");
    }
    let Some(mounts) = Mounts::new(&passwd(&site, users.into_iter().chain([without]))) else { return };
    let _daemon = mounts.start(&site);
    let home = home.display();
    for (user, code, says) in [
        (
            "jon",
            0,
            format!("jon@razorback: mailbox {home}/Maildir, if the home directory exists and has no .forward\n"),
        ),
        ("me", 0, format!("me@razorback -> jon@razorback: mailbox {home}/Maildir, if the home directory exists\n")),
        ("lost", 0, {
            "lost@razorback: mailbox /nonexistent/Maildir, if the home directory exists and has no .forward\n"
                .to_owned()
        }),
        ("homeless", 75, "homeless@razorback: not known now: the user homeless has no home directory\n".to_owned()),
    ] {
        assert_eq!(code_and_text(&sendmail(&site, &["-bv", user], b"")), (code, says), "{user}");
    }
}
