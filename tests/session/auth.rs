//! AUTH with other software: gsasl, Python's smtplib and swaks as clients, Dovecot's auth as the
//! password database.
//!
//! Also tests delays, a users file that changes, a Dovecot that is absent, and `penfoldctl passwd`
//! with and without a terminal. A test without its program is reported as skipped.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::dovecot::{Dovecot, stand_in};
use common::tls::Authority;
use common::{Daemon, Site};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};

/// A secret for a users file. The password is "pencil".
const SCRAM: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
/// The password "pencil", hashed by `openssl passwd -6`.
const CRYPT: &str =
    "{SHA512-CRYPT}$6$saltsalt$rD9fW1BwIrjB90WCgCTdIQc3phTBhf04I6Iw/XlgKD9E9aEbzqGZipjiFxGo/4wWXDA6jV6/vZO.kKdDSfUJb0";
/// The password "pencil", hashed by `doveadm pw`.
const ARGON: &str =
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$pejGJjXX8NmZ+2mokctjSA$xmRrjNEalgQ+EgvYsaUKFZMxR3ae8JSuhsFFxCTLuoA";
/// Settings that allow AUTH without TLS, since the test's password is no secret.
const OPEN: &str = "listen.auth = \"always\"\nrelay.networks = []";

fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

/// A site with an account for elvis.
fn site() -> Site {
    let site = Site::with(OPEN);
    site.add("users", &format!("elvis:{SCRAM}:"));
    site
}

fn plain(name: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", base64(&format!("\0{name}\0{password}")))
}

#[test]
fn gsasl_authenticates_with_every_mechanism() {
    if !present("gsasl") {
        return;
    }
    let site = site();
    let daemon = site.start();
    for mechanism in ["SCRAM-SHA-256", "PLAIN", "LOGIN"] {
        let good = gsasl(&daemon, mechanism, "pencil", &["--no-starttls"]);
        assert!(good.status.success(), "{mechanism}: {good:?}");
        daemon.wait_log(|l| l.contains(" auth user=elvis ") && l.ends_with(&format!("mechanism={mechanism}")));
        let bad = gsasl(&daemon, mechanism, "stencil", &["--no-starttls"]);
        assert!(!bad.status.success(), "{mechanism}: {bad:?}");
        daemon.wait_log(|l| l.contains(" auth-failed user=elvis ") && l.ends_with(&format!("mechanism={mechanism}")));
    }
}

#[test]
fn gsasl_uses_channel_binding_under_tls() {
    if !present("gsasl") {
        return;
    }
    let authority = Authority::new();
    let site = authority.site("listen.auth = \"tls\"\nrelay.networks = []");
    site.add("users", &format!("elvis:{SCRAM}:"));
    let daemon = site.start();
    let trust = ["--starttls", "--x509-ca-file="];
    let good = gsasl(&daemon, "SCRAM-SHA-256-PLUS", "pencil", &trust);
    assert!(good.status.success(), "{good:?}\n{}", daemon.log());
    daemon.wait_log(|l| l.ends_with("mechanism=SCRAM-SHA-256-PLUS"));
    let without = gsasl(&daemon, "SCRAM-SHA-256", "pencil", &["--starttls", "--x509-ca-file=", "--no-cb"]);
    assert!(without.status.success(), "{without:?}");
}

/// Two users files have the same name with different secrets.
#[test]
fn gsasl_authenticates_with_the_secret_of_the_domain() {
    if !present("gsasl") {
        return;
    }
    let made = Command::new("gsasl").args(["-k", "-m", "SCRAM-SHA-256", "-p", "crayon"]).output().expect("gsasl runs");
    let crayon = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let mut site = site();
    for (section, domain, secret) in [("domain#1", "one.test", SCRAM), ("domain#2", "two.test", &crayon)] {
        site.set(section, "names", &format!("[{domain:?}]"));
        site.set(section, "users", &format!("\"file:{}\"", site.path(domain).display()));
        site.write(domain, &format!("elvis:{secret}:\n"));
    }
    let daemon = site.start();
    for mechanism in ["SCRAM-SHA-256", "PLAIN", "LOGIN"] {
        for (name, own, other) in [("elvis@one.test", "pencil", "crayon"), ("elvis@two.test", "crayon", "pencil")] {
            let login = |password| gsasl_as(&daemon, name, mechanism, password, &["--no-starttls"]);
            let (good, bad) = (login(own), login(other));
            assert!(good.status.success() && !bad.status.success(), "{mechanism} {name}: {good:?} {bad:?}");
            for event in [" auth ", " auth-failed "] {
                daemon.wait_log(|line| {
                    line.contains(&format!("{event}user={name} ")) && line.ends_with(&format!("mechanism={mechanism}"))
                });
            }
        }
    }
}

