//! A confined server reads the certificate authorities of the system.
//!
//! Those of the test take their place in a mount namespace, so the system's own are not touched. The
//! server is confined only if root has started it; otherwise the test is reported as skipped.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::mounts::Mounts;
use common::remote::{Offer, Remote, Sink};
use common::tls::Authority;
use common::{Daemon, Site};
use nix::unistd::geteuid;

/// Where Debian has the authorities: the directory that programs read, and the files to which the
/// links in it lead.
const PLACES: [&str; 2] = ["/etc/ssl/certs", "/usr/share/ca-certificates"];

/// How the system has an authority.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// In the file with all authorities.
    Bundle,
    /// In a file with a link that is named by a hash.
    Links,
}

/// A site, and a mount namespace with places of its own for authorities.
struct System {
    site: Site,
    mounts: Mounts,
    layout: Layout,
}

impl System {
    fn new(layout: Layout) -> Option<Self> {
        let site = Site::with("remote.authorities = \"system\"\nqueue.retry_min = \"1h\"");
        let mut script = "true".to_owned();
        for (name, place) in ["certs", "share"].into_iter().zip(PLACES) {
            fs::create_dir(site.path(name)).expect("a directory");
            script += &format!(" && mount --bind {} {place}", site.path(name).display());
        }
        Some(Self { mounts: Mounts::new(&script)?, site, layout })
    }

    /// Makes an authority the only one that the system trusts, as update-ca-certificates(8) does: new
    /// files take the place of the old ones.
    fn trust(&self, authority: &Authority) {
        let place = |name: &str| self.site.path(name);
        match self.layout {
            Layout::Bundle => {
                fs::write(place("certs/new"), authority.root_pem()).expect("a file");
                fs::rename(place("certs/new"), place("certs/ca-certificates.crt")).expect("a rename");
            }
            Layout::Links => {
                fs::write(place("share/new"), authority.root_pem()).expect("a file");
                fs::rename(place("share/new"), place("share/test.crt")).expect("a rename");
                for (name, target) in [("0a1b2c3d.0", "test.pem"), ("test.pem", "/usr/share/ca-certificates/test.crt")]
                {
                    let link = place("certs").join(name);
                    let _ = fs::remove_file(&link);
                    symlink(target, &link).expect("a link");
                }
            }
        }
    }

    /// Sends a message to a domain. Returns the line of the log about it.
    fn send(&self, daemon: &Daemon, domain: &str) -> String {
        let id = daemon.submit(&[&format!("elvis@{domain}")]);
        let is_fate = |line: &str| line.contains(" sent ") || line.contains(" deferred ");
        daemon.wait_log(|line| line.starts_with(&id) && is_fate(line))
    }
}

#[test]
fn a_confined_server_verifies_hosts_by_the_authorities_of_the_system() {
    if !geteuid().is_root() {
        return common::skipped("only a server that root has started is confined");
    }
    if !PLACES.iter().all(|place| Path::new(place).is_dir()) {
        return common::skipped("this system has no /etc/ssl/certs or no /usr/share/ca-certificates");
    }
    let (first, second) = (Authority::new(), Authority::new());
    // Each message goes to a host of its own, so that no open connection is used again.
    let hosts = [("a", &first), ("b", &second), ("c", &first), ("d", &second)].map(|(name, authority)| {
        let offer = Offer::starttls(&authority.leaf("127.0.0.1", 300));
        (name, Remote::with(Sink { tls: Some(offer), ..Sink::default() }))
    });
    for layout in [Layout::Bundle, Layout::Links] {
        let Some(system) = System::new(layout) else { return };
        for (name, remote) in &hosts {
            system.site.add("routes", &format!("{name}.test smtp+starttls://127.0.0.1:{}", remote.address.port()));
        }
        system.trust(&first);
        let daemon = system.mounts.start(&system.site);
        daemon.wait_words(&[" started"]);
        if daemon.log().contains("this kernel ") {
            return common::skipped("this kernel has no Landlock, or an older one");
        }
        let expect = |domain: &str, is_trusted: bool| {
            let line = system.send(&daemon, domain);
            let words =
                if is_trusted { " verified=authority " } else { "the certificate is not from a trusted authority" };
            assert!(line.contains(words), "{layout:?}: {line}");
        };
        expect("a.test", true);
        expect("b.test", false);
        system.trust(&second);
        daemon.hup();
        daemon.wait_log(|line| line.ends_with("configuration and tables read again"));
        expect("c.test", false);
        expect("d.test", true);
    }
}
