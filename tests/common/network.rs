//! A machine and the world beside it: two network namespaces, with signed zones in the world and a
//! resolver on the machine that validates them.
//!
//! The address of the machine is [`MACHINE`]. All addresses 192.0.2.0/24 and 203.0.113.0/24, which
//! are for documentation and count as public, belong to the world: what a test starts there, in
//! [`Network::world`], listens on any of them, also on ports below 1024. NSD serves the zones at
//! 192.0.2.53, and Unbound listens on 127.0.0.1 and [`MACHINE`] in the machine. A daemon that [`Network::start`]
//! starts is in the machine. Neither reaches the host's network, and the host reaches neither.
//!
//! Needs root. All processes in the namespaces end with the [`Network`], or with the test's process.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

use nix::unistd::geteuid;

use super::namespace::Namespace;
use super::zones::{self, Zone};
use super::{Daemon, Site, unpacked};

/// The address of the machine.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 25);

/// The networks whose addresses all belong to the world.
const WORLD: [&str; 2] = ["192.0.2.0/24", "203.0.113.0/24"];

/// A machine and the world.
pub struct Network {
    // The namespaces end first, while there is a parent for each process in them that takes note of
    // its end; otherwise the end takes seconds.
    machine: Namespace,
    world: Namespace,
    /// The resolver. It logs all questions.
    pub resolver: Daemon,
    _server: Daemon,
}

impl Network {
    /// Starts a network with these zones; there is a root zone above them. Without root or the
    /// necessary programs, reports the test as skipped and returns `None`.
    ///
    /// # Panics
    /// If the name server or the resolver does not start.
    pub fn start(zones: Vec<Zone>) -> Option<Self> {
        if !geteuid().is_root() {
            super::skipped("network namespaces need root");
            return None;
        }
        let Some(tree) = unpacked::tree("names") else {
            super::skipped("nsd and unbound are not unpacked");
            return None;
        };
        if Command::new("ldns-signzone").arg("-v").output().is_err() {
            super::skipped("ldnsutils is not installed");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = format!("penfold-network-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = env::temp_dir().join(dir);
        fs::create_dir(&dir).expect("a scratch directory");
        let [machine, world] = [Namespace::new(None), Namespace::new(Some(&dir))];
        join(&world, &machine);
        zones::make(&dir, zones);
        let server = name_server(&world, &tree, &dir);
        let resolver = resolver(&machine, &tree, &dir);
        Some(Self { machine, world, resolver, _server: server })
    }

    /// A site whose name server is the resolver of the machine.
    pub fn site(settings: &str) -> Site {
        Site::with(&format!("dns.nameservers = [\"127.0.0.1\"]\n{settings}"))
    }

    /// Starts the daemon of a site in the machine.
    pub fn start_site(&self, site: &Site) -> Daemon {
        Daemon::spawn(self.inside(&site.penfoldd(&["-d"])))
    }

    /// A command that runs `outside` in the network of the machine.
    pub fn inside(&self, outside: &Command) -> Command {
        self.machine.network(outside)
    }

    /// A command that runs `outside` in the network of the world.
    pub fn outside(&self, outside: &Command) -> Command {
        self.world.network(outside)
    }

    /// Calls a function in the network of the world. The sockets that it opens, and the threads that
    /// it starts, stay there.
    pub fn world<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        self.world.inside(function)
    }

    /// Calls a function in the network of the machine.
    pub fn machine<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        self.machine.inside(function)
    }

    /// A listener at an address of the world.
    pub fn listener(&self, address: &str, port: u16) -> TcpListener {
        self.world(|| TcpListener::bind((address, port)).expect("an address of the world"))
    }

    /// All questions that the resolver has got so far, in order: name and type, such as
    /// `mx.example.org A`. The question about the root zone, which a daemon asks when it starts, is left
    /// out.
    pub fn questions(&self) -> Vec<String> {
        let of = |line: &str| {
            let (_, question) = line.split_once(" info: ")?;
            let (question, _) = question.split_once(" IN")?;
            let (_asker, question) = question.split_once(' ')?;
            let (name, kind) = question.split_once(' ')?;
            Some(format!("{} {kind}", name.trim_end_matches('.').to_ascii_lowercase()))
        };
        self.resolver.log().lines().filter_map(of).filter(|question| question != " NS").collect()
    }
}

fn name_server(world: &Namespace, tree: &Path, dir: &Path) -> Daemon {
    let (shown, conf) = (dir.display(), dir.join("nsd.conf"));
    let text = format!(
        "server:\n  ip-address: {}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{shown}\"\n  database: \"\"\n  \
         pidfile: \"{shown}/nsd.pid\"\n  xfrdfile: \"{shown}/xfrd\"\n  zonelistfile: \"{shown}/zone.list\"\n  \
         xfrdir: \"{shown}\"\n  server-count: 1\n  rrl-ratelimit: 0\n  cookie-secret-file: \"{shown}/cookie\"\n\
         remote-control:\n  control-enable: no\ninclude: \"{shown}/zones.conf\"\n",
        zones::SERVER
    );
    fs::write(&conf, text).expect("a file");
    let server = serve(world, tree, "nsd", &conf, "nsd started");
    assert!(!server.log().contains("error: "), "a zone has errors:\n{}", server.log());
    server
}

fn resolver(machine: &Namespace, tree: &Path, dir: &Path) -> Daemon {
    let (shown, conf) = (dir.display(), dir.join("unbound.conf"));
    fs::write(dir.join("root.hints"), format!(". NS ns.root.\nns.root. A {}\n", zones::SERVER)).expect("a file");
    let text = format!(
        "server:\n  interface: 127.0.0.1\n  interface: {MACHINE}\n  access-control: {MACHINE}/32 allow\n  username: \"\"\n  chroot: \"\"\n  directory: \"{shown}\"\n  \
         pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  log-queries: yes\n  do-ip6: no\n  \
         root-hints: \"{shown}/root.hints\"\n  trust-anchor-file: \"{shown}/root.ds\"\n  \
         local-zone: \"test.\" nodefault\n  val-max-restart: 1\n  \
         trust-anchor-signaling: no\nremote-control:\n  control-enable: no\n"
    );
    fs::write(&conf, text).expect("a file");
    serve(machine, tree, "unbound", &conf, "start of service")
}

/// Starts a program of the tree in a namespace, and waits until it says that it is ready.
fn serve(namespace: &Namespace, tree: &Path, program: &str, conf: &Path, ready: &str) -> Daemon {
    let mut command = namespace.enter();
    let libraries = tree.join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH));
    command.arg("env").arg(format!("LD_LIBRARY_PATH={}", libraries.display()));
    command.arg(tree.join("usr/sbin").join(program)).arg("-d").arg("-c").arg(conf).stdin(Stdio::null());
    match Daemon::spawn_until(command, |line| line.contains(ready).then_some(53)) {
        Ok(daemon) => daemon,
        Err(log) => panic!("{program} does not start:\n{log}"),
    }
}

/// Joins the world to the machine.
fn join(world: &Namespace, machine: &Namespace) {
    let local: String = WORLD.map(|network| format!("ip route add local {network} dev lo\n")).concat();
    world.script(&format!(
        "ip link add machine type veth peer name world netns {}\nip link set machine up\n\
         ip address add 198.51.100.1/24 dev machine\n{local}",
        machine.init()
    ));
    machine.script(&format!(
        "ip address add {MACHINE}/24 dev world\nip link set world up\nip route add default via 198.51.100.1\n"
    ));
}
