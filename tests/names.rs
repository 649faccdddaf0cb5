//! What Received: calls a client: a name only if it leads back to the address.
//!
//! Needs root, for a network namespace with addresses that are not loopback.

mod common;

use std::process::{Command, Stdio};

use common::Site;

const NETWORK: &str = "ip link set lo up && ip addr add 192.0.2.1/24 dev lo && ip addr add 192.0.2.2/24 dev lo \
    && ip addr add 192.0.2.3/24 dev lo && ip addr add 192.0.2.9/24 dev lo \
    && ip -6 addr add 2001:db8::1/64 dev lo nodad && ip -6 addr add 2001:db8::9/64 dev lo nodad";

#[test]
fn a_client_is_called_by_a_name_that_leads_back_or_unknown() {
    let try_it = Command::new("unshare").args(["-n", "sh", "-c", NETWORK]).stderr(Stdio::null()).status();
    let has_python = Command::new("python3").arg("-V").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !has_python || !try_it.is_ok_and(|status| status.success()) {
        common::skipped("no network namespace without root, ip and unshare, or no python3");
        return;
    }
    let mut site = Site::new();
    site.set("listen", "address", "\"192.0.2.9:25\"");
    site.set("dns", "nameservers", "[\"127.0.0.1\"]");
    site.configure();
    let path = site.path("penfold.conf");
    let mut text = std::fs::read_to_string(&path).expect("a configuration");
    text.push_str("\n[[listen]]\naddress = \"[2001:db8::9]:25\"\n");
    std::fs::write(&path, text).expect("a configuration");

    let script = format!("{NETWORK} && exec python3 \"$@\"");
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", &script, "sh", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/names.py")])
        .args([env!("CARGO_BIN_EXE_penfoldd").as_ref(), path.as_path(), &site.mailbox("jon")])
        .output()
        .expect("unshare runs");
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
