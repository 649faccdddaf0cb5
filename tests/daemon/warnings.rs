//! Warnings about a configuration that is valid but hardly intended, and about files that the
//! server's user cannot use: by `penfoldd -n`, at the start, at a reload, and by penfoldctl.
//!
//! Each row is a mistake of an operator, and the words that explain it. Errors in the text of a
//! file are tested in tests/manual/config.rs and beside the reader of the file.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::Site;
use common::dns::Dns;
use common::keys;
use common::tls::Authority;
use nix::unistd::{User, geteuid};

const SECRET: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// A site with an account for jon. Other users cannot read its users file.
fn site(settings: &str) -> Site {
    let site = Authority::new().site(settings);
    site.write("users", &format!("jon:{SECRET}:\nroot::\n"));
    for file in ["users", "cert.key"] {
        chmod(&site, file, 0o600);
    }
    site
}

fn chmod(site: &Site, file: &str, mode: u32) {
    fs::set_permissions(site.path(file), Permissions::from_mode(mode)).expect("a scratch file");
}

/// Writes lines into the credentials table, and names the table in the configuration.
fn know(site: &mut Site, lines: &str) {
    site.write("credentials", lines);
    chmod(site, "credentials", 0o600);
    let path = format!("{:?}", site.path("credentials"));
    site.set("remote", "credentials", &path);
}

/// Users as which services run, and whose mail no person reads.
const NO_PERSONS: [&str; 16] = [
    "daemon", "bin", "mail", "news", "uucp", "proxy", "www-data", "www", "nginx", "apache", "backup", "list", "nobody",
    "cron", "games", "man",
];

/// Runs `penfoldd -n`. Returns its exit code, and what it printed without the last line after errors.
fn examine(site: &Site) -> (Option<i32>, String) {
    let output = site.penfoldd(&["-n"]).output().expect("it runs");
    let mut printed = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let errors = printed.strip_suffix("penfoldd: change what these lines name, then run 'penfoldd -n' again\n");
        printed = errors.expect("the last line").to_owned();
    }
    (output.status.code(), printed)
}

/// Asserts that `penfoldd -n` and a start log exactly these warnings.
fn assert_warned(site: &Site, warnings: &[&str]) {
    let (code, printed) = examine(site);
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(printed.lines().count(), warnings.len() + 1, "{warnings:?}: {printed}");
    let daemon = site.start();
    let log = daemon.log();
    for warning in warnings {
        assert!(printed.contains(warning), "{warning}: {printed}");
        assert!(log.contains(warning), "{warning}: {log}");
    }
}

/// The line without the file and the place in the configuration, with which a warning begins.
fn without_place(site: &Site, line: &str) -> String {
    let file = format!("{}:", site.path("penfold.conf").display());
    let Some(rest) = line.strip_prefix(&file) else { return line.to_owned() };
    rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':').trim_start().to_owned()
}

/// Whether a line of the output of `penfoldd -n` is about the configuration, and not about this
/// machine.
fn is_of_the_file(line: &&str) -> bool {
    let of_this_machine = [
        "is \"system\"",
        "mail for root",
        "has no dot",
        "has room for",
        "no syslog at",
        "does not exist: the start",
        // No filter runs here.
        "it does not answer",
    ];
    !of_this_machine.iter().any(|words| line.contains(words))
}

#[test]
fn plausible_configurations_have_no_warnings() {
    let mut site = site("listen.kind = \"submission\"\nremote.smarthosts = [\"smtps://Mail.example.net\"]");
    know(&mut site, "mail.example.net:jon:hush\n[2001:db8::1]:jon:hush\nother.example.net:jon:hush\n");
    site.write("routes", "a.test [2001:DB8::1]:26\nb.test smtp+starttls://other.example.net\n");
    site.write("senders", "jon info@razorback\njon@razorback.test @razorback\n");
    assert_warned(&site, &[]);
}

#[test]
#[cfg_attr(not(all(feature = "arc", feature = "filters")), ignore = "a part of the page is not built in")]
fn the_examples_of_the_page_have_no_warnings() {
    let page = include_str!("../../man/penfold.conf.5");
    let (_, examples) = page.split_once(".Sh EXAMPLES").expect("examples");
    let (examples, _) = examples.split_once(".Sh ").expect("an end");
    for example in examples.split(".Bd -literal -offset indent\n").skip(1) {
        let (text, _) = example.split_once(".Ed\n").expect("an end");
        let mut site = site("");
        let provider = "smtp.provider.example";
        let host = if text.contains(provider) { provider } else { "mx.example.org" };
        know(&mut site, &format!("{host}:desk:correct horse battery\n"));
        site.write("rewrite", "@desk.home.arpa anna@provider.example\n");
        Authority::new().give(&site, "cert", "mx.example.org", 300);
        chmod(&site, "cert.key", 0o600);
        fs::rename(site.path("cert.key"), site.path("key.pem")).expect("a rename");
        let made = keys::Made::new("example.org", "202611");
        made.give(&site);
        let dns = Dns::zone(&made.keys.iter().map(keys::Key::zone_line).collect::<String>());
        let dns = format!("dns.nameservers = {}\n", dns.nameservers());
        let user = if geteuid().is_root() { "user = \"nobody\"\n" } else { "" };
        let mine = text.lines().filter(|line| !line.starts_with("user = ")).collect::<Vec<_>>().join("\n");
        let mine = mine.replace("/etc/penfold/", &format!("{}/", site.path("").display()));
        let mut command = site.penfoldd(&["-n"]);
        site.configure_with(&format!("{user}{dns}{mine}\n"));
        let output = command.output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr);
        let rest: Vec<_> = printed.lines().filter(is_of_the_file).filter(|l| !l.contains("aliases")).collect();
        assert_eq!(
            (output.status.code(), rest),
            (Some(0), vec!["penfoldd: the configuration is right"]),
            "{text}{printed}"
        );
    }
}

