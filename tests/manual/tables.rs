//! Runs the tables, log lines and repair instructions of the manual pages, each read from its page.
//! The EXAMPLES are in tests/manual/examples.rs.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use common::client::{Client, TEXT};
use common::dns::Dns;
use common::filter::{Milter, Script};
use common::programs::{code_and_text, command, feed, sendmail};
use common::remote::{Conduct, Offer, Remote, Sink, Then};
use common::tls::Authority;
use common::{Daemon, Site, free_port, own, pages};
use penfold::mailauth::arc::{self, Sealer};
use penfold::mailauth::dkim::SigningKey;

/// The private key of a sealer, an Ed25519 seed in PKCS #8.
const SEALING_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

// Tables

/// The example in a section of penfold.conf(5); there must be exactly one.
fn table(section: &str) -> String {
    table_of("penfold.conf.5", section)
}

/// The example in a section of a page.
fn table_of(page: &str, section: &str) -> String {
    let mut found = pages::literals(&pages::section(page, section));
    assert_eq!(found.len(), 1, "{section}");
    found.remove(0)
}

/// A line of a users file for a name, with the password pencil.
fn secret(site: &Site, name: &str) -> String {
    let (code, line) = code_and_text(&feed(&mut command(site, "penfoldctl", &["passwd", name]), b"pencil\n"));
    assert_eq!(code, 0, "{line}");
    line
}

fn login(name: &str) -> String {
    format!("AUTH PLAIN {}", data_encoding::BASE64.encode(format!("\0{name}\0pencil").as_bytes()))
}

