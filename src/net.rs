//! Streams with a deadline.
//!
//! Every read and write fails with `TimedOut` once the deadline has passed, so a
//! peer that sends or takes one octet at a time gains nothing. The system is told
//! of a time limit only when the one it has would not do, which for a session that
//! goes well is once. A stream can be encrypted at any point between two words; the
//! handshake then runs under the same deadline. Does not know what is said over the
//! stream.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket, Type};

use crate::endpoint::Endpoint;
use crate::timeouts::{HostTimeout, POLL_INTERVAL};
use crate::tls::TlsInfo;

/// How long a peer may take to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to a peer.
#[derive(Debug)]
pub struct Stream {
    wire: Wire,
    /// Boxed, for most of what waits is in clear.
    tls: Option<Box<Secure>>,
}

#[derive(Debug)]
struct Secure {
    connection: rustls::Connection,
    /// One of the two has broken the rules, or we have taken leave: nothing more is said
    /// or heard, in clear least of all.
    over: bool,
}

/// What goes over it as it is.
#[derive(Debug)]
struct Wire {
    link: Link,
    deadline: Instant,
    /// When the deadline was set, and whether less time is granted meanwhile.
    since: Instant,
    host_timeout: Option<HostTimeout>,
    /// The deadline was not waited for.
    is_cut_short: bool,
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
}

#[derive(Debug)]
enum Link {
    /// Any stream socket.
    Socket(Arc<TcpStream>),
    /// What inetd, or a person at a terminal, gave as standard input and output.
    Files(File, File),
}

impl Stream {
    /// A connection that was accepted, or inherited as a socket.
    pub fn from_socket(socket: impl Into<Arc<TcpStream>>) -> Self {
        Self::new(Link::Socket(socket.into()))
    }

    /// Standard input and output of this process. A socket is used as one.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_standard_input() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let socket = TcpStream::from(input.try_clone()?);
        // Only a socket has a time limit.
        if socket.set_read_timeout(None).is_ok() {
            return Ok(Self::from_socket(socket));
        }
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(Link::Files(input.into(), output.into())))
    }

    /// Connects, within `limit`, or within what `host_timeout` grants. The second value is whether
    /// it was given up because of that.
    ///
    /// # Errors
    /// Those of connect(2), and `TimedOut`.
    pub fn connect(
        endpoint: &Endpoint,
        limit: Duration,
        host_timeout: Option<&HostTimeout>,
    ) -> Result<Self, (io::Error, bool)> {
        let socket = connect(endpoint, limit, host_timeout)?;
        if matches!(endpoint, Endpoint::Tcp(_)) {
            socket.set_nodelay(true).map_err(|e| (e, false))?;
        }
        Ok(Self::from_socket(socket))
    }

    /// From now on a read or write may be given up before its deadline, if `host_timeout` says so;
    /// the time it grants counts from when the deadline was set.
    pub fn set_host_timeout(&mut self, host_timeout: Option<HostTimeout>) {
        (self.wire.host_timeout, self.wire.is_cut_short) = (host_timeout, false);
    }

    /// Whether a read or write was given up before its deadline.
    pub fn is_cut_short(&self) -> bool {
        self.wire.is_cut_short
    }

    fn new(link: Link) -> Self {
        let now = Instant::now();
        let wire = Wire {
            link,
            deadline: now,
            since: now,
            host_timeout: None,
            is_cut_short: false,
            read_limit: None,
            write_limit: None,
        };
        Self { wire, tls: None }
    }

    /// Encrypts what is said from here on, once the peer has agreed. What was read before
    /// the handshake must not be used after it.
    ///
    /// # Errors
    /// Those of the system, `TimedOut`, and `InvalidData` in rustls' words; the
    /// connection is then good for nothing.
    pub fn secure(&mut self, mut connection: rustls::Connection) -> io::Result<()> {
        while connection.is_handshaking() {
            connection.complete_io(&mut self.wire)?;
        }
        self.tls = Some(Box::new(Secure { connection, over: false }));
        Ok(())
    }

    /// What is known of the encryption, if there is one.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        self.tls.as_deref().map(|tls| TlsInfo::of(&tls.connection))
    }

    /// From now on every read and write fails after `limit`, counted from now.
    pub fn set_limit(&mut self, limit: Duration) {
        self.set_deadline(Instant::now() + limit);
    }

    /// The same, until a moment.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.wire.deadline = deadline;
        if self.wire.host_timeout.is_some() {
            self.wire.since = Instant::now();
        }
    }

    /// The peer's address, if it has one.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.wire.link {
            Link::Socket(socket) => socket.peer_addr().ok(),
            Link::Files(..) => None,
        }
    }

    /// The address that the peer has connected to, if it has one.
    pub fn own_address(&self) -> Option<SocketAddr> {
        match &self.wire.link {
            Link::Socket(socket) => socket.local_addr().ok(),
            Link::Files(..) => None,
        }
    }

    /// Whether the peer has said something that was not read yet.
    ///
    /// # Errors
    /// Those of recv(2), and `UnexpectedEof` if it has hung up.
    pub fn has_input(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return self.wire.has_input() };
        if tls.over {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // What has come may be no words, but something between the two ends of TLS.
        while self.wire.has_input()? {
            tls.take_in(&mut self.wire)?;
        }
        Ok(tls.connection.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0))
    }

    /// Whether the peer is on this host as surely as a terminal or a pipe is.
    pub fn is_local(&self) -> bool {
        matches!(self.wire.link, Link::Files(..))
    }

    /// Says that nothing more will be said, and takes for a moment what still comes:
    /// a socket that is closed with something unread loses the last reply.
    pub fn close(&mut self) {
        if let Some(tls) = self.tls.as_mut().filter(|tls| !tls.over) {
            tls.over = true;
            tls.connection.send_close_notify();
            let _ = tls.send(&mut self.wire);
        }
        let Link::Socket(socket) = &self.wire.link else { return };
        if socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        self.set_limit(CLOSE_TIMEOUT);
        let mut heard = [0; 4096];
        for _ in 0..64 {
            // As it is on the wire: what comes after our leave means nothing to us.
            if !matches!(self.wire.read(&mut heard), Ok(1..)) {
                return;
            }
        }
    }
}

