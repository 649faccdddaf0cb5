//! Runs the configurations of penfold.conf(5), word for word, on a fresh Debian.
//!
//! Each example gets a machine of its own: mount, network, host name and PID namespaces, in which
//! /etc and /usr/local are overlays, and the other directories of a mail server are as Debian's
//! packages leave them. On that machine the example is /etc/penfold/penfold.conf, with the files
//! that the page shows with it. Root runs it with the ports, users and paths that it names. The
//! other host is a second penfoldd at 192.0.2.10 with certificates of an authority that the system
//! trusts; a name server runs on port 53. All of this needs root on Linux.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::client::{Client, TEXT};
use common::dns::Dns;
use common::keys;
use common::tls::Authority;
use common::{Daemon, pages};

/// The environment variable that is set for the process inside the namespaces.
const INSIDE: &str = "PENFOLD_TEST_FRESH";

/// Returns true inside the namespaces. Outside, runs the test of this name again, inside, and
/// returns false.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--uts", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc", "--"]);
    let can = Command::new("unshare").args(["-mnupf", "--mount-proc", "true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) || !Path::new("/etc/debian_version").exists() {
        common::skipped("no namespaces of root's on a Debian");
        return false;
    }
    let this = std::env::current_exe().expect("this test");
    let output = unshare.arg(this).args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().expect("unshare");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    false
}

/// A shell script that turns these namespaces into a fresh Debian: the files of packages, a user
/// anna, and no mail server.
const DEBIAN: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
for dir in etc usr/local; do
    mkdir -p /mnt/upper/$dir /mnt/work/$dir
    mount -t overlay overlay -o lowerdir=/$dir,upperdir=/mnt/upper/$dir,workdir=/mnt/work/$dir /$dir
done
for dir in run var/spool home srv; do mount -t tmpfs -o mode=755 tmpfs /$dir; done
mount -t tmpfs -o mode=2775,gid=mail tmpfs /var/mail
rm -rf /etc/penfold /etc/aliases /etc/mailname
ip link set lo up
ip address add 192.0.2.1/24 dev lo
ip address add 192.0.2.10/24 dev lo
echo nameserver 127.0.0.1 > /etc/resolv.conf
useradd --create-home --shell /bin/sh anna
mkdir -p /etc/penfold /usr/local/sbin
"#;

/// The machine in the namespaces, with its name server, and the authority that it trusts.
struct Debian {
    authority: Authority,
    _dns: Dns,
}

fn shell(script: &str) -> String {
    let path = format!("/usr/local/sbin:/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-ec", script]).env("PATH", path).stdin(Stdio::null()).output().expect("sh");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{script}: {printed}");
    printed
}

