//! `etc/migrate/main.cf-to-penfold`: the configuration that it makes of a main.cf is valid, and
//! penfold gives the same answers with it as Postfix gives with the main.cf.
//!
//! Each directory in tests/interop/migration has a main.cf, and perhaps a master.cf and tables. The
//! lines of its file `answers` are: the address of a client, a sender, a recipient, and the first
//! digit of the reply to RCPT, or two digits if Postfix and penfold differ.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::client::Client;
use common::tls::Authority;
use common::{Daemon, Site, built, free_port, unpacked};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/migration");

/// Words of main.cf that need a name server or another service. Both programs answer without them.
const LOOK_UPS: [&str; 6] = [
    "check_policy_service",
    "reject_unknown_sender_domain",
    "reject_rbl_client",
    "reject_rhsbl_sender",
    "permit_dnswl_client",
    "reject_unverified_recipient",
];

/// A site with the files of a case, and a penfold.conf that the script has made.
struct Case {
    site: Site,
    made: String,
}

impl Case {
    fn new(name: &str, with_look_ups: bool) -> Self {
        let site = Site::new();
        let authority = Authority::new();
        authority.give(&site, "mx", "mx.example.org", 300);
        fs::create_dir(site.path("case")).expect("a directory");
        site.write("mailname", "example.org\n");
        for entry in fs::read_dir(Path::new(CASES).join(name)).expect("a case") {
            let file = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            let text = fs::read_to_string(Path::new(CASES).join(name).join(&file)).expect("text");
            let text = if with_look_ups { text } else { without_look_ups(&text) };
            site.write(&format!("case/{file}"), &text);
        }
        let main = fs::read_to_string(site.path("case/main.cf")).expect("a main.cf");
        let here = site.path("case").display().to_string();
        site.write(
            "main.cf",
            &main
                .replace("/etc/postfix", &here)
                .replace("/etc/mailname", &format!("{}", site.path("mailname").display())),
        );
        let mut script = Command::new("sh");
        script.arg(built::source("etc/migrate/main.cf-to-penfold")).arg("-t").arg(site.path("tables"));
        script.arg(site.path("main.cf"));
        if site.path("case/master.cf").exists() {
            script.arg(site.path("case/master.cf"));
        }
        let output = script.stdin(Stdio::null()).output().expect("sh");
        assert!(output.status.success(), "{name}: {output:?}");
        let made = String::from_utf8(output.stdout).expect("UTF-8");
        Self { site, made }
    }

    /// The configuration with the paths of the site.
    fn conf(&self) -> String {
        let path = |name: &str| self.site.path(name).display().to_string();
        for table in
            ["users", "virtual", "routes", "access", "rewrite", "senders", "credentials", "aliases", "relay-recipients"]
        {
            let file = self.site.path("tables").join(table);
            let text = fs::read_to_string(&file).unwrap_or_default();
            let mode = if table == "credentials" { 0o600 } else { 0o644 };
            self.site.write(&format!("tables/{table}"), &text);
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("a mode");
        }
        let live = "/etc/letsencrypt/live/mx.example.org";
        let mut text = self.made.replace("/etc/penfold/", &(path("tables") + "/"));
        text = text
            .replace(&format!("{live}/fullchain.pem"), &path("mx.pem"))
            .replace(&format!("{live}/privkey.pem"), &path("mx.key"));
        for (section, key) in [
            ("local", "aliases"),
            ("local", "virtual"),
            ("remote", "routes"),
            ("remote", "credentials"),
            ("policy", "access"),
            ("submission", "senders"),
            ("submission", "rewrite"),
        ] {
            insert(&mut text, section, &format!("{key} = {:?}", path(&format!("tables/{key}"))));
        }
        insert(&mut text, "log", "to = \"stderr\"");
        let top = format!("spool = {:?}\nsocket = {:?}\nuser = \"nobody\"\n", path("spool"), path("penfold.sock"));
        text.replacen("hostname = ", &(top + "hostname = "), 1)
    }

    /// Starts penfold on a port of its own, without the filters, with XCLIENT.
    fn start(&self) -> Daemon {
        let mut text = String::new();
        let mut is_left_out = false;
        for line in self.conf().lines() {
            if line.starts_with('[') {
                is_left_out = line == "[[listen]]" || line == "[[filter]]";
            }
            if !is_left_out {
                text += &format!("{line}\n");
            }
        }
        for key in ["spf", "dmarc"] {
            insert(&mut text, "policy", &format!("{key} = \"none\""));
        }
        text += "\n[[listen]]\naddress = \"127.0.0.1:0\"\nxclient = [\"127.0.0.1\"]\n";
        self.site.configure_with(&text);
        let mut command = Command::new(built::program("penfoldd"));
        command.arg("-d").arg("-f").arg(self.site.path("penfold.conf")).stdin(Stdio::null());
        Daemon::spawn(command)
    }
}

