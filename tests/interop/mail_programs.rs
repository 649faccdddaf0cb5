//! Users' mail programs authenticate and submit: swaks, msmtp, Python's smtplib, curl, s-nail, mutt
//! and `openssl s_client`, over STARTTLS and implicit TLS.
//!
//! Each program sends one message with the right password: it arrives with ESMTPSA in Received:,
//! and the log has the login. Each program also reports a wrong password. `penfoldctl passwd` makes
//! the secret in the users file. mutt also shows reports. A test without its program is reported as skipped.

use std::fs;
use std::process::{Command, Output, Stdio};

use common::programs::{feed, python};
use common::remote::{Remote, Sink};
use common::tls::Authority;
use common::{Daemon, Site};

const PASSWORD: &str = "pencil and paper";

/// How a client starts TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    StartTls,
    Implicit,
}

const WAYS: [Way; 2] = [Way::StartTls, Way::Implicit];

struct Scene {
    site: Site,
    daemon: Daemon,
    way: Way,
}

impl Scene {
    fn new(way: Way) -> Self {
        let authority = Authority::new();
        let tls = if way == Way::Implicit { "implicit" } else { "offered" };
        let settings = format!("listen.kind = \"submission\"\nlisten.tls = \"{tls}\"\nrelay.networks = []");
        let site = authority.site(&settings);
        // The certificate is for the server's address, because some programs verify the name to
        // which they connect.
        authority.give(&site, "cert", "127.0.0.1", 30);
        site.write("root.pem", &authority.root_pem());
        let line = feed(Command::new(env!("CARGO_BIN_EXE_penfoldctl")).args(["passwd", "jon"]), PASSWORD.as_bytes());
        let line = String::from_utf8_lossy(&line.stdout).trim_end().to_owned();
        assert!(line.starts_with("jon:{SCRAM-SHA-256}") && !line.contains("pencil"), "{line}");
        site.write("users", &format!("{line}\nmary::\n"));
        let daemon = site.start();
        Self { site, daemon, way }
    }

    fn root(&self) -> String {
        self.site.path("root.pem").display().to_string()
    }

    fn port(&self) -> String {
        self.daemon.address().port().to_string()
    }

    /// Runs a program twice, with the right password and with a wrong one. The program sends one
    /// message to mary.
    fn try_with(&self, program: &str, send: &dyn Fn(&Self, &str) -> Output) {
        let wrong = send(self, "wrong");
        assert!(!wrong.status.success(), "{program}: {wrong:?}");
        self.daemon.wait_words(&["auth-failed", "user=jon"]);
        let right = send(self, PASSWORD);
        assert!(right.status.success(), "{program} {:?}: {right:?}\n{}", self.way, self.daemon.log());
        let mail = self.daemon.wait_mail(&self.site, "mary", 1).remove(0);
        let text = String::from_utf8_lossy(&mail).into_owned();
        assert!(text.contains(" with ESMTPSA (TLS1.3) id "), "{program}: {text}");
        assert!(text.contains("How are you?"), "{program}: {text}");
        assert!(text.contains("\nDate: ") && text.to_lowercase().contains("\nmessage-id: "), "{program}: {text}");
        self.daemon.wait_words(&[" accept from=<jon@", " proto=ESMTPSA tls=TLS1.3 cipher=TLS_"]);
    }
}

fn everywhere(program: &str, send: impl Fn(&Scene, &str) -> Output) {
    if Command::new(program).arg("--version").stdin(Stdio::null()).output().is_err() {
        return common::skipped(format_args!("{program} is not installed"));
    }
    for way in WAYS {
        Scene::new(way).try_with(program, &send);
    }
}

const LETTER: &str = "From: jon@razorback.test\nTo: mary@razorback.test\nSubject: hello\n\nHow are you?\n";

#[test]
fn swaks() {
    for mechanism in ["PLAIN", "LOGIN"] {
        everywhere("swaks", |scene, password| {
            let tls = if scene.way == Way::StartTls { "--tls" } else { "--tls-on-connect" };
            Command::new("swaks")
                .args(["--server", "127.0.0.1", "--port", &scene.port(), tls, "--auth", mechanism])
                .args(["--auth-user", "jon", "--auth-password", password, "--tls-ca-path", &scene.root()])
                .args(["--tls-verify", "--from", "jon@razorback.test", "--to", "mary@razorback.test"])
                .args(["--body", "How are you?"])
                .output()
                .expect("swaks")
        });
    }
}

#[test]
fn msmtp() {
    for mechanism in ["scram-sha-256", "plain", "login"] {
        everywhere("msmtp", |scene, password| {
            let starttls = if scene.way == Way::StartTls { "on" } else { "off" };
            let command = &mut Command::new("msmtp");
            command
                .args(["--file=/dev/null", "--host=127.0.0.1", &format!("--port={}", scene.port())])
                .args(["--tls=on", &format!("--tls-starttls={starttls}"), &format!("--auth={mechanism}")])
                .args(["--user=jon", &format!("--passwordeval=echo '{password}'"), "--from=jon@razorback.test"])
                .args([&format!("--tls-trust-file={}", scene.root()), "--timeout=20", "mary@razorback.test"]);
            feed(command, LETTER.as_bytes())
        });
    }
}

