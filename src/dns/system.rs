//! Reads the name servers in resolv.conf(5), and the names and addresses in hosts(5), for look-ups.
//!
//! When this host moves to another network, resolv.conf or the file that it links to is replaced.
//! Therefore a look-up checks both files for changes, unless they were checked within
//! [`CHECK_INTERVAL`]. No timer is used. If a file cannot be read, or a resolv.conf names no
//! server, the file is ignored, because it may be incomplete. Only the `nameserver` lines of
//! resolv.conf are used, and only the first [`MAX_SERVERS`].

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memmem;

/// The minimum interval between two checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The maximum number of servers, the same as MAXNS of libc.
const MAX_SERVERS: usize = 3;
/// The maximum number of bytes read from a file.
const MAX_SIZE: u64 = 4 << 20;

/// The two files, and their last usable contents.
#[derive(Debug)]
pub(super) struct System {
    resolv_conf: Watched,
    hosts_file: Watched,
    checked: Option<Instant>,
    servers: Vec<SocketAddr>,
    hosts: Arc<Hosts>,
}

/// Which of the files have new contents.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) servers: bool,
    pub(super) hosts: bool,
}

/// A file, and its identity when it was last read.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    seen: Option<[i64; 7]>,
}

/// The contents of hosts(5) in lower case, without comments, one line for each address.
#[derive(Debug, Default)]
pub(super) struct Hosts(Box<str>);

impl System {
    /// The files of this system. Nothing is read yet.
    pub(super) fn new() -> Self {
        Self::at(Path::new("/etc/resolv.conf"), Path::new("/etc/hosts"))
    }

    pub(super) fn at(resolv_conf: &Path, hosts: &Path) -> Self {
        let watched = |path: &Path| Watched { path: path.to_owned(), seen: None };
        Self {
            resolv_conf: watched(resolv_conf),
            hosts_file: watched(hosts),
            checked: None,
            // The default of resolv.conf(5): "the name server on the local machine".
            servers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))],
            hosts: Arc::default(),
        }
    }

    /// Reads the files that have changed, unless they were checked within [`CHECK_INTERVAL`].
    pub(super) fn check(&mut self) -> Changed {
        if self.checked.is_some_and(|checked| checked.elapsed() < CHECK_INTERVAL) {
            return Changed::default();
        }
        let mut changed = Changed::default();
        if let Some(text) = self.resolv_conf.read_if_changed() {
            let servers = servers(&text);
            changed.servers = !servers.is_empty() && servers != self.servers;
            if changed.servers {
                self.servers = servers;
            }
        }
        if let Some(text) = self.hosts_file.read_if_changed() {
            changed.hosts = true;
            self.hosts = Arc::new(Hosts::read(&text));
        }
        self.checked = Some(Instant::now());
        changed
    }

    /// The path of resolv.conf.
    pub(super) fn path(&self) -> &Path {
        &self.resolv_conf.path
    }

    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        self.servers.clone()
    }

    pub(super) fn hosts(&self) -> Arc<Hosts> {
        Arc::clone(&self.hosts)
    }
}

impl Watched {
    /// Returns the text of the file if it has changed. Returns `None` if it has not changed or
    /// cannot be read.
    fn read_if_changed(&mut self) -> Option<String> {
        let now = fs::metadata(&self.path).ok().map(|of| {
            [of.dev().cast_signed(), of.ino().cast_signed(), of.size().cast_signed()]
                .into_iter()
                .chain([of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()])
                .collect::<Vec<_>>()
        });
        let now = now.and_then(|all| <[i64; 7]>::try_from(all).ok());
        if now.is_none() || now == self.seen {
            return None;
        }
        let text = read(&self.path);
        if let Err(error) = &text {
            ::log::warn!("{}: {error}; its last contents stay in force", self.path.display());
        }
        self.seen = now;
        text.ok()
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_SIZE).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The servers that the text of a resolv.conf names. A link-local address with an interface, such
/// as `fe80::1%eth0`, is left out.
fn servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, 53))
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

