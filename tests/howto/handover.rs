//! The queues of Exim and sendmail, handed over to penfold by the sessions of penfold-migration(7).
//!
//! Both programs run unpacked, in namespaces with a network of their own (exim.sh, sendmail.sh). The
//! test types what the page says there. It stands in for systemctl(1) only.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::dns::{Answer, Dns};
use common::namespace::Namespace;
use common::programs::code_and_text;
use common::remote::{Conduct, Received, Remote, Sink};
use common::{Daemon, Site, built, pages, unpacked};

use crate::page::{self, Display};
use crate::pattern;

const PAGE: &str = "penfold-migration.7";

/// The settings of both programs, as the page translates them. All other hosts are the world.
const SETTINGS: &str = r#"
hostname = "mx.razorback.test"
listen.address = "127.0.0.1:25"
local.domains = ["razorback.test", "shop.test", "mx.razorback.test", "localhost"]
relay.networks = ["127.0.0.0/8", "::1", "192.0.2.0/24"]
relay.domains = ["backup.test"]
remote.smarthosts = ["127.0.0.3"]
dns.nameservers = ["127.0.0.53"]
"#;

/// A host with another mail server, which is replaced by penfold.
struct Host {
    /// The other mail server. It ends first, then penfold, then their network.
    other: Daemon,
    penfold: Option<Daemon>,
    /// All other hosts. They take all mail.
    world: Remote,
    namespace: Namespace,
    site: Site,
    dir: PathBuf,
}

impl Host {
    /// Starts a host with a script of this directory. Where that is not possible, reports the test as
    /// skipped and returns `None`.
    fn start(name: &str) -> Option<Self> {
        let tree = unpacked::peer(name)?;
        let site = Site::with(SETTINGS);
        site.write("aliases", "info: jon, ann@example.net\n");
        site.write("virtual", "# Names of the shop.\nsales@razorback.test\tjon\n@shop.test\troot\n");
        let dir = site.path(name);
        let namespace = Namespace::new(None);
        // A name server that fails: nothing here depends on it.
        namespace.inside(|| Dns::listening(([127, 0, 0, 53], 53).into(), |_| Answer::servfail()));
        let listen = || std::net::TcpListener::bind("127.0.0.3:25").expect("a network of the test's own");
        let world = Remote::start(namespace.inside(listen), Conduct::Sink(Sink::default()));
        let mut script = Command::new(built::source(&format!("tests/howto/{name}.sh")));
        script.args([tree, dir.clone(), site.path("aliases"), site.path("virtual")]);
        let ready = |line: &str| (line == "ready").then_some(25);
        let other = Daemon::spawn_until(namespace.network(&script), ready);
        let other = other.unwrap_or_else(|log| panic!("{name} does not start:\n{log}"));
        Some(Self { other, penfold: None, world, namespace, site, dir })
    }

    /// Runs a command of the other mail server's host. Returns its exit status and its output.
    fn run(&self, command: &str) -> (i32, String) {
        let pid = std::fs::read_to_string(self.dir.join("pid")).expect("a process");
        let mut shell = Command::new("nsenter");
        shell.args(["-m", "-n", "-p", "-u", "-t", pid.trim(), "--", "env", "-i"]);
        shell.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "bash", "-c", command]);
        code_and_text(&shell.stdin(Stdio::null()).output().expect("nsenter"))
    }

    /// Runs a command that must succeed, and returns its output.
    fn ask(&self, command: &str) -> String {
        let (status, text) = self.run(command);
        assert_eq!(status, 0, "{command}: {text}");
        text
    }

    /// Does what the session in a section of the page says.
    fn follow(&mut self, section: &str, pid_file: &str) {
        let displays = page::displays(&pages::section(PAGE, section)).expect("displays");
        let [(_, Display::Session(steps))] = &displays[..] else { panic!("{section}: one session: {displays:?}") };
        for step in steps {
            if step.command.starts_with("systemctl stop ") {
                self.ask(&format!(
                    "p=$(head -n 1 {pid_file}) && kill $p && while kill -0 $p 2> /dev/null; do sleep 0.05; done"
                ));
            } else if step.command.starts_with("systemctl disable ") {
                // Nothing starts it again here.
            } else if step.command.starts_with("systemctl enable --now penfold.service") {
                self.penfold = Some(Daemon::spawn(self.namespace.network(&self.site.penfoldd(&["-d"]))));
            } else {
                let (status, text) = self.run(&step.command);
                let compared = pattern::compare(&step.output, &text);
                assert!(status == 0 && compared.is_ok(), "{section}: {}: {status}\n{text}", step.command);
            }
        }
    }

    /// Whether penfold would accept an address from a client, and the users who would get the mail.
    fn explain(&self, address: &str, ip: &str) -> (bool, Vec<String>) {
        let text = self.site.penfoldctl(&["explain", address, "--ip", ip]);
        let mail = format!(": Maildir {}/", self.site.path("mail").display());
        let users = text.lines().filter_map(|line| Some(line.split_once(&mail)?.1.split(' ').next()?.to_owned()));
        (text.starts_with("accepted"), users.collect())
    }

    /// Waits until penfold has delivered everything: this many messages to jon, one to root, and this
    /// many to other hosts. Returns the messages of jon and those of other hosts.
    fn settle(&self, jon: usize, world: usize) -> (Vec<String>, Vec<Received>) {
        let penfold = self.penfold.as_ref().expect("the page has started it");
        assert!(penfold.settles(&self.site), "{}", penfold.log());
        let subjects = |user: &str| {
            let mails = self.site.mail(user).into_iter();
            let mut subjects: Vec<String> = mails.map(|mail| subject(&mail)).collect();
            subjects.sort();
            subjects
        };
        assert_eq!(subjects("root"), ["three"], "{}", penfold.log());
        let (mails, sent) = (subjects("jon"), self.world.messages(world));
        assert_eq!((mails.len(), sent.len()), (jon, world), "{mails:?} {sent:?}\n{}", penfold.log());
        (mails, sent)
    }
}

