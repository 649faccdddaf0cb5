//! Runs the EXAMPLES of the manual pages as they are printed.
//!
//! A test reads its example from the page, substitutes the scratch site for the system (paths,
//! ports, host names), runs the example, and compares the result with the page. If an example has
//! no test, `every_example_is_run` fails. Examples with system users need root. Without root, or
//! without another program that it needs, a test is reported as skipped.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use common::client::Client;
use common::dns::Dns;
use common::filter::{Milter, PolicyService, Script};
use common::homes::{Homes, messages};
use common::keys;
use common::programs::copy;
use common::remote::{Remote, Sink, Then};
use common::tls::Authority;
use common::{Daemon, Site, TIMEOUT, free_port, pages, unpacked};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use penfold::address::Address;
use penfold::envelope::{Envelope, MailOptions, Origin, Recipient};
use penfold::spool::{NewEntry, Spool};

/// Makes a test for each example. Each line names the test, the page, the beginning of the example,
/// and the feature that it needs.
macro_rules! examples {
    ($($run:ident: $page:literal, $begins:literal $($needs:literal)?;)*) => {
        const EXAMPLES: &[(&str, &str)] = &[$(($page, $begins)),*];
        mod an_example {
            $(#[test]
            $(#[cfg_attr(not(feature = $needs), ignore = "a part is not built in")])?
            fn $run() {
                super::$run(super::example($page, $begins));
            })*
        }
    };
}

examples! {
    a_message_is_sent: "sendmail.8", "$ printf";
    addresses_are_looked_up: "sendmail.8", "# sendmail -bv";
    an_empty_queue_is_listed: "mailq.1", "# mailq\n--";
    mailq_lists_what_waits: "mailq.1", "# mailq\n1";
    aliases_are_counted: "newaliases.1", "$ newaliases\n/etc/aliases: ";
    aliases_are_checked: "newaliases.1", "$ newaliases\n/etc/aliases:1";
    penfoldctl_lists_what_waits: "penfoldctl.8", "# penfoldctl queue\n1";
    a_refusal_is_explained: "penfoldctl.8", "# penfoldctl explain jon@";
    a_wait_is_explained: "penfoldctl.8", "# penfoldctl explain 1";
    a_program_reads_the_list: "penfoldctl.8", "# penfoldctl queue --json";
    a_message_is_shown: "penfoldctl.8", "# penfoldctl show";
    the_system_is_checked: "penfoldctl.8", "# penfoldctl check";
    the_daemon_is_shown: "penfoldctl.8", "# penfoldctl status";
    the_traffic_is_watched: "penfoldctl.8", "# penfoldctl top";
    a_host_that_is_down_is_found: "penfoldctl.8", "# penfoldctl hosts";
    a_domain_is_flushed: "penfoldctl.8", "# penfoldctl flush";
    mail_of_a_user_is_held: "penfoldctl.8", "# penfoldctl hold";
    mail_is_returned: "penfoldctl.8", "# penfoldctl bounce";
    aliases_are_used_anew: "penfoldctl.8", "# penfoldctl requeue";
    a_key_has_a_value: "penfoldctl.8", "# penfoldctl config";
    a_file_is_put_into_force: "penfoldctl.8", "# penfoldctl reload";
    a_quarantine_is_emptied: "penfoldctl.8", "# penfoldctl queue | grep held";
    a_message_that_has_not_arrived_is_traced: "penfoldctl.8", "# penfoldctl trace";
    the_senders_of_a_night_are_listed: "penfoldctl.8", "# penfoldctl stats";
    a_user_may_log_in: "penfoldctl.8", "# penfoldctl passwd";
    keys_are_made: "penfoldctl.8", "# penfoldctl dkim new" "mailauth";
    records_of_keys_are_printed: "penfoldctl.8", "# penfoldctl tlsa";
    a_policy_is_printed: "penfoldctl.8", "# penfoldctl mta-sts";
    the_daemon_starts: "penfoldd.8", "# penfoldd -n";
    a_message_is_looked_up: "penfold-log.5", "# grep";
    inetd_serves: "penfold-admin.7", "smtp stream";
    fail2ban_is_set_up: "penfold-admin.7", "# cd";
    aliases_of_all_kinds: "penfold-aliases.5", "postmaster:";
    a_newsletter_leaves_slowly: "penfold-outgoing.5", "@news.example.org";
    a_forward_keeps_a_copy: "penfold-aliases.5", "\\jon, jon@";
    a_forward_answers: "penfold-aliases.5", "\\jon, \"|";
    a_forward_sorts: "penfold-aliases.5", "|/usr/bin/procmail";
    a_workstation: "penfold.conf.5", "# Everything goes to the mail server of the network.";
    a_server: "penfold.conf.5", "# Mail for one domain, in Maildirs";
    a_server_for_people_too: "penfold.conf.5", "# Mail for one domain, and submission";
    a_server_that_is_believed: "penfold.conf.5", "# A server on the Internet" "mailauth";
    a_server_that_only_marks: "penfold.conf.5", "# Mail of strangers" "mailauth";
    a_workstation_with_a_login: "penfold.conf.5", "# Everything goes to a mail server that requires a login.";
    a_relay: "penfold.conf.5", "# A relay in front of a mail store";
    a_server_with_filters: "penfold.conf.5", "# Mail is filtered by rspamd" "filters";
    a_null_client: "penfold.conf.5", "# Nothing is delivered here";
    a_host_at_a_provider: "penfold.conf.5", "# Everything goes to a provider";
    a_host_for_itself: "penfold.conf.5", "# Mail from programs such as cron";
}

/// All examples of a page.
fn all(page: &str) -> Vec<String> {
    pages::literals(&pages::section(page, "EXAMPLES"))
}

/// The example of a page with this beginning; there must be exactly one.
fn example(page: &str, begins: &str) -> String {
    let mut found = all(page).into_iter().filter(|text| text.starts_with(begins));
    let example = found.next().unwrap_or_else(|| panic!("{page} has no example that begins with {begins:?}"));
    assert_eq!(found.next(), None, "{page}: {begins:?}");
    example
}

#[test]
fn every_example_is_run() {
    let mut count = 0;
    for page in pages::names() {
        for text in all(&page) {
            let is_known = |(of, begins): &&(&str, &str)| *of == page && text.starts_with(begins);
            assert_eq!(
                EXAMPLES.iter().filter(is_known).count(),
                1,
                "{page} has an example that no test knows:\n{text}"
            );
            count += 1;
        }
    }
    assert_eq!(count, EXAMPLES.len());
}

/// A site with the programs under their usual names, as a shell finds them.
struct Machine {
    site: Site,
}

impl Machine {
    fn new(site: Site) -> Self {
        fs::create_dir(site.path("bin")).expect("a directory");
        let built = env!("CARGO_BIN_EXE_penfoldctl");
        for name in ["sendmail", "mailq", "newaliases", "penfoldctl"] {
            let path = site.path("bin").join(name);
            fs::hard_link(built, &path).unwrap_or_else(|_| copy(Path::new(built), &path));
        }
        let machine = Self { site };
        let (daemon, path) = (env!("CARGO_BIN_EXE_penfoldd"), |name| machine.site.path(name).display().to_string());
        // The script adds a pid file, so that a test can end a daemon in the background.
        let script = "test $# -gt 0 || set -- -p {pid}\nexec {daemon} -f {conf} \"$@\"";
        let script = script.replace("{pid}", &path("pid")).replace("{conf}", &path("penfold.conf"));
        machine.program("penfoldd", &script.replace("{daemon}", daemon));
        machine
    }

    /// Adds a shell script to the programs of the machine.
    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.site.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode 755");
        path
    }

    /// A text in which the paths of the site replace those of the system.
    fn here(&self, text: &str) -> String {
        let dir = self.site.path("").display().to_string();
        let dir = dir.trim_end_matches('/');
        text.replace("/etc/aliases", &format!("{dir}/aliases"))
            .replace("/etc/penfold/", &format!("{dir}/"))
            .replace("/var/mail/example.org/", &format!("{dir}/mail/"))
            .replace("/var/mail/", &format!("{dir}/mail/"))
            .replace("/var/log/mail.log", &format!("{dir}/var/log"))
    }

    fn shell(&self, script: &str) -> Command {
        let path = format!("{}:{}", self.site.path("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(script).env("PATH", path).env("PENFOLD_CONFIG", self.site.path("penfold.conf"));
        shell
    }

    /// Runs the lines of an example that begin with a prompt. Returns the result, the output, and
    /// the output that the example shows.
    fn run(&self, example: &str) -> (Output, String, String) {
        let example = self.here(example);
        let (commands, expected): (Vec<&str>, Vec<&str>) = example.lines().partition(|line| is_command(line));
        assert!(!commands.is_empty(), "{example}");
        let script: String = commands.iter().map(|line| format!("{}\n", &line[2..])).collect();
        let output = self.shell(&script).stdin(Stdio::null()).output().expect("a shell");
        let printed = [output.stdout.as_slice(), &output.stderr].concat();
        let expected: String = expected.iter().map(|line| format!("{line}\n")).collect();
        (output, String::from_utf8(printed).expect("UTF-8"), expected)
    }

    /// Runs an example. Asserts that its output is exactly that of the page, and that its exit code
    /// is 0.
    fn says(&self, example: &str) {
        let (output, printed, expected) = self.run(example);
        assert!(output.status.success() && printed == expected, "{printed}{example}");
    }
}

fn is_command(line: &str) -> bool {
    // `penfoldctl config` prints comments, of which the first begins with a path.
    let is_comment =
        line.starts_with("# /") && line.contains("/penfold.conf, in force ") || line.starts_with("# A key after ");
    !is_comment && (line.starts_with("$ ") || line.starts_with("# "))
}

/// A text without numbers, ids and ages, and with folded lines joined, for comparisons.
fn shape(text: &str) -> String {
    let text = text.replace("\n        ", " ");
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let words = text.split_inclusive([' ', '\n']).map(|word| match word.trim_end() {
        id if id.len() == 19 && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) => "ID ".to_owned(),
        age if age.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(digits) => "AGE ".to_owned(),
        _ => word.chars().filter(|c| !c.is_ascii_digit()).collect(),
    });
    words.collect()
}

// sendmail, mailq, newaliases

fn a_message_is_sent(example: String) {
    let machine = Machine::new(Site::new());
    let daemon = machine.site.start();
    machine.says(&example);
    let mail = String::from_utf8(daemon.wait_mail(&machine.site, "root", 1).remove(0)).expect("text");
    assert!(mail.contains("\nSubject: disk\n") && mail.ends_with("\n\nAlmost full.\n"), "{mail}");
}

fn addresses_are_looked_up(example: String) {
    let machine = Machine::new(Site::with("local.domains = [\"example.org\"]"));
    machine.site.write("aliases", "root: jon\n");
    let _daemon = machine.site.start();
    machine.says(&example);
}

fn an_empty_queue_is_listed(example: String) {
    let machine = Machine::new(Site::new());
    let _daemon = machine.site.start();
    machine.says(&example);
}

fn aliases_are_counted(example: String) {
    let machine = Machine::new(Site::new());
    machine.site.configure();
    machine.site.write("aliases", &(0..14).map(|n| format!("name{n}: jon\n")).collect::<String>());
    machine.says(&example);
}

fn aliases_are_checked(example: String) {
    let machine = Machine::new(Site::new());
    machine.site.configure();
    let name = |n| if n == 7 || n == 15 { "sales".to_owned() } else { format!("name{n}") };
    machine.site.write("aliases", &(1..16).map(|n| format!("{}: jon\n", name(n))).collect::<String>());
    let (output, printed, expected) = machine.run(&example);
    assert_eq!((output.status.code(), printed), (Some(65), expected));
}

// penfoldctl

/// A machine whose queue has a message from jon to greg, which greg's host has deferred.
fn waiting() -> (Machine, Daemon, Remote, Dns) {
    let remote =
        Remote::with(Sink::default().when("RCPT", Then::Reply("451 4.7.1 greylisted, come back later".to_owned()), 1));
    let dns = Dns::zone("mx.example.com A 127.0.0.1\n");
    let mut site = Site::with("local.domains = [\"example.org\"]");
    site.set("dns", "nameservers", &format!("[\"{}\"]", dns.address));
    site.write("routes", &format!("example.com mx.example.com:{}\n", remote.address.port()));
    let machine = Machine::new(site);
    let daemon = machine.site.start();
    daemon.submit_from("jon@example.org", &["greg@example.com"]);
    daemon.wait_words(&[" deferred to=<greg@example.com>"]);
    (machine, daemon, remote, dns)
}

fn lists_what_waits(example: &str) {
    let (machine, daemon, _remote, _dns) = waiting();
    let (mut printed, mut expected) = (String::new(), String::new());
    // The daemon records the reply just after it has logged the reply, so the listing may lack it
    // at first, and show the attempt.
    daemon.wait_until("a reason", || {
        (_, printed, expected) = machine.run(example);
        printed.contains("  deferred, next ") && printed.contains("come back later")
    });
    assert_eq!(shape(&printed), shape(&expected), "{printed}{expected}");
    assert!(printed.contains(" 451 4.7.1 greylisted, come back later\n"), "{printed}");
}

fn mailq_lists_what_waits(example: String) {
    lists_what_waits(&example);
}

fn penfoldctl_lists_what_waits(example: String) {
    lists_what_waits(&example);
}

fn a_refusal_is_explained(example: String) {
    let dns = Dns::zone(
        "9.2.0.192.in-addr.arpa PTR mx.example.com\nmx.example.com A 192.0.2.9\nexample.com MX 10 mx.example.com\n",
    );
    let mut site = Site::with("hostname = \"mx.example.org\"\nlocal.domains = [\"example.org\"]");
    for (key, value) in [("greylist", "all"), ("sender_domain", "refuse"), ("own_hello", "refuse")] {
        site.set("policy", key, &format!("\"{value}\""));
    }
    site.set("dns", "nameservers", &dns.nameservers());
    let machine = Machine::new(site);
    let _daemon = machine.site.start();
    let (output, printed, expected) = machine.run(&example.replace("[::]:25", "127.0.0.1:0"));
    assert!(output.status.success() && shape(&printed) == shape(&expected), "{printed}{expected}");
}

fn a_wait_is_explained(example: String) {
    let (machine, daemon, _remote, _dns) = waiting();
    let list = machine.site.penfoldctl(&["queue"]);
    let example = example.replace("1K0TVZ6PH81DZ9JHPQF", &list[..19]);
    let (mut printed, mut expected) = (String::new(), String::new());
    daemon.wait_until("a reason", || {
        (_, printed, expected) = machine.run(&example);
        printed.contains("come back later")
    });
    assert_eq!(shape(&printed), shape(&expected), "{printed}{expected}");
}

fn a_program_reads_the_list(example: String) {
    let (machine, daemon, _remote, _dns) = waiting();
    let members = |text: &str| -> Vec<String> {
        let parts: Vec<&str> = text.split("\":").collect();
        let names = parts[..parts.len() - 1].iter().filter_map(|part| part.rsplit('"').next());
        names.map(str::to_owned).collect()
    };
    let (mut printed, mut shown) = (String::new(), String::new());
    daemon.wait_until("a reason", || {
        (_, printed, shown) = machine.run(&example);
        printed.contains("come back later") && !printed.contains("\"running\"")
    });
    assert_eq!(members(&printed), members(&shown), "{printed}");
}

/// Runs an example with the message that waits, and asserts that its lines begin like those of the
/// page.
fn begins_alike(example: &str) {
    let (machine, daemon, _remote, _dns) = waiting();
    let id = machine.site.penfoldctl(&["queue"])[..19].to_owned();
    let first_words = |text: &str| -> Vec<String> {
        let text = text.replace("\n        ", " ");
        text.lines().filter_map(|line| line.split_whitespace().next()).map(shape).collect()
    };
    let example = example.replace("1K0TVZ6PH81DZ9JHPQF", &id);
    // The daemon records the reply just after it has logged the reply.
    daemon.wait_until("the attempt is recorded", || {
        let (output, printed, shown) = machine.run(&example);
        assert!(output.status.success(), "{printed}");
        first_words(&printed) == first_words(&shown)
    });
}

fn a_message_is_shown(example: String) {
    begins_alike(&example);
}

fn the_daemon_is_shown(example: String) {
    begins_alike(&example);
}

fn a_key_has_a_value(example: String) {
    begins_alike(&example);
}

fn the_system_is_checked(example: String) {
    let (machine, _daemon, _remote, _dns) = waiting();
    let (output, printed, shown) = machine.run(&example);
    let last = |text: &str| text.lines().next_back().unwrap_or_default().replace("warnings", "warning");
    assert!(output.status.success() && shape(&last(&printed)) == shape(&last(&shown)), "{printed}");
}

fn the_traffic_is_watched(example: String) {
    let (machine, _daemon, _remote, _dns) = waiting();
    let (output, printed, _) = machine.run(&example);
    assert!(output.status.success() && printed.starts_with("penfoldd, up "), "{printed}");
}

fn a_host_that_is_down_is_found(example: String) {
    let site = Site::with("local.domains = [\"example.org\"]");
    site.write("routes", &format!("example.com 127.0.0.1:{}\n", free_port()));
    let machine = Machine::new(site);
    let daemon = machine.site.start();
    daemon.submit_from("jon@example.org", &["greg@example.com"]);
    let words = ["  down, ", " running, ", " ready\n", "\n    since ", ", next probe ", "]:", "connecting"];
    daemon.wait_until("it is down", || {
        let (_, printed, shown) = machine.run(&example.replacen("3 down", "3 down || true", 1));
        words.iter().all(|words| printed.contains(words) && shown.contains(words))
    });
}

/// Runs an example that changes the message that waits.
fn changes(example: &str, event: &str) {
    let (machine, daemon, _remote, _dns) = waiting();
    machine.says(example);
    daemon.wait_words(&[event]);
}

fn mail_of_a_user_is_held(example: String) {
    changes(&example, " held ");
}

fn mail_is_returned(example: String) {
    changes(&example, " failed to=<greg@example.com>");
}

fn aliases_are_used_anew(example: String) {
    changes(&example, " requeued ");
}

fn a_file_is_put_into_force(example: String) {
    let (machine, _daemon, _remote, _dns) = waiting();
    machine.says(&example);
}

fn a_domain_is_flushed(example: String) {
    let (machine, daemon, remote, _dns) = waiting();
    machine.says(&example);
    assert_eq!(remote.messages(1)[0].recipients, ["<greg@example.com>"]);
    assert!(daemon.settles(&machine.site));
}

fn a_quarantine_is_emptied(example: String) {
    let (machine, daemon, remote, _dns) = waiting();
    let spool = Spool::open(&machine.site.path("spool")).expect("a spool");
    let address = |text: &str| Address::parse(text).expect("an address");
    let mut here = example.clone();
    for sender in ["jon@example.net", "win@example.com"] {
        let envelope = Envelope {
            sender: Some(address(sender)),
            recipients: vec![Recipient::new(address("greg@example.com"))],
            options: MailOptions::default(),
            origin: Origin::Client,
        };
        let reason = format!("{} asks for quarantine (DMARC)", address(sender).domain());
        let entry = NewEntry { hold: Some(&reason), ..NewEntry::queued(&envelope, "Subject: x\n\n") };
        let name = spool.begin().and_then(|draft| draft.commit(&entry)).expect("a commit");
        let shown = example.lines().find(|line| line.contains(&format!("<{sender}>"))).expect("a line");
        here = here.replace(&shown[..19], &name.id.to_string());
    }
    machine.site.hand_over();
    let (output, printed, expected) = machine.run(&here);
    assert!(output.status.success() && shape(&printed) == shape(&expected), "{printed}{expected}");
    daemon.wait_words(&[" removed to=<greg@example.com> from=<win@example.com> user="]);
    assert!(remote.messages(1)[0].sender.starts_with("<jon@example.net>"));
    machine.site.penfoldctl(&["flush"]);
    assert!(daemon.settles(&machine.site), "{}", daemon.log());
}

fn a_message_that_has_not_arrived_is_traced(example: String) {
    let machine = Machine::new(Site::new());
    let daemon = machine.site.start();
    daemon.client().send("anna@example.net", &["jon@razorback"], "Message-ID: <4711@example.net>\r\n\r\nx\r\n");
    daemon.wait_words(&[" done"]);
    let (command, shown) = example.split_once('\n').expect("a command");
    let (output, printed, _) = machine.run(command);
    assert!(output.status.success(), "{printed}");
    // The lines without the times, ids, addresses and paths.
    let words = |text: &str| -> Vec<String> {
        let line = |line: &str| line.rsplit("  ").next().unwrap_or_default().trim().to_owned();
        let fixed = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b':');
        text.lines().map(|text| line(text).split(' ').filter(fixed).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(words(&printed), words(shown), "{printed}");
}

fn the_senders_of_a_night_are_listed(example: String) {
    let machine = Machine::new(Site::new());
    let _daemon = machine.site.start();
    let (output, printed, _) = machine.run(&example);
    assert!(output.status.success() && printed.starts_with("Mail from "), "{printed}");
}

fn a_user_may_log_in(example: String) {
    let machine = Machine::new(Site::with("listen.auth = \"always\"\nrelay.networks = []"));
    let daemon = machine.site.start();
    let example = machine.here(&example);
    let (command, shown) = example.strip_prefix("# ").and_then(|text| text.split_once('\n')).expect("a command");
    let terminal = openpty(None, None).expect("a terminal");
    let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().expect("a descriptor");
    let mut shell = machine.shell(command);
    let mut child = shell.stdin(copy(&terminal.slave)).stderr(copy(&terminal.slave)).spawn().expect("a shell");
    drop(shell);
    let mut master = fs::File::from(terminal.master);
    for prompt in shown.lines() {
        let (mut printed, mut octet) = (String::new(), [0]);
        while !printed.ends_with(prompt) {
            master.read_exact(&mut octet).expect("the program goes on");
            printed.push(octet[0].into());
        }
        master.write_all(b"hush hush\n").expect("it reads");
    }
    assert!(child.wait().expect("it ends").success());
    let mut client = daemon.greeted();
    let login = data_encoding::BASE64.encode(b"\0elvis\0hush hush");
    client.ask(&format!("AUTH PLAIN {login}"), "235 ");
}

fn keys_are_made(example: String) {
    let machine = Machine::new(Site::new());
    let keys = std::env::temp_dir().join(format!("penfold-keys-{}", std::process::id()));
    let command = |directory: &str| format!("dkim new --directory {directory} example.org");
    let (_, printed, _) = machine.run(&example.replace("dkim new example.org", &command(&keys.display().to_string())));
    let printed = printed.replace(&keys.display().to_string(), "/etc/penfold/dkim");
    let made = fs::read_dir(&keys).expect("a directory").count();
    fs::remove_dir_all(&keys).expect("it is there");
    // Digits are those of the month, and the page shortens the base64.
    let plain = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("# ") && !line.starts_with("    \""));
        lines
            .map(|line| line.split(" p=").next().unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).collect())
            .collect()
    };
    assert_eq!(plain(&printed), plain(&example), "{printed}");
    assert_eq!(made, 2);
}

