//! A mail host on disks on which the power can be cut, and a remote host to which it sends.

use std::fs;
use std::path::PathBuf;

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

    /// The path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.site.path("penfold.conf")
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
        let spool = self.disks.path(&self.disks.spool());
        let count = |place: &str| fs::read_dir(spool.join(place)).map_or(0, Iterator::count);
        if !daemon.becomes_true(|| count("new") + count("cur") == 0) {
            eprintln!("left in the spool:\n{}", daemon.log());
        }
        daemon.kill9();
        let remote = self.remote.look(|seen| [&seen.messages[..sent], &seen.messages[before..]].concat());
        let mut arrived = Arrived::new(self.people.look(&mailboxes, self.names), &remote);
        (arrived.stuck, arrived.torn) = (count("new") + count("cur"), count("bad"));
        arrived
    }
}