fn write(path: &str, mode: u32, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

impl Debian {
    /// Makes a machine with this host name and an installed penfold. `begins` is the beginning of
    /// the example that it gets.
    fn new(hostname: &str, begins: &str) -> Self {
        Self::with_zone(hostname, begins, "")
    }

    /// Makes a machine whose name server has more records.
    fn with_zone(hostname: &str, begins: &str, more: &str) -> Self {
        shell(DEBIAN);
        shell(&format!("echo {hostname} > /etc/hostname; hostname {hostname}"));
        let short = hostname.split('.').next().unwrap_or_default();
        write("/etc/hosts", 0o644, &format!("127.0.0.1 localhost\n127.0.1.1 {hostname} {short}\n::1 localhost\n"));
        let install = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/install.sh");
        for (name, built) in
            [("penfoldd", env!("CARGO_BIN_EXE_penfoldd")), ("penfoldctl", env!("CARGO_BIN_EXE_penfoldctl"))]
        {
            common::programs::copy(Path::new(built), &Path::new("/usr/local/sbin").join(name));
        }
        shell(&format!("ln -s penfoldctl /usr/local/sbin/sendmail; {install} user"));
        write("/etc/penfold/penfold.conf", 0o644, &example(begins));
        let zone = more.to_owned()
            + "mail.example.org A 192.0.2.10\nmx.example.org A 192.0.2.10\nstore.example.org A 192.0.2.10\n\
            smtp.provider.example A 192.0.2.10\nx.org A 192.0.2.7\n";
        let dns = Dns::zone_at((Ipv4Addr::LOCALHOST, 53).into(), &zone);
        let authority = Authority::new();
        // The authority is added as update-ca-certificates(8) does it, but faster.
        write("/mnt/root.pem", 0o644, &authority.root_pem());
        shell("mkdir -p /etc/ssl/certs; cat /mnt/root.pem >> /etc/ssl/certs/ca-certificates.crt");
        Self { authority, _dns: dns }
    }

    /// Starts penfoldd, after `penfoldd -n` has found no error.
    fn start(&self) -> Daemon {
        shell("penfoldd -n");
        started(&[])
    }

    /// Starts the other host, with certificates for all names that the examples give it.
    fn hub(&self) -> Daemon {
        shell("install -d -o penfold -m 700 /srv/mail /var/spool/hub; mkdir /etc/hub");
        let mut text = HUB.to_owned();
        for name in ["mail.example.org", "mx.example.org", "smtp.provider.example"] {
            let (certificate, key) = self.authority.make(name, 30);
            write(&format!("/etc/hub/{name}.pem"), 0o644, &certificate);
            write(&format!("/etc/hub/{name}.key"), 0o600, &key);
            text += &format!("[[tls]]\ncertificate = \"/etc/hub/{name}.pem\"\nkey = \"/etc/hub/{name}.key\"\n");
        }
        write("/etc/hub/hub.conf", 0o644, &text);
        let users = secrets(&["desk", "anna"]);
        write("/etc/hub/users", 0o640, &format!("{users}root::\njon::\ngreg::\nmary::\n"));
        shell("chgrp penfold /etc/hub/users");
        write("/etc/hub/senders", 0o644, "desk *\nanna *\n");
        started(&["-f", "/etc/hub/hub.conf"])
    }

    /// Sends a message with sendmail as one of the users of this machine.
    fn sendmail(&self, user: &str, arguments: &str) {
        shell(&format!("printf 'Subject: hello\\n\\nHow are you?\\n' | runuser -u {user} -- sendmail {arguments}"));
    }
}

/// The configuration of the other host: a mail store and submission server, which trusts the
/// address of this machine.
const HUB: &str = r#"
hostname = "mail.example.org"
spool = "/var/spool/hub"
socket = "/var/spool/hub/sock"
log.to = "stderr"
local.domains = ["example.org", "provider.example", "example.com", "friend.example"]
local.users = "file:/etc/hub/users"
local.mailbox = "/srv/mail/{user}"
submission.senders = "/etc/hub/senders"
relay.networks = ["192.0.2.0/24"]
[[listen]]
address = "192.0.2.10:25"
[[listen]]
address = "192.0.2.10:587"
kind = "submission"
"#;

/// Starts penfoldd in the foreground, as the unit does, and waits until it has started.
fn started(arguments: &[&str]) -> Daemon {
    let mut command = Command::new("/usr/local/sbin/penfoldd");
    command.arg("-d").args(arguments).stdin(Stdio::null());
    Daemon::spawn_until(command, |line| line.ends_with(" started").then_some(25)).expect("it starts")
}

const WORDS: &str = "correct horse battery";

/// Lines of a users file for these names, all with the password [`WORDS`].
fn secrets(names: &[&str]) -> String {
    names.iter().map(|name| shell(&format!("echo {WORDS} | penfoldctl passwd {name}"))).collect()
}

/// The example of penfold.conf(5) with this beginning.
fn example(begins: &str) -> String {
    let all = pages::literals(&pages::section("penfold.conf.5", "EXAMPLES"));
    let mut found = all.into_iter().filter(|text| text.starts_with(begins));
    found.next().unwrap_or_else(|| panic!("no example begins with {begins:?}"))
}

/// A line that the page shows outside the examples, found by its beginning.
fn aside(begins: &str) -> String {
    let section = pages::section("penfold.conf.5", "EXAMPLES");
    let found = section.lines().find_map(|line| {
        let line = line.strip_prefix(".Dl ").or_else(|| line.strip_prefix(".Ql "))?;
        line.starts_with(begins).then(|| line.trim_end_matches([' ', '.', ':']).to_owned())
    });
    found.unwrap_or_else(|| panic!("no line begins with {begins:?}"))
}

fn client(at: (Ipv4Addr, u16)) -> Client {
    let mut client = Client::new(TcpStream::connect(SocketAddr::from(at)).expect("it accepts"));
    client.ehlo();
    client
}

/// Waits until a Maildir has this many messages, and returns them.
fn mail(daemon: &Daemon, maildir: &str, count: usize) -> Vec<String> {
    let new = Path::new(maildir).join("new");
    let files = || fs::read_dir(&new).into_iter().flatten().flatten().collect::<Vec<_>>();
    daemon.wait_until(maildir, || files().len() >= count);
    files().iter().map(|file| fs::read_to_string(file.path()).expect("text")).collect()
}

fn return_path(mail: &str) -> &str {
    mail.lines().next().and_then(|line| line.strip_prefix("Return-Path: ")).unwrap_or_default()
}

#[test]
fn a_workstation() {
    if !is_inside("debian::a_workstation") {
        return;
    }
    let debian = Debian::new("desk.example.org", "# Everything goes to the mail server of the network.");
    let (hub, daemon) = (debian.hub(), debian.start());
    debian.sendmail("anna", "greg@example.com");
    let got = mail(&hub, "/srv/mail/greg", 1);
    assert_eq!(return_path(&got[0]), "<anna@example.org>", "{}", got[0]);
    client((Ipv4Addr::LOCALHOST, 25)).send("anna@example.org", &["jon@example.org"], TEXT);
    mail(&hub, "/srv/mail/jon", 1);
    debian.sendmail("root", "anna");
    mail(&daemon, "/home/anna/Maildir", 1);
}

#[test]
fn a_server() {
    if !is_inside("debian::a_server") {
        return;
    }
    let debian = Debian::new("mx.example.org", "# Mail for one domain, in Maildirs");
    shell(&aside("install -d"));
    write("/etc/penfold/users", 0o644, "jon::\nmary::\n");
    write("/etc/aliases", 0o644, &format!("{}\n", aside("root: jon")));
    let daemon = debian.start();
    let names = ["jon@example.org", "postmaster@example.org", "postmaster", "root@localhost"];
    for (number, to) in names.iter().enumerate() {
        let address = if number % 2 == 0 { Ipv4Addr::new(192, 0, 2, 1) } else { Ipv4Addr::LOCALHOST };
        client((address, 25)).send("a@x.org", &[to], TEXT);
        mail(&daemon, "/var/mail/example.org/jon", number + 1);
    }
    client((Ipv4Addr::LOCALHOST, 25)).ask("MAIL FROM:<a@x.org>", "250 ");
    let mut six = Client::new(TcpStream::connect("[::1]:25").expect("it accepts"));
    six.ehlo();
}

const LOGIN: &str = "
import smtplib, ssl
for to in ['mary@example.org', 'jon@example.org']:
    s = smtplib.SMTP_SSL('mx.example.org') if to[0] == 'j' else smtplib.SMTP('mx.example.org', 587)
    if to[0] == 'm': s.starttls(context=ssl.create_default_context())
    s.login('jon', 'correct horse battery')
    s.sendmail('jon@example.org', [to], 'Subject: hello\\n\\nHow are you?\\n')
    s.quit()
";

#[test]
fn a_server_for_people_too() {
    if !is_inside("debian::a_server_for_people_too") {
        return;
    }
    let debian = Debian::new("mx.example.org", "# Mail for one domain, and submission");
    shell(&aside("install -d"));
    let (certificate, key) = debian.authority.make("mx.example.org", 90);
    write("/etc/penfold/cert.pem", 0o644, &certificate);
    write("/etc/penfold/key.pem", 0o600, &key);
    write("/etc/penfold/users", 0o600, &format!("{}mary::\n", secrets(&["jon"])));
    write("/etc/penfold/senders", 0o644, "");
    write("/etc/aliases", 0o644, "root: jon\n");
    let daemon = debian.start();
    client((Ipv4Addr::new(192, 0, 2, 1), 25)).send("a@x.org", &["mary@example.org"], TEXT);
    mail(&daemon, "/var/mail/example.org/mary", 1);
    if Command::new("python3").arg("-V").output().is_err() {
        return common::skipped("python3 is not installed");
    }
    shell(&format!("python3 -c \"{LOGIN}\""));
    mail(&daemon, "/var/mail/example.org/mary", 2);
    mail(&daemon, "/var/mail/example.org/jon", 1);
}

#[test]
fn a_server_that_is_believed() {
    if !is_inside("debian::a_server_that_is_believed") {
        return;
    }
    let made = keys::Made::new("example.org", "202611");
    let zone: String = made.keys.iter().map(keys::Key::zone_line).collect();
    let zone = zone + "y.org A 192.0.2.1\nx.org A 192.0.2.1\n_dmarc.x.org TXT v=DMARC1; p=quarantine\n";
    let debian = Debian::with_zone("mx.example.org", "# A server on the Internet", &zone);
    shell("mkdir -p /etc/penfold/dkim; chmod 755 /etc/penfold/dkim");
    for key in &made.keys {
        let path = format!("/etc/penfold/dkim/{}", key.path.file_name().expect("a name").display());
        write(&path, 0o600, &fs::read_to_string(&key.path).expect("a key"));
    }
    shell(&aside("install -d"));
    let (certificate, key) = debian.authority.make("mx.example.org", 90);
    write("/etc/penfold/cert.pem", 0o644, &certificate);
    write("/etc/penfold/key.pem", 0o600, &key);
    write("/etc/penfold/users", 0o600, &format!("{}mary::\n", secrets(&["jon"])));
    write("/etc/aliases", 0o644, "root: jon\n");
    let checked = shell("penfoldctl dkim check example.org; penfoldd -n 2>&1");
    assert!(
        checked.matches(": good (").count() == 2 && !checked.contains("_domainkey.example.org: there"),
        "{checked}"
    );
    let daemon = debian.start();
    let forged = format!("From: a@x.org\r\n{TEXT}");
    client((Ipv4Addr::new(192, 0, 2, 1), 25)).send("b@y.org", &["mary@example.org"], &forged);
    let junk = mail(&daemon, "/var/mail/example.org/mary/.Junk", 1).remove(0);
    assert!(junk.contains("dmarc=fail "), "{junk}");
    debian.sendmail("root", "mary@example.org");
    let sent = mail(&daemon, "/var/mail/example.org/mary", 1).remove(0);
    shell(&format!("python3 -c \"{}\"", LOGIN.replace("['mary@example.org', ", "[")));
    let submitted = mail(&daemon, "/var/mail/example.org/jon", 1).remove(0);
    for mail in [sent, submitted] {
        let Some(verified) = keys::verify(mail.as_bytes(), &made.keys) else { return };
        assert_eq!(verified, ["202611-rsa example.org True", "202611-ed25519 example.org True"], "{mail}");
    }
}

#[test]
fn a_server_that_only_marks() {
    if !is_inside("debian::a_server_that_only_marks") {
        return;
    }
    let zone = "x.org TXT v=spf1 -all\n_dmarc.x.org TXT v=DMARC1; p=reject\n";
    let debian = Debian::with_zone("mx.example.org", "# Mail of strangers", zone);
    shell(&aside("install -d"));
    write("/etc/penfold/users", 0o644, "jon::\nmary::\n");
    write("/etc/aliases", 0o644, "root: jon\n");
    let daemon = debian.start();
    client((Ipv4Addr::new(192, 0, 2, 1), 25)).send("a@x.org", &["jon@example.org"], TEXT);
    let got = mail(&daemon, "/var/mail/example.org/jon", 1).remove(0);
    assert!(got.contains("\nAuthentication-Results: mx.example.org;"), "{got}");
}

#[test]
fn a_workstation_with_a_login() {
    if !is_inside("debian::a_workstation_with_a_login") {
        return;
    }
    let debian = Debian::new("desk.example.org", "# Everything goes to a mail server that requires a login.");
    write("/etc/penfold/credentials", 0o600, &format!("{}\n", aside("mx.example.org:desk:")));
    write("/etc/aliases", 0o644, &format!("{}\n", aside("root: jon@")));
    let (hub, _daemon) = (debian.hub(), debian.start());
    debian.sendmail("anna", "mary@example.org");
    assert_eq!(return_path(&mail(&hub, "/srv/mail/mary", 1)[0]), "<anna@example.org>");
    hub.wait_words(&[" auth user=desk "]);
    debian.sendmail("anna", "root");
    mail(&hub, "/srv/mail/jon", 1);
    debian.sendmail("root", "postmaster");
    mail(&hub, "/srv/mail/jon", 2);
}

#[test]
fn a_relay() {
    if !is_inside("debian::a_relay") {
        return;
    }
    let debian = Debian::new("gate.example.org", "# A relay in front of a mail store");
    write("/etc/penfold/routes", 0o644, "example.org store.example.org\nfriend.example 192.0.2.10\n");
    shell("install -d -o mail -g mail -m 700 /var/spool/penfold");
    let (hub, _daemon) = (debian.hub(), debian.start());
    let mut outside = client((Ipv4Addr::new(192, 0, 2, 1), 25));
    outside.send("a@x.org", &["jon@example.org", "mary@friend.example"], TEXT);
    mail(&hub, "/srv/mail/jon", 1);
    mail(&hub, "/srv/mail/mary", 1);
}

#[test]
fn a_null_client() {
    if !is_inside("debian::a_null_client") {
        return;
    }
    let debian = Debian::new("web.example.org", "# Nothing is delivered here");
    let (hub, _daemon) = (debian.hub(), debian.start());
    debian.sendmail("root", "root");
    let got = mail(&hub, "/srv/mail/root", 1).remove(0);
    assert_eq!(return_path(&got), "<root@example.org>");
    assert!(got.contains("tls"), "{got}");
}

#[test]
fn a_host_at_a_provider() {
    if !is_inside("debian::a_host_at_a_provider") {
        return;
    }
    let debian = Debian::new("desk.home.arpa", "# Everything goes to a provider");
    write("/etc/penfold/rewrite", 0o644, &format!("{}\n", aside("@desk.home.arpa")));
    write("/etc/penfold/credentials", 0o600, &format!("smtp.provider.example:anna:{WORDS}\n"));
    let root = aside("root: anna");
    write("/etc/aliases", 0o644, &format!("{root}\n{}\n", root.replace("root:", "anna:")));
    let (hub, _daemon) = (debian.hub(), debian.start());
    debian.sendmail("root", "root greg@example.com");
    for user in ["anna", "greg"] {
        assert_eq!(return_path(&mail(&hub, &format!("/srv/mail/{user}"), 1)[0]), "<anna@provider.example>");
    }
    hub.wait_words(&[" auth user=anna "]);
}

#[test]
fn a_host_for_itself() {
    if !is_inside("debian::a_host_for_itself") {
        return;
    }
    let debian = Debian::new("web.example.org", "# Mail from programs such as cron");
    let daemon = debian.start();
    debian.sendmail("root", "anna");
    mail(&daemon, "/home/anna/Maildir", 1);
    let refused = "echo hello | runuser -u anna -- sendmail x@elsewhere.test || echo code $?";
    assert!(shell(refused).contains("code 69"));
}
