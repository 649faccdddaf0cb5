//! A network of a test's own, in which it can use any address and any port.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

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