#[test]
fn a_line_of_a_table_that_has_no_effect() {
    let mut site = site("remote.smarthosts = [\"smtps://mail.example.net\"]");
    know(&mut site, "# ours\nmail.example.net:jon:hush\nmial.example.net:jon:hush\nmail.other.net:3587:jon:hush\n");
    site.write("senders", "jon *\njonn info@razorback\nmary@razorback.test *\n");
    let none = "this has no effect: no smart host and no route is named";
    assert_warned(
        &site,
        &[
            &format!("credentials:3:1: {none} mial.example.net"),
            "credentials:4:1: the user is a number: write the host without its port",
            "senders:2:1: this has no effect: no user logs in as jonn",
            "senders:3:1: this has no effect: no user logs in as mary",
        ],
    );
    // After a reload only the line that is still wrong causes a warning.
    let daemon = site.start();
    know(&mut site, "mail.example.net:jon:hush\nmail.third.net:jon:hush\n");
    site.configure();
    daemon.hup();
    let log = daemon.wait_log(|line| line.contains(&format!("credentials:2:1: {none} mail.third.net")));
    assert!(!log.contains("hush"), "{log}");
}

#[test]
fn a_listener_that_no_client_can_use() {
    let nobody = "no client can log in there: ";
    for (settings, certificate, why) in [
        (
            "listen.tls = \"none\"\nrelay.networks = []",
            true,
            "auth needs TLS, and tls is \"none\"; and relay.networks is empty",
        ),
        ("relay.networks = []", false, "auth needs TLS, and there is no certificate; and relay.networks is empty"),
        ("listen.auth = \"none\"\nrelay.networks = []", true, "auth is \"none\"; "),
        ("auth.users = \"none\"\nrelay.networks = []", true, "auth.users is \"none\"; "),
        ("auth.users = \"none\"", true, ""),
        ("relay.networks = []", true, ""),
        ("listen.auth = \"always\"\nrelay.networks = []", false, ""),
        ("listen.auth = \"none\"\nrelay.networks = []\nlisten.xclient = [\"127.0.0.1\"]", true, ""),
        ("listen.auth = \"none\"\nrelay.networks = [\"192.0.2.0/24\"]", true, ""),
    ] {
        let settings = format!("listen.kind = \"submission\"\n{settings}");
        let site = if certificate { site(&settings) } else { Site::with(&settings) };
        site.write("users", &format!("jon:{SECRET}:\nroot::\n"));
        chmod(&site, "users", 0o600);
        let warning = format!("listen 127.0.0.1:0: {nobody}{why}");
        let warnings: Vec<&str> = if why.is_empty() { Vec::new() } else { vec![&warning] };
        assert_warned(&site, &warnings);
    }
    // This host may relay, but remote clients are not helped by that. The daemon is not started,
    // since it would listen on all addresses.
    let site = Site::with("listen.kind = \"submission\"\nlisten.address = \"0.0.0.0:0\"");
    let (_, printed) = examine(&site);
    let warning = "listen 0.0.0.0:0: no client can log in there: the users file has no secret; and relay.networks contains only this host";
    assert!(printed.contains(warning), "{printed}");
}

#[test]
fn a_certificate_for_another_name() {
    let warning = "no certificate is for the hostname mx.razorback.test: ";
    for (settings, names, is_warned) in [
        ("", &["mx.razorback.test"][..], false),
        ("", &["*.razorback.test"], false),
        ("", &["mail.test"], true),
        ("", &["*.mx.razorback.test"], true),
        ("", &["other.test", "mail.test"], true),
        // The client's SNI selects the certificate, so its position in the configuration does not
        // matter.
        ("", &["mail.test", "mx.razorback.test"], false),
        // Without TLS no client gets the certificate, so there is no warning.
        ("listen.tls = \"none\"", &["other.test"], false),
    ] {
        let (authority, mut site) = (Authority::new(), Site::with(settings));
        site.set("", "hostname", "\"mx.razorback.test\"");
        site.configure();
        let mut text = fs::read_to_string(site.path("penfold.conf")).expect("text");
        for name in names {
            let file = name.replace('*', "all");
            authority.give(&site, &file, name, 300);
            chmod(&site, &format!("{file}.key"), 0o600);
            let path = |end: &str| site.path(&format!("{file}.{end}"));
            text += &format!("\n[[tls]]\ncertificate = {:?}\nkey = {:?}\n", path("pem"), path("key"));
        }
        site.configure_with(&text);
        let mut penfoldd = Command::new(env!("CARGO_BIN_EXE_penfoldd"));
        let output = penfoldd.arg("-n").arg("-f").arg(site.path("penfold.conf")).output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = (output.status.code(), printed.contains(warning));
        assert_eq!(found, (Some(0), is_warned), "{settings} {names:?}: {printed}");
    }
    // No authority issues a certificate for a name without a dot, so the name gets a warning
    // instead.
    let mut site = site("");
    site.set("", "hostname", "\"razorback\"");
    let (_, printed) = examine(&site);
    assert!(printed.contains("hostname razorback has no dot") && !printed.contains("no certificate"), "{printed}");
}

