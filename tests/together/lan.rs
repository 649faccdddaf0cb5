//! Hosts on one network. Each is a network namespace, and a process namespace with it, on a bridge.

use std::net::Ipv4Addr;
use std::process::Command;

use common::namespace::Namespace;
use nix::unistd::geteuid;

/// The network 192.0.2.0/24, which neither reaches the host's network nor is reached from there.
pub struct Lan {
    switch: Namespace,
}

/// A host of the network. All its processes end when it is dropped.
pub struct Host {
    namespace: Namespace,
    pub address: Ipv4Addr,
}

impl Lan {
    /// A network without hosts. Without root, reports the test as skipped and returns `None`.
    pub fn new() -> Option<Self> {
        if !geteuid().is_root() {
            common::skipped("network namespaces need root");
            return None;
        }
        let switch = Namespace::new(None);
        switch.script("ip link add lan type bridge\nip link set lan up");
        Some(Self { switch })
    }

    /// A host with the address 192.0.2.`last`.
    pub fn host(&self, last: u8) -> Host {
        let namespace = Namespace::new(None);
        let address = Ipv4Addr::new(192, 0, 2, last);
        let init = namespace.init();
        self.switch.script(&format!(
            "ip link add host{last} type veth peer name lan netns {init}\nip link set host{last} master lan up"
        ));
        namespace.script(&format!("ip address add {address}/24 dev lan\nip link set lan up"));
        Host { namespace, address }
    }

    /// Cuts a host off: its link is down, but its processes run.
    pub fn cut(&self, host: &Host) {
        self.set_link(host, "down");
    }

    /// Ends the effect of [`Lan::cut`].
    pub fn mend(&self, host: &Host) {
        self.set_link(host, "up");
    }

    fn set_link(&self, host: &Host, to: &str) {
        self.switch.script(&format!("ip link set host{} {to}", host.address.octets()[3]));
    }
}

impl Host {
    /// A command that runs `command` on the host. It ends with the host.
    pub fn run(&self, command: &Command) -> Command {
        let mut inside = self.namespace.enter();
        inside.arg(command.get_program()).args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside.stdin(std::process::Stdio::null());
        inside
    }

    /// Calls a function in the network of the host. What it starts stays there, but does not end with
    /// the host.
    pub fn inside<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        self.namespace.inside(function)
    }

    /// Gives the host another address of the network.
    pub fn add(&self, last: u8) {
        self.namespace.script(&format!("ip address add 192.0.2.{last}/24 dev lan"));
    }
}