impl Secure {
    /// Sends what TLS has to say.
    fn send(&mut self, wire: &mut Wire) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(wire)?;
        }
        Ok(())
    }

    /// Reads a piece; a peer that breaks the rules is told so.
    fn take_in(&mut self, wire: &mut Wire) -> io::Result<()> {
        self.connection.read_tls(wire)?;
        let processed = self.connection.process_new_packets();
        self.over |= processed.is_err();
        let sent = self.send(wire);
        processed.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)).and(sent)
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.wire.read(into) };
        if tls.over {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        loop {
            match tls.connection.reader().read(into) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Who hangs up without a word of TLS is common; mail has ends of its own.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            tls.take_in(&mut self.wire)?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.wire.write(bytes) };
        if tls.over {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = tls.connection.writer().write(bytes)?;
        tls.send(&mut self.wire)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    fn has_input(&self) -> io::Result<bool> {
        use nix::errno::Errno;
        use nix::sys::socket::{MsgFlags, recv};
        let Link::Socket(socket) = &self.link else { return Ok(false) };
        match recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn left(&mut self) -> io::Result<Duration> {
        let now = Instant::now();
        let mut left = self.deadline.saturating_duration_since(now);
        if let Some(host_timeout) = &self.host_timeout {
            let granted = host_timeout.limit().map(|limit| (self.since + limit).saturating_duration_since(now));
            self.is_cut_short = granted.is_some_and(|granted| granted.is_zero());
            if self.is_cut_short {
                return Err(io::ErrorKind::TimedOut.into());
            }
            left = left.min(POLL_INTERVAL);
        }
        // Zero would mean no limit to the system, and less than a tick nothing.
        if left < Duration::from_millis(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.left()?;
            let result = match &mut self.link {
                Link::Socket(socket) => {
                    if needs_telling(self.read_limit, left) {
                        socket.set_read_timeout(Some(left))?;
                        self.read_limit = Some(left);
                    }
                    (&**socket).read(into)
                }
                Link::Files(input, _) => {
                    wait(input.as_fd(), nix::poll::PollFlags::POLLIN, left).and_then(|()| input.read(into))
                }
            };
            match result {
                // A limit of an earlier step ran out, or a signal came: the deadline decides.
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    self.read_limit = None
                }
                other => return other,
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let left = self.left()?;
            let result = match &mut self.link {
                Link::Socket(socket) => {
                    if needs_telling(self.write_limit, left) {
                        socket.set_write_timeout(Some(left))?;
                        self.write_limit = Some(left);
                    }
                    (&**socket).write(bytes)
                }
                Link::Files(_, output) => {
                    wait(output.as_fd(), nix::poll::PollFlags::POLLOUT, left).and_then(|()| output.write(bytes))
                }
            };
            match result {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    self.write_limit = None
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As connect(2), by a socket that can be waited for in pieces.
fn connect(
    endpoint: &Endpoint,
    limit: Duration,
    host_timeout: Option<&HostTimeout>,
) -> Result<TcpStream, (io::Error, bool)> {
    let plain = |e: io::Error| (e, false);
    let address = match endpoint {
        Endpoint::Tcp(address) => SockAddr::from(*address),
        Endpoint::Unix(path) => SockAddr::unix(path).map_err(plain)?,
    };
    let socket = Socket::new(address.domain(), Type::STREAM, None).map_err(plain)?;
    let Some(host_timeout) = host_timeout else {
        return socket.connect_timeout(&address, limit).map(|()| socket.into()).map_err(plain);
    };
    socket.set_nonblocking(true).map_err(plain)?;
    match socket.connect(&address) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {
            let begun = Instant::now();
            loop {
                let (waited, granted) = (begun.elapsed(), host_timeout.limit());
                if waited >= limit || granted.is_some_and(|granted| waited >= granted) {
                    return Err((io::ErrorKind::TimedOut.into(), waited < limit));
                }
                let piece = (limit - waited).min(POLL_INTERVAL);
                match wait(socket.as_fd(), nix::poll::PollFlags::POLLOUT, piece) {
                    Ok(()) => break,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(e) => return Err(plain(e)),
                }
            }
            if let Some(e) = socket.take_error().map_err(plain)? {
                return Err(plain(e));
            }
        }
        Err(e) => return Err(plain(e)),
    }
    socket.set_nonblocking(false).map_err(plain)?;
    Ok(socket.into())
}

/// A limit that is a little longer than what is left will do, for the loop looks
/// at the deadline again; one that is much longer will not.
fn needs_telling(told: Option<Duration>, left: Duration) -> bool {
    told.is_none_or(|told| told > left + Duration::from_secs(1).max(left / 16))
}

fn wait(fd: BorrowedFd<'_>, event: nix::poll::PollFlags, limit: Duration) -> io::Result<()> {
    let timeout = nix::poll::PollTimeout::try_from(limit).unwrap_or(nix::poll::PollTimeout::MAX);
    match nix::poll::poll(&mut [nix::poll::PollFd::new(fd, event)], timeout)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}