#[test]
fn secrets_that_others_may_read() {
    let site = site("");
    chmod(&site, "users", 0o644);
    chmod(&site, "cert.key", 0o664);
    assert_warned(&site, &["users: others may read it (mode 644)", "cert.key: others may read it (mode 664)"]);
    // Whoever can change the aliases gets the mail of others.
    for (file, mode) in [("aliases", 0o646), ("penfold.conf", 0o666)] {
        let mut command = site.penfoldd(&["-n"]);
        chmod(&site, file, mode);
        let output = command.output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr);
        let warning = format!("{}: every user of this host may change it (mode {mode:o})\n", site.path(file).display());
        assert!(printed.contains(&warning), "{printed}");
        chmod(&site, file, 0o644);
    }
    // If the users file has no secrets, others may read it.
    site.write("users", "jon::\nroot::\n");
    chmod(&site, "cert.key", 0o640);
    assert_warned(&site, &[]);
}

#[test]
fn mail_that_no_user_reads() {
    let kept = |who: &str, remedy: &str| format!("mail for {who} is kept in {{}}, where it stays unread: {remedy}");
    let line = "add an alias for root to {aliases}";
    let key = "let local.aliases name a file with an alias for root";
    for (settings, aliases, warning) in [
        ("local.users = \"system\"", "", kept("root and postmaster", line)),
        ("local.users = \"system\"\nlocal.postmaster = \"nobody\"", "", kept("root", line)),
        ("local.users = \"system\"", "jon: root", kept("root and postmaster", line)),
        ("local.users = \"system\"", "root: nobody", String::new()),
        ("local.users = \"system\"", "root: jon@elsewhere.test", String::new()),
        ("local.users = \"system\"\nlocal.domains = []", "", String::new()),
        ("", "", String::new()),
        ("local.postmaster = \"jonn\"", "", kept("postmaster", "local.postmaster leads to jonn@razorback, which has no mailbox")),
        (
            "",
            "postmaster: chief\nchief: jno",
            "{aliases}:2:1: postmaster leads to jno, which has no mailbox: mail for postmaster is kept in {}, where it stays unread".into(),
        ),
        ("local.users = \"system\"", "postmaster: root", kept("root and postmaster", line)),
        ("local.users = \"system\"\nlocal.aliases = \"\"", "", kept("root and postmaster", key)),
    ] {
        let site = Site::with(&format!("local.mailbox = \"/var/mail/{{user}}\"\n{settings}"));
        site.write("aliases", &format!("{aliases}\n"));
        let (code, printed) = examine(&site);
        let path = |name| site.path(name).display().to_string();
        let warning = warning.replace("{}", &path("spool/postmaster")).replace("{aliases}", &path("aliases"));
        let printed = printed.lines().map(|line| without_place(&site, line)).collect::<Vec<_>>().join("\n");
        let is_other = |line: &&str| {
            !["is \"system\"", "local.mailbox: ", "their homes belong to other users"].iter().any(|words| line.contains(words))
        };
        let rest: Vec<_> = printed.lines().filter(is_other).collect();
        let wanted: Vec<_> =
            [warning.as_str(), "penfoldd: the configuration is right"].into_iter().filter(|l| !l.is_empty()).collect();
        assert_eq!((code, rest), (Some(0), wanted), "{settings} {aliases}");
    }
    // A reload warns, too.
    let mut site = site("");
    let daemon = site.start();
    site.set("local", "postmaster", "\"jonn\"");
    site.configure();
    daemon.hup();
    daemon.wait_log(|line| line.contains("where it stays unread: local.postmaster"));
}

#[test]
fn an_alias_of_root_without_a_recipient() {
    for (users, aliases, line, whom) in [
        ("jon::\n", "# ours\nroot: jno\n", 2, "jno"),
        ("jon::\nroot::\n", "root: jno\n", 1, "jno"),
        ("jon::\n", "root: admin\n\nadmin: Jno@razorback\n", 3, "Jno@razorback"),
        ("jon::\n", "root: jno, jom\n", 1, "jno"),
        ("jon::\n", "root: jno, jon\n", 0, ""),
        ("jon::\n", "root: jno@elsewhere.test\n", 0, ""),
        ("jon::\n", "root: jon\n", 0, ""),
    ] {
        let site = Site::with("local.postmaster = \"jon\"");
        site.write("users", users);
        site.write("aliases", aliases);
        let file = site.path("aliases");
        let warning = format!(
            "{}:{line}:1: root leads to {whom}, which does not exist: mail for root is rejected",
            file.display()
        );
        let warnings: Vec<&str> = if line == 0 { Vec::new() } else { vec![&warning] };
        assert_warned(&site, &warnings);
    }
    // The users file does not have root, so mail for root is rejected.
    let site = Site::with("local.postmaster = \"jon\"");
    site.write("users", "jon::\n");
    let aliases = site.path("aliases");
    let warning = format!(
        "mail for root is rejected, because there is no such user: add an alias for root to {}",
        aliases.display()
    );
    assert_warned(&site, &[&warning]);
    // Without an aliases file, the warning names the key.
    let site = Site::with("local.postmaster = \"jon\"\nlocal.aliases = \"\"");
    site.write("users", "jon::\n");
    let advice = "let local.aliases name a file with an alias for root";
    assert_warned(&site, &[&format!("mail for root is rejected, because there is no such user: {advice}")]);
    // The warning is correct: mail for root is rejected.
    let site = Site::new();
    site.write("aliases", "root: jno\n");
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<root@razorback>", "550 5.1.1 ");
}

