//! Dovecot, with some of its services only.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{User, geteuid};

use super::{Daemon, Site, own, unpacked};

/// A Dovecot that runs in the directory of a site. Declare it after its site.
pub struct Dovecot {
    pub daemon: Daemon,
}

impl Dovecot {
    /// Starts Dovecot with these settings, beside those that let it run as the user of the tests.
    /// If there is no Dovecot, reports the test as skipped and returns `None`.
    pub fn start(site: &Site, settings: &str) -> Option<Self> {
        let mut command = unpacked::dovecot(&site.path("dovecot.conf"))?;
        let user = User::from_uid(geteuid()).ok().flatten().map_or("nobody".to_owned(), |user| user.name);
        let dir = site.path("dovecot");
        let dir = dir.display();
        let conf = format!(
            "base_dir = {dir}\nstate_dir = {dir}\nlog_path = /dev/stderr\nprotocols =\nssl = no\n\
             default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = nogroup\n\
             service auth {{\n user = {user}\n}}\nservice anvil {{\n chroot =\n}}\nservice stats {{\n chroot =\n}}\n\
             {settings}"
        );
        site.write("dovecot.conf", &conf);
        command.stdin(Stdio::null());
        match Daemon::spawn_until(command, |line| line.contains("starting up").then_some(1)) {
            Ok(daemon) => Some(Self { daemon }),
            Err(log) => panic!("dovecot does not start:\n{log}"),
        }
    }
}

/// Stands in for one of Dovecot's services: says this to each client of a socket, whatever it asks, until the
/// process of the tests ends.
pub fn stand_in(socket: &Path, said: &str) {
    let (listener, said) = (UnixListener::bind(socket).expect("a socket"), said.to_owned());
    own(socket);
    thread::spawn(move || {
        for mut peer in listener.incoming().map_while(Result::ok) {
            let _ = peer.write_all(said.as_bytes());
            let _ = peer.shutdown(Shutdown::Write);
            let _ = peer.read_to_end(&mut Vec::new());
        }
    });
}

/// Settings for a mail store that takes mail by LMTP at this address, for every user of every domain.
/// The mailbox of a user is the Maildir `DOMAIN/USER/Maildir` below the directory `mail`.
pub fn store(mail: &Path, address: SocketAddr) -> String {
    let user = User::from_uid(geteuid()).ok().flatten().filter(|user| !user.uid.is_root());
    let owner = user.map_or("uid=nobody gid=nogroup".to_owned(), |user| format!("uid={} gid={}", user.uid, user.gid));
    format!(
        "protocols = lmtp\nmail_location = maildir:~/Maildir\nfirst_valid_uid = 1\nauth_username_format = %Lu\n\
         postmaster_address = postmaster@example.org\npassdb {{\n driver = static\n args = nopassword=y\n}}\n\
         userdb {{\n driver = static\n args = {owner} home={}/%d/%n allow_all_users=yes\n}}\n\
         service lmtp {{\n process_min_avail = 4\n inet_listener {{\n address = {}\n port = {}\n }}\n}}\n",
        mail.display(),
        address.ip(),
        address.port(),
    )
}

impl Drop for Dovecot {
    /// Ends Dovecot, and waits for the end of its log: then none of its processes runs any more.
    fn drop(&mut self) {
        let _ = kill(self.daemon.pid(), Signal::SIGTERM);
        self.daemon.becomes_true(|| false);
    }
}