#[test]
fn the_tables_of_the_page_have_the_described_effects() {
    let mut site = Site::with(
        "local.domains = [\"example.org\", \"example.net\"]\nlisten.auth = \"always\"\n\
         remote.smarthosts = [\"smtps://mail.example.net\", \"smtps://smtp.example.com\"]",
    );
    site.configure();
    let graceland = site.path("mail/graceland").display().to_string();
    let (users, made) = (table("USERS FILE"), secret(&site, "mary"));
    let shown = users.lines().find(|line| line.starts_with("mary:")).expect("mary");
    assert!(made.starts_with(&shown[..shown.find(",6").expect("a salt")]), "{made}");
    site.write("users", &users.replace(shown, made.trim_end()).replace("/var/mail/graceland", &graceland));
    site.write("virtual", &table("VIRTUAL TABLE"));
    let (routes, more) = pages::section("penfold-routes.5", "ROUTES TABLE").split_once(".Ss").map_or_else(
        || panic!("no subsection"),
        |(routes, more)| (pages::literals(routes).remove(0), pages::literals(more).remove(0)),
    );
    site.write("routes", &(routes.replace("\\&", "") + &more));
    site.write("senders-via", &table_of("penfold-routes.5", "SENDER ROUTES TABLE"));
    site.write("always_bcc", &table("TABLE OF COPIES"));
    site.write("senders", &table("SENDERS TABLE"));
    site.write("rewrite", &table("REWRITE TABLE"));
    let access = pages::literals(&pages::section("penfold-access.5", "DESCRIPTION")).remove(0);
    site.write("access", &access);
    let token = site.path("token").display().to_string();
    site.write("token", "hush");
    site.write("credentials", &table("CREDENTIALS TABLE").replace("/var/lib/tokens/jon", &token));
    for file in ["users", "credentials", "token"] {
        fs::set_permissions(site.path(file), fs::Permissions::from_mode(0o600)).expect("a mode");
    }
    for (section, key, file) in [("submission", "rewrite", "rewrite"), ("remote", "credentials", "credentials")] {
        let path = format!("{:?}", site.path(file));
        site.set(section, key, &path);
    }
    let checked = site.penfoldd(&["-n"]).output().expect("it runs");
    let printed = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && printed.ends_with("penfoldd: the configuration is right\n"), "{printed}");
    let daemon = site.start();
    let mailbox = |user: &str| format!("mailbox {}", site.path("mail").join(user).display());
    for (address, goes) in [
        ("jon@example.org", format!("jon@example.org: {}\n", mailbox("jon"))),
        ("elvis@example.org", format!("elvis@example.org: {}\n", mailbox("graceland"))),
        ("info@example.org", format!("info@example.org -> jon@example.org: {}\n", mailbox("jon"))),
        ("x@example.net", {
            let to = |name: &str, mailbox| format!("x@example.net -> {name}@example.org: {mailbox}\n");
            to("jon", mailbox("jon")) + &to("elvis", mailbox("graceland"))
        }),
        ("x@partner.example", "x@partner.example: host:mx.partner.example:2525\n".to_owned()),
        (
            "Boss@partner.example",
            "Boss@partner.example: host:smtps://vip.partner.example:465,mx.partner.example:25\n".to_owned(),
        ),
        (
            "x@example.com",
            format!("x@example.com: nowhere: the route on {}:3 discards it\n", site.path("routes").display()),
        ),
        (
            "x@moving.example",
            format!(
                "x@moving.example: held: until their new server runs (the route on {}:4 holds it)\n",
                site.path("routes").display()
            ),
        ),
        ("ann@example.org", "ann@example.org: host:mail2.example.org:25\n".to_owned()),
        ("x@a.old.example", "x@a.old.example: 5.1.2 this company has closed\n".to_owned()),
        ("x@else.example", "x@else.example: mx:else.example\n".to_owned()),
    ] {
        assert_eq!(code_and_text(&sendmail(&site, &["-bv", address], b"")).1, goes);
    }
    // With its last line, the routes table leaves nothing for the sender routes table.
    let routes = routes.rsplit_once('*').expect("the last line").0;
    site.write("routes", &(routes.replace("\\&", "") + &more));
    for (from, to, words) in [
        ("jon@example.org", "x@else.example", &["host:smtp+starttls://smtp.provider.example:587", "senders-via:1"][..]),
        ("x@example.net", "x@else.example", &["host:mail.example.net:25,backup.example.net:2525", "senders-via:2"]),
        ("", "x@else.example", &["host:smtps://mail.example.org:465", "senders-via:3"]),
        (
            "x@example.com",
            "jon@example.org",
            &["no copy goes to archive@example.org: there is no such user", "always_bcc:1"],
        ),
        ("jon@example.org", "x@else.example", &["a copy goes to ann@example.org", "always_bcc:2"]),
        ("x@example.com", "info@example.net", &["a copy goes to boss@example.net", "always_bcc:3"]),
    ] {
        let explained =
            site.penfoldctl(&["explain", "--no-dns", "--kind", "smtp", "--ip", "127.0.0.1", "--from", from, to]);
        assert!(words.iter().all(|word| explained.contains(word)), "{from} to {to}: {explained}");
    }
    for (from, path) in
        [("root", "admin@example.org"), ("jon", "jonathan.postel@example.org"), ("x@old.example", "x@example.org")]
    {
        assert_eq!(code_and_text(&sendmail(&site, &["-f", from, "jon"], b"hello\n")), (0, String::new()));
        daemon.wait_words(&[&format!(" accept from=<{path}>")]);
    }
    daemon.greeted().ask(&login("mary"), "235 ");
    // The next senders of the page need accounts.
    site.write("users", &["jon", "news"].map(|name| secret(&site, name)).concat());
    fs::set_permissions(site.path("users"), fs::Permissions::from_mode(0o600)).expect("a mode");
    site.set("listen", "kind", "\"submission\"");
    drop(daemon);
    let daemon = site.start();
    for (name, sender, reply) in [
        ("jon", "jon@example.org", "250 "),
        ("jon", "info@example.org", "250 "),
        ("jon", "sales@example.org", "250 "),
        ("jon", "x@lists.example.org", "550 5.7.1 "),
        ("news", "x@lists.example.org", "250 "),
        ("news", "x@a.lists.example.org", "550 5.7.1 "),
        ("news", "info@example.org", "550 5.7.1 "),
    ] {
        let mut client = daemon.greeted();
        client.ask(&login(name), "235 ");
        client.ask(&format!("MAIL FROM:<{sender}>"), reply);
    }
}

// The spool

