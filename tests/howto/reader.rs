//! A reader of a page, who types what it says and compares what comes with what the page shows.
//!
//! tests/README says what a page may contain, and what the reader does with it.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::debian::Debian;
use common::programs::code_and_text;
use common::{TIMEOUT, built};

use crate::page::{self, Display, Step};
use crate::pattern;
use crate::zone::Zones;

/// Commands that only look. If the output is not yet that of the page, they are repeated: what
/// they look at may still be under way.
const LOOKS: &[&str] = &[
    "cat",
    "curl",
    "dig",
    "doveadm",
    "grep",
    "head",
    "journalctl",
    "ls",
    "mailq",
    "penfoldctl -f /etc/penfold/mx1.conf queue",
    "penfoldctl check",
    "penfoldctl dkim check",
    "penfoldctl hosts",
    "penfoldctl queue",
    "penfoldctl show",
    "penfoldctl status",
    "penfoldctl trace",
    "podman exec penfold ls",
    "podman exec penfold penfoldctl",
    "podman healthcheck",
    "postqueue",
    "ss ",
    "systemctl status",
    "tail",
];

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// A reader at a machine.
pub struct Reader {
    pub machine: Debian,
    zones: Zones,
    /// All lines that commands have printed.
    printed: Vec<String>,
}

/// What a command has printed, and its exit status.
type Printed = (i32, String);

impl Reader {
    /// A reader at a machine of this name with penfold, a user `you`, certbot and its authority.
    /// The name server has these records of the rest of the world, in lines `name TYPE data`. As an
    /// ordinary user, reports the test as skipped and returns `None`.
    pub fn at(name: &str, world: &str) -> Option<Self> {
        let machine = Debian::boot(name)?;
        let zones = Zones::start(&machine, world);
        machine.install_penfold();
        let certbot = fs::read_to_string(built::source("tests/howto/certbot")).expect("a script");
        machine.write("/usr/local/bin/certbot", &certbot);
        machine.run(
            "chmod 755 /usr/local/bin/certbot && useradd -m -s /bin/bash you && mkdir /usr/lib/test-authority && \
             cd /usr/lib/test-authority && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
             -keyout ca.key -out ca.pem -days 3650 -subj '/CN=Authority of the test' 2> /dev/null && \
             cp ca.pem /usr/local/share/ca-certificates/test.crt && update-ca-certificates > /dev/null 2>&1",
        );
        Some(Self { machine, zones, printed: Vec::new() })
    }

    /// Does all that the text of a page says, in its order.
    ///
    /// # Panics
    /// If something else comes than the page says. The message has the page, the line, what was
    /// expected and what came.
    pub fn follow(&mut self, page: &str, text: &str) {
        let displays = page::displays(text).unwrap_or_else(|e| panic!("man/{page}:{e}"));
        for (line, display) in displays {
            let done = match display {
                Display::Session(steps) => steps.iter().try_for_each(|step| self.take(step)),
                Display::File { path, text } => {
                    fs::write(self.machine.path(&path), text).map_err(|e| (line, format!("{path}: {e}")))
                }
                Display::Zone { name, text } => {
                    self.zones.set(&name, &text, &self.printed).map_err(|e| (line, format!("the zone {name}: {e}")))
                }
            };
            if let Err((line, why)) = done {
                panic!("man/{page}:{line}: {why}");
            }
        }
    }

    /// All that commands have printed, without spaces at the beginnings of lines.
    pub fn printed(&self) -> String {
        self.printed.join("\n")
    }

