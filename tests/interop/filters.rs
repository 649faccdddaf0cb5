//! Filters and policy services as Debian ships them: rspamd, OpenDKIM, OpenDMARC, postgrey,
//! policyd-spf and Dovecot's quota-status.

use std::process::{Command, Stdio};

use common::client::TEXT;
use common::dovecot::Dovecot;
use common::{Daemon, Site, built, free_port, unpacked};
use nix::unistd::{User, geteuid};

/// The test text that every spam filter takes for spam.
const GTUBE: &str = "Subject: offer\r\n\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n";

/// The text for which rspamd adds a field.
const MARKED: &str = "Subject: offer\r\n\r\nYJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n";

/// Starts a filter. Where that is not possible, reports the test as skipped and returns `None`.
fn filter(site: &Site, name: &str) -> Option<Daemon> {
    let Some(tree) = unpacked::tree(name).filter(|_| geteuid().is_root() && may_mount()) else {
        common::skipped(format_args!("{name} needs its package (see tests/setup), and root who may mount"));
        return None;
    };
    let mut logs = String::new();
    for attempt in 0..3 {
        let (dir, port) = (site.path(&format!("{name}{attempt}")), free_port());
        std::fs::create_dir(&dir).expect("a directory");
        let mut script = Command::new(built::source("tests/interop/filters.sh"));
        script.arg(name).args([&tree, &dir]).arg(port.to_string()).stdin(Stdio::null());
        script.env("KEY", built::source("src/mailauth/dkim/tests/rsa.pem"));
        match Daemon::spawn_until(script, |line| (line == "ready").then_some(port)) {
            Ok(daemon) => return Some(daemon),
            Err(log) => logs += &log,
        }
    }
    panic!("{name} does not start:\n{logs}");
}

fn may_mount() -> bool {
    let mount = Command::new("unshare").args(["--mount", "true"]).status();
    mount.is_ok_and(|status| status.success())
}

/// A site with these filters, each with its further keys.
fn ask(site: &mut Site, filters: &[(&Daemon, &str)]) {
    let tables: Vec<_> = filters
        .iter()
        .map(|(daemon, more)| format!("{{ socket = \"inet:127.0.0.1:{}\"{more} }}", daemon.port))
        .collect();
    site.set("", "filter", &format!("[{}]", tables.join(", ")));
}

fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}

#[test]
fn rspamd_refuses_and_marks() {
    let mut site = Site::with("relay.networks = []");
    let Some(rspamd) = filter(&site, "rspamd") else { return };
    ask(&mut site, &[(&rspamd, "")]);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.begin("anna@example.net", &["jon@razorback"]);
    client.ask(&format!("{GTUBE}."), "554 5.7.1 Gtube pattern");
    client.send("anna@example.net", &["jon@razorback"], MARKED);
    let message = text(&daemon.wait_mail(&site, "jon", 1)[0]);
    assert!(message.contains("\nX-Spam: Yes\n"), "{message}");
    client.send("anna@example.net", &["jon@razorback"], TEXT);
    let messages = daemon.wait_mail(&site, "jon", 2);
    assert!(messages.iter().any(|message| !text(message).contains("X-Spam: Yes")));
    assert!(!daemon.log().contains("filter-failed"), "{}", daemon.log());
}

/// OpenDKIM signs after rspamd, and penfold finds the signature valid in the delivered message.
#[cfg(feature = "mailauth")]
#[test]
fn opendkim_signs_what_rspamd_has_seen() {
    let mut site = Site::new();
    let (Some(opendkim), Some(rspamd)) = (filter(&site, "opendkim"), filter(&site, "rspamd")) else { return };
    ask(&mut site, &[(&rspamd, ", for = [\"submission\"]"), (&opendkim, ", for = [\"submission\", \"local\"]")]);
    let daemon = site.start();
    let from = "From: Jon <jon@example.org>\r\nTo: jon@razorback\r\nSubject: hello\r\n again\r\n";
    let lines = "Line with a blank \r\n\r\n..dots\r\n".repeat(3000);
    daemon.greeted().send("jon@example.org", &["jon@razorback"], &format!("{from}\r\n{lines}"));
    let message = text(&daemon.wait_mail(&site, "jon", 1)[0]);
    assert!(message.contains("\nDKIM-Signature: ") && message.contains("d=example.org"), "{:.2000}", message);
    is_signed(&message);
    let sent = common::programs::sendmail(&site, &["-f", "jon@example.org", "jon"], b"From: jon@example.org\n\nx\n");
    assert!(sent.status.success());
    let messages = daemon.wait_mail(&site, "jon", 2);
    messages.iter().for_each(|message| is_signed(&text(message)));
    assert!(!daemon.log().contains("filter-failed"), "{}", daemon.log());
}

/// OpenDMARC refuses what the policy of the author's domain refuses, and adds its results.
#[test]
fn opendmarc_refuses_and_adds_a_field() {
    let mut site = Site::with("relay.networks = []");
    let Some(opendmarc) = filter(&site, "opendmarc") else { return };
    ask(&mut site, &[(&opendmarc, "")]);
    let daemon = site.start();
    let mut client = daemon.greeted();
    let fields = "Date: Mon, 30 Nov 2026 00:00:00 +0000\r\nFrom: Anna <anna@reject.test>\r\n";
    client.begin("anna@example.net", &["jon@razorback"]);
    client.ask(&format!("{fields}\r\nx\r\n."), "550 5.7.1 rejected by DMARC policy for reject.test");
    client.begin("anna@example.net", &["jon@razorback"]);
    client.ask("Subject: no author\r\n\r\nx\r\n.", "550 5.7.1 ");
    let other = fields.replace("reject.test", "example.net");
    client.send("anna@example.net", &["jon@razorback"], &format!("{other}\r\nx\r\n"));
    let message = text(&daemon.wait_mail(&site, "jon", 1)[0]);
    assert!(message.contains("\nAuthentication-Results: opendmarc.test; dmarc=none "), "{message}");
    assert!(!daemon.log().contains("filter-failed"), "{}", daemon.log());
}