#[test]
fn a_misspelt_alias_for_root_or_the_postmaster() {
    for (aliases, line, given, meant) in [
        ("# ours\nrot: jon\n", 2, "rot", "root"),
        ("root: jon\npostmater: jon\n", 2, "postmater", "postmaster"),
        ("root: jon\nrot: jon\npostmaster: jon\nhostmaster: jon\n", 0, "", ""),
        ("robot: jon\nhostmaster: jon\n", 0, "", ""),
    ] {
        let site = Site::with("local.postmaster = \"jon\"");
        site.write("users", "jon::\nroot::\n");
        site.write("aliases", aliases);
        let file = site.path("aliases").display().to_string();
        let warning =
            format!("{file}:{line}:1: the alias {given} may be a misspelt {meant}, for which there is no alias");
        let warnings: Vec<&str> = if line == 0 { Vec::new() } else { vec![&warning] };
        assert_warned(&site, &warnings);
    }
}

#[test]
fn aliases_where_no_domain_is_local() {
    let warning = "local.domains is empty: the aliases have no effect";
    for (domains, aliases, warnings) in
        [("[]", "root: jon\n", &[warning][..]), ("[]", "# none\n", &[]), ("[\"localhost\"]", "root: jon\n", &[])]
    {
        let site = Site::with(&format!("local.domains = {domains}"));
        site.write("aliases", aliases);
        assert_warned(&site, warnings);
    }
}