#[test]
fn a_spool_can_be_repaired_by_the_instructions() {
    let section = pages::section("penfold-spool.5", "MANUAL REPAIR");
    let repair = pages::literals(&section);
    let commands: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix(".Dl ")).collect();
    let ([repair], [read, hold]) = (repair.as_slice(), commands.as_slice()) else { panic!("{section}") };
    let remote =
        Remote::with(Sink::default().reply("RCPT TO:<gone", "550 5.1.1 no").reply("RCPT", "451 4.7.1 not now"));
    let site = Site::with("local.domains = [\"example.org\"]\nqueue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
    site.write("users", "jon::\n");
    site.write("routes", &format!("remote.example {}\n", remote.host_port()));
    let daemon = site.start();
    let text = "Subject: x\r\n\r\nHow are you?\r\n";
    daemon.client().send("jon@example.org", &["greg@remote.example", "gone@remote.example"], text);
    daemon.wait_words(&[" failed to=<gone@remote.example>"]);
    daemon.wait_words(&[" bounced "]);
    daemon.wait_mail(&site, "jon", 1);
    daemon.wait_until("what waits", || site.spooled().len() == 1);
    let file = site.spooled().remove(0);
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let shown = "1K0TVZ6PH81DZ9JHPQF,S=829";
    let shell = |script: &str| {
        let output =
            Command::new("sh").args(["-ec", script]).current_dir(site.path("spool")).output().expect("a shell");
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The instruction for reading a message skips the head of the file. The head's first line has
    // its size, and tail counts from 1.
    let head = fs::read_to_string(&file).expect("text");
    let size: usize = head.strip_prefix("penfold/1 head=").expect("a full head")[..10].parse().expect("a number");
    assert!(section.contains("head=0000000641") && read.starts_with("$ tail -c +642 "));
    let content = shell(&read[2..].replace("642", &(size + 1).to_string()).replace(shown, &name));
    assert!(content.starts_with("Received: from ") && content.ends_with("\n\nHow are you?\n"), "{content}");
    // The instruction for holding a message: no attempt is made, and the list of the queue shows
    // it.
    shell(&hold.strip_prefix("# ").expect("a command").replace(shown, &name));
    let asked = || remote.look(|seen| seen.commands.iter().filter(|c| c.line.starts_with("RCPT TO:<greg")).count());
    let before = asked();
    site.penfoldctl(&["flush"]);
    assert!(site.penfoldctl(&["queue"]).lines().next().is_some_and(|line| line.ends_with("  held")));
    drop(daemon);
    assert_eq!(asked(), before);
    shell(&format!("mv hold/{name} cur/"));
    // The instruction for changing a record: the recipient that failed is tried again.
    remote.behave(Conduct::Sink(Sink::default()));
    let lines: Vec<&str> = repair.lines().collect();
    let [cd, grep, found, print, write] = lines.as_slice() else { panic!("{repair}") };
    assert_eq!(*cd, "# cd /var/spool/penfold/cur");
    let real = shell(&format!("cd cur; {}", grep[2..].replace(shown, &name)));
    let (place, record) = real.split_once(':').expect("a place");
    let (known, shape) = found.split_once(':').expect("a place");
    let is_same = |(a, b): (char, char)| a == b || (a.is_ascii_digit() && b.is_ascii_digit());
    let (shape, _) = shape.split_once(" to=").expect("a record");
    assert!(record.chars().zip(shape.chars()).all(is_same), "{record}{shape}");
    assert!(write.contains(&format!("seek={known} ")), "{write}");
    let write = write.replace(shown, &name).replace(&format!("seek={known} "), &format!("seek={place} "));
    shell(&format!("cd cur; {}\n{write} 2>/dev/null", &print[2..]));
    let daemon = site.start();
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    let recipients: BTreeSet<String> = remote.messages(1).into_iter().flat_map(|message| message.recipients).collect();
    assert_eq!(recipients.into_iter().collect::<Vec<_>>(), ["<gone@remote.example>", "<greg@remote.example>"]);
    assert!(!site.path("spool/bad").join(&name).exists());
}

// The log

/// The event and the keys of a log line, without the values. `None` if the line does not begin with
/// an id.
fn kind(line: &str) -> Option<String> {
    let (id, rest) = line.split_once(' ')?;
    let is_id = id.len() > 8 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    let (mut kind, mut quoted, mut word) = (Vec::new(), false, String::new());
    for c in rest.chars().chain([' ']) {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                let (key, value) = word.split_once('=').unwrap_or((&word, ""));
                // In `lost: Connection reset` the text after the colon is a value without a key.
                kind.push(if value.is_empty() && kind.len() > 1 { String::new() } else { key.to_owned() });
                word.clear();
            }
            c => word.push(c),
        }
    }
    is_id.then(|| kind.join(" "))
}

