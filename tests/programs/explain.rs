//! `penfoldctl explain` against real sessions: for generated clients, senders, recipients and
//! tables the replies and the routes are those that it has told, and telling them has no effect.
//! Also who may ask, and what it says without a daemon and about messages in the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use common::chance::Chance;
use common::dns::Dns;
use common::filter::{Milter, Script};
use common::programs::{code_and_text, command, sendmail, stranger};
use common::remote::{Remote, Sink};
use common::{Daemon, Site, TIMEOUT, free_port};

const ZONE: &str = "
    1.2.0.192.in-addr.arpa PTR mx.good.example
    4.2.0.192.in-addr.arpa SERVFAIL
    mx.good.example A 192.0.2.1
    good.example MX 10 mx.good.example
    strict.example MX 10 mx.good.example
    strict.example TXT v=spf1 ip4:192.0.2.1 exp=why.strict.example -all
    why.strict.example TXT ask us first
    soft.example MX 10 mx.good.example
    soft.example TXT v=spf1 ~all
    null.example MX 0 .
    broken.example SERVFAIL
    bad.example MX 10 mx.good.example
    2.2.0.192.bl.example A 127.0.0.2
    3.2.0.192.weak.example A 127.0.0.3
    bad.example.dbl.example A 127.0.1.2
";

