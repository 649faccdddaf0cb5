//! The hosts of the site: penfolds that are equal but for their names and addresses, and Dovecot as
//! the store of each domain.

use std::fs;
use std::path::PathBuf;

use common::books::Books;
use common::dovecot::{self, Dovecot};
use common::{Daemon, Site};

use super::front::FRONT;
use super::gate::Gate;
use super::lan::{Host, Lan};

/// The domains, each with its store.
pub const DOMAINS: [&str; 2] = ["example.org", "example.net"];
/// The last octets of the addresses of the stores.
const STORES: [u8; 2] = [21, 22];
/// The port of Dovecot behind its gate, on which LMTP listens.
const BEHIND: u16 = 2424;

/// A host with penfold.
pub struct Mta {
    // It ends first, and penfold with it; the directory is removed last.
    pub host: Host,
    pub daemon: Daemon,
    pub site: Site,
}

impl Mta {
    /// The site of the host 192.0.2.`last`, which has the name `name`.example.org, with further settings
    /// that all hosts have.
    pub fn site(name: &str, last: u8, settings: &str) -> Site {
        let mut site = Site::with(&format!(
            "hostname = \"{name}.example.org\"\nlisten.address = \"192.0.2.{last}:25\"\n\
             listen.proxy = [\"192.0.2.{FRONT}\"]\ndns.nameservers = [\"192.0.2.53\"]\nrelay.networks = []\n\
             relay.domains = [\"{}\"]\nrelay.verify = true\nqueue.retry_min = \"1s\"\nqueue.retry_max = \"2s\"\n{settings}",
            DOMAINS[1],
        ));
        // One domain is local, with a store as its mailboxes, and this host relays for the other one.
        site.set("domain#1", "names", &format!("[{:?}]", DOMAINS[0]));
        site.set("domain#1", "users", "\"any\"");
        site.set("domain#1", "mailbox", &format!("\"lmtp://192.0.2.{}\"", STORES[0]));
        site.add("routes", &format!("{} lmtp://192.0.2.{}", DOMAINS[1], STORES[1]));
        site
    }

    /// Starts penfold on a host.
    pub fn start(host: Host, site: Site) -> Self {
        let daemon = Self::try_start(&host, &site).unwrap_or_else(|log| panic!("penfold does not start:\n{log}"));
        Self { host, daemon, site }
    }

    /// Starts penfold on a host.
    ///
    /// # Errors
    /// The log, if it ends at once.
    pub fn try_start(host: &Host, site: &Site) -> Result<Daemon, String> {
        let wanted = format!("listening on {}:25", host.address);
        let ready = |line: &str| line.contains(&wanted).then_some(25);
        Daemon::spawn_until(host.run(&site.penfoldd(&["-d"])), ready)
    }

    /// The host is off at once, with all its processes. Returns what its disk has, and the log.
    pub fn die(self) -> (Site, String) {
        let Self { host, daemon, site } = self;
        drop(host);
        (site, daemon.end_log())
    }
}

/// A mail store: Dovecot, which keeps the mailboxes of all users of a domain.
pub struct Store {
    pub gate: Gate,
    dovecot: Option<Dovecot>,
    settings: String,
    host: Host,
    site: Site,
}

impl Store {
    /// The stores of all domains. Without Dovecot, reports the test as skipped and returns `None`.
    pub fn all(lan: &Lan) -> Option<Vec<Self>> {
        STORES.iter().map(|&last| Self::start(lan.host(last))).collect()
    }

    fn start(host: Host) -> Option<Self> {
        let site = Site::new();
        let mail = site.path("store");
        fs::create_dir(&mail).expect("a directory");
        common::own(&mail);
        let settings = dovecot::store(&mail, (host.address, BEHIND).into());
        let gate = Gate::start(&host, 24, BEHIND);
        let mut store = Self { gate, dovecot: None, settings, host, site };
        store.open().then_some(store)
    }

    /// Starts Dovecot. Returns false if there is none.
    pub fn open(&mut self) -> bool {
        self.dovecot = self.host.inside(|| Dovecot::start(&self.site, &self.settings));
        self.dovecot.is_some()
    }

    /// Ends Dovecot with all its connections.
    pub fn close(&mut self) {
        self.dovecot = None;
    }

    /// The books of each mailbox, by the local part of its user.
    pub fn books(&self, domain: &str) -> Vec<(String, Books)> {
        let users = fs::read_dir(self.site.path("store").join(domain)).into_iter().flatten().flatten();
        let books = users.map(|user| {
            let mail = fs::read_dir(user.path().join("Maildir/new")).into_iter().flatten().flatten();
            let messages = mail.map(|file| fs::read(file.path()).expect("a message")).collect();
            (user.file_name().into_string().expect("UTF-8"), Books::of(messages))
        });
        books.collect()
    }
}

/// The unfinished entries of a spool that is moved from one site to another, with what it keeps beside
/// them.
pub fn move_spool(from: &Site, to: &Site) -> PathBuf {
    let spool = to.path("spool");
    fs::remove_dir_all(&spool).expect("a directory");
    fs::rename(from.path("spool"), &spool).expect("a rename");
    spool
}
