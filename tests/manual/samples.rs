//! The samples in etc/ and the options of penfoldd(8) and penfoldctl(8), compared with the
//! programs. Also the filter of fail2ban, run on a real log.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::client::Client;
use common::tls::Authority;
use common::{Site, TIMEOUT, pages, unpacked};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(SOURCE).join(path)).expect(path)
}

/// All files below a folder of the source.
fn below(folder: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![Path::new(SOURCE).join(folder)]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

// Options

/// The letters of all options, and the letters of those with an argument.
type Letters = (BTreeSet<char>, BTreeSet<char>);

/// The options in the output of `-h`, which has one in each line. Options without a letter belong to
/// single commands, and are left out.
fn of_the_program(program: &str) -> Letters {
    let help = Command::new(program).arg("-h").stdin(Stdio::null()).output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let (mut letters, mut arguments) = Letters::default();
    let options = help.lines().filter_map(|line| line.trim_start().strip_prefix('-'));
    for line in options.filter(|line| !line.starts_with('-')) {
        let (letter, rest) = (line.chars().next().expect("a letter"), &line[1..]);
        letters.insert(letter);
        if rest.starts_with(' ') && rest[1..].starts_with(|c: char| c.is_ascii_lowercase()) {
            arguments.insert(letter);
        }
    }
    assert!(letters.len() > 2, "{help}");
    (letters, arguments)
}

/// Parses the options of a usage line, such as `[-abc] [-f file]`.
fn of_the_usage(usage: &str) -> Letters {
    let (mut letters, mut arguments) = Letters::default();
    for group in usage.split('[').filter_map(|group| group.strip_prefix('-')) {
        let (group, _) = group.split_once(']').expect("an end");
        let (flags, argument) = group.split_once(' ').unwrap_or((group, ""));
        letters.extend(flags.chars());
        if !argument.is_empty() {
            arguments.extend(flags.chars());
        }
    }
    (letters, arguments)
}

/// Parses the options of a page's synopsis: `.Op Fl abc`, `.Op Fl f Ar file` and `.Fl h | V`.
fn of_the_synopsis(page: &str) -> Letters {
    let (_, synopsis) = page.split_once(".Sh SYNOPSIS\n").expect("a synopsis");
    let (synopsis, _) = synopsis.split_once(".Sh ").expect("an end");
    let (mut letters, mut arguments) = Letters::default();
    for option in synopsis.lines().filter_map(|line| line.strip_prefix(".Fl ")) {
        letters.extend(option.split(" | ").filter_map(|option| option.chars().next()));
    }
    for option in synopsis.lines().filter_map(|line| line.strip_prefix(".Op Fl ")) {
        let mut words = option.split(' ');
        let flags = words.next().expect("letters");
        letters.extend(flags.chars());
        if words.next() == Some("Ar") {
            arguments.extend(flags.chars());
        }
    }
    (letters, arguments)
}

/// Parses the list of options in a page's text, one letter in each item: `.It Fl f Ar file`. The
/// options of single commands come after the list of commands has begun.
fn of_the_text(page: &str) -> Letters {
    let (mut letters, mut arguments) = Letters::default();
    let (page, _) = page.split_once("\nThe commands are as follows").unwrap_or((page, ""));
    for item in page.lines().filter_map(|line| line.strip_prefix(".It Fl ")) {
        let mut words = item.split(' ');
        let letter = words.next().and_then(|word| word.chars().next()).expect("a letter");
        letters.insert(letter);
        if words.next() == Some("Ar") {
            arguments.insert(letter);
        }
    }
    (letters, arguments)
}

#[test]
fn program_help_synopsis_and_text_have_the_same_options() {
    for (program, page) in
        [(env!("CARGO_BIN_EXE_penfoldd"), "man/penfoldd.8"), (env!("CARGO_BIN_EXE_penfoldctl"), "man/penfoldctl.8")]
    {
        let (known, page) = (of_the_program(program), source(page));
        let wrong = Command::new(program).arg("-:").output().expect("it runs");
        let usage = String::from_utf8(wrong.stderr).expect("UTF-8");
        let usage = usage.lines().find(|line| line.contains("usage: ")).expect("a usage line");
        assert_eq!(of_the_usage(usage), known, "{program}: {usage}");
        assert_eq!(of_the_synopsis(&page), known, "{program}: its synopsis");
        assert_eq!(of_the_text(&page), known, "{program}: its page");
    }
}

#[test]
fn the_page_describes_all_commands_and_their_options() {
    let ctl = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_penfoldctl")).args(words).output().expect("it runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let page = source("man/penfoldctl.8");
    let all = ctl(&["help"]);
    let (_, commands) = all.split_once("\nCommands:\n").expect("the commands");
    let commands: Vec<&str> = commands.lines().map_while(|line| line.strip_prefix("    ")?.split(' ').next()).collect();
    assert!(
        commands.len() > 7 && commands.iter().is_sorted_by(|a, b| place(&page, a) <= place(&page, b)),
        "{commands:?}"
    );
    for command in commands {
        let help = ctl(&["help", command]);
        assert_eq!(help, ctl(&[command, "--help"]));
        let item = &page[place(&page, command)..];
        let end = item.match_indices("\n.It Cm ").map(|(at, _)| at);
        let end = end.filter(|at| !item[at + 8..].starts_with(command)).chain([item.len()]).next().expect("an end");
        // The options that select messages are described once, for all commands that take them.
        let mut described = item[..end].to_owned();
        if described.contains(" Ar selector ...") || described.contains(" selector ...\n") {
            described += &["Selecting messages", "Changing messages"].map(|title| subsection(&page, title)).concat();
        }
        for option in help.lines().filter_map(|line| line.trim_start().strip_prefix('-')) {
            for name in option
                .split([' ', ','])
                .filter(|name| !name.is_empty())
                .take_while(|name| name.starts_with('-') || name.len() == 1)
            {
                let name = name.trim_start_matches('-');
                let is_common = ["f", "h", "V", "help", "version"].contains(&name);
                let dash = if name.len() > 1 { "-" } else { "" };
                assert!(is_common || described.contains(&format!("Fl {dash}{name}")), "{command}: -{dash}{name}");
            }
        }
    }
}

#[test]
fn each_question_of_the_page_has_a_command_and_an_example() {
    let page = source("man/penfoldctl.8");
    let (_, rows) = page.split_once("Sy Question Ta Sy Command\n").expect("the table");
    let (rows, _) = rows.split_once("\n.El\n").expect("an end");
    let (_, examples) = page.split_once("\n.Sh EXAMPLES\n").expect("examples");
    let (examples, _) = examples.split_once("\n.Sh ").expect("an end");
    assert!((12..18).contains(&rows.lines().count()), "{rows}");
    for row in rows.lines() {
        let (_, commands) = row.split_once(" Ta Cm ").expect("a command");
        for command in commands.split(" , ").filter_map(|words| words.trim_start_matches("Cm ").split(' ').next()) {
            place(&page, command);
            assert!(examples.contains(&format!("\n# penfoldctl {command}")), "{row}");
        }
    }
}

/// The text of a subsection, up to the next one.
fn subsection<'a>(page: &'a str, title: &str) -> &'a str {
    let (_, text) = page.split_once(&format!("\n.Ss {title}\n")).expect(title);
    text.split("\n.Ss ").next().unwrap_or_default()
}

