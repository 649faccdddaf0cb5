//! Provides streams with a deadline, over which sessions and deliveries talk to their peers.
//!
//! Once the deadline has passed, every read and write fails with `TimedOut`. So a peer gains
//! nothing if it sends or accepts one octet at a time. The socket's own timeout is changed only
//! when it is too long for the deadline, in most sessions once. A stream can become encrypted
//! between two reads or writes. The deadline applies to the TLS handshake, too.
//!
//! - `https`: one HTTPS request, for files that strangers publish

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::endpoint::Endpoint;
use crate::timeouts::{HostTimeout, POLL_INTERVAL};
use crate::tls::TlsInfo;

#[cfg(feature = "mta-sts")]
pub mod https;

/// How long [`Stream::close`] waits for the peer to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to a peer.
#[derive(Debug)]
pub struct Stream {
    wire: Wire,
    /// The state of TLS; `None` in plaintext. It is boxed to keep a stream small, because most idle
    /// connections are in plaintext.
    tls: Option<Box<Secure>>,
}

#[derive(Debug)]
struct Secure {
    connection: rustls::Connection,
    /// Whether TLS has ended, by an error or by this side's close_notify. If so, nothing more is
    /// read or written, least of all in plaintext.
    over: bool,
}

/// The connection below TLS.
#[derive(Debug)]
struct Wire {
    link: Link,
    deadline: Instant,
    /// The time from which the limit of `host_timeout` is measured: the last time at which a
    /// deadline was set while there was a `host_timeout`. If that never happened, it is the time at
    /// which the stream was made.
    since: Instant,
    /// A second limit, which may end a read or write before the deadline; `None` if there is none.
    host_timeout: Option<HostTimeout>,
    /// Whether `host_timeout` ended the last read or write.
    is_cut_short: bool,
    /// The socket's timeout for reading, if it is set and has not expired.
    read_limit: Option<Duration>,
    /// The socket's timeout for writing, if it is set and has not expired.
    write_limit: Option<Duration>,
}

#[derive(Debug)]
enum Link {
    /// A stream socket of any family.
    Socket(Arc<TcpStream>),
    /// Standard input and output, if they are not a socket: a terminal, or pipes.
    Files(File, File),
}

impl Stream {
    /// A stream over an accepted or inherited socket.
    pub fn from_socket(socket: impl Into<Arc<TcpStream>>) -> Self {
        Self::new(Link::Socket(socket.into()))
    }

    /// A stream over standard input and output, or over a socket if standard input is one.
    ///
    /// # Errors
    /// If there is no standard input.
    pub fn from_standard_input() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let socket = TcpStream::from(input.try_clone()?);
        // Setting a timeout succeeds only for a socket.
        if socket.set_read_timeout(None).is_ok() {
            return Ok(Self::from_socket(socket));
        }
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(Link::Files(input.into(), output.into())))
    }

    /// Connects within `limit`, or within a shorter time that `host_timeout` sets. If there is a
    /// `source`, the connection comes from that address.
    ///
    /// # Errors
    /// `TimedOut` at the limit; otherwise the errors of socket(2), bind(2) and connect(2). The second value
    /// of an error is true if `host_timeout` shortened the limit and so caused the error.
    pub fn connect(
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        limit: Duration,
        host_timeout: Option<&HostTimeout>,
    ) -> Result<Self, (io::Error, bool)> {
        let socket = connect(endpoint, source, limit, host_timeout)?;
        if matches!(endpoint, Endpoint::Tcp(_)) {
            socket.set_nodelay(true).map_err(|e| (e, false))?;
        }
        Ok(Self::from_socket(socket))
    }

    /// Lets `host_timeout` end a read or write before the deadline. With `None`, only the deadline
    /// does so. The limit of `host_timeout` is measured from the latest call of
    /// [`Self::set_deadline`] or [`Self::set_limit`] after this one.
    pub fn set_host_timeout(&mut self, host_timeout: Option<HostTimeout>) {
        (self.wire.host_timeout, self.wire.is_cut_short) = (host_timeout, false);
    }

    /// Whether the host timeout, rather than the deadline, ended the last read or write.
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

    /// Runs the TLS handshake. From then on, the stream is encrypted. The caller must discard any
    /// input that it has read before the handshake and not used yet.
    ///
    /// # Errors
    /// `TimedOut` after the deadline, `InvalidData` with the text of rustls if TLS fails, or an
    /// error of reading or writing. After an error the stream must not be used.
    pub fn secure(&mut self, mut connection: rustls::Connection) -> io::Result<()> {
        while connection.is_handshaking() {
            connection.complete_io(&mut self.wire)?;
        }
        self.tls = Some(Box::new(Secure { connection, over: false }));
        Ok(())
    }

    /// The properties of the encryption; `None` in plaintext.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        self.tls.as_deref().map(|tls| TlsInfo::of(&tls.connection))
    }

    /// Sets the deadline to `limit` from now.
    pub fn set_limit(&mut self, limit: Duration) {
        self.set_deadline(Instant::now() + limit);
    }

    /// Sets the deadline by which every later read and write must end.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.wire.deadline = deadline;
        if self.wire.host_timeout.is_some() {
            self.wire.since = Instant::now();
        }
    }

    /// The peer's address and port; `None` if the peer has none.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.wire.link {
            Link::Socket(socket) => socket.peer_addr().ok(),
            Link::Files(..) => None,
        }
    }

    /// The local address and port of the connection; `None` if it has none.
    pub fn own_address(&self) -> Option<SocketAddr> {
        match &self.wire.link {
            Link::Socket(socket) => socket.local_addr().ok(),
            Link::Files(..) => None,
        }
    }

    /// Whether there is unread input.
    ///
    /// # Errors
    /// `UnexpectedEof` if the peer has closed the connection, `BrokenPipe` after the end of TLS;
    /// otherwise the errors of recv(2) and of TLS.
    pub fn has_input(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return self.wire.has_input() };
        if tls.over {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // The input on the socket may be a TLS record that contains no text, so it is decrypted
        // first.
        while self.wire.has_input()? {
            tls.receive(&mut self.wire)?;
        }
        Ok(tls.connection.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0))
    }

    /// Whether the peer is certainly local: at a terminal or a pipe.
    pub fn is_local(&self) -> bool {
        matches!(self.wire.link, Link::Files(..))
    }

    /// Whether the peer has ended TLS properly, so that nothing of what it has sent is missing.
    pub fn is_closed_by_peer(&mut self) -> bool {
        let tls = self.tls.as_mut();
        tls.is_some_and(|tls| tls.connection.process_new_packets().is_ok_and(|state| state.peer_has_closed()))
    }

    /// Closes the sending side, and discards input for at most [`CLOSE_TIMEOUT`]: the peer could
    /// lose the last reply if a socket with unread input were closed.
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
        let mut discarded = [0; 4096];
        for _ in 0..64 {
            // The input is discarded, so it need not be decrypted.
            if !matches!(self.wire.read(&mut discarded), Ok(1..)) {
                return;
            }
        }
    }
}