    /// Types a command. The error is the number of its line, and a text.
    fn take(&mut self, step: &Step) -> Result<(), (usize, String)> {
        let end = Instant::now() + TIMEOUT * 3;
        loop {
            let (status, text) = self.run(step);
            // A page that shows what a command says may show a failure.
            let shown = step.output.iter().any(|line| line != "...");
            let compared = pattern::compare(&step.output, &text);
            if compared.is_ok() && (shown || status == 0) {
                self.printed.extend(pattern::lines(&text));
                return Ok(());
            }
            // curl can also send a file.
            let sends = step.command.contains(" -T ");
            let looks = !sends && LOOKS.iter().any(|look| step.command.starts_with(look));
            if !looks || Instant::now() > end {
                let differs = compared.err().map(|number| step.output.get(number).map_or("the end", String::as_str));
                let why = differs.map_or(String::new(), |line| format!("\nthis does not come: {line}"));
                let expected =
                    if step.output.is_empty() { "nothing, and success".to_owned() } else { step.output.join("\n") };
                let command = &step.command;
                return Err((
                    step.line,
                    format!("{command}\n--- expected:\n{expected}\n--- came, with status {status}:\n{text}---{why}"),
                ));
            }
            thread::sleep(PAUSE);
        }
    }

    fn run(&self, step: &Step) -> Printed {
        if step.root && step.command.starts_with("apt-get install ") {
            let words = step.command.split_whitespace().skip(1);
            // It has a stand-in.
            let words: Vec<&str> = words.filter(|word| *word != "certbot").collect();
            return code_and_text(&self.machine.apt(&words));
        }
        let timeout = match step.other {
            Some(_) => self.machine.in_world("timeout"),
            None => self.machine.command("timeout"),
        };
        self.shell(timeout, step)
    }

    /// Runs a command with a shell. The output goes to a file, because a daemon that a command starts
    /// may keep it open.
    fn shell(&self, mut command: Command, step: &Step) -> Printed {
        command.args(["-k", "5", "100"]);
        if !step.root {
            command.args([
                "runuser",
                "-u",
                "you",
                "--",
                "env",
                "-C",
                "/home/you",
                "HOME=/home/you",
                "USER=you",
                "LOGNAME=you",
            ]);
        }
        let path = std::env::temp_dir().join(format!("{}.out", self.machine.name()));
        let file = File::create(&path).expect("a file");
        command.args(["bash", "-c", &step.command]);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a descriptor")).stderr(file);
        let status = command.status().expect("nsenter");
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned();
        fs::remove_file(path).expect("a file");
        (status.code().unwrap_or(-1), text)
    }
}

/// A page that is right up to its last command.
const PAGE: &str = r".Bd -literal -offset indent
; the zone example.org
@     IN MX 10 mail
mail  IN A  192.0.2.25
.Ed
.Bd -literal -offset indent
#!/bin/sh
# /usr/local/bin/count
exec wc -l
.Ed
.Bd -literal -offset indent
# cat > /etc/two << 'E'
one
$HOME
E
# chmod +x /usr/local/bin/count
# count < /etc/two
2
$ id -un; pwd; count < /etc/two
you
/home/you
2
# getent hosts mail.example.org
192.0.2.25 ...
laptop# ip -brief address show world
world... 192.0.2.1/24 ...
# ls /none
ls: cannot access ...
# systemd-run --quiet --no-block sh -c 'sleep 2; touch /etc/later'
# ls /etc/later
/etc/later
# certbot certonly --standalone -d mail.example.org
...
# openssl verify /etc/letsencrypt/live/mail.example.org/cert.pem
/etc/letsencrypt/live/mail.example.org/cert.pem: OK
# sed '' /etc/two
one
two
.Ed
";

#[test]
fn a_reader_says_what_is_not_as_the_page_says() {
    let Some(mut reader) = Reader::at("mail.example.org", "") else { return };
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader.follow("test.7", PAGE)));
    let said = read.expect_err("the last command prints something else");
    let expected = "man/test.7:36: sed '' /etc/two\n--- expected:\none\ntwo\n--- came, with status 0:\none\n$HOME\n---\n\
                    this does not come: two";
    assert_eq!(said.downcast_ref::<String>().expect("a text"), expected);
    assert_eq!(reader.machine.read("/etc/two"), "one\n$HOME\n");
}