#[test]
fn a_directory_where_users_cannot_create_mailboxes() {
    if !geteuid().is_root() {
        common::skipped("root alone delivers as others");
        return;
    }
    let mut site = Site::with("local.users = \"system\"");
    let others: String = NO_PERSONS.iter().map(|name| format!("{name}: root\n")).collect();
    site.write("aliases", &format!("root: jon@elsewhere.test\n{others}"));
    for name in ["box", "box/all"] {
        fs::create_dir(site.path(name)).expect("a directory");
    }
    for (template, mode, warned) in [
        ("mbox:{box}/{user}", 0o2775, Some("box")),
        ("mbox:{box}/{user}", 0o755, Some("box")),
        ("mbox:{box}/{user}", 0o1777, None),
        ("{box}/{user}/", 0o2775, Some("box")),
        ("{box}/new/{domain}/{user}", 0o755, Some("box")),
        ("{box}/new/{domain}/{user}", 0o1777, None),
        ("{box}/x{user}", 0o755, Some("box")),
        ("{box}/all", 0o1777, Some("box/all")),
        ("~/Maildir", 0o755, None),
        ("mbox:~/mbox", 0o755, None),
    ] {
        chmod(&site, "box", mode);
        let template = template.replace("{box}", &site.path("box").display().to_string());
        site.set("local", "mailbox", &format!("{template:?}"));
        let warning = warned.map(|name| {
            let path = site.path(name);
            let mode = if name == "box" { mode } else { 0o755 };
            format!(
                "local.mailbox: not every user may write to {} (mode {mode:03o}): mail for users without a mailbox there waits",
                path.display()
            )
        });
        assert_warned(&site, &warning.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // With a users file, unlike with system users, the mailboxes belong to the server.
    let site = Site::with("");
    chmod(&site, "mail", 0o755);
    assert_warned(&site, &[]);
}

#[test]
fn files_that_the_start_would_create_or_miss() {
    let mut site = Site::new();
    let spool = site.path("nosuch/spool");
    site.set("", "spool", &format!("{spool:?}"));
    let ok = "penfoldd: the configuration is right\n";
    let (code, printed) = examine(&site);
    let wanted = format!("spool: {} does not exist: the start will create it", spool.display());
    let lines: Vec<_> = printed.lines().map(|line| without_place(&site, line)).collect();
    assert_eq!((code, lines), (Some(0), vec![wanted, ok.trim_end().to_owned()]));
    assert!(!site.path("nosuch").exists(), "nothing is made");
    // If there is no syslog, a daemon in the background would not log anything.
    let site = Site::with("log.to = \"syslog\"");
    let none = "no syslog at /dev/log: nothing is logged in the background; see log.to\n";
    let wanted = if Path::new("/dev/log").exists() { ok.to_owned() } else { format!("{none}{ok}") };
    assert_eq!(examine(&site), (Some(0), wanted));
    let output = site.penfoldd(&["-n", "-d"]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), ok);
}

#[test]
fn a_port_that_only_root_may_use() {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim().parse().is_ok_and(|port: u16| port <= 1) {
        common::skipped("anybody may have any port here");
        return;
    }
    let site = Site::with("listen.address = \"127.0.0.1:1\"");
    let owner = fs::metadata(site.path("spool")).expect("a spool");
    let output = site.penfoldd(&["-d"]).uid(owner.uid()).gid(owner.gid()).output().expect("it runs");
    let wanted = "penfoldd: listen on 127.0.0.1:1: Permission denied (os error 13)\n\
        penfoldd: listen.address: start penfoldd as root, whose rights it drops, or choose a port from 1024 on\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(77), wanted));
}

#[test]
fn an_open_relay() {
    for (networks, open) in [
        (
            "\"127.0.0.0/8\", \"::1\", \"10.0.0.0/8\", \"192.0.2.0/24\", \"fc00::/7\", \"fe80::/10\", \"2001:db8::/32\"",
            &[][..],
        ),
        ("\"0.0.0.0/0\", \"127.0.0.1\"", &["0.0.0.0/0"]),
        ("\"::/0\"", &["::/0"]),
        ("\"0.0.0.0/1\", \"128.0.0.0/1\"", &["0.0.0.0/1", "128.0.0.0/1"]),
        ("\"2000::/3\"", &["2000::/3"]),
    ] {
        let warnings: Vec<String> =
            open.iter().map(|network| format!("relay.networks has {network}: this is an open relay, ")).collect();
        let warnings: Vec<&str> = warnings.iter().map(String::as_str).collect();
        assert_warned(&site(&format!("relay.networks = [{networks}]")), &warnings);
    }
}

#[test]
#[cfg_attr(not(feature = "arc"), ignore = "ARC is not built in")]
fn keys_of_dmarc_that_have_no_effect() {
    let no_effect = "policy.dmarc is not obey: policy.arc_sealers has no effect";
    for (settings, warnings) in [
        ("policy.spf = \"mark\"\npolicy.dmarc = \"obey\"\npolicy.arc_sealers = [\"lists.example\"]", &[][..]),
        ("policy.dmarc = \"mark\"\npolicy.arc_sealers = [\"lists.example\"]", &[no_effect]),
        (
            "policy.dmarc = \"none\"\npolicy.dmarc_reports = \"dmarc@razorback.test\"",
            &["policy.dmarc is none: no DMARC reports are sent"],
        ),
        (
            "policy.spf = \"none\"\npolicy.dmarc = \"obey\"",
            &["policy.spf is none: with policy.dmarc = obey, mail that only SPF vouches for is refused"],
        ),
    ] {
        assert_warned(&site(settings), warnings);
    }
}

#[test]
fn quotas_that_have_no_effect() {
    let mbox = "local.mailbox = \"mbox:/tmp/{user}\"\n";
    for (settings, line, warnings) in [
        ("local.quota = \"1G\"\nlocal.over_quota = \"refuse\"".to_owned(), "", &[][..]),
        (format!("{mbox}local.quota = \"1G\""), "", &["local.quota has no effect: no mailbox is a Maildir"]),
        (format!("{mbox}local.quota = \"1G\""), "mary::/tmp/mary", &[]),
        ("local.over_quota = \"refuse\"".to_owned(), "", &["local.over_quota has no effect: no mailbox has a quota"]),
        ("local.over_quota = \"refuse\"".to_owned(), "mary:::quota=1G", &[]),
        (mbox.to_owned(), "mary:::quota=1G", &["users:3:1: the quota has no effect because the mailbox is no Maildir"]),
        (
            "domain#1.names = [\"far\"]\ndomain#1.mailbox = \"lmtp:/tmp/lmtp\"\ndomain#1.users = \"system\"\ndomain#1.quota = \"1G\""
                .to_owned(),
            "",
            &["domain.quota has no effect: no mailbox is a Maildir"],
        ),
    ] {
        let site = site(&settings);
        if !line.is_empty() {
            site.add("users", line);
        }
        assert_warned(&site, warnings);
    }
}

#[test]
fn names_that_other_hosts_cannot_resolve() {
    let only = "local.domains has example.org, and only this host can connect: see [[listen]]";
    let neither = |host: &str| {
        format!(
            "local.domains has neither {host} nor localhost: mail that programs send to a user there leaves this host"
        )
    };
    let (full, bare) = (neither("razorback.test"), neither("mail"));
    let short = "hostname mail has no dot: other hosts may refuse mail from such a name; set hostname";
    for (settings, warnings) in [
        ("local.domains = [\"localhost\", \"razorback.test\", \"localhost.localdomain\"]", &[][..]),
        ("local.domains = [\"example.org\"]", &[only, &full]),
        ("local.domains = [\"example.org\", \"localhost\"]", &[only]),
        ("local.domains = [\"example.org\", \"localhost\"]\nlisten.proxy = [\"127.0.0.1\"]", &[]),
        ("local.domains = [\"razorback\", \"mail\"]\nhostname = \"mail\"", &[short]),
        ("local.domains = [\"razorback\"]\nhostname = \"mail\"\nremote.local_only = true", &[&bare]),
        ("local.domains = [\"example.org\"]\nhostname = \"mail\"", &[short, only, &bare]),
    ] {
        let site = Site::with(settings);
        if settings.contains("proxy") {
            let (code, printed) = examine(&site);
            assert_eq!((code, printed.lines().count()), (Some(0), 1), "{printed}");
        } else {
            assert_warned(&site, warnings);
        }
    }
    // The daemon is not started, since it would listen on all addresses.
    let site = Site::with("local.domains = [\"example.org\", \"localhost\"]\nlisten.address = \"0.0.0.0:0\"");
    assert_eq!(examine(&site), (Some(0), "penfoldd: the configuration is right\n".to_owned()));
}

#[test]
fn a_change_that_needs_a_restart_is_reported_until_then() {
    let mut site = site("queue.workers = 3");
    let daemon = site.start();
    let mut reload = |workers: &str, colour: &str| {
        site.set("queue", "workers", workers);
        if geteuid().is_root() {
            site.set("", "user", colour);
        }
        site.configure();
        let read = |daemon: &common::Daemon| daemon.log().matches("configuration and tables read again").count();
        let before = read(&daemon);
        daemon.hup();
        daemon.wait_until("a reload", || read(&daemon) > before);
        let changed = daemon.log().matches("queue.workers has changed: that needs a restart").count();
        let user =
            daemon.log().matches("user: there is no such user as no-such-user: the next start will fail").count();
        let root = daemon.log().matches("user: the server must not run as root: the next start will fail").count();
        (changed, user, root)
    };
    let (one, none) = if geteuid().is_root() { (1, 0) } else { (0, 0) };
    assert_eq!(reload("4", "\"no-such-user\""), (1, one, none));
    assert_eq!(reload("4", "\"root\""), (2, one, one));
    assert_eq!(reload("3", "\"nobody\""), (2, one, one));
}

#[test]
fn a_configuration_that_cannot_be_reloaded() {
    if !geteuid().is_root() {
        common::skipped("only root can read files that the server's user cannot");
        return;
    }
    let site = site("");
    let mut command = site.penfoldd(&["-n"]);
    chmod(&site, "penfold.conf", 0);
    let output = command.output().expect("it runs");
    let path = site.path("penfold.conf");
    let says = format!("{}: the user {} must be able to read it: SIGHUP will change nothing\n", path.display(), user());
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{says}penfoldd: the configuration is right\n"));
}

#[test]
fn missing_credentials_are_one_error() {
    let mut site = site("");
    let path = site.path("nowhere");
    site.set("remote", "credentials", &format!("{path:?}"));
    let (code, printed) = examine(&site);
    assert!(code == Some(78) && printed.lines().count() == 1, "{printed}");
    assert!(printed.contains(&format!("remote.credentials: expected a file; {}: ", path.display())), "{printed}");
}

/// The name of the server's user.
fn user() -> String {
    match geteuid() {
        uid if uid.is_root() => "nobody".to_owned(),
        uid => User::from_uid(uid).expect("the user database").expect("a user").name,
    }
}

#[test]
fn an_unreadable_file_is_reported_with_its_key_and_the_user() {
    let mut site = site("listen.kind = \"submission\"");
    know(&mut site, "");
    Authority::new().trusted_by(&mut site);
    site.write("srs_secret", "a secret of sixteen letters\n");
    chmod(&site, "srs_secret", 0o600);
    let path = format!("{:?}", site.path("srs_secret"));
    site.set("remote", "srs_secret", &path);
    for (key, file) in [
        ("tls.key", "cert.key"),
        ("tls.certificate", "cert.pem"),
        ("remote.authorities", "authorities.pem"),
        ("remote.credentials", "credentials"),
        ("remote.srs_secret", "srs_secret"),
        ("local.users", "users"),
        ("submission.senders", "senders"),
        ("policy.access", "access"),
    ] {
        chmod(&site, file, 0);
        let needed = match key {
            "remote.credentials" | "remote.srs_secret" => {
                format!("it must belong to {} or to root, with mode 600", user())
            }
            _ => format!("the user {} must be able to read it", user()),
        };
        let wanted = format!("penfold.conf: {key}: {}: Permission denied: {needed}\n", site.path(file).display());
        let (code, printed) = examine(&site);
        assert_eq!(code, Some(78), "{printed}");
        assert!(printed.ends_with(&wanted) && printed.lines().count() == 1, "{wanted}{printed}");
        if ["users", "senders", "access"].contains(&file) {
            // With an unreadable users, senders or access file the daemon starts, and requests that
            // need the table get a temporary failure.
            let daemon = site.start();
            assert!(daemon.log().contains(wanted.trim_end()), "{}", daemon.log());
            let mut client = daemon.client();
            client.ehlo();
            client.ask("MAIL FROM:<x@x.test>", if file == "senders" { "451 " } else { "250 " });
            let recipient = match file {
                "users" => "451 ",
                "senders" => "503 ",
                // The client may relay.
                _ => "250 ",
            };
            client.ask("RCPT TO:<jon@razorback>", recipient);
        } else {
            let started = site.penfoldd(&["-d"]).output().expect("it runs");
            let printed = String::from_utf8_lossy(&started.stderr);
            assert!(started.status.code() == Some(78) && printed.ends_with(&wanted), "{printed}");
        }
        chmod(&site, file, 0o600);
    }
    assert_eq!(examine(&site).0, Some(0));
}

#[test]
fn a_log_that_cannot_be_opened() {
    let mut site = site("");
    fs::create_dir(site.path("log")).expect("a directory");
    chmod(&site, "log", 0o555);
    let path = site.path("log/mail.log");
    site.set("log", "to", &format!("{path:?}"));
    let (log, user) = (path.display(), user());
    let wanted = format!(
        "penfoldd: open the log {log} as {user}: Permission denied (os error 13)\n\
         penfoldd: log.to: this gives it to the server's user: install -o {user} -m 640 /dev/null {log}\n"
    );
    let last = "penfoldd: change what these lines name, then run 'penfoldd -n' again\n";
    for (arguments, last) in [(&[][..], ""), (&["-n"], last)] {
        let output = site.penfoldd(arguments).output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), printed), (Some(77), format!("{wanted}{last}")), "{arguments:?}");
    }
    // `penfoldd -n` does not create the log file.
    chmod(&site, "log", 0o777);
    assert!(examine(&site).0 == Some(0) && !path.exists());
}