/// Inserts a line after the header of a section, or with that header at the end. A line for the same
/// key is replaced.
fn insert(text: &mut String, section: &str, line: &str) {
    let (header, key) = (format!("\n[{section}]\n"), line.split(" = ").next().unwrap_or_default());
    if !text.contains(&header) {
        *text += &format!("{header}{line}\n");
        return;
    }
    let (before, after) = text.split_once(&header).expect("a header");
    let end = after.find("\n[").map_or(after.len(), |at| at + 1);
    let own: String = after[..end]
        .lines()
        .filter(|old| !old.starts_with(&format!("{key} = ")))
        .map(|old| format!("{old}\n"))
        .collect();
    *text = format!("{before}{header}{line}\n{own}{}", &after[end..]);
}

fn without_look_ups(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let items = line.split_inclusive(',').filter(|item| !LOOK_UPS.iter().any(|word| item.contains(word)));
        // The options of a service in braces have commas, too.
        if line.contains("check_policy_service {") { kept += "\n" } else { kept += &(items.collect::<String>() + "\n") }
    }
    kept
}

/// The first digit of the reply to RCPT, or to MAIL if that is refused.
fn digit(daemon: &Daemon, client: &str, sender: &str, recipient: &str) -> char {
    let mut connection = Client::new(daemon.connect());
    connection.ehlo();
    connection.send_text(&format!("XCLIENT ADDR={client} NAME=client.example\r\n"));
    connection.expect("220 ");
    connection.ehlo();
    connection.send_text(&format!("MAIL FROM:<{sender}>\r\n"));
    let reply = connection.expect("");
    if !reply.starts_with('2') {
        return reply.chars().next().expect("a reply");
    }
    connection.send_text(&format!("RCPT TO:<{recipient}>\r\n"));
    connection.expect("").chars().next().expect("a reply")
}

fn compare(name: &str) {
    let case = Case::new(name, true);
    case.site.configure_with(&case.conf());
    let mut check = Command::new(built::program("penfoldd"));
    check.arg("-n").arg("-f").arg(case.site.path("penfold.conf")).stdin(Stdio::null());
    let output = check.output().expect("penfoldd");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {printed}\n{}", case.conf());
    let case = Case::new(name, false);
    let penfold = case.start();
    let postfix = postfix(&case.site);
    let answers = fs::read_to_string(case.site.path("case/answers")).expect("answers");
    let mut found = String::new();
    for line in answers.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [client, sender, recipient, expected] = words[..] else { panic!("{name}: {line}") };
        let mine = digit(&penfold, client, sender, recipient);
        let theirs = match &postfix {
            Some(postfix) => digit(postfix, client, sender, recipient),
            None => expected.chars().next().expect("a digit"),
        };
        let digits = if mine == theirs { mine.to_string() } else { format!("{theirs}{mine}") };
        found += &format!("{client} {sender} {recipient} {digits}\n");
    }
    assert_eq!(found, answers, "{name}:\n{}\n{}", case.conf(), penfold.log());
}

fn postfix(site: &Site) -> Option<Daemon> {
    let tree = unpacked::peer("postfix")?;
    let mut logs = String::new();
    for _ in 0..3 {
        let port = free_port();
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/migration.sh"));
        script.arg(&tree).arg(site.path(&format!("postfix{port}"))).arg(port.to_string()).arg(site.path("case"));
        script.stdin(Stdio::null());
        match Daemon::spawn_until(script, |line| line.contains("daemon started").then_some(port)) {
            Ok(daemon) => return Some(daemon),
            Err(log) => logs += &log,
        }
    }
    panic!("postfix does not start:\n{logs}");
}

macro_rules! cases {
    ($($name:ident $directory:literal),* $(,)?) => {
        const NAMES: &[&str] = &[$($directory),*];
        $(#[test]
        fn $name() {
            compare($directory);
        })*
    };
}

cases!(
    an_internet_site_of_debian "debian-internet",
    an_internet_site_of_debian_with_a_smart_host "debian-smarthost",
    a_satellite_of_debian "debian-satellite",
    a_host_of_debian_with_local_mail_only "debian-local",
    virtual_domains_with_dovecot "virtual-dovecot",
    virtual_alias_domains "virtual-aliases",
    a_backup_mail_exchanger "backup-mx",
    a_gateway "gateway",
    rspamd_as_a_milter "rspamd",
    greylisting_by_a_policy_service "postgrey",
    lists_of_restrictions "restrictions",
    postscreen "postscreen",
    a_null_client "null-client",
    odd_syntax "odd-syntax",
);

#[test]
fn every_case_is_tested() {
    let mut names: Vec<String> = fs::read_dir(CASES)
        .expect("cases")
        .map(|case| case.expect("a case").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    let mut tested = NAMES.to_vec();
    tested.sort_unstable();
    assert_eq!(names, tested);
}
