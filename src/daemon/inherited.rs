//! Collects the listening sockets of the daemon: the service manager passes some of them
//! (sd_listen_fds(3)), and the others are bound here.
//!
//! If `LISTEN_PID` is the id of this process, the passed sockets are the descriptors from 3 on.
//! `LISTEN_FDS` is their number, and `LISTEN_FDNAMES` lists their names. A TCP socket belongs to
//! the `[[listen]]` with the same address, or else to the first one with the same port. A socket
//! without a `[[listen]]` is closed, and the log says so. An address that a passed socket covers is
//! not bound again. A Unix socket belongs to the `[[listen]]` with the same path. The control socket
//! is the Unix socket with the configured path, or with the name `control`. If a descriptor is not a listening stream socket, the daemon does not start.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use socket2::SockRef;

use super::cure;
use crate::config::{Kind, Listen};
use crate::endpoint::Endpoint;
use crate::exit::{self, Exit};
use crate::listen::{ListenSocket, Listener, Owner};

/// The passed sockets that are not in use yet.
#[derive(Default)]
pub struct Inherited {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    /// The control socket, if it was passed.
    pub control: Option<UnixListener>,
    /// Warnings that wait until the log is open.
    notes: Vec<String>,
    /// Default listening addresses that this host does not have.
    missing: Vec<Endpoint>,
}