/// The offset of the first item about a command.
fn place(page: &str, command: &str) -> usize {
    page.match_indices(&format!("\n.It Cm {command}"))
        .map(|(at, item)| (at, &page[at + item.len()..]))
        .find(|(_, rest)| rest.starts_with([' ', '\n']))
        .unwrap_or_else(|| panic!("no item about {command}"))
        .0
}

#[test]
fn samples_use_existing_options() {
    let (known, _) = of_the_program(env!("CARGO_BIN_EXE_penfoldd"));
    let mut found = 0;
    for path in below("etc").into_iter().chain([Path::new(SOURCE).join("README")]) {
        let text = fs::read_to_string(&path).expect("text");
        for line in text.lines().flat_map(|line| line.split(" && ")) {
            let words = line.split([' ', '\t', '"', '`', '=']);
            let starts = [
                "penfoldd -",
                "penfoldd\tpenfoldd -",
                "daemon -",
                "daemon\" -",
                "command -",
                "command_args=",
                "server_args",
                "{daemon} -",
            ];
            if line.trim_start().starts_with('#')
                || line.contains("start-stop-daemon")
                || !starts.iter().any(|start| line.contains(start))
            {
                continue;
            }
            // `command -v` is the shell's own command, whose option does not count.
            for option in words.filter(|word| !line.contains("command -v") && word.starts_with('-') && word.len() > 1) {
                let letters = option.trim_start_matches('-').chars().take_while(char::is_ascii_alphanumeric);
                for letter in letters {
                    assert!(known.contains(&letter), "{}: {line}", path.display());
                    found += 1;
                }
            }
        }
    }
    assert!(found > 12, "{found}");
}

// Units