/// A site with a line of each kind in its tables. Two listeners take the address and the login of
/// a client from XCLIENT.
fn site(dns: &Dns, remote: &Remote, settings: &str) -> (Site, u16) {
    let submission = free_port();
    let mut site = Site::with(&format!(
        "hostname = \"mx.razorback.test\"
        listen.xclient = [\"127.0.0.1\"]
        listen#2.address = \"127.0.0.1:{submission}\"
        listen#2.kind = \"submission\"
        listen#2.xclient = [\"127.0.0.1\"]
        relay.networks = [\"192.0.2.64/26\"]
        relay.domains = [\"backup.example\"]
        limits.message_size = 70000
        submission.messages_per_hour = 20
        submission.recipients_per_hour = 16
        policy.own_hello = \"refuse\"
        policy.sender_domain = \"refuse\"
        policy.dnsbl = [\"bl.example*2\", \"weak.example\"]
        policy.dnsbl_threshold = 2
        policy.sender_lists = [\"dbl.example*2\"]
        policy.unknown_recipients_per_hour = 5
        local.subaddress = \"+\"
        {settings}"
    ));
    site.set("dns", "nameservers", &dns.nameservers());
    let host = remote.host_port();
    site.write("users", "jon::\nann::\nroot::\n");
    site.write(
        "aliases",
        "staff: jon, ann, far@far.example\ngone: nobody-here\nlist: ann, jon\nowner-list: jon\nring: staff, ring2\n\
         ring2: ring, jon\nm\u{fc}ller: jon, ann\n",
    );
    site.write("virtual", "info@razorback jon, list@far.example\n@razorback.test ann\n");
    site.write(
        "routes",
        &format!(
            "far.example {host}\nclosed.example error:5.1.2 closed for ever\nlater.example error:4.2.1 later\n\
             backup.example {host}\n"
        ),
    );
    site.write("senders", "jon info@razorback\nann *\n");
    site.write(
        "access",
        "client 192.0.2.5 ok\nclient 192.0.2.6 reject 554 5.7.1 no mail from you\nclient unknown tag nameless\n\
         helo spammer.example defer\nsender @bad.example reject\nsender <> tag null\n\
         recipient ann@razorback.test reject 550 5.1.1 closed\nrecipient root@razorback quarantine\n",
    );
    (site, submission)
}

/// What a client does.
#[derive(Debug)]
struct Case {
    ip: Option<&'static str>,
    helo: &'static str,
    login: Option<&'static str>,
    kind: &'static str,
    from: &'static str,
    size: Option<&'static str>,
    to: &'static str,
    /// Parameters of MAIL and RCPT that decide nothing.
    parameters: [&'static str; 2],
}

fn case(chance: &mut Chance) -> Case {
    let login = chance.percent(25).then(|| *chance.pick(&["jon", "ann", "nobody-here"]));
    let is_local = login.is_none() && chance.percent(10);
    let kind = if is_local {
        "local"
    } else if login.is_some() {
        "submission"
    } else {
        *chance.pick(&["smtp", "smtp", "smtp", "submission"])
    };
    Case {
        ip: (!is_local).then(|| {
            *chance.pick(&[
                "192.0.2.1",
                "192.0.2.1",
                "192.0.2.2",
                "192.0.2.3",
                "192.0.2.4",
                "192.0.2.5",
                "192.0.2.6",
                "192.0.2.70",
            ])
        }),
        helo: chance.pick::<&str>(&[
            "mx.good.example",
            "mx.good.example",
            "spammer.example",
            "mx.razorback.test",
            "[192.0.2.1]",
            "bad.example",
        ]),
        login,
        kind,
        from: chance.pick::<&str>(&[
            "a@good.example",
            "a@good.example",
            "j\u{f6}rg@good.example",
            "a@strict.example",
            "a@soft.example",
            "a@null.example",
            "a@gone.example",
            "a@broken.example",
            "a@bad.example",
            "jon@razorback",
            "info@razorback",
            "",
            "x",
            "ann@razorback.test",
            "b@@c",
        ]),
        size: chance.percent(20).then(|| *chance.pick(&["100", "70001"])),
        to: chance.pick::<&str>(&[
            "jon@razorback",
            "jon@razorback",
            "JON@Razorback",
            "jon+tag@razorback",
            "jon",
            "nobody-here@razorback",
            "j\u{f6}rg@razorback",
            "m\u{fc}ller@razorback",
            "a@b\u{fc}cher.example",
            "staff@razorback",
            "gone@razorback",
            "list@razorback",
            "ring@razorback",
            "info@razorback",
            "x@razorback.test",
            "ann@razorback.test",
            "root@razorback",
            "postmaster@razorback",
            "postmaster",
            "far@far.example",
            "a@closed.example",
            "a@later.example",
            "a@backup.example",
            "a%b@backup.example",
            "a@elsewhere.example",
            "\"a b\"@razorback",
            "jon@[127.0.0.1]",
            "a b@razorback",
            "jon@",
        ]),
        parameters: [
            *chance.pick(&["", "", " BODY=8BITMIME", " RET=HDRS ENVID=x+2By", " BODY=7BIT RET=FULL"]),
            *chance.pick(&["", "", " NOTIFY=NEVER", " NOTIFY=FAILURE,DELAY ORCPT=rfc822;a@b.example"]),
        ],
    }
}

/// One side of a conversation.
struct Talk {
    input: BufReader<Box<dyn Read>>,
    output: Box<dyn Write>,
}

impl Talk {
    fn at(daemon: &Daemon, port: u16) -> Self {
        let stream = std::net::TcpStream::connect((daemon.address().ip(), port)).expect("it accepts");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        Self { input: BufReader::new(Box::new(stream.try_clone().expect("a copy"))), output: Box::new(stream) }
    }

    fn local(site: &Site) -> Self {
        let stream = UnixStream::connect(site.path("penfold.sock")).expect("it accepts");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let mut talk =
            Self { input: BufReader::new(Box::new(stream.try_clone().expect("a copy"))), output: Box::new(stream) };
        assert_eq!(talk.ask("submit"), "ok");
        talk
    }

    /// Sends a line, and returns the last line of the reply.
    fn ask(&mut self, line: &str) -> String {
        self.output.write_all(format!("{line}\r\n").replace("submit\r\n", "submit\n").as_bytes()).expect("it reads");
        self.reply()
    }

    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line).expect("a reply");
            let line = line.trim_end();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.to_owned();
            }
        }
    }
}

/// Plays a case. Returns the replies to MAIL and RCPT and, if both are 250, the queue id of the
/// message.
fn play(site: &Site, daemon: &Daemon, submission: u16, case: &Case) -> (Vec<String>, Option<String>) {
    let mut talk = match case.kind {
        "local" => Talk::local(site),
        "submission" => Talk::at(daemon, submission),
        _ => Talk::at(daemon, daemon.address().port()),
    };
    assert!(talk.reply().starts_with("220 "));
    if let Some(ip) = case.ip {
        let login = case.login.map(|login| format!(" LOGIN={login}")).unwrap_or_default();
        talk.ask("EHLO proxy");
        assert!(talk.ask(&format!("XCLIENT ADDR={ip}{login}")).starts_with("220 "), "{case:?}");
    }
    talk.ask(&format!("EHLO {}", case.helo));
    let size = case.size.map(|size| format!(" SIZE={size}")).unwrap_or_default();
    let utf8 = if case.from.is_ascii() && case.to.is_ascii() { "" } else { " SMTPUTF8" };
    let [of_mail, of_rcpt] = case.parameters;
    let mut replies = vec![talk.ask(&format!("MAIL FROM:<{}>{size}{utf8}{of_mail}", case.from))];
    if replies[0].starts_with("250 ") {
        replies.push(talk.ask(&format!("RCPT TO:<{}>{of_rcpt}", case.to)));
    }
    let mut id = None;
    if replies.len() == 2 && replies[1].starts_with("250 ") {
        assert!(talk.ask("DATA").starts_with("354 "), "{case:?}");
        // The author is one that every account may use, and no account at all.
        let text = "Subject: x\r\nFrom: info@razorback\r\n\r\nhello\r\n.";
        let reply = talk.ask(text);
        id = reply.starts_with("250 ").then(|| reply.split(' ').nth(2).expect("an id").to_owned());
    }
    (replies, id)
}

/// Asks the daemon as penfoldctl does.
fn explain(site: &Site, words: &[String]) -> String {
    let code = |word: &String| -> String {
        let plain = |b: u8| b.is_ascii_graphic() && b != b'%';
        word.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    let line = words.iter().map(code).collect::<Vec<_>>().join(" ");
    let mut stream = UnixStream::connect(site.path("penfold.sock")).expect("it accepts");
    stream.write_all(format!("explain {line}\n").as_bytes()).expect("it reads");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.strip_prefix("ok\n").unwrap_or_else(|| panic!("{words:?}: {answer}")).to_owned()
}

fn question(case: &Case) -> Vec<String> {
    let mut words = vec![format!("from={}", case.from), format!("helo={}", case.helo), format!("kind={}", case.kind)];
    words.extend(case.ip.map(|ip| format!("ip={ip}")));
    words.extend(case.login.map(|login| format!("login={login}")));
    words.extend(case.size.map(|size| format!("size={size}")));
    words.push(case.to.to_owned());
    words
}

/// The replies to MAIL and RCPT in an explanation.
fn told_replies(text: &str) -> Vec<String> {
    let after = |command: &str| {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(command)).skip(1);
        lines.find_map(|line| line.strip_prefix("  > ")).map(str::to_owned)
    };
    ["MAIL FROM:", "RCPT TO:"].into_iter().filter_map(after).collect()
}

/// The final recipients in an explanation, each with its mailbox or its first host.
fn told_routes(text: &str) -> BTreeSet<(String, String)> {
    let (mut routes, mut last) = (BTreeSet::new(), String::new());
    for line in text.lines().skip_while(|line| *line != "Where mail goes").map(str::trim_start) {
        let line = line.split("  [").next().unwrap_or_default();
        if let Some((address, path)) = line.split_once(": Maildir ") {
            routes.insert((address.to_owned(), path.to_owned()));
        } else if let Some(host) = line.strip_prefix("1. ") {
            routes.insert((last.clone(), host.split(',').next().unwrap_or_default().to_owned()));
        } else if let Some((address, _)) = line.split_once(": ") {
            last = address.to_owned();
        }
    }
    routes
}

/// The final recipients of a message in the log, each with its mailbox or host.
fn logged_routes(log: &str, id: &str) -> BTreeSet<(String, String)> {
    let field = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!(" {key}="))?;
        Some(rest.split(' ').next()?.trim_matches(['<', '>']).to_owned())
    };
    let sent = log.lines().filter(|line| line.starts_with(&format!("{id} sent ")));
    sent.filter_map(|line| Some((field(line, "to")?, field(line, "host")?))).collect()
}