impl Secure {
    /// Sends pending TLS records.
    fn send(&mut self, wire: &mut Wire) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(wire)?;
        }
        Ok(())
    }

    /// Reads TLS records, and sends the records that TLS requires in answer, such as an alert if a
    /// record is invalid.
    fn receive(&mut self, wire: &mut Wire) -> io::Result<()> {
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
                // Many peers close without close_notify. That is harmless, because every message in
                // SMTP has its own end mark.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            tls.receive(&mut self.wire)?;
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
        // The system takes a timeout of zero as no timeout, and may round a time below a
        // millisecond to zero.
        if left < Duration::from_millis(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.left()?;
            let result = match &mut self.link {
                Link::Socket(socket) => {
                    if needs_timeout(self.read_limit, left) {
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
                // The socket's timeout has expired, or a signal has arrived. Only the deadline
                // decides whether to continue.
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
                    if needs_timeout(self.write_limit, left) {
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

/// Connects as [`Stream::connect`] does. While it waits, it checks `host_timeout` every
/// [`POLL_INTERVAL`].
fn connect(
    endpoint: &Endpoint,
    source: Option<IpAddr>,
    limit: Duration,
    host_timeout: Option<&HostTimeout>,
) -> Result<TcpStream, (io::Error, bool)> {
    let uncut = |e: io::Error| (e, false);
    let address = match endpoint {
        Endpoint::Tcp(address) => SockAddr::from(*address),
        Endpoint::Unix(path) => SockAddr::unix(path).map_err(uncut)?,
    };
    let socket = Socket::new(address.domain(), Type::STREAM, None).map_err(uncut)?;
    if let Some(source) = source {
        bind(&socket, source).map_err(uncut)?;
    }
    let Some(host_timeout) = host_timeout else {
        return socket.connect_timeout(&address, limit).map(|()| socket.into()).map_err(uncut);
    };
    socket.set_nonblocking(true).map_err(uncut)?;
    match socket.connect(&address) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {
            let started = Instant::now();
            loop {
                let (waited, granted) = (started.elapsed(), host_timeout.limit());
                if waited >= limit || granted.is_some_and(|granted| waited >= granted) {
                    return Err((io::ErrorKind::TimedOut.into(), waited < limit));
                }
                let interval = (limit - waited).min(POLL_INTERVAL);
                match wait(socket.as_fd(), nix::poll::PollFlags::POLLOUT, interval) {
                    Ok(()) => break,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(e) => return Err(uncut(e)),
                }
            }
            if let Some(e) = socket.take_error().map_err(uncut)? {
                return Err(uncut(e));
            }
        }
        Err(e) => return Err(uncut(e)),
    }
    socket.set_nonblocking(false).map_err(uncut)?;
    Ok(socket.into())
}

/// Binds a socket to an address of this host, and lets the system choose a port. Connections to
/// different hosts may share a port.
fn bind(socket: &Socket, source: IpAddr) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Checks whether this host can connect from an address.
///
/// # Errors
/// The reason, with the address.
pub fn check_source(source: IpAddr) -> io::Result<()> {
    let domain = Domain::for_address(SocketAddr::new(source, 0));
    let bound = Socket::new(domain, Type::STREAM, None).and_then(|socket| bind(&socket, source));
    bound.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrNotAvailable => "it is not an address of this host".to_owned(),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("no connection from {source} is possible: {why}"))
    })
}

/// Whether the socket needs a shorter timeout. A timeout that is slightly longer than the time left
/// is good enough: when it expires, the deadline is checked again.
fn needs_timeout(timeout: Option<Duration>, left: Duration) -> bool {
    timeout.is_none_or(|timeout| timeout > left + Duration::from_secs(1).max(left / 16))
}

fn wait(fd: BorrowedFd<'_>, event: nix::poll::PollFlags, limit: Duration) -> io::Result<()> {
    let timeout = nix::poll::PollTimeout::try_from(limit).unwrap_or(nix::poll::PollTimeout::MAX);
    match nix::poll::poll(&mut [nix::poll::PollFd::new(fd, event)], timeout)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}