impl Drop for Host {
    // The site can be removed when the last process of the other server has ended.
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.other.pid(), nix::sys::signal::Signal::SIGKILL);
        self.other.becomes_true(|| false);
    }
}

fn subject(mail: &[u8]) -> String {
    let text = String::from_utf8_lossy(mail);
    let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    subject.unwrap_or_else(|| panic!("no subject: {text}")).trim_end().to_owned()
}

/// What went to other hosts: subjects with recipients, in their order.
fn recipients(sent: &[Received]) -> Vec<String> {
    let mut lines: Vec<String> = sent
        .iter()
        .map(|message| {
            let mut to: Vec<&str> = message.recipients.iter().map(|to| to.split('>').next().unwrap_or(to)).collect();
            to.sort_unstable();
            format!("{} {}>", subject(&message.data), to.join("> "))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn the_queue_of_exim() {
    let Some(mut host) = Host::start("exim") else { return };
    // jon has his copy already. The report in the queue is frozen.
    let queue = host.ask("exim4 -bp");
    assert!(queue.contains("D jon@razorback.test") && queue.contains("<> *** frozen ***"), "{queue}");
    assert_eq!(queue.matches('<').count(), 4, "{queue}");
    host.follow("SETTINGS OF EXIM", "/run/exim4/exim.pid");
    // Exim itself reports that nobody is elvis.
    let (mails, sent) = host.settle(2, 2);
    assert!(mails[0].starts_with("Mail delivery failed") && mails[1] == "two", "{mails:?}");
    assert_eq!(recipients(&sent), ["one <greg@example.net>", "two <ann@example.net>"]);
    // Exim and penfold accept the same mail.
    let strangers = "greg@example.net jon@razorback.test elvis@razorback.test info@razorback.test x@backup.test \
                     jon@mx.razorback.test";
    for (ip, addresses) in [
        ("198.51.100.1", strangers),
        ("192.0.2.7", "greg@example.net jon@razorback.test"),
        ("127.0.0.1", "greg@example.net jon@razorback.test"),
    ] {
        let rcpt: String = addresses.split(' ').map(|address| format!("RCPT TO:<{address}>\\r\\n")).collect();
        let text =
            host.ask(&format!("printf 'EHLO x\\r\\nMAIL FROM:<>\\r\\n{rcpt}QUIT\\r\\n' | exim4 -bh {ip} 2> /dev/null"));
        let (_, replies) = text.split_once("250 OK").expect("the reply to MAIL");
        let replies: Vec<&str> = replies.lines().skip(1).collect();
        for (address, reply) in addresses.split(' ').zip(&replies) {
            let (accepted, _) = host.explain(address, ip);
            // Exim has no name server here, and says 451 about backup.test.
            assert_eq!(accepted, !reply.starts_with('5'), "{address} from {ip}: {text}");
        }
        assert_eq!(replies.len(), addresses.split(' ').count() + 1, "{text}");
    }
}

#[test]
fn the_queues_of_sendmail() {
    let Some(mut host) = Host::start("sendmail") else { return };
    // greg.test has its copy already.
    assert_eq!(recipients(&host.world.take()), ["one <ann@greg.test>"]);
    let program = "/usr/libexec/sendmail/sendmail";
    let queues = host.ask(&format!("{program} -bp; {program} -Ac -bp"));
    assert!(queues.contains("(4 requests)") && queues.contains("(1 request)"), "{queues}");
    host.follow("SETTINGS OF SENDMAIL", "/run/sendmail/mta/sendmail.pid");
    // sendmail itself reports that penfold has no user bin.
    let (mails, sent) = host.settle(3, 2);
    assert!(mails[0].starts_with("Returned mail") && mails[1..] == ["five", "two"], "{mails:?}");
    assert_eq!(recipients(&sent), ["one <greg@example.net>", "two <ann@example.net>"]);
    let queue = host.ask(&format!("{program} -bp"));
    assert!(queue.contains("/var/spool/mqueue is empty"), "{queue}");
    // The aliases and the virtusertable mean the same to both, with the difference that the page has.
    for (address, theirs, mine) in [
        ("info@razorback.test", "jon", "jon"),
        ("sales@razorback.test", "jon", "jon"),
        ("x@shop.test", "root", "root"),
        ("jon@shop.test", "root", "jon"),
        ("jon@mx.razorback.test", "jon", "jon"),
        ("elvis@razorback.test", "", ""),
    ] {
        let (_, text) = host.run(&format!("{program} -bv {address}"));
        let found: Vec<&str> =
            text.lines().filter_map(|line| Some(line.split_once("mailer local, user ")?.1)).collect();
        assert_eq!(found.concat(), theirs, "{address}: {text}");
        assert_eq!(host.explain(address, "198.51.100.1").1.concat(), mine, "{address}");
    }
}