/// Seconds are counted down between the question and the session.
fn without_seconds(reply: &str) -> String {
    match reply.split_once("try again in ") {
        Some((before, after)) => format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => reply.to_owned(),
    }
}

#[test]
fn what_is_explained_is_what_happens() {
    let keywords = ["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"].map(str::to_owned).to_vec();
    let (dns, remote) = (Dns::zone(ZONE), Remote::with(Sink { keywords, ..Sink::default() }));
    let mut outcomes = BTreeSet::new();
    // A filter that changes nothing. What it would say is not known to an explanation.
    let milter = Milter::start(Script::default());
    for (name, count, settings) in [
        ("strict", 110, "policy.greylist = \"suspicious\"\npolicy.spf = \"refuse\"\npolicy.messages_per_hour = 12"),
        ("mild", 110, "policy.greylist = \"all\"\npolicy.spf = \"mark\"\nlocal.postmaster = \"ann\""),
    ] {
        let settings = if cfg!(feature = "mailauth") {
            settings.to_owned()
        } else {
            settings.replace("\"refuse\"", "\"none\"").replace("\"mark\"", "\"none\"")
        };
        let (mut site, submission) = site(&dns, &remote, &settings);
        if cfg!(feature = "filters") && name == "mild" {
            site.set("filter#1", "socket", &format!("\"inet:{}\"", milter.address));
        }
        let daemon = site.start();
        let mut chance = Chance::new(16, name);
        let mut accepted = Vec::new();
        for _ in 0..count {
            let case = case(&mut chance);
            let told = explain(&site, &question(&case));
            let (replies, id) = play(&site, &daemon, submission, &case);
            let [told_all, all] =
                [told_replies(&told), replies].map(|all| all.iter().map(|r| without_seconds(r)).collect::<Vec<_>>());
            assert_eq!(told_all, all, "{case:?}\n{told}");
            outcomes.extend(all.last().map(|reply| reply.get(..10).unwrap_or(reply).to_owned()));
            // Mail for a list comes later under another id, and mail in quarantine is not delivered.
            let is_plain =
                !["list@", "root@"].iter().any(|name| case.to.starts_with(name)) && !case.to.contains("@later");
            accepted.extend(id.filter(|_| is_plain).map(|id| (id, case, told)));
        }
        daemon.wait_until("all deliveries", || {
            let log = daemon.log();
            accepted.iter().all(|(id, _, told)| logged_routes(&log, id).len() >= told_routes(told).len())
        });
        let log = daemon.log();
        for (id, case, told) in &accepted {
            assert_eq!(told_routes(told), logged_routes(&log, id), "{id} {case:?}\n{told}");
        }
        assert!(accepted.len() > 10, "{}", accepted.len());
    }
    // The cases reach most replies.
    assert!(outcomes.len() >= 12, "{outcomes:?}");
}