impl Inherited {
    /// Takes the passed sockets, and removes the variables that describe them from the environment.
    /// Must be called before the first thread starts. `control` is the path of the control socket.
    ///
    /// # Errors
    /// If a passed descriptor is not a listening stream socket.
    pub fn take(control: &Path) -> Result<Self, Exit> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let (mut inherited, mut names) = (Self::default(), names.split(':'));
        for at in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let taken = match passed.take_unix_listener(at) {
                Ok(Some(socket)) => inherited.take_unix(socket, name, control),
                _ => passed.take_tcp_listener(at).and_then(|socket| inherited.take_tcp(socket)),
            };
            let doing = || format!("descriptor {} {name:?} that was passed in", at + 3);
            taken.map_err(|e| Exit::new(exit::OSERR, doing(), &e))?;
        }
        Ok(inherited)
    }

    fn take_unix(&mut self, socket: UnixListener, name: &str, control: &Path) -> io::Result<()> {
        must_listen(&socket)?;
        socket.set_nonblocking(false)?;
        let address = socket.local_addr()?;
        let is_there = address.as_pathname() == Some(control);
        if self.control.is_some() || !(is_there || name == "control") {
            self.unix.push(socket);
            return Ok(());
        }
        if !is_there {
            let (path, wanted) = (address.as_pathname().unwrap_or(Path::new("")).display(), control.display());
            self.notes.push(format!("the control socket is {path}, as passed in, and not {wanted}"));
        }
        self.control = Some(socket);
        Ok(())
    }

    fn take_tcp(&mut self, socket: Option<TcpListener>) -> io::Result<()> {
        if let Some(socket) = socket {
            must_listen(&socket)?;
            socket.set_nonblocking(false)?;
            self.tcp.push(socket);
        }
        Ok(())
    }

    /// Returns the listeners: the passed sockets, and new sockets for those addresses in `listen`
    /// that no passed socket covers. A new Unix socket belongs to `owner`, if one is given.
    ///
    /// # Errors
    /// If an address cannot be bound. If another `[[listen]]` uses the address, the error says so.
    pub fn listeners(&mut self, listen: &[Listen], owner: Option<Owner>) -> Result<Vec<Listener>, Exit> {
        let (mut listeners, mut covers, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for socket in self.tcp.drain(..) {
            let address = socket.local_addr().map_err(|e| Exit::new(exit::OSERR, "a socket that was passed in", &e))?;
            let same_port = || listen.iter().find(|listen| takes_over(listen, address));
            let Some(found) = listen.iter().find(|l| l.tcp() == Some(address)).or_else(same_port) else {
                self.notes.push(format!("the socket {address} was passed in, and no [[listen]] has its port: closed"));
                continue;
            };
            covers.push((address, SockRef::from(&socket).only_v6().unwrap_or(true)));
            let socket = ListenSocket::Tcp(socket);
            listeners.push(Listener { socket, listen: found.clone(), is_shared: true });
        }
        let paths = self.take_listed(listen, &mut listeners)?;
        let left = |l: &&Listen| match &l.address {
            Endpoint::Tcp(tcp) => !covers.iter().any(|&(passed, only_v6)| is_covered(*tcp, passed, only_v6)),
            Endpoint::Unix(path) => !paths.contains(path),
        };
        for listen in listen.iter().filter(left) {
            if !listeners.is_empty() && listeners.iter().any(|listener| listener.is_shared) {
                self.notes.push(format!("the socket {} was not passed in, and is bound", listen.address));
            }
            match ListenSocket::bind(&listen.address, owner) {
                Ok(socket) => listeners.push(Listener { socket, listen: listen.clone(), is_shared: false }),
                // The host may lack the address of a default listener: ::1, if IPv6 is off.
                Err(e) if listen.is_default && is_missing(&e) => missing.push((listen.address.clone(), e)),
                Err(e) => return Err(not_bound(&listen.address, &e, &listeners)),
            }
        }
        match missing.first() {
            Some((address, e)) if listeners.is_empty() => return Err(not_bound(address, e, &listeners)),
            _ => self.missing = missing.into_iter().map(|(address, _)| address).collect(),
        }
        Ok(listeners)
    }

    /// Adds the passed Unix sockets that have a `[[listen]]` to `listeners`, and returns their paths.
    fn take_listed(&mut self, listen: &[Listen], listeners: &mut Vec<Listener>) -> Result<Vec<Arc<Path>>, Exit> {
        let mut paths = Vec::new();
        for socket in self.unix.drain(..) {
            let address = socket.local_addr().map_err(|e| Exit::new(exit::OSERR, "a socket that was passed in", &e))?;
            let path: Arc<Path> = Arc::from(address.as_pathname().unwrap_or(Path::new("")));
            let Some(found) = listen.iter().find(|listen| listen.address == Endpoint::Unix(Arc::clone(&path))) else {
                let path = path.display();
                self.notes.push(format!("the socket {path} was passed in, and no [[listen]] has its path: closed"));
                continue;
            };
            listeners.push(Listener { socket: ListenSocket::Unix(socket), listen: found.clone(), is_shared: true });
            paths.push(path);
        }
        Ok(paths)
    }

    /// Logs the differences between the configuration and the passed sockets.
    pub fn warn(&self) {
        self.notes.iter().for_each(|note| ::log::warn!("{note}"));
        for address in &self.missing {
            ::log::info!("not listening on {address}: this host has no such address, and no [[listen]] names it");
        }
    }
}

/// Whether a passed socket with this address may serve the clients of a `[[listen]]`, because the port
/// is the same. The status page stays on this host.
fn takes_over(listen: &Listen, passed: SocketAddr) -> bool {
    let is_safe = listen.kind != Kind::Status || passed.ip().is_loopback();
    is_safe && listen.tcp().is_some_and(|tcp| tcp.port() == passed.port())
}

/// Whether bind(2) failed because this host lacks the address or its address family.
fn is_missing(error: &io::Error) -> bool {
    let missing = [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|code| missing.contains(&Errno::from_raw(code)))
}

/// The error for an address that cannot be bound. The text says so if another listener of this
/// daemon covers the address.
fn not_bound(address: &Endpoint, error: &io::Error, listeners: &[Listener]) -> Exit {
    let exit = Exit::new(exit::UNAVAILABLE, format!("listen on {address}"), error);
    if error.kind() != io::ErrorKind::AddrInUse {
        return exit.and(cure::of_address(error, false));
    }
    let overlaps = |listener: &&Listener| is_overlapping(&listener.listen.address, address);
    match listeners.iter().find(overlaps) {
        Some(other) => exit.and(Some(format!("listen.address: {}", overlap(&other.listen.address, address)))),
        None => exit,
    }
}

