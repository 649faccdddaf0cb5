//! Postfix and posttls-finger in a network.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use common::network::Network;
use common::{Daemon, Site, built, free_port, unpacked};

/// What posttls-finger says about the hosts of each domain: the grade of the connection, such as
/// `Verified`, or `failed`; and all its lines.
pub fn finger(network: &Network, site: &Site, domains: &[String]) -> Option<BTreeMap<String, (String, String)>> {
    let Some(tree) = unpacked::tree("postfix") else {
        common::skipped("postfix is not unpacked");
        return None;
    };
    let mut script = Command::new(built::source("tests/dane/finger.sh"));
    script.arg(tree).arg(site.path("finger")).args(domains);
    let output = network.inside(&script).stderr(Stdio::inherit()).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found = BTreeMap::new();
    for part in text.split("= ").skip(1) {
        let (domain, lines) = part.split_once('\n').unwrap_or((part, ""));
        let grade = lines.lines().find_map(|line| grade(line)).unwrap_or("failed");
        found.insert(domain.to_owned(), (grade.to_owned(), lines.to_owned()));
    }
    Some(found)
}

/// The grade in a line such as `Verified TLS connection established to ...`.
fn grade(line: &str) -> Option<&str> {
    let (before, _) = line.split_once(" TLS connection established to ")?;
    before.rsplit(' ').next()
}

/// A Postfix in the machine, which sends mail by DANE.
pub struct Postfix {
    daemon: Daemon,
}

impl Postfix {
    /// Starts it. Without Postfix, reports the test as skipped and returns `None`.
    pub fn start(network: &Network, site: &Site) -> Option<Self> {
        Self::start_with(site, |script| network.inside(script), &[("PEER_DANE", "yes")], free_port())
    }

    /// Starts it with the settings of tests/interop/postfix.sh.
    pub fn start_with(
        site: &Site,
        place: impl Fn(&Command) -> Command,
        settings: &[(&str, &str)],
        port: u16,
    ) -> Option<Self> {
        let Some(tree) = unpacked::tree("postfix") else {
            common::skipped("postfix is not unpacked");
            return None;
        };
        let mut script = Command::new(built::source("tests/interop/postfix.sh"));
        script.arg(tree).arg(site.path(&format!("postfix{port}"))).args([port.to_string(), "9".to_owned()]);
        script.envs(settings.iter().copied());
        match Daemon::spawn_until(place(&script), |line| line.contains("daemon started").then_some(port)) {
            Ok(daemon) => Some(Self { daemon }),
            Err(log) => panic!("postfix does not start:\n{log}"),
        }
    }

    /// Sends a message to a user of each domain, and returns what became of it, see `fate`.
    pub fn send(&self, network: &Network, domains: &[String]) -> BTreeMap<String, String> {
        let recipients: Vec<String> = domains.iter().map(|domain| format!("postfix@{domain}")).collect();
        self.submit(network, &recipients);
        domains.iter().zip(&recipients).map(|(domain, to)| (domain.clone(), self.fate(to))).collect()
    }

    /// Sends a message to a recipient, and returns what became of it, see `fate`.
    pub fn send_to(&self, network: &Network, recipient: &str) -> String {
        self.submit(network, &[recipient.to_owned()]);
        self.fate(recipient)
    }

    fn submit(&self, network: &Network, recipients: &[String]) {
        let stream = network.machine(|| TcpStream::connect(("127.0.0.1", self.daemon.port)).expect("a connection"));
        let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
        let mut commands = vec!["EHLO client.test".to_owned(), "MAIL FROM:<jon@peer.test>".to_owned()];
        commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        commands.extend(["DATA", "Subject: x\r\n\r\nx\r\n.", "QUIT"].map(str::to_owned));
        for command in std::iter::once(None).chain(commands.iter().map(Some)) {
            if let Some(command) = command {
                (&stream).write_all(format!("{command}\r\n").as_bytes()).expect("it reads");
            }
            let mut line = String::new();
            while line.get(3..4) != Some(" ") {
                line.clear();
                assert_ne!(reader.read_line(&mut line).expect("a reply"), 0);
            }
            assert!(line.starts_with(['2', '3']), "{command:?}: {line}");
        }
    }

    /// What became of a message: the grade of the last connection to the host that took it, or `clear`,
    /// `deferred` or `bounced`.
    fn fate(&self, recipient: &str) -> String {
        let to = format!(" to=<{recipient}>,");
        let line = self.daemon.wait_log(|line| line.contains(&to) && line.contains(" status="));
        let (_, status) = line.split_once(" status=").expect("just seen");
        let status = status.split(' ').next().unwrap_or_default();
        if status != "sent" {
            return status.to_owned();
        }
        let (_, relay) = line.split_once(" relay=").expect("a relay");
        let relay = relay.split(',').next().unwrap_or_default();
        let log = self.daemon.log();
        let grades = log.lines().filter(|line| line.contains(&format!(" established to {relay}:")));
        grades.filter_map(grade).next_back().unwrap_or("clear").to_owned()
    }

    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

impl Drop for Postfix {
    // The log ends when the last process of the server has ended. Only then can the site be removed.
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.daemon.pid(), nix::sys::signal::Signal::SIGKILL);
        self.daemon.becomes_true(|| false);
    }
}