/// The log lines that penfold-log(5) shows.
fn shown() -> Vec<String> {
    let part = pages::section("penfold-log.5", "LINES");
    let blocks = part.split(".Bd -literal").skip(1).map(|block| block.split("\n.Ed\n").next().unwrap_or_default());
    let unfolded: String = blocks.map(|block| block.replace("\n    ", " ")).collect();
    unfolded.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Lets every event of a message's life happen, in the log of one daemon.
fn eventful(site: &Site, authority: &Authority) -> Daemon {
    let leaf = authority.leaf("127.0.0.1", 30);
    let encrypted = Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() };
    let broken = Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() };
    let good = Remote::with(encrypted.reply("RCPT TO:<gone", "550 5.1.1 no such user here"));
    let bad = Remote::with(broken.when("STARTTLS", Then::Reply("454 4.7.0 not today".into()), usize::MAX));
    let grey = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 greylisted, come back later"));
    let closed = free_port();
    site.write(
        "routes",
        &format!(
            "good.test {}\nbad.test {}\ngrey.test {}\nclosed.test 127.0.0.1:{closed}\ngoes.test discard:\n",
            good.host_port(),
            bad.host_port(),
            grey.host_port()
        ),
    );
    site.write("aliases", "staff: jon\nroot: gone@good.test\n");
    let mut command = site.penfoldd(&["-d"]);
    command.env("PENFOLD_LOG", "debug");
    let daemon = Daemon::spawn(command);
    for to in ["staff", "x@good.test", "x@bad.test", "x@grey.test", "x@closed.test", "gone@good.test", "x@goes.test"] {
        daemon.submit_from("jon@razorback", &[to]);
    }
    // Its line is too long, so it is converted.
    daemon.client().send("jon@razorback", &["x@good.test"], &format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(999)));
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<jon@razorback> NOTIFY=SUCCESS", "250 ");
    client.ask("DATA", "354 ");
    client.ask("x\r\n.", "250 ");
    // A message with the null sender counts as a report, and this one cannot be delivered.
    daemon.submit_from("", &["gone@good.test"]);
    let mut client = daemon.greeted();
    client.ask(&login("jon"), "235 ");
    (0..2).for_each(|_| drop(client.send("jon@razorback", &["jon"], TEXT)));
    client.ask("MAIL FROM:<jon@razorback>", "450 ");
    client.ask("QUIT", "221 ");
    let mut client = daemon.greeted();
    client.ask("AUTH PLAIN AGpvbgB3cm9uZw==", "535 ");
    client.ask("ETRN good.test", "25");
    client.ask("MAIL FROM:<a@x.org>", "250 ");
    client.ask("RCPT TO:<nosuch@razorback>", "550 ");
    let mut lost = daemon.greeted();
    lost.ask("MAIL FROM:<a@x.org>", "250 ");
    lost.ask("RCPT TO:<jon@razorback>", "250 ");
    lost.ask("DATA", "354 ");
    drop(lost);
    let mut broken = daemon.greeted();
    broken.ask("STARTTLS", "220 ");
    broken.send_text("no handshake\r\n\r\n");
    let reset = daemon.connect();
    socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(reset);
    // Here a client times out.
    let mut idle = Client::before_banner(daemon.connect());
    idle.expect("220 ");
    idle.expect("421 4.4.2 ");
    for event in [
        " dropped ",
        " lost from=",
        " lost: ",
        " sent to=<x@good.test>",
        " deferred to=<x@closed.test>",
        " bounced ",
        " closed",
    ] {
        daemon.wait_words(&[event]);
    }
    // By now, the messages that are deferred have the age at which their sender is warned.
    site.penfoldctl(&["flush"]);
    daemon.wait_words(&[" warned "]);
    daemon.wait_words(&[" confirmed "]);
    let listed = site.penfoldctl(&["queue"]);
    let id = listed.split_whitespace().next().expect("a message");
    ["hold", "release", "requeue", "flush", "remove"].iter().for_each(|change| drop(site.penfoldctl(&[change, id])));
    site.penfoldctl(&["bounce", "--yes", "--all", "--reason", "example.com is gone"]);
    drop((good, bad, grey));
    daemon
}

/// Daemons with filters that refuse, change and fail.
fn filtered() -> Vec<(Site, Daemon)> {
    let good = Milter::start(Script::default().at(b'E', &[b"hX-Spam\0no\0", b"c"]));
    let bad = Milter::start(Script::default().at(b'E', &[b"r"]));
    let silent = Milter::start(Script::default().at(b'E', &[b"d"]));
    let strict = Milter::start(Script::default().at(b'M', &[b"t"]));
    let absent = "127.0.0.1:1".parse().expect("an address");
    let one = |address: SocketAddr| {
        let site = Site::with(&format!("filter = [{{ socket = \"inet:{address}\" }}]"));
        let daemon = site.start();
        let mut client = daemon.greeted();
        if !client.ask("MAIL FROM:<a@x.org>", "").starts_with('4') {
            client.ask("RCPT TO:<jon@razorback>", "250 ");
            client.ask("DATA", "354 ");
            client.ask("Message-ID: <x@y.test>\r\n\r\nx\r\n.", "");
        }
        (site, daemon)
    };
    [good.address, bad.address, silent.address, strict.address, absent].map(one).into()
}