fn records_of_keys_are_printed(example: String) {
    let machine = Machine::new(Site::with("hostname = \"mx.example.org\""));
    let (certificate, _) = Authority::new().make("mx.example.org", 30);
    let (_, key) = Authority::new().make("mx.example.org", 30);
    machine.site.write("mx.pem", &certificate);
    machine.site.write("next.key", &key);
    machine.site.configure();
    let (output, printed, shown) = machine.run(&example);
    // Each key has other digits.
    let plain = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        lines.map(|(start, digits)| format!("{start} {}", digits.len())).collect()
    };
    assert!(output.status.success() && plain(&printed) == plain(&shown), "{printed}");
}

fn a_policy_is_printed(example: String) {
    let dns = Dns::zone("example.org MX 10 mx.example.org\n");
    let mut site = Site::with("hostname = \"mx.example.org\"\nlocal.domains = [\"example.org\"]");
    site.set("dns", "nameservers", &dns.nameservers());
    site.configure();
    Machine::new(site).says(&example);
}

// penfoldd

/// The process id of a daemon in the background. Dropping this ends the daemon.
struct Background(i32);

impl Background {
    fn of(site: &Site) -> Self {
        let pid = fs::read_to_string(site.path("pid")).expect("a pid file");
        Self(pid.trim().parse().expect("a number"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let (pid, end) = (Pid::from_raw(self.0), Instant::now() + TIMEOUT);
        let _ = kill(pid, Signal::SIGTERM);
        while kill(pid, None).is_ok() {
            if Instant::now() > end {
                let _ = kill(pid, Signal::SIGKILL);
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// A machine on which the daemon can run in the background.
fn resting() -> Machine {
    let mut site = Site::new();
    site.make_root_owned();
    let log = site.path("var/log");
    site.set("log", "to", &format!("{log:?}"));
    site.configure();
    Machine::new(site)
}

fn port(site: &Site) -> u16 {
    fs::read_to_string(site.path("var/log")).expect("a log").lines().find_map(common::port).expect("a port")
}

fn the_daemon_starts(example: String) {
    let machine = resting();
    machine.says(&example);
    let background = Background::of(&machine.site);
    Client::new(std::net::TcpStream::connect(("127.0.0.1", port(&machine.site))).expect("it listens"));
    drop(background);
    // With a malformed configuration the daemon does not start.
    fs::remove_file(machine.site.path("var/log")).expect("a log");
    machine.site.configure_with("nonsense");
    let (output, printed, _) = machine.run(&example);
    assert!(output.status.code() == Some(78) && printed.contains("penfold.conf:1:"), "{printed}");
    assert!(!machine.site.path("var/log").exists());
}

fn a_message_is_looked_up(example: String) {
    let machine = resting();
    let started = machine.shell("penfoldd").stdin(Stdio::null()).status().expect("a shell");
    assert!(started.success());
    let _background = Background::of(&machine.site);
    let mut client = Client::new(std::net::TcpStream::connect(("127.0.0.1", port(&machine.site))).expect("it listens"));
    let id = client.send("a@x.org", &["jon"], common::client::TEXT);
    let end = Instant::now() + TIMEOUT;
    while machine.site.mail("jon").is_empty() {
        assert!(Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let (grep, journalctl) = example.trim_end().split_once('\n').expect("two commands");
    let known = grep.split(' ').nth(2).expect("an id");
    let (_, printed, _) = machine.run(&grep.replace(known, &id));
    assert!(printed.contains(" accept from=<a@x.org>") && printed.contains(" sent to=<jon@razorback>"), "{printed}");
    // The test has no journal, so it only checks that the unit and the options exist.
    let words: Vec<&str> = journalctl.split(' ').collect();
    assert_eq!(words, ["#", "journalctl", "-u", "penfold", "-g", known]);
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/systemd/penfold.service").exists());
    let Some(mut journalctl) = unpacked::of_systemd("journalctl") else { return };
    let help = journalctl.arg("--help").output().expect("journalctl");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains(" -u --unit=") && help.contains(" -g --grep="), "{help}");
}

fn inetd_serves(example: String) {
    let machine = Machine::new(Site::new());
    machine.site.configure();
    let fields: Vec<&str> = example.split_whitespace().collect();
    let ["smtp", "stream", "tcp", "nowait", "penfold", "/usr/local/sbin/penfoldd", "penfoldd", options @ ..] =
        fields.as_slice()
    else {
        panic!("{example}")
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
    let (accepted, _) = listener.accept().expect("a client");
    let theirs = || OwnedFd::from(accepted.try_clone().expect("a descriptor"));
    let mut program = Command::new(machine.site.path("bin/penfoldd"));
    program.args(options).stdin(theirs()).stdout(theirs()).stderr(theirs());
    let mut child = program.spawn().expect("it runs");
    drop((program, accepted));
    let mut client = Client::new(stream);
    client.send("a@x.org", &["jon"], common::client::TEXT);
    client.ask("QUIT", "221 ");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(machine.site.mail("jon").len(), 1);
}

fn fail2ban_is_set_up(example: String) {
    let Some(tree) = unpacked::tree("fail2ban") else { return common::skipped("fail2ban is not unpacked") };
    let machine = Machine::new(Site::new());
    let config = machine.site.path("fail2ban");
    let copied = Command::new("cp").arg("-r").arg(tree.join("etc/fail2ban")).arg(&config).status();
    assert!(copied.is_ok_and(|status| status.success()));
    // `make install` would copy etc/ to that directory, so etc/ is used instead. The configuration
    // of the server is read, but the server is not started.
    let example = example.replace("/usr/local/share/doc/penfold/examples", concat!(env!("CARGO_MANIFEST_DIR"), "/etc"));
    let example = example.replace("/etc/fail2ban/", &format!("{}/", config.display()));
    let (python, client) = (tree.join("usr/lib/python3/dist-packages"), tree.join("usr/bin/fail2ban-client"));
    let test = format!("env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={} python3 {} -c", python.display(), client.display());
    machine.program("fail2ban-client", &format!("test \"$1\" = reload && exec {test} {} -d", config.display()));
    let (output, printed, _) = machine.run(&example);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("'add', 'penfold'") && printed.contains("penfold"), "{printed}");
}

// Aliases and .forward files

fn aliases_of_all_kinds(example: String) {
    let remote = Remote::sink();
    let machine = Machine::new(Site::new());
    let site = &machine.site;
    site.write("users", "jon::\nroot::\nelvis::\n");
    site.write("staff", "elvis\n");
    site.write("routes", &format!("backup.example.org {}\n", remote.host_port()));
    let out = site.path("mail/tickets");
    let ticket =
        machine.program("ticket", &format!("cat >{0}.new; echo \"$@\" >>{0}.new; mv {0}.new {0}", out.display()));
    let text = machine.here(&example);
    assert!(text.contains("/usr/local/bin/ticket"));
    site.write("aliases", &text.replace("/usr/local/bin/ticket", &ticket.display().to_string()));
    let daemon = site.start();
    for name in example.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name) {
        daemon.submit(&[name]);
        assert!(daemon.settles(site), "{name}: {}", daemon.log());
        let (jon, elvis) = (site.mail("jon"), site.mail("elvis"));
        let counts = (jon.len(), elvis.len(), messages(&site.path("mail/archive")).len());
        match name {
            "postmaster" | "root" | "jon.doe" | "owner-staff" => assert_eq!(counts, (1, 0, 0), "{name}"),
            "archive" => assert_eq!(counts, (0, 0, 1)),
            "noreply" => {
                daemon.wait_words(&[" sent to=<noreply@razorback>"]);
                assert_eq!(counts, (0, 0, 0));
            }
            "tickets" => {
                let text = fs::read_to_string(&out).expect("what the command had");
                assert!(counts == (0, 0, 0) && text.ends_with("How are you?\n--queue support\n"), "{text}");
            }
            "staff" => {
                let mail = String::from_utf8_lossy(&elvis[0]).into_owned();
                assert!(counts == (0, 1, 0) && mail.starts_with("Return-Path: <owner-staff@razorback>\n"), "{mail}");
            }
            "backup" => {
                assert_eq!(counts, (1, 0, 0));
                assert_eq!(remote.messages(1)[0].recipients, ["<jon@backup.example.org>"]);
            }
            _ => panic!("no test knows the alias {name}"),
        }
        for user in ["jon", "elvis", "archive"] {
            let _ = fs::remove_dir_all(site.mailbox(user));
        }
    }
}

/// A machine where jon has this `.forward`. The program that it names stores its input in his home
/// directory.
fn forwarding(text: &str, program: &str) -> Option<(Homes, Daemon, Remote)> {
    let (homes, remote) = (Homes::new("")?, Remote::sink());
    homes.site.write("routes", &format!("example.org {}\n", remote.host_port()));
    let path = homes.site.path("program");
    fs::write(&path, "#!/bin/sh\ncat >part; echo \"$@\" >>part; mv part out\n").expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode 755");
    assert!(text.contains(program), "{text}");
    let ours = path.display().to_string();
    homes.write("jon", ".forward", &text.replace(program, if program.is_empty() { "" } else { &ours }), 0o644);
    let daemon = homes.start();
    daemon.submit(&["jon"]);
    Some((homes, daemon, remote))
}

fn a_newsletter_leaves_slowly(example: String) {
    let mut site = Site::new();
    site.write("outgoing", &example);
    let table = format!("{:?}", site.path("outgoing"));
    site.set("remote", "outgoing", &table);
    let output = site.penfoldd(&["-n"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    // All is valid, but this host has none of the addresses.
    assert!(output.status.success(), "{said}");
    for (line, address) in [(1, "192.0.2.25"), (1, "2001:db8::25"), (2, "192.0.2.26")] {
        assert!(said.contains(&format!("outgoing:{line}:1: no connection from {address} is possible")), "{said}");
    }
    let _daemon = site.start();
    for (sender, recipient, limits) in [
        ("joe@news.example.org", "x@example.edu", "rate=500/h"),
        ("joe@example.org", "x@example.net", "rate=100/m connections=2"),
        ("joe@example.org", "x@example.com", "pause=2s"),
    ] {
        let explained = site.penfoldctl(&["explain", "--from", sender, recipient]);
        assert!(explained.contains(&format!("limits: {limits}")), "{recipient}: {explained}");
    }
}

fn a_forward_keeps_a_copy(example: String) {
    let Some((homes, daemon, remote)) = forwarding(&example, "") else { return };
    assert!(daemon.settles(&homes.site));
    assert_eq!(homes.mail("jon").len(), 1);
    assert_eq!(remote.messages(1)[0].recipients, ["<jon@example.org>"]);
}

fn a_forward_answers(example: String) {
    let Some((homes, daemon, _remote)) = forwarding(&example, "/usr/bin/vacation") else { return };
    assert!(daemon.settles(&homes.site));
    let out = fs::read_to_string(homes.home("jon").join("out")).expect("what it was given");
    assert!(out.starts_with("Return-Path: <jon@razorback.test>\n") && out.ends_with("\njon\n"), "{out}");
    assert_eq!(homes.mail("jon").len(), 1);
}

fn a_forward_sorts(example: String) {
    let Some((homes, daemon, _remote)) = forwarding(&example, "/usr/bin/procmail") else { return };
    assert!(daemon.settles(&homes.site));
    assert!(homes.home("jon").join("out").exists() && homes.mail("jon").is_empty());
    // If the program is missing, mail waits.
    fs::remove_file(homes.site.path("program")).expect("a script");
    daemon.submit(&["jon"]);
    daemon.wait_words(&[" deferred to=<jon@razorback>", "dsn=4.3.5", "there is no such command"]);
}

// Configurations

/// A machine with an example that is a whole configuration. `changes` are replacements of parts of
/// the text; the paths are those of the site.
fn configured(example: &str, changes: &[(&str, &str)]) -> Machine {
    let machine = Machine::new(Site::new());
    let mut text = machine.here(example);
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?}: {text}");
        text = text.replace(from, to);
    }
    let path = |name: &str| format!("{:?}", machine.site.path(name));
    let dir = machine.site.path("").display().to_string();
    for (table, key, value) in [
        ("", "hostname", "\"web.example.org\"".to_owned()),
        ("", "spool", path("spool")),
        ("", "socket", path("penfold.sock")),
        ("local", "aliases", path("aliases")),
        ("local", "users", format!("\"file:{dir}/users\"")),
        ("local", "mailbox", format!("\"{dir}/mail/{{user}}\"")),
        ("remote", "routes", path("routes")),
        ("log", "to", "\"stderr\"".to_owned()),
    ] {
        text = with(text, table, key, &value);
    }
    if geteuid().is_root() {
        text = with(text, "", "user", "\"nobody\"");
    }
    machine.site.configure_with(&text);
    machine
}

/// Adds a key to a table of a configuration.
fn with(text: String, table: &str, key: &str, value: &str) -> String {
    let (header, dotted) = (format!("[{table}]\n"), format!("{table}.{key} = "));
    let own = if table.is_empty() { text.split("\n[").next() } else { text.split_once(&header).map(|(_, own)| own) };
    let own = own.and_then(|own| own.split("\n[").next()).unwrap_or_default();
    if own.lines().any(|line| line.starts_with(&format!("{key} = "))) || text.contains(&dotted) {
        text
    } else if table.is_empty() {
        format!("{key} = {value}\n{text}")
    } else if text.contains(&header) {
        text.replacen(&header, &format!("{header}{key} = {value}\n"), 1)
    } else {
        format!("{dotted}{value}\n{text}")
    }
}

impl Machine {
    /// Starts the daemon with the present penfold.conf.
    fn serve(&self) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldd"));
        command.arg("-d").arg("-f").arg(self.site.path("penfold.conf")).stdin(Stdio::null());
        let ready = |line: &str| line.ends_with(" started").then_some(0);
        let mut daemon = Daemon::spawn_until(command, ready).expect("it starts");
        daemon.port = daemon.log().lines().find_map(common::port).unwrap_or(0);
        daemon
    }

    /// Runs sendmail, and returns its exit code and output.
    fn sendmail(&self, arguments: &str, input: &str) -> (Option<i32>, String) {
        self.site.write("letter", input);
        let letter = self.site.path("letter");
        let command = format!("sendmail {arguments} <{}", letter.display());
        let output = self.shell(&command).output().expect("a shell");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

const SENT: (Option<i32>, String) = (Some(0), String::new());

fn a_workstation(example: String) {
    let hub = Remote::sink();
    let listen = format!("listen = [{{address = \"127.0.0.1:{}\"}}]\nhostname", free_port());
    let machine = configured(
        &example,
        &[("smtp://mail.example.org", &format!("smtp://{}", hub.host_port())), ("hostname", &listen)],
    );
    let daemon = machine.serve();
    assert_eq!(machine.sendmail("greg@example.com root", "hello\n"), SENT);
    daemon.wait_mail(&machine.site, "root", 1);
    daemon.client().send("jon@example.org", &["mary@example.com"], common::client::TEXT);
    let messages = hub.messages(2);
    // The name of this host would be no use in the sender, since no reply could reach it; the
    // domain of the example is used.
    let own = |message: &&common::remote::Received| message.recipients == ["<greg@example.com>"];
    let sender = &messages.iter().find(own).expect("that of sendmail").sender;
    assert!(sender.split(' ').next().is_some_and(|path| path.ends_with("@example.org>")), "{sender}");
    assert_eq!(machine.sendmail("root@desk.example.org", "hello\n"), SENT);
    daemon.wait_mail(&machine.site, "root", 2);
    let mut recipients: Vec<_> = messages.into_iter().flat_map(|message| message.recipients).collect();
    recipients.sort();
    assert_eq!(recipients, ["<greg@example.com>", "<mary@example.com>"]);
}

const PEOPLE: &str = "jon::\nmary::\n";

fn a_server(example: String) {
    let machine = configured(&example, &[("0.0.0.0:25", "127.0.0.1:0"), ("[::]:25", "127.0.0.1:0")]);
    machine.site.write("users", PEOPLE);
    let section = pages::section("penfold.conf.5", "EXAMPLES");
    // The page says how to create the directory for mailboxes.
    assert!(section.contains(".Dl install -d -o penfold -m 700 /var/mail/example.org\n"));
    assert!(section.contains(".Ql root: jon :\n"));
    machine.site.write("aliases", "root: jon\n");
    let daemon = machine.serve();
    let names = ["jon@example.org", "jon@localhost", "postmaster@example.org", "postmaster", "root", "root@localhost"];
    for (number, to) in names.iter().enumerate() {
        daemon.client().send("a@x.org", &[to], common::client::TEXT);
        daemon.wait_mail(&machine.site, "jon", number + 1);
    }
    let mut client = daemon.client();
    client.ask("MAIL FROM:<a@x.org>", "250 ");
    client.ask("RCPT TO:<nosuch@example.org>", "550 5.1.1 ");
}

/// A machine with the example of a server for people, its authority, and its ports for STARTTLS and
/// TLS. jon and desk log in with the password [`WORDS`].
fn server_for_people(example: &str) -> (Machine, Authority, [u16; 2]) {
    let ports = [free_port(), free_port()];
    let at = ports.map(|port| format!("127.0.0.1:{port}"));
    let changes = [("0.0.0.0:25", "127.0.0.1:0"), ("0.0.0.0:587", &*at[0]), ("0.0.0.0:465", &*at[1])];
    let (machine, authority) = (configured(example, &changes), Authority::new());
    authority.give(&machine.site, "cert", "mx.example.org", 30);
    fs::rename(machine.site.path("cert.key"), machine.site.path("key.pem")).expect("a key");
    machine.site.write("root.pem", &authority.root_pem());
    let secret = |name: &str| {
        let output = machine.shell(&format!("echo {WORDS} | penfoldctl passwd {name}")).output().expect("a shell");
        String::from_utf8(output.stdout).expect("ASCII")
    };
    machine.site.write("users", &format!("{}{}mary::\n", secret("jon"), secret("desk")));
    let [_, sends_as_all, _] = asides();
    machine.site.write("senders", &format!("{sends_as_all}\n"));
    (machine, authority, ports)
}

const WORDS: &str = "correct horse battery";

/// The three single lines that the page shows between the examples.
fn asides() -> [String; 3] {
    let section = pages::section("penfold.conf.5", "EXAMPLES");
    let lines = section.lines().filter_map(|line| line.strip_prefix(".Dl "));
    let is_of_a_table = |line: &&str| ["mx.example.org:", "desk ", "@desk"].iter().any(|front| line.starts_with(front));
    let lines: Vec<String> = lines.filter(is_of_a_table).map(str::to_owned).collect();
    lines.try_into().expect("a line of credentials, one of senders, one of rewriting")
}

const LOGIN: &str = "
import smtplib, ssl, sys
way, port, root, words = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
context.check_hostname = False
if way == 'implicit':
    s = smtplib.SMTP_SSL('127.0.0.1', int(port), context=context)
else:
    s = smtplib.SMTP('127.0.0.1', int(port))
    s.ehlo()
    assert not s.has_extn('auth')
    s.starttls(context=context)
s.login('jon', words)
s.sendmail('jon@example.org', ['mary@example.org'], 'Subject: hello\\n\\nHow are you?\\n')
s.quit()
";

fn a_server_for_people_too(example: String) {
    let (machine, _, ports) = server_for_people(&example);
    let daemon = machine.serve();
    daemon.client().send("a@x.org", &["postmaster@example.org"], common::client::TEXT);
    daemon.wait_mail(&machine.site, "jon", 1);
    if Command::new("python3").arg("-V").output().is_err() {
        return common::skipped("python3 is not installed");
    }
    for (number, (way, port)) in ["starttls", "implicit"].into_iter().zip(ports).enumerate() {
        let mut python = Command::new("python3");
        python.args(["-c", LOGIN, way, &port.to_string()]).arg(machine.site.path("root.pem")).arg(WORDS);
        let output = python.output().expect("python3");
        assert!(output.status.success(), "{way}: {output:?}\n{}", daemon.log());
        let mail = daemon.wait_mail(&machine.site, "mary", number + 1).concat();
        assert!(String::from_utf8_lossy(&mail).contains(" with ESMTPSA "), "{way}");
    }
}

fn a_server_that_is_believed(example: String) {
    let made = keys::Made::new("example.org", "202611");
    let dns = Dns::zone(&made.keys.iter().map(keys::Key::zone_line).collect::<String>());
    let hostname = format!("dns.nameservers = {}\nhostname", dns.nameservers());
    let implicit = format!("127.0.0.1:{}", free_port());
    let machine =
        configured(&example, &[("0.0.0.0:25", "127.0.0.1:0"), ("0.0.0.0:465", &implicit), ("hostname", &hostname)]);
    made.give(&machine.site);
    Authority::new().give(&machine.site, "cert", "mx.example.org", 30);
    fs::rename(machine.site.path("cert.key"), machine.site.path("key.pem")).expect("a key");
    machine.site.write("users", PEOPLE);
    let output = machine.shell("penfoldd -n").output().expect("a shell");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !printed.contains("_domainkey"), "{printed}");
    let daemon = machine.serve();
    let (code, printed) = machine.sendmail("-f jon@example.org mary@example.org", "From: jon@example.org\n\nhello\n");
    assert_eq!(code, Some(0), "{printed}");
    let mail = daemon.wait_mail(&machine.site, "mary", 1).remove(0);
    let verified = keys::verify(&mail, &made.keys);
    assert!(verified.is_none_or(|all| all.len() == 2 && all.iter().all(|one| one.ends_with(" True"))));
    let check = machine.shell("penfoldctl dkim check").output().expect("a shell");
    let printed = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success() && printed.matches(": good (").count() == 2, "{printed}");
}

fn a_server_that_only_marks(example: String) {
    let machine = configured(&example, &[("0.0.0.0:25", "127.0.0.1:0")]);
    machine.site.write("users", PEOPLE);
    let daemon = machine.serve();
    daemon.client().send("a@x.org", &["jon@example.org"], common::client::TEXT);
    daemon.wait_mail(&machine.site, "jon", 1);
}

fn a_server_with_filters(example: String) {
    let milter = Milter::start(Script::default().at(b'E', &[b"hX-Spam\0Yes\0", b"q\0", b"c"]));
    let service = PolicyService::start(|_| Some("action=DUNNO\n\n".to_owned()));
    let machine = configured(
        &example,
        &[
            ("0.0.0.0:25", "127.0.0.1:0"),
            ("inet:127.0.0.1:10023", &format!("inet:{}", service.address)),
            ("unix:/run/rspamd/milter.sock", &format!("inet:{}", milter.address)),
        ],
    );
    machine.site.write("users", PEOPLE);
    let text = fs::read_to_string(machine.site.path("penfold.conf")).expect("text");
    machine.site.configure_with(&format!("relay.networks = []\n{text}"));
    let daemon = machine.serve();
    daemon.client().send("", &["jon@example.org"], common::client::TEXT);
    assert_eq!(service.requests().len(), 1);
    let junk = machine.site.mailbox("jon").join(".Junk/new");
    daemon.wait_until("mail in .Junk", || fs::read_dir(&junk).is_ok_and(|mut all| all.next().is_some()));
}

fn a_workstation_with_a_login(example: String) {
    let server = self::example("penfold.conf.5", "# Mail for one domain, and submission");
    let (server, authority, [port, _]) = server_for_people(&server);
    let mx = server.serve();
    let dns = Dns::zone("mx.example.org A 127.0.0.1\n");
    let listen = format!(
        "listen = [{{address = \"127.0.0.1:{}\"}}]\ndns.nameservers = [\"{}\"]\nhostname",
        free_port(),
        dns.address
    );
    let machine = configured(
        &example,
        &[
            ("mx.example.org\"", &format!("mx.example.org:{port}\"")),
            ("hostname", &listen),
            ("\"system\"", "\"AUTHORITY\""),
        ],
    );
    let text = fs::read_to_string(machine.site.path("penfold.conf")).expect("text");
    machine.site.write("authority.pem", &authority.root_pem());
    machine.site.configure_with(&text.replace("AUTHORITY", &machine.site.path("authority.pem").display().to_string()));
    let [credentials, ..] = asides();
    machine.site.write("credentials", &format!("{credentials}\n"));
    fs::set_permissions(machine.site.path("credentials"), fs::Permissions::from_mode(0o600)).expect("a mode");
    let section = pages::section("penfold.conf.5", "EXAMPLES");
    let alias = section
        .lines()
        .filter_map(|line| line.strip_prefix(".Ql root: "))
        .find(|line| line.contains('@'))
        .expect("the line for root");
    machine.site.write("aliases", &format!("root: {}\n", alias.trim_end_matches(" .")));
    let daemon = machine.serve();
    for (number, to) in ["root", "postmaster", "mary@example.org"].into_iter().enumerate() {
        assert_eq!(machine.sendmail(to, "hello\n"), SENT);
        let user = if number < 2 { "jon" } else { "mary" };
        let came = || server.site.mail(user).len() == if number < 2 { number + 1 } else { 1 };
        daemon.wait_until(to, came);
    }
    mx.wait_words(&[" auth user=desk "]);
    assert!(daemon.settles(&machine.site));
}

fn a_relay(example: String) {
    let (store, friend) = (Remote::sink(), Remote::sink());
    let dns = Dns::zone("x.org A 192.0.2.1\n");
    let hostname = format!("dns.nameservers = [\"{}\"]\nhostname", dns.address);
    let changes = [
        ("user = \"mail\"\n", ""),
        ("192.0.2.1:25", "127.0.0.1:0"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("hostname", &hostname),
    ];
    let machine = configured(&example, &changes);
    machine
        .site
        .write("routes", &format!("example.org {}\nfriend.example {}\n", store.host_port(), friend.host_port()));
    let daemon = machine.serve();
    let mut outside = Client::new(daemon.connect_from("127.0.0.9".parse().expect("an address")));
    outside.send("a@x.org", &["jon@example.org", "mary@friend.example"], common::client::TEXT);
    outside.ask("MAIL FROM:<a@x.org>", "250 ");
    outside.ask("RCPT TO:<a@elsewhere.test>", "550 5.7.1 ");
    daemon.client().ask("MAIL FROM:<a@x.org> SIZE=99000000", "250 ");
    assert_eq!(store.messages(1)[0].recipients, ["<jon@example.org>"]);
    assert_eq!(friend.messages(1)[0].recipients, ["<mary@friend.example>"]);
    assert!(daemon.settles(&machine.site));
}

fn a_null_client(example: String) {
    assert_eq!(example.lines().count(), 5);
    let hub = Remote::sink();
    let machine = configured(&example, &[("smtp+starttls://mail.example.org", &format!("smtp://{}", hub.host_port()))]);
    let daemon = machine.serve();
    assert_eq!(machine.sendmail("-f root root cron@localhost", "From: Cron <root>\nTo: root\n\nhello\n"), SENT);
    let message = hub.messages(1).remove(0);
    assert!(message.sender.starts_with("<root@example.org>"), "{}", message.sender);
    assert_eq!(message.recipients, ["<root@example.org>", "<cron@example.org>"]);
    let text = String::from_utf8_lossy(&message.data).into_owned();
    for field in ["From: Cron <root@example.org>", "To: root@example.org", "by web.example.org (penfold, from uid "] {
        assert!(text.contains(field), "{text}");
    }
    assert!(daemon.settles(&machine.site));
}

fn a_host_at_a_provider(example: String) {
    let hub = Remote::sink();
    // Another example tests the login, so the credentials are commented out and the host is the
    // test's own.
    let (url, credentials) = ("smtp+starttls://smtp.provider.example:587", "credentials = ");
    let machine = configured(&example, &[(url, &format!("smtp://{}", hub.host_port())), (credentials, "#")]);
    let section = pages::section("penfold.conf.5", "EXAMPLES");
    let [.., rewrite] = asides();
    machine.site.write("rewrite", &format!("{rewrite}\n"));
    let alias = section.lines().find_map(|line| line.strip_prefix(".Ql root: anna")).expect("a line");
    machine.site.write("aliases", &format!("root: anna{alias}\nanna: anna{alias}\n"));
    let daemon = machine.serve();
    assert_eq!(
        machine.sendmail("-f root root anna cron@localhost", "From: Cron <root>\nTo: root\n\nhello\n").0,
        Some(67)
    );
    assert_eq!(machine.sendmail("-f root root anna greg@example.com", "From: Cron <root>\nTo: root\n\nhello\n"), SENT);
    let message = hub.messages(1).remove(0);
    assert_eq!(message.recipients, ["<anna@provider.example>", "<greg@example.com>"]);
    assert!(message.sender.starts_with("<anna@provider.example>"), "{}", message.sender);
    let text = String::from_utf8_lossy(&message.data).into_owned();
    assert!(text.contains("From: Cron <anna@provider.example>"), "{text}");
    assert!(daemon.settles(&machine.site));
}

fn a_host_for_itself(example: String) {
    let listen = format!("listen = [{{address = \"127.0.0.1:{}\"}}]\nremote.local_only", free_port());
    let machine = configured(&example, &[("remote.local_only", &listen)]);
    let daemon = machine.serve();
    assert_eq!(machine.sendmail("root", "hello\n"), SENT);
    daemon.wait_mail(&machine.site, "root", 1);
    let (code, text) = machine.sendmail("x@elsewhere.test", "hello\n");
    assert!(code == Some(69) && text.contains("550 5.4.4 <x@elsewhere.test> No mail leaves this host"), "{text}");
}