/// The files below a directory with their sizes and times of change. What the daemon itself writes into
/// `state/` from time to time is left out.
fn files(dir: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let data = entry.metadata().expect("it is there");
        let is_told = |name: &str| ["greylist", "usage"].iter().any(|kind| name.starts_with(kind));
        if entry.file_name() == "state" {
            found.extend(files(&entry.path()));
            continue;
        }
        if dir.ends_with("state") && !is_told(&entry.file_name().to_string_lossy()) {
            continue;
        }
        found.insert(entry.path(), (data.len(), data.mtime(), data.mtime_nsec()));
        if data.is_dir() {
            found.extend(files(&entry.path()));
        }
    }
    found
}

/// Runs `penfoldctl explain`. Returns its exit code and its output, with both kinds together.
fn run(site: &Site, words: &[&str]) -> (i32, String) {
    let words: Vec<&str> = ["explain"].into_iter().chain(words.iter().copied()).collect();
    code_and_text(&command(site, "penfoldctl", &words).output().expect("it runs"))
}

#[test]
fn an_explanation_has_no_effect_and_needs_no_daemon() {
    let (dns, remote) = (Dns::zone(ZONE), Remote::sink());
    let settings = "policy.greylist = \"all\"\npolicy.messages_per_hour = 3";
    let (mut site, _) = site(&dns, &remote, settings);
    if cfg!(feature = "filters") {
        site.set("filter#1", "socket", "\"inet:127.0.0.1:1\"");
        site.set("filter#1", "on_failure", "\"accept\"");
    }
    site.add("routes", "away.example 127.0.0.1:1");
    let daemon = site.start();
    // A message waits, because nobody listens at the port.
    let sent = sendmail(&site, &["-f", "jon@razorback", "a@away.example"], b"Subject: x\n\nx\n");
    assert!(sent.status.success(), "{sent:?}");
    let log = daemon.wait_log(|line| line.contains(" deferred to=<a@away.example>"));
    let id = log.split(' ').next().expect("an id").to_owned();
    daemon.wait_until("the end of the attempt", || {
        let is_there = |name: &str| site.path(name).exists();
        fs::read_dir(site.path("spool/new")).is_ok_and(|mut left| left.next().is_none())
            && is_there(&format!("spool/note/{id}.dialogue"))
    });
    daemon.wait_running(&site, 0);
    let stranger_mail = ["jon@razorback", "--from", "a@good.example", "--ip", "192.0.2.1", "--helo", "mx.good.example"];
    let questions: [&[&str]; 6] = [
        &["staff@razorback"],
        &["list"],
        &["far@far.example", "--login", "ann", "--size", "10"],
        &stranger_mail,
        &["x@elsewhere.example", "--no-dns"],
        &["jon@", "--kind", "smtp"],
    ];
    let (before, log) = (files(&site.path("spool")), daemon.log());
    let live: Vec<_> = questions.iter().map(|words| run(&site, words)).collect();
    for (words, (code, text)) in questions.iter().zip(&live) {
        assert_eq!((*code, run(&site, words)), (0, (0, text.clone())), "a second answer to {words:?}");
    }
    for (at, want) in [
        (0, "staff@razorback is an alias for jon@razorback, ann@razorback, far@far.example  ["),
        (0, "accepted; goes to 3 recipients\n"),
        (0, "aliases:1]\n"),
        (0, "jon@razorback: Maildir "),
        (0, ", TLS if the host offers STARTTLS, with any certificate\n"),
        (1, "the list sends as its owner <owner-list@razorback>"),
        (2, "MAIL FROM:<ann@razorback> SIZE=10\n"),
        (2, "ann may send from <ann@razorback>"),
        (3, "deferred at RCPT: 451 4.7.1 Greylisted, please try again in 300 seconds  [policy.greylist, "),
        (3, "the milter at 127.0.0.1:1 would be asked; its answer is not known"),
        (3, "its verified name is mx.good.example"),
        (4, "x@elsewhere.example: elsewhere.example\n  skip its hosts are not looked up (--no-dns)"),
        (5, "refused at RCPT: 553 5.1.3 "),
    ] {
        let is_built = cfg!(feature = "filters") || !want.contains("milter");
        assert!(!is_built || live[at].1.contains(want), "{want}: {}", live[at].1);
    }
    let (code, text) = run(&site, &[&id]);
    assert!(code == 0 && text.starts_with(&format!("{id} is in the queue: <a@away.example> is deferred: ")), "{text}");
    for want in
        ["; the next attempt is due 20", "is down since 20", "the last attempt at [127.0.0.1]:1 failed: ", "routes:5]"]
    {
        assert!(text.contains(want), "{want}: {text}");
    }
    assert!(!text.contains("the last reply") && text.contains("it is returned to the sender if"), "{text}");
    // Times are local ones: a blank stands between the date and the time of the day.
    let (_, due) = text.split_once("the next attempt is due ").expect("a time");
    assert_eq!(due.as_bytes().get(10), Some(&b' '), "{due}");
    let (_, down) = run(&site, &["b@away.example"]);
    assert!(down.starts_with("accepted; waits, because host:127.0.0.1:1 is down\n"), "{down}");
    assert!(down.contains("down for ") && !down.contains("0 min"), "{down}");
    let (code, json) = run(&site, &["--json", &id]);
    assert!(code == 0 && json.lines().all(|line| line.starts_with("{\"stage\":\"")), "{json}");
    assert_eq!((files(&site.path("spool")), daemon.log()), (before, log), "an explanation changes something");
    site.penfoldctl(&["hold", &id]);
    let (_, held) = run(&site, &[&id]);
    assert!(held.starts_with(&format!("{id} is held: by ")), "{held}");
    assert!(!held.contains("the next attempt") && !held.contains("returned to the sender if"), "{held}");
    if let Some(mut other) = stranger(&command(&site, "penfoldctl", &["explain", "jon"])) {
        let (code, text) = code_and_text(&other.output().expect("it runs"));
        assert!(code == 77 && text.contains("only root and nobody may"), "{text}");
    }
    daemon.terminate();
    let before = files(&site.path("spool"));
    for (words, (_, text)) in questions.iter().zip(&live) {
        let (code, dead) = run(&site, words);
        assert_eq!(code, 0, "{dead}");
        let remark = "penfoldctl: no daemon is running; this explanation is from the files\n";
        assert_eq!(dead.replace(remark, ""), *text, "{words:?} without a daemon");
    }
    let (code, text) = run(&site, &[&id]);
    assert!(code == 0 && text.contains("no daemon is running, so nothing is delivered"), "{text}");
    assert_eq!(run(&site, &["1K0TVZ6PH81DZ9JHPQF"]).0, 69);
    // Without a daemon, other users may neither see messages nor ask.
    for (words, want) in [
        (&["show", &id][..], "only root and nobody may see messages while no daemon runs\n"),
        (&["explain", &id], "only root and nobody may ask what happens to mail\n"),
        (&["trace", &id], "only root and nobody may trace messages\n"),
        (&["stats"], "only root and nobody may see the statistics\n"),
    ] {
        let Some(mut other) = stranger(&command(&site, "penfoldctl", words)) else { break };
        let (code, text) = code_and_text(&other.output().expect("it runs"));
        assert!(code == 77 && text.ends_with(want), "{words:?}: {text}");
    }
    assert_eq!(files(&site.path("spool")), before, "an explanation without a daemon changes something");
    // The greylist has not been told of the client, whatever was explained.
    let daemon = site.start();
    assert_eq!(run(&site, &stranger_mail), live[3]);
    drop(daemon);
}

