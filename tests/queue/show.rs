//! penfoldctl show: what it tells about a message, from the daemon and from the spool alone; as root, and
//! as another user.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::programs::{code_and_text, command, feed, sendmail, stranger};
use common::remote::{Conduct, Remote, Sink, Then};
use common::{Daemon, Site, pages};

/// The message is tried once, and then not again by itself.
const LATER: &str = "queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"";

fn show(site: &Site, arguments: &[&str]) -> (i32, String) {
    let arguments = [&["show"], arguments].concat();
    code_and_text(&feed(&mut command(site, "penfoldctl", &arguments), b""))
}

/// The lines of a text, without blanks around them.
fn has_lines(text: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(text.lines().any(|line| line.trim().starts_with(wanted)), "no line {wanted:?}:\n{text}");
    }
}

/// All names of members in a JSON text.
fn members(json: &str) -> BTreeSet<String> {
    // A member's name is a text before a colon. None of the texts in these tests has `":`.
    json.match_indices("\":").filter_map(|(at, _)| json[..at].rsplit('"').next()).map(str::to_owned).collect()
}

/// Waits until the attempts have ended and the dialogue of a message is kept.
fn wait_dialogue(daemon: &Daemon, site: &Site, id: &str) {
    let path = site.path("spool/note").join(format!("{id}.dialogue"));
    daemon.wait_until("the dialogue", || fs::metadata(&path).is_ok_and(|file| file.len() > 0));
    daemon.wait_running(site, 0);
}

/// A site whose host takes jon's message for ann, and defers it for bob.
fn waiting() -> (Remote, Site, Daemon, String) {
    let sink = Sink::default().reply("RCPT TO:<bob", "451 4.7.1 bob is greylisted");
    let remote = Remote::with(sink);
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {}", remote.host_port()));
    let daemon = site.start();
    let id = daemon.submit(&["ann@example.test", "bob@example.test"]);
    daemon.wait_words(&[&id, " deferred to=<bob@"]);
    wait_dialogue(&daemon, &site, &id);
    (remote, site, daemon, id)
}

#[test]
fn a_message_is_shown_with_its_recipients_and_the_last_dialogue() {
    let (remote, site, daemon, id) = waiting();
    let port = remote.address.port();
    let (code, text) = show(&site, &[&id.to_lowercase()]);
    assert_eq!(code, 0, "{text}");
    has_lines(&text, &[&format!("Queue id:     {id}"), "Sender:       <", "Arrived:      20", "Given up:     20"]);
    has_lines(&text, &["Given by:     ", "<ann@example.test>", "State:        delivered, 20"]);
    has_lines(&text, &["<bob@example.test>", "State:        deferred, last tried 20", "Next attempt: 20"]);
    has_lines(&text, &[&format!("Goes to:      host:127.0.0.1:{port}")]);
    has_lines(&text, &["Attempts:     20"]);
    assert!(text.contains(&format!("[127.0.0.1]:{port} 451 4.7.1 bob is greylisted\n")), "{text}");
    has_lines(&text, &["-> EHLO razorback.test", "-> RCPT TO:<bob@example.test>", "<- 451 4.7.1 bob is greylisted"]);
    has_lines(&text, &[&format!("The last dialogue for host:127.0.0.1:{port}, 20"), "-> the message, and a dot"]);

    let (code, json) = show(&site, &["--json", &id]);
    assert_eq!((code, json.lines().count()), (0, 1), "{json}");
    assert!(json.starts_with(&format!("{{\"id\":\"{id}\",\"size\":")), "{json}");
    assert!(json.contains("\"address\":\"ann@example.test\",\"state\":\"delivered\""), "{json}");
    assert!(json.contains("\"address\":\"bob@example.test\",\"state\":\"deferred\""), "{json}");
    let line = "{\"kind\":\"reply\",\"recipient\":\"bob@example.test\",\"text\":\"451 4.7.1 bob is greylisted\"}";
    assert!(json.contains(line), "{json}");
    // Every member is in the manual page.
    let page = pages::section("penfoldctl.8", "JSON");
    let documented: BTreeSet<&str> = page.split([' ', '\n', ',']).collect();
    let missing: Vec<String> = members(&json).into_iter().filter(|name| !documented.contains(&**name)).collect();
    assert!(missing.is_empty() && members(&json).len() > 20, "{missing:?}\n{json}");

    // The header and the message.
    let spooled = fs::read_to_string(&site.spooled()[0]).expect("an entry");
    let (_, message) = spooled.split_once("\n\n").expect("a head");
    let (header, _) = message.split_once("\n\n").expect("a header");
    let (code, shown) = show(&site, &["-m", &id]);
    assert!(code == 0 && message.ends_with(&shown) && shown.contains(header), "{shown}");
    let (code, shown) = show(&site, &["-H", &id]);
    assert!(code == 0 && shown.trim_end() == header.trim_end(), "{shown}");

    // A message that is held, and one that is not there.
    site.penfoldctl(&["hold", &id]);
    has_lines(&show(&site, &[&id]).1, &["Held:         yes: by "]);
    let unknown = "1K0TVZ6PH81DZ9JHPQF";
    let missing =
        (69, format!("penfoldctl: there is no message {unknown} in the queue; see penfoldctl trace {unknown}\n"));
    assert_eq!(show(&site, &[unknown]), missing);
    assert_eq!(show(&site, &["x y"]), (65, "penfoldctl: x y is not a queue id\n".to_owned()));
    assert_eq!(show(&site, &["-m", "-H", &id]).0, 64);
    assert_eq!(show(&site, &[]).0, 64);

    // Without a daemon, the spool tells nearly as much.
    assert!(daemon.terminate().success());
    let (code, text) = show(&site, &[&id]);
    assert_eq!(code, 0, "{text}");
    has_lines(&text, &["Held:         yes: by ", "<- 451 4.7.1 bob is greylisted", "penfoldctl: no daemon is running"]);
    assert!(!text.contains("Goes to"), "{text}");
    assert_eq!(show(&site, &[unknown]), missing);
    assert!(show(&site, &["-m", &id]).1.contains(header));
}