/// Whether two sockets cannot be bound to these addresses at the same time.
pub fn is_overlapping(one: &Endpoint, other: &Endpoint) -> bool {
    match (one, other) {
        (Endpoint::Tcp(one), Endpoint::Tcp(other)) => {
            one.port() != 0 && (is_covered(*one, *other, true) || is_covered(*other, *one, true))
        }
        _ => one == other,
    }
}

/// Advises what to do if two [[listen]] have addresses that cannot both be bound.
pub fn overlap(one: &Endpoint, other: &Endpoint) -> String {
    let how = match matches!(one, Endpoint::Tcp(address) if address.ip().is_unspecified()) {
        _ if one == other => "twice",
        true => "which covers it",
        false => "which it covers",
    };
    format!("[[listen]] also has {one}, {how}: remove one of the two")
}

/// Whether a socket that is bound to `passed` accepts the clients that connect to `wanted`.
fn is_covered(wanted: SocketAddr, passed: SocketAddr, only_v6: bool) -> bool {
    let family = passed.is_ipv4() == wanted.is_ipv4() || (wanted.is_ipv4() && !only_v6);
    wanted == passed || (wanted.port() == passed.port() && passed.ip().is_unspecified() && family)
}

/// Returns an error if a socket does not listen, because accept(2) would never succeed on it.
fn must_listen(socket: &impl AsFd) -> io::Result<()> {
    if getsockopt(socket, sockopt::AcceptConn)? { Ok(()) } else { Err(io::Error::other("it does not listen")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_both_be_bound() {
        for (one, other, overlapping) in [
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "0.0.0.0:25", true),
            ("[::]:25", "[::1]:25", true),
            ("[::]:25", "0.0.0.0:25", false),
            ("[::]:25", "127.0.0.1:25", false),
            ("0.0.0.0:25", "0.0.0.0:587", false),
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let at = |text: &str| Endpoint::Tcp(text.parse().expect("an address"));
            assert_eq!(is_overlapping(&at(one), &at(other)), overlapping, "{one} {other}");
        }
    }

    #[test]
    fn a_passed_socket_never_shows_the_status_page_to_other_hosts() {
        let at = |text: &str| text.parse().expect("an address");
        for (kind, passed, taken) in [
            (Kind::Smtp, "0.0.0.0:8025", true),
            (Kind::Smtp, "0.0.0.0:25", false),
            (Kind::Status, "0.0.0.0:8025", false),
            (Kind::Status, "192.0.2.1:8025", false),
            (Kind::Status, "[::1]:8025", true),
        ] {
            let listen = Listen { kind, ..Listen::at(at("127.0.0.1:8025")) };
            assert_eq!(takes_over(&listen, at(passed)), taken, "{kind:?} {passed}");
        }
    }

    #[test]
    fn addresses_that_a_passed_socket_covers() {
        for (wanted, passed, only_v6, covered) in [
            ("127.0.0.1:25", "127.0.0.1:25", true, true),
            ("127.0.0.1:25", "127.0.0.1:26", true, false),
            ("127.0.0.1:25", "0.0.0.0:25", true, true),
            ("127.0.0.1:25", "[::]:25", true, false),
            ("127.0.0.1:25", "[::]:25", false, true),
            ("[::1]:25", "[::]:25", true, true),
            ("[::1]:25", "0.0.0.0:25", false, false),
            ("0.0.0.0:25", "127.0.0.1:25", true, false),
        ] {
            let at = |text: &str| text.parse().expect("an address");
            assert_eq!(is_covered(at(wanted), at(passed), only_v6), covered, "{wanted} {passed}");
        }
    }
}
