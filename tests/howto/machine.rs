//! The Debian system in which the pages run.

use std::net::{TcpListener, TcpStream};

use common::debian::{ADDRESS, Debian, WORLD};

#[test]
fn a_fresh_system_boots_and_runs_penfold() {
    let Some(machine) = Debian::boot("mail.example.org") else { return };
    assert_eq!(machine.run("hostname -f; pwd"), "mail.example.org\n/root\n");
    machine.install_penfold();
    machine.run("systemctl enable --now penfold.service penfold-control.socket");
    assert_eq!(machine.run("systemctl is-active penfold.service penfold-control.socket"), "active\nactive\n");
    machine.run("penfoldctl status");

    // The network of the machine.
    let world = machine.world(|| TcpListener::bind((WORLD, 0))).expect("a listener");
    let port = world.local_addr().expect("bound").port();
    let client = machine.inside(|| TcpStream::connect((WORLD, port))).expect("a connection");
    assert_eq!(client.local_addr().expect("connected").ip(), ADDRESS);
    assert!(!machine.shell("ping -c 1 192.0.2.2").status.success());
}

#[test]
fn packages_are_installed() {
    let Some(machine) = Debian::boot("mail.example.org") else { return };
    machine.install(&["swaks"]);
    machine.run("swaks --version");
    assert!(!machine.apt(&["install", "no-such-package"]).status.success());
    // A service that a package starts is in the network of the machine.
}