fn gsasl(daemon: &Daemon, mechanism: &str, password: &str, more: &[&str]) -> Output {
    gsasl_as(daemon, "elvis", mechanism, password, more)
}

fn gsasl_as(daemon: &Daemon, name: &str, mechanism: &str, password: &str, more: &[&str]) -> Output {
    let mut gsasl = Command::new("gsasl");
    gsasl.args(["--smtp", "-m", mechanism, "-a", name, "-p", password]);
    gsasl.args(["--hostname", "razorback.test"]);
    gsasl.arg(format!("--connect=127.0.0.1:{}", daemon.port)).args(more).stdin(Stdio::null());
    gsasl.output().expect("gsasl runs")
}

#[test]
fn a_secret_made_by_gsasl_is_accepted() {
    if !present("gsasl") {
        return;
    }
    let made = Command::new("gsasl").args(["-k", "-m", "SCRAM-SHA-256", "-p", "crayon"]).output().expect("gsasl runs");
    let site = Site::with(OPEN);
    site.add("users", &format!("elvis:{}:", String::from_utf8_lossy(&made.stdout).trim()));
    let daemon = site.start();
    daemon.greeted().ask(&plain("elvis", "crayon"), "235 ");
}

#[test]
fn smtplib_and_swaks_authenticate() {
    let site = site();
    site.add("users", &format!("mary:{CRYPT}:"));
    let daemon = site.start();
    if present("python3") {
        let script = "import smtplib,sys\ns=smtplib.SMTP('127.0.0.1',int(sys.argv[1]))\ns.login(sys.argv[2],'pencil')\n\
                      s.sendmail('elvis@razorback',['user@elsewhere.example'],'Subject: x\\r\\n\\r\\nx\\r\\n')\ns.quit()\n";
        for user in ["elvis", "mary@razorback.test"] {
            let output = Command::new("python3").args(["-c", script, &daemon.port.to_string(), user]).output();
            let output = output.expect("python3 runs");
            assert!(output.status.success(), "{user}: {}", String::from_utf8_lossy(&output.stderr));
        }
        daemon.wait_log(|l| l.contains("proto=ESMTPA") && l.contains("user=mary "));
    }
    if present("swaks") {
        for mechanism in ["PLAIN", "LOGIN"] {
            let mut swaks = Command::new("swaks");
            swaks.args(["--server", "127.0.0.1", "--port", &daemon.port.to_string(), "--helo", "frogbog.test"]);
            swaks.args(["--from", "elvis@razorback", "--to", "user@elsewhere.example", "--quit-after", "RCPT"]);
            let output = swaks.args(["--auth", mechanism, "-au", "elvis", "-ap", "pencil"]).output().expect("it runs");
            assert!(output.status.success(), "{mechanism}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
}

#[test]
fn a_wrong_password_is_delayed_whether_the_account_exists_or_not() {
    let site = site();
    let daemon = site.start();
    let mut client = daemon.greeted();
    let mut took = |name: &str| {
        let start = Instant::now();
        client.ask(&plain(name, "stencil"), "535 ");
        start.elapsed()
    };
    let (first, second, third) = (took("nobody"), took("elvis"), took("someone"));
    for (took, least) in [(first, 250), (second, 500), (third, 1000)] {
        let least = Duration::from_millis(least);
        assert!(took >= least && took < least + Duration::from_secs(2), "{took:?} instead of {least:?}");
    }
    // Neither a new session nor a reload resets the delay.
    kill(daemon.pid(), Signal::SIGHUP).expect("it runs");
    daemon.wait_log(|l| l.contains("read again"));
    let start = Instant::now();
    daemon.greeted().ask(&plain("elvis", "stencil"), "535 ");
    assert!(start.elapsed() >= Duration::from_secs(2));
    daemon.greeted().ask(&plain("elvis", "pencil"), "235 ");
    daemon.wait_log(|l| l.ends_with("auth-failed user=someone@razorback peer=[127.0.0.1] mechanism=PLAIN"));
    assert!(!daemon.log().contains(&base64("\0elvis\0pencil")) && !daemon.log().contains("pencil"));
}

#[test]
fn a_delayed_client_does_not_delay_the_shutdown() {
    let site = site();
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("AUTH PLAIN", "334");
    let start = Instant::now();
    kill(daemon.pid(), Signal::SIGTERM).expect("it runs");
    client.expect("421 4.3.2 ");
    let heard = start.elapsed();
    let status = daemon.wait_end();
    assert!(
        status.success() && start.elapsed() < Duration::from_secs(4),
        "{status} after {heard:?}, {:?}",
        start.elapsed()
    );
}

/// The salt and the iteration count that the server sends to a client with this name.
fn salt_of(daemon: &Daemon, name: &str) -> String {
    let mut client = daemon.greeted();
    client.send_text(&format!("AUTH SCRAM-SHA-256 {}\r\n", base64(&format!("n,,n={name},r=abc"))));
    let challenge = client.read_line().expect("a line");
    let challenge = data_encoding::BASE64.decode(&challenge.trim_ascii_end().as_bytes()[4..]).expect("base64");
    let text = String::from_utf8(challenge).expect("text");
    text.split_once(",s=").expect("a salt").1.to_owned()
}

#[test]
fn an_unknown_account_always_has_the_same_salt() {
    let site = site();
    let names = ["elvis", "nobody", "graceland", "priscilla", "vernon", "gladys"];
    let salts = |daemon: &Daemon| names.map(|name| salt_of(daemon, name));
    let first = salts(&site.start());
    let daemon = site.start();
    assert_eq!(salts(&daemon), first, "after a restart");
    // The new accounts have the iteration count of the others, but another salt.
    site.add("users", &format!("mary:{SCRAM}:\njon@razorback:{}:", SCRAM.replace("W22Z", "X22Z")));
    daemon.hup();
    daemon.wait_log(|l| l.ends_with("configuration and tables read again"));
    assert_eq!(salts(&daemon), first, "with more accounts");
    assert!(first.iter().all(|salt| salt.ends_with(",i=4096")), "{first:?}");
}

#[test]
fn every_kind_of_secret_is_accepted() {
    let site = site();
    site.add("users", &format!("mary:{CRYPT}:"));
    site.add("users", &format!("paul@razorback:{ARGON}:"));
    let daemon = site.start();
    for name in ["elvis", "mary", "paul", "PAUL@razorback"] {
        daemon.greeted().ask(&plain(name, "pencil"), "235 ");
        daemon.greeted().ask(&plain(name, "stencil"), "535 ");
    }
}

#[test]
fn auth_without_starttls_is_rejected_with_the_reason() {
    let site = Authority::new().site("listen.auth = \"tls\"\nrelay.networks = []");
    site.add("users", &format!("elvis:{SCRAM}:"));
    let daemon = site.start();
    let mut client = daemon.client();
    let offered = client.ehlo();
    assert!(!offered.iter().any(|line| line.contains("AUTH")), "{offered:?}");
    client.ask(&plain("elvis", "pencil"), "538 5.7.11 ");
    client.ask("MAIL FROM:<elvis@razorback> AUTH=<>", "250 ");
    assert!(!daemon.log().contains(&base64("\0elvis\0pencil")));
}

#[test]
fn a_users_file_that_changes_is_read_again() {
    let site = Site::with(OPEN);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask(&plain("elvis", "pencil"), "502 ");
    site.add("users", &format!("elvis:{SCRAM}:"));
    client.ask(&plain("elvis", "pencil"), "235 ");
    let mut client = daemon.greeted();
    site.add("users", "mary:{PLAIN}hush:");
    client.ask(&plain("elvis", "pencil"), "235 ");
    let line = daemon.wait_log(|l| l.contains("users:4:6: expected a secret"));
    assert!(!daemon.log().contains("hush"), "{line}");
}

#[test]
fn penfoldctl_passwd_prints_a_line_for_the_users_file() {
    let site = Site::with(OPEN);
    let line = passwd(&site, "elvis", "two words\n");
    assert!(line.starts_with("elvis:{SCRAM-SHA-256}16384,") && line.ends_with(":\n"), "{line}");
    site.add("users", line.trim_end());
    let daemon = site.start();
    daemon.greeted().ask(&plain("elvis", "two words"), "235 ");
    for (name, password) in
        [("elvis", ""), ("elvis", "\n"), ("", "x\n"), ("a:b", "x\n"), ("\"a:b\"", "x\n"), ("a b", "x\n")]
    {
        assert_eq!(passwd(&site, name, password), "", "{name:?} {password:?}");
    }
}

fn passwd(site: &Site, name: &str, password: &str) -> String {
    site.configure();
    let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
    command.args(["passwd", name]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    // The write fails if penfoldctl has already rejected the name and ended.
    let _ = child.stdin.take().expect("a pipe").write_all(password.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code() == Some(0), !output.stdout.is_empty(), "{output:?}");
    let printed = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(password.trim().len() < 2 || !String::from_utf8_lossy(&printed).contains(password.trim()));
    String::from_utf8(output.stdout).expect("ASCII")
}

#[test]
fn penfoldctl_passwd_asks_twice_at_a_terminal_without_echo() {
    for (second, good) in [("hush", true), ("hash", false)] {
        let terminal = openpty(None, None).expect("a terminal");
        let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().expect("a descriptor");
        let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
        command.args(["passwd", "elvis"]).stdin(copy(&terminal.slave)).stderr(copy(&terminal.slave));
        let child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        drop(command);
        let mut master = fs::File::from(terminal.master);
        let mut shown = until(&mut master, "Password: ");
        master.write_all(b"hush\n").expect("it reads");
        shown += &until(&mut master, "Again: ");
        master.write_all(format!("{second}\n").as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.success(), good, "{output:?}");
        assert_eq!(output.stdout.starts_with(b"elvis:{SCRAM-SHA-256}"), good);
        let flags = nix::sys::termios::tcgetattr(&terminal.slave).expect("a terminal").local_flags;
        assert!(flags.contains(nix::sys::termios::LocalFlags::ECHO), "it is left silent");
        assert!(!shown.contains("hush"), "{shown}");
    }
}

/// Reads from a terminal until `wanted` has come, and returns all output up to there.
fn until(terminal: &mut fs::File, wanted: &str) -> String {
    let (mut shown, mut octet) = (String::new(), [0]);
    while !shown.ends_with(wanted) {
        terminal.read_exact(&mut octet).expect("the program goes on");
        shown.push(octet[0].into());
    }
    shown
}

#[test]
fn accounts_can_be_dovecots() {
    let (mut site, Some(dovecot)) = dovecot() else { return };
    site.set("auth", "users", &format!("\"dovecot:{}\"", site.path("auth-client").display()));
    let daemon = site.start();
    let mut client = daemon.client();
    let offered: Vec<_> = client.ehlo().into_iter().filter(|line| line.contains("AUTH")).collect();
    assert_eq!(offered, ["AUTH SCRAM-SHA-256 PLAIN LOGIN"]);
    client.ask(&plain("elvis", "stencil"), "535 ");
    daemon.wait_log(|l| l.contains("auth-failed user=elvis@razorback peer=[127.0.0.1] mechanism=PLAIN"));
    client.ask(&plain("nobody", "pencil"), "535 ");
    client.ask("AUTH LOGIN", "334 ");
    client.ask(&base64("elvis"), "334 ");
    client.ask(&base64("pencil"), "235 ");
    if present("gsasl") {
        for mechanism in ["SCRAM-SHA-256", "PLAIN", "LOGIN"] {
            let good = gsasl(&daemon, mechanism, "pencil", &["--no-starttls"]);
            assert!(good.status.success(), "{mechanism}: {good:?}\n{}\n{}", daemon.log(), dovecot.daemon.log());
        }
        assert!(!gsasl(&daemon, "SCRAM-SHA-256", "stencil", &["--no-starttls"]).status.success());
    }
    drop(dovecot);
    daemon.greeted().ask(&plain("elvis", "pencil"), "454 4.7.0 ");
}

/// A master user of Dovecot logs in as somebody else, and is that account.
#[test]
fn a_master_user_of_dovecot_logs_in_as_another() {
    let (mut site, Some(_dovecot)) = dovecot() else { return };
    site.set("auth", "users", &format!("\"dovecot:{}\"", site.path("auth-client").display()));
    let daemon = site.start();
    daemon.greeted().ask(&plain("elvis*boss", "key"), "235 ");
    daemon.wait_log(|line| line.contains(" auth user=elvis@razorback "));
    daemon.greeted().ask(&plain("elvis*boss", "wrong"), "535 ");
}

/// A Dovecot that serves only authentication, and its site.
fn dovecot() -> (Site, Option<Dovecot>) {
    let site = Site::with(OPEN);
    let dir = site.path("");
    let dir = dir.display();
    site.write("passwords", &format!("elvis:{SCRAM}\n"));
    site.write("masters", "boss:{PLAIN}key\n");
    let settings = format!(
        "auth_mechanisms = plain login scram-sha-256\nauth_failure_delay = 0\ndisable_plaintext_auth = no\n\
         auth_master_user_separator = *\n\
         passdb {{\n driver = passwd-file\n args = {dir}/masters\n master = yes\n result_success = continue\n}}\n\
         passdb {{\n driver = passwd-file\n args = {dir}/passwords\n}}\nuserdb {{\n driver = static\n args = uid=1 gid=1 home=/\n}}\n\
         service auth {{\n unix_listener {dir}/auth-client {{\n mode = 0666\n }}\n}}\n"
    );
    let dovecot = Dovecot::start(&site, &settings);
    if let Some(dovecot) = &dovecot {
        dovecot.daemon.wait_until("its socket", || site.path("auth-client").exists());
    }
    (site, dovecot)
}

#[test]
fn no_client_is_authenticated_by_a_misbehaving_dovecot() {
    for printed in [
        "",
        "VERSION\t2\t0\nMECH\tPLAIN\nDONE\n",
        "DONE\n",
        "VERSION\t1\t2\nMECH\tPLAIN\nDONE\nOK\t2\tuser=elvis\n",
        "VERSION\t1\t2\nMECH\tPLAIN\nDONE\nOK\t1\n",
        "VERSION\t1\t2\nMECH\tPLAIN\nDONE\nOK\t1\tuser=\n",
        "VERSION\t1\t2\nMECH\tPLAIN\nDONE\nCONT\t1\t%%%\n",
        "VERSION\t1\t2\nMECH\tPLAIN\nDONE\nFAIL\t1\tuser=elvis\ttemp\n",
        "LONG",
    ] {
        let printed = if printed == "LONG" { "x".repeat(100_000) } else { printed.to_owned() };
        let mut site = Site::with(OPEN);
        stand_in(&site.path("auth-client"), &printed);
        site.set("auth", "users", &format!("\"dovecot:{}\"", site.path("auth-client").display()));
        let daemon = site.start();
        daemon.greeted().ask(&plain("elvis", "pencil"), "454 4.7.0 ");
        assert!(
            !daemon.log().contains("pencil") && !daemon.log().contains(&base64("\0elvis\0pencil")),
            "{printed:.80}"
        );
    }
}

/// Whether a program is installed. If it is not, reports the test as skipped.
fn present(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        common::skipped(format_args!("{program} is not installed"));
    }
    found
}
