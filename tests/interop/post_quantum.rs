//! The key exchange X25519MLKEM768 with OpenSSL 3.5 or later, as server and as client.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use common::tls::Authority;
use common::{Site, built, unpacked};

/// What penfold and such an OpenSSL agree on.
const PREFERRED: &str = if cfg!(feature = "post-quantum") { "x25519mlkem768" } else { "x25519" };

/// A command that runs tls_group.py. Without its packages, reports the test as skipped and returns
/// `None`.
fn openssl(arguments: &[&str]) -> Option<Command> {
    let Some(tree) = unpacked::tree("pyopenssl") else {
        common::skipped("pyOpenSSL is not in target/peers/pyopenssl.pkg: run tests/setup");
        return None;
    };
    let mut command = Command::new("python3");
    command.arg("-B").arg(built::source("tests/interop/tls_group.py")).arg(tree).args(arguments);
    Some(command)
}

#[test]
fn clients_get_the_group_that_they_have() {
    let site = Authority::new().site("");
    let daemon = site.start();
    for (curve, group) in [("", PREFERRED), ("P-256", "secp256r1")] {
        let Some(mut client) = openssl(&["client", &daemon.address().port().to_string(), curve]) else { return };
        let output = client.output().expect("python3");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim().to_ascii_lowercase(), group, "{curve}");
    }
}

#[test]
fn hosts_are_asked_for_the_group_that_they_have() {
    let (certificate, key) = Authority::new().make("mail.example.test", 300);
    for (curve, group) in [("", PREFERRED), ("P-256", "secp256r1")] {
        let site = Site::with("");
        site.write("host.pem", &certificate);
        site.write("host.key", &key);
        let [certificate, key] = ["host.pem", "host.key"].map(|name| site.path(name).display().to_string());
        let Some(mut server) = openssl(&["server", &certificate, &key, curve]) else { return };
        let mut server = server.stdout(Stdio::piped()).spawn().expect("python3");
        let mut printed = BufReader::new(server.stdout.take().expect("a pipe"));
        let mut port = String::new();
        printed.read_line(&mut port).expect("a port");
        site.add("routes", &format!("example.test 127.0.0.1:{}", port.trim()));
        let daemon = site.start();
        let id = daemon.submit(&["elvis@example.test"]);
        daemon.wait_words(&[&id, " sent ", " tls=TLS1.3 "]);
        let mut found = String::new();
        printed.read_to_string(&mut found).expect("a group");
        assert!(server.wait().expect("a child").success());
        assert_eq!(found.trim().to_ascii_lowercase(), group, "{curve}");
    }
}
