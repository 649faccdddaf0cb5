//! Networks of a test's own, in which it can use any address and any port.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::{debian, programs};

/// A network namespace, and a process namespace with it. Needs root.
pub struct Namespace {
    /// The namespace exists until its standard input is closed.
    holder: Child,
    /// The first process, seen from the host.
    init: u32,
}

impl Namespace {
    /// A namespace, and the directory that is removed when it ends.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(dir: Option<&Path>) -> Self {
        let script = "read -r pid rest < /proc/self/stat; ip link set lo up && echo $pid; \
                      cat > /dev/null; [ -z \"$1\" ] || rm -rf \"$1\"";
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]);
        unshare.arg(dir.unwrap_or(Path::new("")));
        let mut holder = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
        let said = holder.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).expect("a line");
        let init = line.trim().parse().expect("a process, in a namespace that root may make");
        Self { holder, init }
    }

    /// The number of its first process, by which ip(8) names the namespace.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// Runs a shell script in the network.
    ///
    /// # Panics
    /// If a command of the script fails.
    pub fn script(&self, script: &str) {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", script]);
        let (code, said) = programs::code_and_text(&self.network(&shell).output().expect("nsenter"));
        assert_eq!(code, 0, "{script}: {said}");
    }

    /// The beginning of a command in the namespace, which ends with it.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-p", "-t", &self.init.to_string(), "--"]);
        command
    }

    /// A command that runs `outside` in the network, but is seen as a process of the host.
    pub fn network(&self, outside: &Command) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &self.init.to_string(), "--"]).arg(outside.get_program()).args(outside.get_args());
        command.envs(outside.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        if let Some(dir) = outside.get_current_dir() {
            command.current_dir(dir);
        }
        command
    }

    /// Calls a function in the network. The sockets that it opens, and the threads and processes that
    /// it starts, stay there.
    pub fn inside<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        debian::in_network(self.init, function)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The shell removes the directory first.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Runs `work` in a network of its own with these addresses, each with its prefix length. Reports the
/// test as skipped where that is not possible.
pub fn in_a_network(addresses: &[&str], work: impl FnOnce() + Send) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let inside = || {
        // Only this thread, and what it starts, is in the new network.
        let ip = |arguments: &[&str]| Command::new("ip").args(arguments).status().is_ok_and(|status| status.success());
        let is_made = unshare(CloneFlags::CLONE_NEWNET).is_ok()
            && ip(&["link", "set", "lo", "up"])
            && addresses.iter().all(|address| ip(&add(address)));
        if !is_made {
            return super::skipped("no network namespace without root and ip");
        }
        work();
    };
    thread::scope(|scope| {
        let run = thread::Builder::new().name(name).spawn_scoped(scope, inside).expect("a thread");
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// The arguments of ip(8) that add an address. An IPv6 address can be used at once, not only after the
/// system has found out that no other host has it.
fn add(address: &str) -> Vec<&str> {
    let nodad = if address.contains(':') { &["nodad"][..] } else { &[] };
    [&["address", "add", address, "dev", "lo"], nodad].concat()
}
