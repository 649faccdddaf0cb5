//! A mail host on disks on which the power can be cut, and a remote host to which it sends.

use std::fs;
use std::path::{Path, PathBuf};

use super::audit::Arrived;
use super::disks::{Cut, Disks, Layout};
use super::people::People;
use common::remote::{Remote, Sink};
use common::{Daemon, Site};

/// The mail host and its surroundings. The fields are dropped in this order.
pub struct Host {
    /// The disks with the spool and the mailboxes.
    pub disks: Disks,
    /// The remote host, which takes no 8-bit text, and rejects void@far.test. It is also the
    /// store of sto@store.test and stp@store.test.
    pub remote: Remote,
    people: People,
    /// The most names (hard links) that a file in a home directory may have.
    names: u64,
    site: Site,
}

/// The paths that clients need.
pub struct Paths {
    /// The configuration.
    pub config: PathBuf,
    /// The configuration of a sendmail that finds no daemon, and keeps its messages.
    pub without_daemon: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
}

impl Host {
    /// Makes a host on empty disks. Where that is not possible, reports the test as skipped and
    /// returns `None`.
    pub fn new(file_system: &str, people: People, layout: Layout, cut: Cut) -> Option<Self> {
        let mut sink = Sink::host_and_store().reply("RCPT TO:<void", "550 5.1.1 no such user");
        sink.keywords.retain(|keyword| keyword != "8BITMIME");
        let remote = Remote::with(sink);
        let mut site = Site::new();
        site.add("aliases", "list: ada, bob, cyd");
        site.add("routes", &format!("far.test {0}\nstore.test lmtp://{0}", remote.host_port()));
        site.set("queue", "retry_min", "\"1s\"");
        let disks = Disks::new(&mut site, file_system, people, layout, cut)?;
        // On btrfs a power cut can leave both the old and the new name of a rename.
        let names = if file_system == "btrfs" { 2 } else { 1 };
        Some(Self { disks, remote, people, names, site })
    }

    /// The paths that clients need. Writes the configurations.
    pub fn paths(&self) -> Paths {
        self.site.configure();
        let (config, socket) = (self.site.path("penfold.conf"), self.site.path("penfold.sock"));
        let text = fs::read_to_string(&config).expect("a configuration");
        let text = text.replace(&*socket.to_string_lossy(), &format!("{}.none", socket.display()));
        // The disks are mounted for the daemon only.
        let outside = |text: String, path: PathBuf| {
            text.replace(&*path.to_string_lossy(), &self.disks.path(&path).to_string_lossy())
        };
        let text = outside(outside(text, self.disks.drop_directory()), self.disks.spool());
        self.site.write("without-daemon.conf", &text);
        Paths { config, without_daemon: self.site.path("without-daemon.conf"), socket }
    }

    /// Starts the daemon. `faults` is the value of PENFOLD_FAULT.
    pub fn start(&self, faults: &str) -> Daemon {
        self.disks.start(&self.site, faults)
    }

    /// The number of messages that the remote host has accepted.
    pub fn sent(&self) -> usize {
        self.remote.look(|seen| seen.messages.len())
    }

    /// Starts the daemon on the state after a cut, and waits until the spool is empty. Returns all
    /// mail that has arrived. Of the messages at the remote host only the first `sent` count, and
    /// those that arrive from now on.
    pub fn settle(&self, sent: usize) -> Arrived {
        let before = self.sent();
        let mailboxes = self.disks.path(&self.disks.mailboxes);
        self.people.wait_for_locks(&mailboxes);
        let daemon = self.start("");
        let (spool, drop) = (self.disks.path(&self.disks.spool()), self.disks.path(&self.disks.drop_directory()));
        let count = |place: &str| files(&spool.join(place));
        // A letter leaves the drop directory when it is in the spool, and the spool when it is in its
        // mailbox.
        let waiting = || files(&drop) + files(&drop.join("taken")) + count("new") + count("cur");
        if !daemon.becomes_true(|| waiting() == 0) {
            eprintln!("left in the spool:\n{}", daemon.log());
        }
        daemon.kill9();
        let remote = self.remote.look(|seen| [&seen.messages[..sent], &seen.messages[before..]].concat());
        let mut arrived =
            Arrived::new(self.people.look(&mailboxes, &self.disks.path(&self.disks.shop()), self.names), &remote);
        arrived.stuck = waiting();
        arrived.torn = count("bad") + files(&drop.join("bad"));
        arrived
    }
}

/// The number of files in a directory, without directories and what sendmail(8) had not finished.
fn files(directory: &Path) -> usize {
    let all = fs::read_dir(directory).into_iter().flatten().flatten();
    all.filter(|file| !file.path().is_dir() && !file.file_name().to_string_lossy().starts_with("tmp.")).count()
}