/// A daemon that has asked the next host about a recipient.
fn asking() -> (Remote, Site, Daemon) {
    let remote = Remote::with(Sink::default().reply("RCPT", "550 5.1.1 unknown"));
    let site = Site::with("relay.domains = [\"relay.test\"]\nrelay.verify = true");
    site.add("routes", &format!("relay.test {}", remote.address));
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<a@x.org>", "250 ");
    client.ask("RCPT TO:<elvis@relay.test>", "550 ");
    (remote, site, daemon)
}

/// A daemon that has checked a message with an ARC chain.
fn sealed() -> (Dns, Site, Daemon) {
    let key = SigningKey::from_pem(SEALING_KEY.as_bytes()).expect("a key");
    let text = "From: a@x.invalid\nDKIM-Signature: v=1; d=x.invalid\n\nx\n";
    let mut sealer = Sealer::new();
    sealer.feed(text.as_bytes());
    let set = sealer.finish(("lists.test", "s", &key), "lists.test; none", arc::Status::None, 1_780_000_000);
    let dns = Dns::zone(&format!("s._domainkey.lists.test TXT {}", key.record()));
    let mut site = Site::with("relay.networks = []\npolicy.dmarc = \"mark\"");
    site.set("dns", "nameservers", &dns.nameservers());
    let daemon = site.start();
    let text = (set.expect("a set") + text).replace('\n', "\r\n");
    daemon.greeted().send("a@x.invalid", &["jon@razorback"], &text);
    daemon.wait_words(&[" checked "]);
    (dns, site, daemon)
}

/// A daemon with a message that waits for a limit.
fn paced() -> (Remote, Site, Daemon) {
    let remote = Remote::sink();
    let mut site = Site::new();
    site.write("outgoing", "127.0.0.1 rate=1/h\n");
    let table = format!("{:?}", site.path("outgoing"));
    site.set("remote", "outgoing", &table);
    site.write("routes", &format!("slow.test {}\n", remote.host_port()));
    let daemon = site.start();
    daemon.submit(&["first@slow.test"]);
    remote.messages(1);
    daemon.submit(&["second@slow.test"]);
    daemon.wait_words(&[" paced "]);
    (remote, site, daemon)
}

#[test]
fn log_lines_have_the_documented_form() {
    let authority = Authority::new();
    let site = authority.site(
        "listen.kind = \"submission\"\nlisten.auth = \"always\"\nsubmission.messages_per_hour = 2\nlimits.command_timeout = \"4s\"\n\
         relay.etrn = [\"good.test\"]\nqueue.warn_after = \"1s\"\nlocal.postmaster = \"root\"",
    );
    site.configure();
    site.write("users", &secret(&site, "jon"));
    own(&site.path("users"));
    let daemon = eventful(&site, &authority);
    let strange = Site::with("relay.networks = []\npolicy.dmarc = \"mark\"");
    let checking = strange.start();
    let text = "From: a@x.invalid\r\nDKIM-Signature: v=1; d=x.invalid\r\n\r\n";
    checking.greeted().send("a@x.invalid", &["jon@razorback"], text);
    checking.wait_words(&[" checked "]);
    let stranger_site = Site::with("relay.networks = []");
    stranger_site.write("access", "client 127.0.0.1 tag partner\nsender @x.org quarantine\n");
    let strangers = stranger_site.start();
    strangers.submit_from("news@x.org", &["jon@razorback"]);
    let filtering = filtered();
    let (_dns, _site, sealed) = sealed();
    let (_remote, _site, asking) = asking();
    let (_slow, _slow_site, pacing) = paced();
    let shown = shown();
    assert!(shown.len() > 17, "{shown:?}");
    for line in shown {
        let wanted = kind(&line).unwrap_or_else(|| panic!("no line of a log: {line}"));
        let log = || {
            daemon.log()
                + "\n"
                + &checking.log()
                + "\n"
                + &strangers.log()
                + "\n"
                + &sealed.log()
                + "\n"
                + &asking.log()
                + "\n"
                + &pacing.log()
                + "\n"
                + &filtering.iter().map(|(_, daemon)| daemon.log() + "\n").collect::<String>()
        };
        let has = || log().lines().any(|line| kind(line).as_ref() == Some(&wanted));
        assert!(daemon.becomes_true(has), "no line like {line}\n({wanted}) in\n{}", daemon.log());
    }
}