/// A daemon with an attempt that waits for the reply to DATA, and the id of the message.
fn stuck_in_data() -> (Site, Daemon, Remote, String) {
    let remote = Remote::with(Sink::default().when("DATA", Then::Hang, usize::MAX));
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {}", remote.host_port()));
    let daemon = site.start();
    let id = daemon.submit(&["elvis@example.test"]);
    remote.wait("DATA", |seen| seen.commands.iter().any(|command| command.line == "DATA"));
    (site, daemon, remote, id)
}

#[test]
fn an_attempt_that_is_running_is_shown_with_its_stage() {
    let (site, daemon, _remote, id) = stuck_in_data();
    let mut text = String::new();
    daemon.wait_until("it waits for the reply to DATA", || {
        text = show(&site, &[&id]).1;
        text.contains("State:        being tried for ") && text.contains(": waiting for the reply to DATA for ")
    });
    let json = show(&site, &["--json", &id]).1;
    assert!(
        json.contains("\"state\":\"running\"") && json.contains("\"stage\":\"waiting for the reply to DATA\""),
        "{json}"
    );
}

#[test]
fn a_user_sees_only_what_this_user_has_sent() {
    let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 later"));
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {}", remote.host_port()));
    let daemon = site.start();
    let accepted = |from: &str| {
        let line = daemon.wait_log(|line| line.contains(&format!(" accept from=<{from}>")));
        line.split(' ').find(|word| word.len() == 19 && !word.contains('=')).expect("an id").to_owned()
    };
    let arguments = ["-f", "mary@elsewhere.test", "x@example.test"];
    let Some(mut as_mary) = stranger(&command(&site, "sendmail", &arguments)) else { return };
    assert_eq!(code_and_text(&feed(&mut as_mary, b"Subject: mine\n\nhello\n")), (0, String::new()));
    let mine = accepted("mary@elsewhere.test");
    let arguments = ["-f", "root@elsewhere.test", "y@example.test"];
    assert_eq!(code_and_text(&sendmail(&site, &arguments, b"Subject: secret\n\nhello\n")), (0, String::new()));
    let others = accepted("root@elsewhere.test");
    [&mine, &others].into_iter().for_each(|id| wait_dialogue(&daemon, &site, id));
    let show_as_mary = |arguments: &[&str]| {
        let arguments = [&["show"], arguments].concat();
        let mut show: Command = stranger(&command(&site, "penfoldctl", &arguments)).expect("root");
        code_and_text(&feed(&mut show, b""))
    };
    let (code, text) = show_as_mary(&[&mine]);
    assert_eq!(code, 0, "{text}");
    has_lines(
        &text,
        &["Given by:     uid 54321", "<x@example.test>", "<- 451 4.7.1 later", "Goes to:      another host"],
    );
    // Nothing names the host to which the route leads.
    let port = format!("127.0.0.1]:{}", remote.address.port());
    let json = show_as_mary(&["--json", &mine]).1;
    assert!(!text.contains(&port) && !json.contains(&port) && !json.contains("\"destination"), "{text}{json}");
    assert!(json.contains("{\"kind\":\"reply\",\"text\":\"451 4.7.1 later\"}"), "{json}");
    assert!(show_as_mary(&["-m", &mine]).1.ends_with("hello\n"));
    for option in ["-H", "-m", "--json"] {
        assert_eq!(show_as_mary(&[option, &others]).0, 69);
    }
    let text = show_as_mary(&[&others]).1;
    assert_eq!(
        text,
        format!(
            "penfoldctl: there is no message {others} in the queue that you may see; see penfoldctl trace {others}\n"
        )
    );
    has_lines(&show(&site, &[&others]).1, &["Given by:     uid 0 root, program queue-"]);
    // The user learns that the message is held, and not by whom or by which rule.
    site.penfoldctl(&["hold", &mine]);
    has_lines(&show(&site, &[&mine]).1, &["Held:         yes: by "]);
    has_lines(&show_as_mary(&[&mine]).1, &["Held:         yes; \"penfoldctl release "]);
    assert!(!show_as_mary(&["--json", &mine]).1.contains("\"reason\""));
    let listed = code_and_text(&feed(&mut stranger(&command(&site, "penfoldctl", &["queue"])).expect("root"), b"")).1;
    assert!(listed.contains("  <mary@elsewhere.test>  held\n"), "{listed}");
    // Without a daemon nobody but root and the daemon's user can read the spool.
    assert!(daemon.terminate().success());
    let (code, text) = show_as_mary(&[&mine]);
    assert!(code != 0 && !text.contains("mine"), "{code} {text}");
    remote.behave(Conduct::Sink(Sink::default()));
}