#[test]
fn a_mailbox_that_cannot_be_created() {
    let mut site = site("");
    let template = format!("{:?}", site.path("mail/{domain}/{user}"));
    site.set("local", "mailbox", &template);
    site.add("aliases", "both: jon, root");
    chmod(&site, "mail", 0o555);
    let daemon = site.start();
    let ids = [daemon.submit(&["both@razorback.test"]), daemon.submit(&["jon@razorback"])];
    let mailbox = site.path("mail/razorback");
    let wanted = format!("mkdir {}: Permission denied", mailbox.display());
    for id in ids {
        daemon.wait_words(&[&id, " deferred to=<jon@razorback>", &wanted]);
    }
    chmod(&site, "mail", 0o755);
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
}

#[test]
fn penfoldctl_passwd_without_a_name_or_a_password() {
    for (arguments, code, says) in [
        (&["passwd"][..], 64, "passwd needs a name\n"),
        (&["passwd", ""], 64, "passwd needs a name\n"),
        (&["passwd", "jon"], 65, "the password is empty\n"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
        let output = command.args(arguments).stdin(Stdio::null()).output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && printed.contains(says), "{arguments:?}: {printed}");
    }
}

/// A running daemon tolerates errors in a table, so they must not prevent its start either, or a
/// reboot would stop all mail. `penfoldd -n` reports them.
#[test]
fn a_table_with_errors_does_not_stop_a_start() {
    let mut site = site("listen.kind = \"submission\"\nlocal.domains = [\"razorback\"]");
    site.write("aliases", "good: \"jon@razorback\"\na: b\nb: a\nbad: jon jon\ngood: root\nnonsense\n");
    site.write("users", &format!("jon:{SECRET}:\nroot::\nmary:hush:\nann\n"));
    site.write("virtual", "v@razorback |cat\n");
    site.write("routes", "x.test lmtp:x\n");
    site.write("senders", "jon *x\n");
    site.write("rewrite", "jon\n");
    site.write("access", "client 192.0.2.1 maybe\n");
    let rewrite = format!("{:?}", site.path("rewrite"));
    site.set("submission", "rewrite", &rewrite);
    chmod(&site, "users", 0o600);
    let (code, printed) = examine(&site);
    assert_eq!(code, Some(78), "{printed}");
    let daemon = site.start();
    let log = daemon.log();
    for place in [
        "aliases:2:1: alias loop: a -> b -> a",
        "aliases:4:6: there is text",
        "aliases:5:1: the alias good is already on line 1",
        "aliases:6:1: expected a name",
        "users:3:6: expected a secret",
        "users:4:1: expected name:secret:mailbox",
        "virtual:1:1: expected addresses",
        "routes:1:8: expected lmtp:/path",
        "senders:1:5: expected an address",
        "rewrite:1:1: expected two addresses",
        "access:1:18: expected ok, reject",
    ] {
        assert!(printed.contains(place), "{place}: {printed}");
        assert!(log.contains(place), "{place}: {log}");
    }
    assert_eq!(log.matches(": has errors: its valid lines are in force").count(), 7, "{log}");
    let mut client = daemon.client();
    client.ehlo();
    client.ask("MAIL FROM:<x@razorback>", "250 ");
    for (name, reply) in [
        ("good", "250 "),
        ("mary", "250 "),
        ("nobody", "550 "),
        ("a", "451 "),
        ("bad", "451 "),
        ("nonsense", "451 "),
        ("ann", "451 "),
        ("v", "451 "),
    ] {
        client.ask(&format!("RCPT TO:<{name}@razorback>"), reply);
    }
    // The reload fails, and the old table stays in force.
    daemon.hup();
    daemon.wait_log(|line| line.contains("the configuration has errors: the old one stays in force"));
    site.write("aliases", "good: jon\nbad: jon\n");
    client.ask("RCPT TO:<bad@razorback>", "250 ");
}