#[test]
fn what_is_not_known_is_not_stated() {
    let dns = Dns::zone(ZONE);
    let mut site = Site::with(
        "policy.own_hello = \"refuse\"\npolicy.sender_domain = \"refuse\"\nhostname = \"mx.razorback.test\"",
    );
    site.set("dns", "nameservers", &dns.nameservers());
    if cfg!(feature = "mailauth") {
        site.set("policy", "spf", "\"mark\"");
    }
    site.write("users", "jon::\n");
    let _daemon = site.start();
    let soft = ["jon@razorback", "--from", "a@soft.example", "--ip", "192.0.2.2", "--helo", "x.example"];
    let gone = ["jon@razorback", "--from", "a@gone.example", "--ip", "192.0.2.2", "--helo", "x.example"];
    for (words, wanted, unwanted) in [
        (&["far@far.example", "--login", "nosuch"][..], "there is no account nosuch that can log in", "may send from"),
        (&["x@elsewhere.example", "--no-dns"], "ok   it may relay to elsewhere.example\n", "the recipient exists"),
        (&["jon@razorback", "--kind", "smtp"], "skip the name in HELO is not known (--helo)", "client.invalid"),
        (&["jon@razorback", "--ip", "192.0.2.2"], "this name is assumed", "not that of this host"),
        (
            &["jon@razorback", "--kind", "lmtp"],
            "no client can connect: there is no [[listen]] of the kind lmtp",
            "LHLO",
        ),
        (&soft, "SPF of soft.example: softfail", "Unknown"),
        (&gone, "gone.example has neither a mail exchanger nor an address", "accepted"),
    ] {
        let (code, text) = run(&site, words);
        let is_built = cfg!(feature = "mailauth") || !wanted.contains("SPF");
        assert!(code == 0 && (!is_built || text.contains(wanted)), "{wanted}: {text}");
        assert!(!text.contains(unwanted), "{unwanted}: {text}");
    }
}

#[test]
fn a_wrong_question_is_told() {
    let site = Site::new();
    site.configure();
    for (words, code, want) in [
        (&[][..], 64, "explain needs an address or a queue id"),
        (&["jon", "ann"], 64, "'ann' is one argument too many"),
        (&["jon", "--ip", "x"], 64, "--ip x: expected an IPv4 or IPv6 address"),
        (&["jon", "--size", "1k"], 64, "--size 1k: expected a number of octets"),
        (&["jon", "--kind", "http"], 64, "--kind http: expected smtp, submission, lmtp or local"),
    ] {
        let (is, text) = run(&site, words);
        assert!(is == code && text.contains(want), "{words:?}: {is} {text}");
    }
    let long = "x".repeat(1100);
    assert!(run(&site, &[&long]).1.contains("the question is too long"));
}