#[test]
fn smtplib() {
    const SCRIPT: &str = "
import smtplib, ssl, sys
port, way, root, password, letter = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
if way == 'StartTls':
    client = smtplib.SMTP('127.0.0.1', int(port), timeout=20)
    client.starttls(context=context)
else:
    client = smtplib.SMTP_SSL('127.0.0.1', int(port), context=context, timeout=20)
client.login('jon', password)
client.sendmail('jon@razorback.test', ['mary@razorback.test'], letter)
client.quit()
";
    everywhere("python3", |scene, password| {
        let way = format!("{:?}", scene.way);
        Command::new("python3")
            .args(["-c", SCRIPT, &scene.port(), &way, &scene.root(), password, LETTER])
            .output()
            .expect("python3")
    });
}

#[test]
fn curl() {
    everywhere("curl", |scene, password| {
        let (scheme, more) = if scene.way == Way::StartTls { ("smtp", "--ssl-reqd") } else { ("smtps", "--ssl") };
        scene.site.write("letter", LETTER);
        Command::new("curl")
            .args(["--silent", "--show-error", "--crlf", more, "--cacert", &scene.root(), "--max-time", "20"])
            .args(["--url", &format!("{scheme}://127.0.0.1:{}", scene.port()), "--user", &format!("jon:{password}")])
            .args(["--mail-from", "jon@razorback.test", "--mail-rcpt", "mary@razorback.test", "--upload-file"])
            .arg(scene.site.path("letter"))
            .output()
            .expect("curl")
    });
}

#[test]
fn s_nail() {
    everywhere("s-nail", |scene, password| {
        let scheme = if scene.way == Way::StartTls { "smtp" } else { "smtps" };
        // s-nail takes the password from a URL, where a blank is written as `%20`.
        let password = password.replace(' ', "%20");
        let starttls = if scene.way == Way::StartTls { "smtp-use-starttls" } else { "nosmtp-use-starttls" };
        let command = &mut Command::new("s-nail");
        command
            .env("HOME", scene.site.path(""))
            .args(["-:/", "-Sv15-compat", "-Ssendwait", "-SDEAD=/dev/null", "-Stls-verify=ignore"])
            .args([&format!("-S{starttls}"), "-Ssmtp-auth=plain"])
            .arg(format!("-Smta={scheme}://jon:{password}@127.0.0.1:{}", scene.port()))
            .args(["-Sfrom=jon@razorback.test", "-s", "hello", "mary@razorback.test"]);
        feed(command, b"How are you?\n")
    });
}

#[test]
fn mutt() {
    if Command::new("mutt").arg("-v").stdin(Stdio::null()).output().is_err() {
        return common::skipped("mutt is not installed");
    }
    for way in WAYS {
        Scene::new(way).try_with("mutt", &|scene, password| {
            let scheme = if scene.way == Way::StartTls { "smtp" } else { "smtps" };
            let settings = format!(
                "set smtp_url=\"{scheme}://jon@127.0.0.1:{}/\"\nset smtp_pass=\"{password}\"\nset ssl_starttls=yes\n\
                 set ssl_force_tls=yes\nset certificate_file=\"{}\"\nset ssl_verify_host=no\nset copy=no\n\
                 set from=\"jon@razorback.test\"\nset use_from=yes\nset smtp_authenticators=\"plain\"\n\
                 set ssl_ca_certificates_file=\"{}\"\n",
                scene.port(),
                scene.root(),
                scene.root()
            );
            scene.site.write("muttrc", &settings);
            let command = &mut Command::new("mutt");
            command.env("HOME", scene.site.path("")).arg("-n").arg("-F").arg(scene.site.path("muttrc"));
            command.args(["-s", "hello", "mary@razorback.test"]);
            feed(command, b"How are you?\n")
        });
    }
}

/// The client does not use AUTH, and its network is not trusted.
#[test]
fn an_unauthenticated_client_cannot_submit() {
    let scene = Scene::new(Way::StartTls);
    let mut client = scene.daemon.client();
    client.ask("HELO client.test", "250");
    client.ask("MAIL FROM:<jon@razorback.test>", "530 5.7.0 ");
    assert_eq!(fs::read_dir(scene.site.path("spool/new")).expect("a spool").count(), 0);
}