#[test]
fn placeholders_without_a_meaning() {
    let mut site = Site::new();
    site.set("local", "mailbox", "\"/var/mail/%d/%u\"");
    site.write("users", "jon::\nroot::/var/mail/{user}\nmary::/var/mail/%n\n");
    let users = site.path("users");
    let warnings = [(2, "{user}"), (3, "%n")]
        .map(|(line, sign)| format!("{}:{line}:1: {sign} in the mailbox is not a placeholder", users.display()));
    let all = ["local.mailbox: %u is not a placeholder: expected {user} or {domain}", &warnings[0], &warnings[1]];
    assert_warned(&site, &all);
}

/// cron(8) and web servers send mail to the users that they run as, and that mail waits.
#[test]
fn mail_for_users_of_services() {
    let Some(homes) = common::homes::Homes::new("") else { return };
    let known = fs::read_to_string("/etc/passwd").expect("users");
    let is_there = |name: &&str| known.lines().any(|line| line.starts_with(&format!("{name}:")));
    if !["daemon", "bin"].iter().all(is_there) {
        return common::skipped("this system has no daemon and no bin");
    }
    let words = "waits, as their homes belong to other users: add aliases for them to";
    let printed = || {
        let output = homes.mounts.inside(&homes.site.penfoldd(&["-n"])).output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{printed}");
        printed
    };
    let first = printed();
    let line = first.lines().find(|line| line.contains(words)).expect(&first);
    assert!(
        line.starts_with("mail for daemon, bin") && line.len() < 200 && first.matches(words).count() == 1,
        "{first}"
    );
    let all = NO_PERSONS.iter().map(|name| format!("{name}: jon\n"));
    homes.site.write("aliases", &all.collect::<String>());
    assert!(!printed().contains(words));
}