#[test]
fn systemd_accepts_the_units() {
    let Some(mut analyze) = unpacked::of_systemd("systemd-analyze") else { return };
    let site = Site::new();
    let units = site.path("units");
    fs::create_dir(&units).expect("a directory");
    for path in below("etc/systemd") {
        let text = pages::sample(&format!("systemd/{}", path.file_name().expect("a name").display()));
        let here = text.replace("/usr/local/sbin/penfoldd", env!("CARGO_BIN_EXE_penfoldd"));
        assert!(!path.to_string_lossy().ends_with(".service") || here != text, "{}", path.display());
        fs::write(units.join(path.file_name().expect("a name")), here).expect("a file");
    }
    analyze
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()));
    let names = [
        "penfold.service",
        "penfold.socket",
        "penfold-control.socket",
        "penfold-inetd.socket",
        "penfold-inetd@x.service",
    ];
    assert_eq!(below("etc/systemd").len(), names.len());
    for name in names {
        let file = units.join(name.replace("@x", "@"));
        // The name with @ is a template, of which only an instance can be verified.
        if name.contains('@') {
            fs::copy(&file, units.join(name)).expect("a copy");
        }
        analyze.arg(units.join(name));
    }
    let output = analyze.output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && printed.is_empty(), "{printed}");
}

#[test]
fn the_unit_puts_no_mount_between_spool_and_mailboxes() {
    assert!(source("etc/systemd/penfold.service").contains("\nNotifyAccess=main\n"));
    let unit = source("etc/systemd/penfold.service") + &source("etc/systemd/penfold-inetd@.service");
    let splitting = [
        "ReadWritePaths",
        "ReadOnlyPaths",
        "BindPaths",
        "ProtectHome",
        "PrivateTmp",
        "StateDirectory",
        "TemporaryFileSystem",
        "RootDirectory",
        "DynamicUser",
    ];
    for line in unit.lines().filter(|line| !line.starts_with('#')) {
        assert!(!splitting.iter().any(|key| line.starts_with(key)) && line != "ProtectSystem=strict", "{line}");
    }
}

#[test]
fn shell_samples_have_no_syntax_errors() {
    let scripts = ["etc/install.sh", "etc/rc.d/freebsd", "etc/rc.d/openbsd", "etc/rc.d/openrc", "etc/rc.d/sysv"];
    assert_eq!(below("etc/rc.d").len() + 1, scripts.len());
    for script in scripts {
        let output = Command::new("sh").arg("-n").arg(Path::new(SOURCE).join(script)).output().expect("sh");
        assert!(output.status.success() && output.stderr.is_empty(), "{script}: {output:?}");
    }
}

#[test]
fn the_init_script_starts_reloads_and_stops_it() {
    let mut site = Site::new();
    site.make_root_owned();
    let log = site.path("var/log");
    site.set("log", "to", &format!("{log:?}"));
    site.configure();
    let script = pages::sample("rc.d/sysv")
        .replace("/usr/local/sbin/penfoldd", env!("CARGO_BIN_EXE_penfoldd"))
        .replace("/run/penfold.pid", site.path("pid").to_str().expect("UTF-8"))
        .replace("/etc/penfold/penfold.conf", site.path("penfold.conf").to_str().expect("UTF-8"));
    site.write("init", &script);
    let run = |verb: &str| {
        let output = Command::new("sh").arg(site.path("init")).arg(verb).stdin(Stdio::null()).output().expect("sh");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let code = |verb: &str| run(verb).0;
    let stopped = Stopped(&site);
    assert_eq!((code("status"), code("stop")), (Some(1), Some(0)));
    assert_eq!(run("start"), (Some(0), String::new()));
    let pid = fs::read_to_string(site.path("pid")).expect("a pid file");
    assert_eq!((code("status"), code("start"), code("reload")), (Some(0), Some(0), Some(0)));
    assert_eq!(fs::read_to_string(site.path("pid")).expect("a pid file"), pid);
    assert_eq!(code("restart"), Some(0));
    assert_ne!(fs::read_to_string(site.path("pid")).expect("a pid file"), pid);
    // With a malformed configuration a restart fails, and the running daemon is not stopped.
    site.write("penfold.conf", "nonsense");
    assert_eq!((code("restart"), code("status")), (Some(78), Some(0)));
    assert_eq!((code("stop"), code("status")), (Some(0), Some(1)));
    drop(stopped);
}

/// The site of a daemon that a script has started. Dropping this ends the daemon if it still runs.
struct Stopped<'a>(&'a Site);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.0.path("pid")).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

// fail2ban

/// The addresses that a mode of the fail2ban filter finds in the log of a site. `None` without
/// fail2ban.
fn found(site: &Site, mode: &str) -> Option<BTreeSet<String>> {
    let config = site.path("fail2ban");
    if !config.exists() {
        let copied =
            Command::new("cp").arg("-r").arg(unpacked::tree("fail2ban")?.join("etc/fail2ban")).arg(&config).status();
        assert!(copied.is_ok_and(|status| status.success()));
        fs::write(config.join("filter.d/penfold.conf"), source("etc/fail2ban/penfold-filter.conf")).expect("a file");
    }
    let mut command = unpacked::fail2ban_regex(&config)?;
    let output = command.args(["-o", "<ip>"]).arg(site.path("var/log")).arg(format!("penfold[mode={mode}]")).output();
    let output = output.expect("python3");
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect())
}

