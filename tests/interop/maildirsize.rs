//! The file `maildirsize`, which penfold shares with Dovecot and Courier: all of them find the same
//! sums after they have delivered and removed messages in turns.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::client::Client;
use common::dovecot::Dovecot;
use common::{Daemon, Site, unpacked};
use nix::unistd::{User, geteuid};

/// The limit of the mailbox, in bytes.
const LIMIT: u64 = 512 << 10;

fn site() -> Site {
    Site::with("local.quota = \"512K\"\nqueue.retry_min = \"1h\"")
}

/// A message whose file in a mailbox has about `kilobytes` KiB.
fn letter(kilobytes: usize) -> String {
    format!("Subject: a letter\r\n\r\n{}", format!("{}\r\n", "x".repeat(1022)).repeat(kilobytes))
}

fn deliver(daemon: &Daemon, site: &Site, count: usize, kilobytes: usize) {
    let before = site.mail("jon").len();
    let mut client = daemon.greeted();
    for _ in 0..count {
        client.send("anna@example.net", &["jon@razorback"], &letter(kilobytes));
    }
    daemon.wait_mail(site, "jon", before + count);
    // A message is counted after it has got its name.
    assert!(daemon.settles(site));
}

fn rcpt(client: &mut Client, begins: &str) {
    client.ask("MAIL FROM:<anna@example.net> SIZE=40000", "250 ");
    client.ask("RCPT TO:<jon@razorback>", begins);
    client.ask("RSET", "250 ");
}

fn files(place: &Path) -> Vec<PathBuf> {
    fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The size and the number of the messages in a mailbox and its folders.
fn contents(maildir: &Path) -> (u64, u64) {
    let folders = files(maildir).into_iter().filter(|path| path.join("cur").is_dir()).chain([maildir.to_owned()]);
    let messages = folders.flat_map(|folder| ["new", "cur"].map(|place| files(&folder.join(place)))).flatten();
    messages.fold((0, 0), |(size, count), file| (size + fs::metadata(file).expect("a message").len(), count + 1))
}

/// The sums in the file.
fn sums(maildir: &Path) -> (u64, u64) {
    let text = fs::read_to_string(maildir.join("maildirsize")).expect("the file");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(format!("{LIMIT}S").as_str()), "{text}");
    let numbers = lines.map(|line| {
        let words: Vec<i64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        (words[0], words[1])
    });
    let (size, count) = numbers.fold((0, 0), |(size, count), (more, messages)| (size + more, count + messages));
    (size as u64, count as u64)
}

/// A running Dovecot, and its commands.
struct Doveadm {
    dovecot: Dovecot,
    conf: PathBuf,
}