#[test]
#[cfg_attr(not(feature = "mailauth"), ignore = "signatures are not built in")]
fn a_key_that_receivers_do_not_find() {
    let made = keys::Made::new("razorback.test", "s");
    let mut site = site("");
    made.give(&site);
    made.of(&site).iter().for_each(|key| key.add_to(&mut site));
    let [rsa, ed25519] = made.keys.as_slice() else { panic!("two keys") };
    let dns = Dns::zone(&format!("{}{}", rsa.zone_line(), ed25519.zone_line().replace("; p=", "; t=y; p=")));
    site.set("dns", "nameservers", &dns.nameservers());
    let name = |key: &keys::Key| format!("{}._domainkey.razorback.test: ", key.selector);
    let (code, printed) = examine(&site);
    assert!(code == Some(0) && printed.lines().count() == 2, "{printed}");
    assert!(printed.contains(&format!("{}good, but t=y says", name(ed25519))), "{printed}");
    // A start does not ask the DNS.
    let asked = dns.asked().len();
    let daemon = site.start();
    assert!(!daemon.log().contains("_domainkey") && dns.asked().len() == asked, "{}", daemon.log());
    drop(daemon);
    let dns = Dns::zone(&rsa.zone_line().replace("s-rsa", "s-ed25519"));
    site.set("dns", "nameservers", &dns.nameservers());
    chmod(&site, "dkim/razorback.test.s-rsa.pem", 0o644);
    let (code, printed) = examine(&site);
    assert!(code == Some(0) && printed.lines().count() == 4, "{printed}");
    for warning in [
        format!("{}there is no TXT record", name(rsa)),
        format!("{}the record has a key of another kind (k=)", name(ed25519)),
        "dkim/razorback.test.s-rsa.pem: others may read it (mode 644)".to_owned(),
    ] {
        assert!(printed.contains(&warning), "{warning}: {printed}");
    }
}

#[test]
#[cfg_attr(not(feature = "mailauth"), ignore = "signatures are not built in")]
fn a_mute_name_server_delays_a_check_by_seconds() {
    let made = keys::Made::new("razorback.test", "s");
    let mut site = site("");
    made.give(&site);
    let path = site.path("dkim/razorback.test.s-rsa.pem");
    let table: String = (0..30).map(|n| format!("x{n}.test s {}\n", path.display())).collect();
    site.write("keys", &table);
    let path = format!("{:?}", site.path("keys"));
    site.set("dkim#table", "table", &path);
    let dns = Dns::start(|_, _| common::dns::Answer::silence());
    site.set("dns", "nameservers", &dns.nameservers());
    let start = std::time::Instant::now();
    let (code, printed) = examine(&site);
    assert!(code == Some(0) && start.elapsed() < std::time::Duration::from_secs(12), "{:?}", start.elapsed());
    assert_eq!(printed.matches("the name server did not answer in time").count(), 20, "{printed}");
    assert!(printed.contains("only the first 20 of 30 keys were looked up: see penfoldctl dkim check"), "{printed}");
}

/// An editor can jump to the place of each warning.
#[test]
fn a_warning_names_the_line_of_its_key() {
    let site = Site::new();
    let mut command = site.penfoldd(&["-n"]);
    let path = |name: &str| site.path(name).display().to_string();
    let user = if geteuid().is_root() { "user = \"nobody\"" } else { "" };
    site.write("aliases", "jon: root\n");
    site.configure_with(&format!(
        r#"hostname = "mail"
spool = "{spool}/new"
{user}
socket = "{spool}/sock"

[local]
users = "file:{users}"
mailbox = "/var/mail/%u"
domains = ["org.example",
  "x.example"]
postmaster = "jno"
aliases = "{aliases}"

[relay]
networks = [ "127.0.0.1", "0.0.0.0/0" ]
domains = [ "y.example", "x.example" ]

[queue]
expire_after = "1h"
warn_after = "2h"
retry_min = "1h"

[[listen]]
address = "127.0.0.1:25"
[[listen]]
  address = "127.0.0.1:25"
[policy]
spf = "none"
dmarc = "none"
dmarc_reports = "x@x.example"
[log]
to = "stderr"
"#,
        spool = path("spool"),
        users = path("users"),
        aliases = path("aliases"),
    ));
    let output = command.output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    for (place, text) in [
        ("1:1", "hostname mail has no dot"),
        ("2:1", "spool: "),
        ("8:1", "local.mailbox: %u"),
        ("9:1", "local.domains has neither"),
        ("9:12", "local.domains has org.example, and only"),
        ("11:1", "mail for postmaster is kept"),
        ("15:27", "relay.networks has 0.0.0.0/0"),
        ("16:26", "relay.domains has x.example, which is also local"),
        ("20:1", "queue.warn_after is not below"),
        ("21:1", "queue.retry_min is not below"),
        ("26:3", "listen 127.0.0.1:25: "),
        ("30:1", "policy.dmarc is none"),
    ] {
        let wanted = format!("{}:{place}: {text}", path("penfold.conf"));
        let is_built_in = cfg!(feature = "mailauth") || !text.starts_with("policy.dmarc");
        assert!(printed.contains(&wanted) || !is_built_in, "{wanted}\n{printed}");
    }
}