/// What the postmaster has written into a table is for root alone.
#[test]
fn a_user_does_not_see_the_text_of_a_route_that_refuses() {
    let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 later"));
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {}", remote.host_port()));
    let daemon = site.start();
    let Some(mut send) = stranger(&command(&site, "sendmail", &["-f", "mary@elsewhere.test", "x@example.test"])) else {
        return;
    };
    assert_eq!(code_and_text(&feed(&mut send, b"Subject: x\n\nhello\n")), (0, String::new()));
    let line = daemon.wait_log(|line| line.contains(" deferred to=<x@example.test>"));
    let id = line.split(' ').find(|word| word.len() == 19 && !word.contains('=')).expect("an id").to_owned();
    site.write("routes", "example.test error:5.1.6 moved to host.inside.test\n");
    daemon.wait_until("the route is read again", || show(&site, &[&id]).1.contains("5.1.6 moved to host.inside.test"));
    for option in [&[][..], &["--json"]] {
        let arguments = [&["show", &id], option].concat();
        let text = code_and_text(&feed(&mut stranger(&command(&site, "penfoldctl", &arguments)).expect("root"), b"")).1;
        let refuses = "nowhere: this host refuses the address (5.1.6)";
        assert!(text.contains(refuses) && !text.contains("inside"), "{text}");
    }
}