impl Doveadm {
    fn start(site: &Site) -> Option<Self> {
        let owner = if geteuid().is_root() { User::from_name("nobody") } else { User::from_uid(geteuid()) };
        let owner = owner.ok().flatten().expect("the owner of the mailboxes");
        let dir = site.path("mail");
        let settings = format!(
            "mail_location = maildir:{dir}/%n\nfirst_valid_uid = 1\nauth_username_format = %Ln\nmail_plugins = quota\n\
             passdb {{\n driver = static\n args = nopassword=y\n}}\n\
             userdb {{\n driver = static\n args = uid={} gid={} home={dir}/%n allow_all_users=yes\n}}\n\
             plugin {{\n quota = maildir:User quota\n quota_rule = *:bytes={LIMIT}\n quota_grace = 0\n}}\n",
            owner.uid,
            owner.gid,
            dir = dir.display(),
        );
        Some(Self { dovecot: Dovecot::start(site, &settings)?, conf: site.path("dovecot.conf") })
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        // The programs of an unpacked Dovecot exist only in the mount namespace of its daemon.
        let mut command = if geteuid().is_root() {
            let mut command = Command::new("nsenter");
            command.args(["--mount", "-t", &self.dovecot.daemon.pid().to_string(), "doveadm"]);
            command
        } else {
            Command::new("doveadm")
        };
        command.arg("-c").arg(&self.conf).args(["-f", "tab"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("doveadm");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("doveadm")
    }

    fn good(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let log = self.dovecot.daemon.log();
        assert!(output.status.success(), "{arguments:?}: {}\n{log}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The use of the mailbox as Dovecot knows it: in KiB, rounded up, and the number of messages.
    fn quota(&self) -> (u64, u64) {
        let text = self.good(&["quota", "get", "-u", "jon"], "");
        let value = |kind: &str| {
            let line = text.lines().find_map(|line| line.split_once(&format!("\t{kind}\t"))).expect("a line").1;
            line.split('\t').next().and_then(|value| value.parse().ok()).expect("a number")
        };
        (value("STORAGE"), value("MESSAGE"))
    }

    #[track_caller]
    fn check(&self, maildir: &Path) {
        let ((size, count), file) = (contents(maildir), fs::read_to_string(maildir.join("maildirsize")));
        assert_eq!(sums(maildir), (size, count), "{file:?}");
        assert_eq!(self.quota(), (size.div_ceil(1024), count));
    }
}

#[test]
fn dovecot_and_penfold_count_the_same_messages() {
    let site = site();
    let (daemon, maildir) = (site.start(), site.mailbox("jon"));
    deliver(&daemon, &site, 3, 20);
    let Some(doveadm) = Doveadm::start(&site) else { return };
    doveadm.check(&maildir);
    // Messages come, move and go.
    doveadm.good(&["save", "-u", "jon", "-m", "INBOX"], &letter(30));
    doveadm.check(&maildir);
    deliver(&daemon, &site, 2, 10);
    doveadm.check(&maildir);
    doveadm.good(&["expunge", "-u", "jon", "mailbox", "INBOX", "1:2"], "");
    doveadm.check(&maildir);
    for folder in ["Trash", "Work.Penfold"] {
        doveadm.good(&["mailbox", "create", "-u", "jon", folder], "");
        doveadm.good(&["move", "-u", "jon", folder, "mailbox", "INBOX", "1"], "");
        deliver(&daemon, &site, 1, 5);
        doveadm.check(&maildir);
    }
    // Each counts anew, and finds what the other has counted.
    fs::remove_file(maildir.join("maildirsize")).expect("removed");
    deliver(&daemon, &site, 1, 5);
    doveadm.check(&maildir);
    doveadm.good(&["quota", "recalc", "-u", "jon"], "");
    doveadm.check(&maildir);
    deliver(&daemon, &site, 1, 5);
    doveadm.check(&maildir);
    // Both refuse what does not fit. What Dovecot removes makes room at once.
    while contents(&maildir).0 + (80 << 10) < LIMIT {
        deliver(&daemon, &site, 1, 40);
    }
    deliver(&daemon, &site, 1, 39);
    let mut client = daemon.greeted();
    rcpt(&mut client, "452 4.2.2 ");
    let refused = doveadm.run(&["save", "-u", "jon", "-m", "INBOX"], &letter(50));
    assert!(!refused.status.success(), "{refused:?}");
    doveadm.check(&maildir);
    doveadm.good(&["expunge", "-u", "jon", "mailbox", "INBOX", "1:3"], "");
    rcpt(&mut client, "250 ");
    deliver(&daemon, &site, 1, 30);
    doveadm.check(&maildir);
    assert!(!doveadm.dovecot.daemon.log().contains("maildirsize"), "{}", doveadm.dovecot.daemon.log());
    assert!(!daemon.log().contains("is not applied"), "{}", daemon.log());
}

/// Courier's deliverquota delivers to the same mailbox, with the limit that penfold has written.
#[test]
fn courier_and_penfold_count_the_same_messages() {
    let Some(tree) = unpacked::tree("courier") else {
        common::skipped("courier is not unpacked");
        return;
    };
    let site = site();
    let (daemon, maildir) = (site.start(), site.mailbox("jon"));
    let deliverquota = |kilobytes: usize| {
        let mut child = Command::new(tree.join("usr/bin/deliverquota.courier"))
            .arg(&maildir)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("deliverquota");
        let text = letter(kilobytes).replace("\r\n", "\n");
        // It reads nothing of a message that does not fit.
        let _ = child.stdin.take().expect("a pipe").write_all(text.as_bytes());
        let status = child.wait().expect("it ends");
        site.hand_over();
        status.code()
    };
    for _ in 0..3 {
        deliver(&daemon, &site, 2, 20);
        assert_eq!(deliverquota(30), Some(0));
        assert_eq!(sums(&maildir), contents(&maildir));
    }
    fs::remove_file(maildir.join("maildirsize")).expect("removed");
    deliver(&daemon, &site, 1, 20);
    assert_eq!(deliverquota(30), Some(0));
    assert_eq!(sums(&maildir), contents(&maildir));
    while contents(&maildir).0 + (80 << 10) < LIMIT {
        deliver(&daemon, &site, 1, 40);
    }
    deliver(&daemon, &site, 1, 39);
    rcpt(&mut daemon.greeted(), "452 4.2.2 ");
    assert_ne!(deliverquota(50), Some(0));
    assert_eq!(sums(&maildir), contents(&maildir));
}