/// Connects like a proxy whose client has this address, and reads the banner.
fn from(port: u16, address: &str) -> Client {
    let family = if address.contains(':') { "TCP6" } else { "TCP4" };
    let mut client = Client::before_banner(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it accepts"));
    client.send_text(&format!("PROXY {family} {address} {address} 1025 25\r\n"));
    client.expect("220 ");
    client.ehlo();
    client
}

fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

/// Waits until the log has a line with these words.
fn wait_for_line(log: &Path, words: &str) {
    let end = Instant::now() + TIMEOUT;
    while !fs::read_to_string(log).is_ok_and(|text| text.contains(words)) {
        assert!(Instant::now() < end, "no line with {words}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A secret for a users file. The password is "pencil".
const SCRAM: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// An address that the filter must never find.
const VICTIM: &str = "192.0.2.99";

#[test]
fn fail2ban_finds_clients_and_no_addresses_that_they_name() {
    if unpacked::fail2ban_regex(Path::new("")).is_none() {
        return;
    }
    let authority = Authority::new();
    let mut site = authority.site("listen.auth = \"always\"\nlisten.proxy = [\"127.0.0.1\"]\nrelay.networks = []");
    site.make_root_owned();
    let (log, port) = (site.path("var/log"), common::free_port());
    site.set("log", "to", &format!("{log:?}"));
    site.set("listen", "address", &format!("\"127.0.0.1:{port}\""));
    site.write("users", &format!("jon:{SCRAM}:\n"));
    let mut daemon = site.penfoldd(&["-p", site.path("pid").to_str().expect("UTF-8")]);
    let started = daemon.output().expect("it runs");
    assert!(started.status.success(), "{started:?}");
    let _ended = Stopped(&site);
    // Each client gives a wrong password. Some names imitate other parts of a log line, with the
    // victim's address.
    let names = [
        "jon".to_owned(),
        format!("jon peer=[{VICTIM}] mechanism=PLAIN"),
        format!("jon\" peer=[{VICTIM}] mechanism=PLAIN"),
        format!("jon\\\" peer=[{VICTIM}] mechanism=PLAIN"),
        format!("peer=[{VICTIM}]"),
        "\\".to_owned(),
        format!("s1 auth-failed user=jon peer=[{VICTIM}] mechanism=PLAIN"),
    ];
    let (mut guessing, mut guests) = (BTreeSet::new(), Vec::new());
    for (number, name) in names.iter().enumerate() {
        let address = if number == 0 { "2001:db8::7".to_owned() } else { format!("192.0.2.{number}") };
        let mut client = from(port, &address);
        client.send_text(&format!("AUTH PLAIN {}\r\n", base64(&format!("\0{name}\0guess"))));
        guests.push(client);
        guessing.insert(address);
    }
    guests.iter_mut().for_each(|client| drop(client.expect("5")));
    // Each client sends a line that gets a 5xx reply for another reason than a password. Some lines
    // are not SMTP at all.
    let lines = [
        "RCPT TO:<elvis@razorback>".to_owned(),
        "RCPT TO:<jon@elsewhere.test>".to_owned(),
        format!("RCPT TO:<\"x peer=[{VICTIM}] reply=\\\"550 5.1.1 no\\\"\"@razorback>"),
        format!("NONSENSE\" peer=[{VICTIM}] reply=\"550 5.1.1 no"),
        format!("NONSENSE peer=[{VICTIM}] reply=550\\"),
        "GET / HTTP/1.1".to_owned(),
    ];
    let mut refused = guessing.clone();
    for (number, line) in lines.iter().enumerate() {
        let address = format!("198.51.100.{number}");
        let mut client = from(port, &address);
        client.ask("MAIL FROM:<a@b.test>", "250 ");
        client.ask(line, "5");
        refused.insert(address);
    }
    // One client fails in its TLS handshake.
    let mut broken = from(port, "198.51.100.99");
    broken.ask("STARTTLS", "220 ");
    broken.send_text("peer=[192.0.2.99]\r\n\r\n");
    drop(broken);
    wait_for_line(&log, "tls-failed");
    refused.insert("198.51.100.99".to_owned());
    let mut honest = from(port, "203.0.113.1");
    honest.ask(&format!("AUTH PLAIN {}", base64("\0jon\0pencil")), "235 ");
    honest.send("jon@razorback", &["jon@razorback"], "Subject: auth-failed user=jon peer=[192.0.2.99]\r\n\r\n");
    honest.ask("QUIT", "221 ");
    let text = fs::read_to_string(&log).expect("a log");
    assert!(text.contains(VICTIM) && text.contains("203.0.113.1"), "{text}");
    assert_eq!(found(&site, "normal"), Some(guessing), "{text}");
    assert_eq!(found(&site, "aggressive"), Some(refused), "{text}");
}