/// A recipient that has failed is shown with the reason while the message waits for others.
#[test]
fn the_reason_of_a_failure_is_kept_while_others_wait() {
    let sink = Sink::default().reply("RCPT TO:<ann", "550 5.1.1 no ann").reply("RCPT TO:<bob", "451 4.7.1 not now");
    let other = Remote::with(Sink::default().reply("RCPT", "553 5.1.3 no such name here"));
    let remote = Remote::with(sink);
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {}", remote.host_port()));
    site.add("routes", &format!("other.test {}", other.host_port()));
    let daemon = site.start();
    let id = daemon.submit_from("jon@razorback", &["ann@example.test", "bob@example.test", "cyd@other.test"]);
    daemon.wait_mail(&site, "jon", 2);
    wait_dialogue(&daemon, &site, &id);
    daemon
        .wait_until("both reasons are kept", || show(&site, &[&id]).1.matches("State:        failed, 20").count() == 2);
    let (code, text) = show(&site, &[&id]);
    assert_eq!(code, 0, "{text}");
    for (host, reply) in [(&remote, "550 5.1.1 no ann"), (&other, "553 5.1.3 no such name here")] {
        assert!(text.contains(&format!("[127.0.0.1]:{} {reply}\n", host.address.port())), "{text}");
    }
    assert!(!text.contains("say why"), "{text}");
    let json = show(&site, &["--json", &id]).1;
    let (_, ann) = json.split_once("\"address\":\"ann@example.test\",\"state\":\"failed\"").expect("ann");
    let (ann, _) = ann.split_once("\"address\"").expect("others");
    assert!(ann.contains("550 5.1.1 no ann\"}]"), "{json}");
    // Nothing is left of it in the end.
    remote.behave(Conduct::Sink(Sink::default()));
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert!(fs::read_dir(site.path("spool/note")).expect("a spool").next().is_none());
}

/// All commands mean the same by the size of a message: that of its text.
#[test]
fn a_message_has_one_size() {
    let (_remote, site, daemon, id) = waiting();
    let size = feed(&mut command(&site, "penfoldctl", &["show", "-m", &id]), b"").stdout.len();
    let told = |arguments: &[&str]| code_and_text(&feed(&mut command(&site, "penfoldctl", arguments), b"")).1;
    let (octets, member) = (format!("{size} octets"), format!("{{\"id\":\"{id}\",\"size\":{size},"));
    assert!(told(&["queue"]).starts_with(&format!("{id}  {size}  ")));
    for (arguments, part) in [
        (&["queue"][..], &*format!("\n-- 1 message, {octets}\n")),
        (&["queue", "--json"], &*member),
        (&["queue", "--by", "sender"], &*format!("\n-- 1 message, {octets}\n")),
        (&["queue", "--by", "sender", "--json"], &*format!("\"octets\":{size},")),
        (&["show", &id], &*format!("\nSize:         {octets}\n")),
        (&["show", "--json", &id], &*member),
        (&["explain", &id], &*format!(", {octets}; ")),
        (&["trace", &id], &*format!(", {octets}\n")),
        (&["trace", "--json", &id], &*format!("\"size\":{size},")),
    ] {
        let text = told(arguments);
        assert!(text.contains(part), "{arguments:?}: no {part} in {text}");
    }
    drop(daemon);
}

/// An attempt that a stop of the daemon interrupts is not forgotten.
#[test]
fn an_interrupted_attempt_is_shown() {
    let (site, daemon, remote, id) = stuck_in_data();
    assert!(daemon.terminate().success());
    let interrupted = "the daemon was stopped during this attempt: waiting for the reply to DATA";
    let told = |arguments: &[&str]| code_and_text(&feed(&mut command(&site, "penfoldctl", arguments), b"")).1;
    let listed = told(&["queue"]);
    assert!(listed.contains(&format!("    <elvis@example.test>  ready, {interrupted}\n")), "{listed}");
    let json = told(&["queue", "--json"]);
    assert!(json.contains(&format!("\"state\":\"ready\",\"result\":\"{interrupted}\"")), "{json}");
    assert!(told(&["queue", "--by", "reason"]).contains(&format!("  {interrupted}\n")));
    let text = show(&site, &[&id]).1;
    has_lines(&text, &["State:        an attempt was interrupted, 20", "Attempts:     20"]);
    assert!(text.contains(&format!("  {interrupted}\n")), "{text}");
    assert!(told(&["explain", &id]).contains(interrupted));
    // The next attempt delivers it.
    remote.behave(Conduct::Sink(Sink::default()));
    let daemon = site.start();
    assert!(daemon.settles(&site), "{}", daemon.log());
    assert_eq!(remote.messages(1).len(), 1);
    assert!(fs::read_dir(site.path("spool/note")).expect("a spool").next().is_none());
}

