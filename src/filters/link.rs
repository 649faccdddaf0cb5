//! The connection to a filter or policy service. Every read and write ends at a deadline.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use memchr::memchr;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::endpoint::Endpoint;
use crate::net::Stream;

/// The number of octets that are collected before they are sent.
const MAX_PENDING: usize = 64 << 10;
/// The number of octets that are read at a time.
const CHUNK: usize = 16 << 10;
/// The maximum time to connect. A filter on this host or in its network answers sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a filter.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    /// Octets that are not yet sent.
    out: Vec<u8>,
    /// Octets that were received, of which the first `used` are used up.
    ahead: Vec<u8>,
    used: usize,
}

impl Link {
    /// Connects within `timeout`, or within [`CONNECT_TIMEOUT`] if that is shorter.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn open(socket: &Endpoint, timeout: Duration) -> io::Result<Self> {
        let limit = timeout.min(CONNECT_TIMEOUT);
        let stream = match socket {
            Endpoint::Tcp(_) => Stream::connect(socket, None, limit, None).map_err(|(error, _)| error)?,
            Endpoint::Unix(path) => {
                // If the queue of the socket is full, connect(2) waits. The timeout for writing
                // also limits connect(2).
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.set_write_timeout(Some(limit))?;
                socket.connect(&SockAddr::unix(path)?).map_err(timed_out)?;
                Stream::from_socket(TcpStream::from(socket))
            }
        };
        Ok(Self { stream, out: Vec::new(), ahead: Vec::new(), used: 0 })
    }

    /// Sets the time by which all further reads and writes must end.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.stream.set_deadline(deadline);
    }

    /// Takes octets to send. They are sent when there are many of them, or by [`Link::send`].
    ///
    /// # Errors
    /// Those of write(2), and `TimedOut`.
    pub fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(octets);
        if self.out.len() > MAX_PENDING { self.send() } else { Ok(()) }
    }

    /// Sends everything that [`Link::put`] has taken.
    ///
    /// # Errors
    /// Those of write(2), and `TimedOut`.
    pub fn send(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent
    }

    /// Reads this number of octets, and removes them from the input.
    ///
    /// # Errors
    /// Those of read(2), `UnexpectedEof`, and `TimedOut`.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.waiting().len() < count {
            self.receive()?;
        }
        let taken = self.waiting().get(..count).unwrap_or_default().to_vec();
        self.used += count;
        Ok(taken)
    }

    /// Reads a line, and returns it without its line end.
    ///
    /// # Errors
    /// Those of [`Link::take`], and `InvalidData` if the line is longer than `limit`.
    pub fn line(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = memchr(b'\n', self.waiting()).filter(|end| *end <= limit) {
                let mut line = self.take(end + 1)?;
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if self.waiting().len() > limit {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            self.receive()?;
        }
    }

    /// Whether the other side has closed the connection, or has sent something without being asked.
    pub fn is_stale(&mut self) -> bool {
        !self.waiting().is_empty() || self.stream.has_input().unwrap_or(true)
    }

    fn waiting(&self) -> &[u8] {
        self.ahead.get(self.used..).unwrap_or_default()
    }

    fn receive(&mut self) -> io::Result<()> {
        self.ahead.drain(..self.used);
        self.used = 0;
        let before = self.ahead.len();
        self.ahead.resize(before + CHUNK, 0);
        let count = self.stream.read(self.ahead.get_mut(before..).unwrap_or_default());
        self.ahead.truncate(before + count.as_ref().map_or(0, |count| *count));
        match count? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Turns the error by which the system reports an expired timeout of a socket into `TimedOut`.
/// Returns any other error unchanged.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}