/// swaks over a Unix socket, msmtp over TCP. Both report the recipient that does not exist.
#[test]
fn swaks_and_msmtp_speak_lmtp() {
    let mut site = Site::new();
    let path = site.path("lmtp").display().to_string();
    site.set("listen", "kind", &format!("\"lmtp\"\n[[listen]]\naddress = \"unix:{path}\"\nkind = \"lmtp\""));
    let daemon = site.start();
    let port = format!("--port={}", daemon.port);
    let swaks = |to: &str| {
        let mut swaks = Command::new("swaks");
        swaks.args(["--socket", &path, "--protocol", "LMTP", "--from", "ann@frogbog.test", "--to", to]);
        swaks.output()
    };
    let msmtp = |to: &[&str]| {
        let mut msmtp = Command::new("msmtp");
        msmtp.args(["--file=/dev/null", "--protocol=lmtp", "--host=127.0.0.1", &port, "--from=ann@frogbog.test"]);
        feed(msmtp.arg("--timeout=20").args(to), LETTER.as_bytes())
    };
    match swaks("jon@razorback.test,no@razorback.test,root@razorback.test") {
        Err(_) => return common::skipped("swaks is not installed"),
        Ok(output) => {
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{printed}");
            for wanted in
                ["<** 550 5.1.1 <no@", "<-  250 2.0.0 <jon@razorback.test>", "<-  250 2.0.0 <root@razorback.test>"]
            {
                assert!(printed.contains(wanted), "{wanted}: {printed}");
            }
        }
    }
    if Command::new("msmtp").arg("--version").output().is_err() {
        return common::skipped("msmtp is not installed");
    }
    let sent = msmtp(&["jon@razorback.test", "root@razorback.test"]);
    assert!(sent.status.success(), "{sent:?}");
    let refused = msmtp(&["no@razorback.test"]);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("User unknown"),
        "{refused:?}"
    );
    for user in ["jon", "root"] {
        let mail = daemon.wait_mail(&site, user, 2);
        assert!(mail.iter().all(|message| String::from_utf8_lossy(message).contains(" with LMTP id ")), "{mail:?}");
    }
}

/// msmtp and mutt ask for a report of success, and get one from this host.
#[test]
fn msmtp_and_mutt_ask_for_reports() {
    if ["msmtp", "mutt"].iter().any(|name| Command::new(name).arg("-v").stdin(Stdio::null()).output().is_err()) {
        return common::skipped("msmtp or mutt is not installed");
    }
    let site = Site::new();
    let daemon = site.start();
    let port = format!("--port={}", daemon.port);
    let mut msmtp = Command::new("msmtp");
    msmtp.args(["--file=/dev/null", "--host=127.0.0.1", &port, "--from=jon@razorback.test", "--timeout=20"]);
    let sent =
        feed(msmtp.args(["--dsn-notify=success", "--dsn-return=hdrs", "root@razorback.test"]), LETTER.as_bytes());
    assert!(sent.status.success(), "{sent:?}");
    // mutt sends EHLO only if it may use TLS.
    site.write(
        "muttrc",
        &format!(
            "set smtp_url=\"smtp://127.0.0.1:{}/\"\nset ssl_starttls=yes\nset ssl_force_tls=no\nset copy=no\n\
             set from=\"jon@razorback.test\"\nset use_from=yes\nset use_envelope_from=yes\n\
             set dsn_notify=\"success\"\nset dsn_return=\"full\"\n",
            daemon.port
        ),
    );
    let mut mutt = Command::new("mutt");
    mutt.env("HOME", site.path("")).arg("-n").arg("-F").arg(site.path("muttrc"));
    let sent = feed(mutt.args(["-s", "hello", "root@razorback.test"]), b"How are you?\n");
    assert!(sent.status.success(), "{sent:?}");
    daemon.wait_mail(&site, "root", 2);
    let reports = daemon.wait_mail(&site, "jon", 2);
    let texts: Vec<_> = reports.iter().map(|report| String::from_utf8_lossy(report).into_owned()).collect();
    assert!(texts.iter().all(|text| text.contains("\nAction: delivered\n")), "{texts:?}");
    // A report of success has no text, whatever RET says (RFC 3461 4.3).
    assert!(!texts.iter().any(|text| text.contains("How are you?")), "{texts:?}");
}

/// The languages of a report, each of them in mutt as it shows a message: also as parts of their own
/// (RFC 8255).
#[test]
fn mutt_shows_a_report_in_all_its_languages() {
    if Command::new("mutt").arg("-v").stdin(Stdio::null()).output().is_err() {
        return common::skipped("mutt is not installed");
    }
    for multilingual in [false, true] {
        let remote = Remote::with(Sink::default().reply("RCPT", "550 5.1.1 no such user"));
        let site = Site::with(&format!("report.languages = [\"de\"]\nreport.multilingual = {multilingual}"));
        site.add("routes", &format!("example.test {}", remote.host_port()));
        let daemon = site.start();
        let header = "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nX-End: End of the original\r\n";
        daemon.greeted().send("jon@razorback.test", &["elvis@example.test"], &format!("{header}\r\nx\r\n"));
        let report = daemon.wait_mail(&site, "jon", 1).remove(0);
        let Some(shown) = python("interop/mutt_shows.py", &report) else { return };
        let shown = String::from_utf8_lossy(&shown.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        for words in [
            "Subject: Nicht zugestellt: Gr\u{fc}\u{df}e",
            "Es gibt kein Postfach mit dieser Adresse.",
            "Was Sie tun k\u{f6}nnen: Pr\u{fc}fen Sie",
            "There is no mailbox with this address.",
            ": 550 5.1.1 no such user",
            "Status: 5.1.1",
        ] {
            assert!(shown.contains(words), "no {words:?} in:\n{shown}");
        }
    }
}