/// A user who writes to an alias does not learn where it leads, and neither how the mail gets there.
#[test]
fn a_user_does_not_see_where_an_alias_leads() {
    let remote = Remote::with(Sink::default().reply("RCPT TO:<bob", "451 4.7.1 later, bob@secret.test"));
    let site = Site::with(LATER);
    site.add("routes", &format!("secret.test {}", remote.host_port()));
    site.add("aliases", "team: bob@secret.test, ann@secret.test");
    let daemon = site.start();
    let Some(mut send) = stranger(&command(&site, "sendmail", &["-f", "mary@elsewhere.test", "team@razorback"])) else {
        return;
    };
    assert_eq!(code_and_text(&feed(&mut send, b"Subject: x\n\nhello\n")), (0, String::new()));
    let line = daemon.wait_log(|line| line.contains(" accept from=<mary@elsewhere.test>"));
    let id = line.split(' ').find(|word| word.len() == 19 && !word.contains('=')).expect("an id").to_owned();
    daemon.wait_words(&[&id, " deferred to=<bob@"]);
    daemon.wait_words(&[&id, " sent to=<ann@"]);
    wait_dialogue(&daemon, &site, &id);
    let ask = |arguments: &[&str]| {
        let mut asked = stranger(&command(&site, "penfoldctl", arguments)).expect("root");
        code_and_text(&feed(&mut asked, b"")).1
    };
    for arguments in
        [&["show", &id][..], &["show", "--json", &id], &["queue"], &["queue", "--json"], &["queue", "--by", "reason"]]
    {
        let text = ask(arguments);
        let tells = ["secret", "bob@", "ann@", "127.0.0.1"].into_iter().find(|word| text.contains(word));
        assert!(tells.is_none() && !text.is_empty(), "{arguments:?}: {tells:?}\n{text}");
        assert!(arguments.contains(&"--by") || text.matches("team@razorback").count() == 1, "{arguments:?}: {text}");
    }
    // He cannot guess it either.
    assert_eq!(ask(&["queue", "--to", "bob@secret.test"]), "-- queue is empty\n");
    assert!(ask(&["queue", "--to", "team@razorback"]).contains("-- 1 message"));
    // Root sees all, and finds the destination by the domain.
    has_lines(&show(&site, &[&id]).1, &["<bob@secret.test>", "<ann@secret.test>", "Given as:     <team@razorback"]);
    let hosts = site.penfoldctl(&["hosts", "secret.test"]);
    assert!(hosts.starts_with(&format!("host:127.0.0.1:{}  up", remote.address.port())), "{hosts}");
}

/// The report about a message that expires while its host is down quotes the dialogue of an earlier attempt:
/// the lines about its own recipient, and none about another.
#[test]
fn a_report_quotes_the_last_dialogue_about_its_recipient() {
    let sink = Sink::default().reply("RCPT TO:<bob", "550 5.1.1 no bob").reply("RCPT TO:<cyd", "451 4.7.1 not now");
    let remote = Remote::with(sink);
    let mut site = Site::with("queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"");
    site.set("queue", "expire_after", "\"3s\"");
    site.add("routes", &format!("example.test {}", remote.host_port()));
    let daemon = site.start();
    let id = daemon.submit_from("jon@razorback", &["ann@example.test", "bob@example.test", "cyd@example.test"]);
    daemon.wait_words(&[&id, " deferred to=<cyd@"]);
    let report = |count: usize| {
        let mail = daemon.wait_mail(&site, "jon", count);
        let texts = mail.into_iter().map(|mail| String::from_utf8(mail).expect("ASCII"));
        texts.collect::<Vec<_>>()
    };
    let first = report(1).remove(0);
    has_lines(&first, &["-> RCPT TO:<bob@example.test>", "<- 550 5.1.1 no bob"]);
    assert!(!first.contains("ann@") && !first.contains("cyd@"), "{first}");
    // From now on the host is down. The last attempt may be one that only defers the message, so that its
    // dialogue is that of an earlier attempt.
    let closing = Sink::default().when("MAIL", Then::Close, usize::MAX).when("CONNECT", Then::Close, usize::MAX);
    remote.behave(Conduct::Sink(closing));
    let reports = report(2);
    let last = reports.iter().find(|report| report.contains("cyd@")).expect("a report about cyd");
    has_lines(last, &["[127.0.0.1]", "the connection was closed while waiting for the"]);
    assert!(!last.contains("ann@") && !last.contains("bob@"), "{last}");
    assert!(daemon.settles(&site));
    assert!(fs::read_dir(site.path("spool/note")).expect("a spool").next().is_none());
}
