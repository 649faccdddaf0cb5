//! haproxy in front of several penfolds, with the configuration of penfold-smtp(7).

use std::net::SocketAddr;
use std::process::Stdio;

use super::{Daemon, Site, pages, unpacked};

/// Writes the configuration to the directory of a site: haproxy listens at `address`. It asks the hosts
/// more often than in the page whether they are there.
pub fn configure(site: &Site, address: SocketAddr, hosts: &[SocketAddr]) {
    let page = pages::page("penfold-smtp.7");
    let (_, example) = page.split_once("listen smtp-of-all\n").expect("the example");
    let (example, _) = example.split_once(".Ed\n").expect("its end");
    let (text, servers) = example.split_at(example.find("    server ").expect("hosts"));
    assert!(servers.lines().count() == 3, "{example}");
    let edits = [("bind :25", &*format!("bind {address}")), ("inter 2s", "inter 500ms"), ("check 5s", "check 2s")];
    let text = edits.into_iter().fold(text.to_owned(), |text, (of_page, of_test)| {
        assert!(text.contains(of_page), "no {of_page:?} in {text}");
        text.replace(of_page, of_test)
    });
    let servers = hosts.iter().enumerate().map(|(number, host)| format!("    server mx{} {host}\n", number + 1));
    let servers: String = servers.collect();
    site.write("haproxy.cfg", &format!("listen smtp\n{text}{servers}"));
}

/// Starts haproxy with the configuration in a site. If there is no haproxy, reports the test as skipped
/// and returns `None`.
///
/// # Panics
/// If haproxy does not start.
pub fn start(site: &Site) -> Option<Daemon> {
    let mut command = unpacked::haproxy()?;
    command.args(["-W", "-db", "-f"]).arg(site.path("haproxy.cfg")).stdin(Stdio::null());
    let started = Daemon::spawn_until(command, |line| line.contains("Loading success").then_some(25));
    Some(started.unwrap_or_else(|log| panic!("haproxy does not start:\n{log}")))
}