#[cfg(feature = "mailauth")]
fn is_signed(message: &str) {
    use penfold::dns::lookup::OnlyTxt;
    use penfold::mailauth::dkim::{SigningKey, Verifier};
    use penfold::outcome::NoAnswer;

    let pem = std::fs::read(built::source("src/mailauth/dkim/tests/rsa.pem")).expect("a key");
    let record = SigningKey::from_pem(&pem).expect("a key").record().into_bytes();
    let is_it = |name: &str| name == "s._domainkey.example.org";
    let zone = OnlyTxt(|name: &str| if is_it(name) { Ok(vec![record.clone()]) } else { Err(NoAnswer::NxDomain) });
    let mut verifier = Verifier::new();
    verifier.feed(message.as_bytes());
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_secs();
    let checked = verifier.finish().verify(&zone, now);
    assert!(checked.len() == 1 && checked[0].is_pass(), "{checked:?}\n{message:.3000}");
}

#[test]
fn postgrey_defers_strangers() {
    let mut site = Site::new();
    let Some(postgrey) = filter(&site, "postgrey") else { return };
    ask(&mut site, &[(&postgrey, ", protocol = \"policy\"")]);
    site.set("relay", "networks", "[]");
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "450 4.2.0 <jon@razorback>: Recipient address rejected: Greylisted");
    client.ask("RCPT TO:<root@razorback>", "450 4.2.0 ");
    assert!(!daemon.log().contains("filter-failed"), "{}", daemon.log());
}

#[test]
fn policyd_spf_adds_a_field() {
    let mut site = Site::with("relay.networks = []");
    let Some(service) = filter(&site, "policyd-spf") else { return };
    ask(&mut site, &[(&service, ", protocol = \"policy\"")]);
    let daemon = site.start();
    daemon.greeted().send("anna@example.net", &["jon@razorback"], TEXT);
    let message = text(&daemon.wait_mail(&site, "jon", 1)[0]);
    assert!(message.contains("\nX-Comment: SPF check N/A for local connections"), "{message}");
    assert!(!daemon.log().contains("filter-failed"), "{}", daemon.log());
}

/// Dovecot counts the Maildir that penfold delivers into. When the Maildir is full, its service
/// refuses the recipient, and penfold refuses the recipient at RCPT.
#[test]
fn dovecots_quota_status_refuses_a_recipient_whose_mailbox_is_full() {
    let mut site = Site::with("relay.networks = []");
    site.write("users", "jon::\nelvis::\n");
    let owner = if geteuid().is_root() { User::from_name("nobody") } else { User::from_uid(geteuid()) };
    let owner = owner.ok().flatten().expect("the owner of the mailboxes");
    let (dir, port) = (site.path(""), free_port());
    let settings = format!(
        "mail_plugins = quota\nmail_location = maildir:{dir}/mail/%n\nfirst_valid_uid = 1\n\
         passdb {{\n driver = static\n args = nopassword=y\n}}\n\
         userdb {{\n driver = static\n args = uid={} gid={} home={dir}/mail/%n allow_all_users=yes\n}}\n\
         plugin {{\n quota = count:user\n quota_vsizes = yes\n quota_rule = *:bytes=2000\n quota_grace = 0\n\
         quota_status_success = DUNNO\n quota_status_nouser = DUNNO\n\
         quota_status_overquota = 552 5.2.2 The mailbox is full\n}}\n\
         service quota-status {{\n executable = quota-status -p postfix\n client_limit = 1\n\
         inet_listener {{\n address = 127.0.0.1\n port = {port}\n }}\n}}\n",
        owner.uid,
        owner.gid,
        dir = dir.display(),
    );
    let Some(dovecot) = Dovecot::start(&site, &settings) else { return };
    dovecot.daemon.wait_until("its port", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    site.set("", "filter", &format!("[{{ socket = \"inet:127.0.0.1:{port}\", protocol = \"policy\" }}]"));
    let daemon = site.start();
    let mut client = daemon.greeted();
    let long = format!("{TEXT}{}", "a line of the message\r\n".repeat(100));
    client.send("anna@example.net", &["jon@razorback"], &long);
    daemon.wait_mail(&site, "jon", 1);
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "552 5.2.2 <jon@razorback>: Recipient address rejected: The mailbox is full");
    client.ask("RCPT TO:<elvis@razorback>", "250 ");
    client.ask("DATA", "354 ");
    client.ask(&format!("{TEXT}."), "250 ");
    daemon.wait_mail(&site, "elvis", 1);
    // The size that the client announces counts as well.
    client.ask("MAIL FROM:<anna@example.net> SIZE=4000", "250 ");
    client.ask("RCPT TO:<elvis@razorback>", "552 5.2.2 ");
    assert!(!daemon.log().contains("filter-failed"), "{}\n{}", daemon.log(), dovecot.daemon.log());
}
