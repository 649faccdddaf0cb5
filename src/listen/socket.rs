//! Listening sockets: TCP, and Unix stream sockets.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::endpoint::Endpoint;
use crate::sys;

/// The backlog of listen(2) for TCP: the number of clients that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// The time limit for connecting to a listening socket of this process, to wake its thread.
const SELF_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// The uid and the gid that the file of a Unix socket gets.
pub type Owner = (u32, u32);

/// A listening socket.
#[derive(Debug)]
pub enum ListenSocket {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix stream socket.
    Unix(UnixListener),
}

impl ListenSocket {
    /// Opens a listening socket. The file of a Unix socket belongs to `owner`, if one is given.
    ///
    /// # Errors
    /// Those of socket(2), bind(2), listen(2), and of chmod(2) and chown(2) for the file of a Unix
    /// socket.
    pub fn bind(endpoint: &Endpoint, owner: Option<Owner>) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            Endpoint::Unix(path) => bind_unix(path, owner).map(Self::Unix),
        }
    }

    /// Accepts a client. A client of a Unix socket has no address.
    ///
    /// # Errors
    /// Those of accept(2).
    pub fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(socket) => socket.accept().map(|(stream, peer)| (stream, Some(peer))),
            // Only the methods that all stream sockets have are used afterwards.
            Self::Unix(socket) => socket.accept().map(|(stream, _)| (TcpStream::from(OwnedFd::from(stream)), None)),
        }
    }

    /// Returns the address of a TCP socket; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Sets whether accept(2) fails if no client waits.
    ///
    /// # Errors
    /// Those of ioctl(2).
    pub fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nonblocking(is_nonblocking),
            Self::Unix(socket) => socket.set_nonblocking(is_nonblocking),
        }
    }

    /// Connects to the socket, so that accept(2) returns in the thread that waits on it.
    pub fn connect_to(&self) {
        match self {
            Self::Tcp(socket) => {
                let address = socket.local_addr();
                let _ = address.and_then(|address| TcpStream::connect_timeout(&address, SELF_CONNECT_TIMEOUT));
            }
            Self::Unix(socket) => {
                let _ = socket.local_addr().and_then(|address| UnixStream::connect_addr(&address));
            }
        }
    }
}

impl AsRawFd for ListenSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The IPv6 socket accepts no IPv4 clients: those need a `[[listen]]` section of their own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes a Unix socket. A socket at the same path on which nobody listens any more is replaced.
/// Only its owner and the members of its group may connect, because a client of a Unix socket is trusted.
fn bind_unix(path: &Path, owner: Option<Owner>) -> io::Result<UnixListener> {
    let bound = match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    sys::set_socket_access(path, 0o660, owner)?;
    Ok(bound)
}

/// Whether a path is a socket on which nobody listens.
fn is_left_over(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::Arc;

    #[test]
    fn only_a_socket_that_nobody_uses_is_replaced() {
        let directory = std::env::temp_dir().join(format!("penfold-listen-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a scratch directory");
        let path = directory.join("lmtp");
        let endpoint = Endpoint::Unix(Arc::from(path.as_path()));
        // Only root can give the socket to another user.
        let owner = nix::unistd::geteuid().is_root().then_some((4711, 4712));
        let first = ListenSocket::bind(&endpoint, owner).expect("a new socket");
        let found = fs::metadata(&path).expect("a socket");
        assert_eq!(found.permissions().mode() & 0o777, 0o660);
        assert!(owner.is_none_or(|owner| owner == (found.uid(), found.gid())), "{found:?}");
        let refused = ListenSocket::bind(&endpoint, None).expect_err("a socket in use");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(ListenSocket::bind(&endpoint, None).expect("a left-over socket"));
        fs::remove_file(&path).expect("a socket");
        fs::write(&path, "precious").expect("a file");
        let refused = ListenSocket::bind(&endpoint, None).expect_err("a file");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).expect("a file"), "precious");
        fs::remove_dir_all(&directory).expect("a scratch directory");
    }
}