impl Hosts {
    fn read(text: &str) -> Self {
        let mut kept = String::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            kept.push_str(&address.to_canonical().to_string());
            for name in words {
                kept.push(' ');
                kept.push_str(&name.to_ascii_lowercase());
            }
            kept.push('\n');
        }
        Self(kept.into())
    }

    /// The addresses of a name, which must be in lower case.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Vec::new();
        }
        let text = self.0.as_bytes();
        let mut found = Vec::new();
        for at in memmem::find_iter(text, name) {
            let is_a_word = at > 0 && text[at - 1] == b' ' && matches!(text.get(at + name.len()), Some(b' ' | b'\n'));
            let line = text[..at].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
            let address = self.0.get(line..at).and_then(|front| front.split(' ').next()?.parse().ok());
            found.extend(address.filter(|a| is_a_word && !found.contains(a)));
        }
        found
    }

    /// The names of an address.
    pub(super) fn names(&self, address: IpAddr) -> Vec<Box<str>> {
        let front = format!("{address} ");
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(front.as_str()));
        lines.flat_map(|names| names.split(' ')).map(Into::into).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_of_resolv_conf_are_read() {
        let read = |text| servers(text).iter().map(|server| server.ip().to_string()).collect::<Vec<_>>();
        assert_eq!(read("nameserver 192.0.2.1\nnameserver\t2001:db8::1 \n"), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(read("# nameserver 192.0.2.9\n;nameserver 192.0.2.8\nnameserver 192.0.2.1 # x\r\n"), ["192.0.2.1"]);
        assert_eq!(read("search -- .bad..name\nnonsense\nnameserver x\nnameserver 192.0.2.1"), ["192.0.2.1"]);
        assert_eq!(read("nameserver fe80::1%eth0\nnameservers 192.0.2.1\noptions edns0\n"), [] as [&str; 0]);
        assert_eq!(read(&"nameserver 192.0.2.1\n".repeat(5)).len(), 3);
    }

    #[test]
    fn only_a_usable_changed_file_has_an_effect() {
        let dir = std::env::temp_dir().join(format!("penfold-system-{}", std::process::id()));
        fs::create_dir(&dir).expect("a scratch directory");
        let (conf, other, hosts) = (dir.join("resolv.conf"), dir.join("new"), dir.join("hosts"));
        let mut system = System::at(&conf, &hosts);
        let mut look = |text: Option<&str>| {
            if let Some(text) = text {
                fs::write(&other, text).and_then(|()| fs::rename(&other, &conf)).expect("a file");
            }
            system.checked = None;
            let changed = system.check();
            let servers = system.servers().iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
            (changed.servers, servers)
        };
        assert_eq!(look(None), (false, "127.0.0.1:53".into()), "no file");
        assert_eq!(look(Some("nameserver 192.0.2.1\n")), (true, "192.0.2.1:53".into()));
        assert_eq!(look(None), (false, "192.0.2.1:53".into()));
        for text in ["", "# none\n", "nameserver \n", "\u{fffd}\0\n", "nameserver 192.0.2.1\nsearch x\n"] {
            assert_eq!(look(Some(text)), (false, "192.0.2.1:53".into()), "{text:?}");
        }
        fs::remove_file(&conf).expect("it is there");
        assert_eq!(look(None), (false, "192.0.2.1:53".into()), "gone");
        assert_eq!(look(Some("nameserver 192.0.2.2\nnameserver ::1\n")), (true, "192.0.2.2:53 [::1]:53".into()));
        fs::write(&hosts, "192.0.2.7 seven").expect("a file");
        assert_eq!(system.check(), Changed::default(), "it was checked just now");
        system.checked = None;
        assert_eq!(system.check(), Changed { servers: false, hosts: true });
        assert_eq!(system.hosts().addresses("seven").len(), 1);
        fs::remove_dir_all(&dir).expect("it is there");
    }

    #[test]
    fn names_in_hosts_match_as_whole_words() {
        let hosts = Hosts::read(
            "127.0.0.1 localhost\n192.0.2.1\tMailhub.Example.TEST  mailhub # the old one: other\n\
             nonsense mailhub\n2001:DB8::1 mailhub\n192.0.2.1 mailhub again\n::ffff:192.0.2.7 seven\n192.0.2.8",
        );
        for (name, want) in [
            ("mailhub", &["192.0.2.1", "2001:db8::1"][..]),
            ("mailhub.example.test", &["192.0.2.1"]),
            ("mailhub.example.test.", &["192.0.2.1"]),
            ("again", &["192.0.2.1"]),
            ("seven", &["192.0.2.7"]),
            ("hub", &[]),
            ("mail", &[]),
            ("example.test", &[]),
            ("other", &[]),
            ("192.0.2.1", &[]),
            ("", &[]),
        ] {
            let found: Vec<_> = hosts.addresses(name).iter().map(IpAddr::to_string).collect();
            assert_eq!(found, want, "{name}");
        }
        let names = |address: &str| hosts.names(address.parse().expect("an address"));
        assert_eq!(names("192.0.2.1").join(" "), "mailhub.example.test mailhub mailhub again");
        assert!(names("192.0.2.10").is_empty() && names("192.0.2.8").is_empty());
    }
}
