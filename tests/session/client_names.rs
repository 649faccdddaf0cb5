//! The client's name in Received:, which is recorded only if it resolves back to the address. Also
//! the use of the name servers of the network in which the host currently is.
//!
//! The tests need root, for a network namespace with addresses that are not loopback.

use std::process::{Command, Output, Stdio};

use common::Site;

const NETWORK: &str = "ip link set lo up && ip addr add 192.0.2.1/24 dev lo && ip addr add 192.0.2.2/24 dev lo \
    && ip addr add 192.0.2.3/24 dev lo && ip addr add 192.0.2.9/24 dev lo \
    && ip -6 addr add 2001:db8::1/64 dev lo nodad && ip -6 addr add 2001:db8::9/64 dev lo nodad";

/// A shell script for an /etc of the test's own. resolv.conf is a dangling link there, as with
/// systemd-resolved before it starts.
const MOUNTS: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd /run/etc && cp -a /etc/. /run/etc \
    && rm -f /run/etc/resolv.conf && ln -s ../run/systemd/resolve/resolv.conf /run/etc/resolv.conf \
    && echo 127.0.0.1 localhost > /run/etc/hosts && mount --bind /run/etc /etc && umask 022";

/// Runs client_names.py in namespaces that `script` sets up. Without namespaces or Python, reports
/// the test as skipped and returns `None`.
fn names(what: &str, namespaces: &[&str], script: &str, site: &Site) -> Option<Output> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", script]);
        command
    };
    let try_it = unshare(script).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has_python = Command::new("python3").arg("-V").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !has_python || !try_it.is_ok_and(|status| status.success()) {
        common::skipped("no namespaces without root, ip, mount and unshare, or no python3");
        return None;
    }
    let command = format!("{script} && exec python3 \"$@\"");
    let mut command = unshare(&command);
    command.args(["sh", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/session/client_names.py"), what]);
    command.args([env!("CARGO_BIN_EXE_penfoldd").as_ref(), site.path("penfold.conf").as_path(), &site.mailbox("jon")]);
    Some(command.output().expect("unshare runs"))
}

#[test]
fn a_client_has_a_name_only_if_it_resolves_back() {
    let mut site = Site::new();
    site.set("listen", "address", "\"192.0.2.9:25\"");
    site.set("dns", "nameservers", "[\"127.0.0.1\"]");
    site.configure();
    let path = site.path("penfold.conf");
    let mut text = std::fs::read_to_string(&path).expect("a configuration");
    text.push_str("\n[[listen]]\naddress = \"[2001:db8::9]:25\"\n");
    std::fs::write(&path, text).expect("a configuration");

    let Some(output) = names("clients", &["-n"], NETWORK, &site) else { return };
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    for (address, called) in [
        ("192.0.2.1", "good.example [192.0.2.1]"),
        ("192.0.2.2", "unknown [192.0.2.2]"),
        ("192.0.2.3", "unknown [192.0.2.3]"),
        ("2001:db8::1", "six.example [IPv6:2001:db8::1]"),
    ] {
        let line = format!("\"{address}\": \"Received: from client.test ({called})\"");
        assert!(seen.contains(&line), "{line}\n{seen}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn another_network_has_other_name_servers() {
    let mut site = Site::with("dns.timeout = \"1s\"\ndns.nameservers = []");
    site.set("listen", "address", "\"192.0.2.9:25\"");
    site.configure();
    let script = format!("{NETWORK} && {MOUNTS}");
    let Some(output) = names("networks", &["-n", "-m"], &script, &site) else { return };
    let (seen, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for (when, called) in [
        ("without servers", "unknown [192.0.2.1]"),
        ("in one network", "good.example [192.0.2.1]"),
        ("while the file is written", "good.example [192.0.2.1]"),
        ("in another network", "other.example [192.0.2.1]"),
        ("a third host", "third.example [192.0.2.3]"),
        ("in hosts", "listed.example [192.0.2.3]"),
    ] {
        let line = format!("\"{when}\": \"Received: from client.test ({called})\"");
        assert!(seen.contains(&line), "{line}\n{seen}\n{log}");
    }
    let says = "/etc/resolv.conf has changed: names are asked from 127.0.0.3";
    assert_eq!(log.lines().filter(|line| line.ends_with(says)).count(), 1, "{log}");
}
