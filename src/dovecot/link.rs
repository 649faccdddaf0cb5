//! A connection to Dovecot's authentication service, and the lines that it consists of.
//!
//! Every line and every wait is bounded.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use memchr::memchr;
use socket2::{Domain, SockAddr, Socket, Type};

/// The maximum length of a line, in bytes. It leaves room for a challenge in base64 and some other
/// fields.
const MAX_LINE: usize = 16 << 10;

/// A connection.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    /// Bytes that were received and not read as a line yet.
    ahead: Vec<u8>,
    deadline: Instant,
}

impl Link {
    /// Connects to the socket at `path`. The connection may be used until `deadline`.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn open(path: &Path, deadline: Instant) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // This timeout applies to connect(2), too.
        socket.set_write_timeout(Some(left(deadline)?))?;
        socket.connect(&SockAddr::unix(path)?).map_err(timed_out)?;
        Ok(Self { stream: UnixStream::from(OwnedFd::from(socket)), ahead: Vec::new(), deadline })
    }

    /// Sets the time at which reading and writing fail.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Sends lines, each with its LF.
    ///
    /// # Errors
    /// Those of write(2), and `TimedOut`.
    pub fn send(&mut self, lines: &str) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write_all(lines.as_bytes()).map_err(timed_out)
    }

    /// Reads the next line, and returns it without its LF.
    ///
    /// # Errors
    /// Those of read(2), `TimedOut`, and `InvalidData` if the line is too long.
    pub fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = memchr(b'\n', &self.ahead) {
                let mut line: Vec<u8> = self.ahead.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            if self.ahead.len() > MAX_LINE {
                return Err(malformed("a line is too long"));
            }
            self.stream.set_read_timeout(Some(left(self.deadline)?))?;
            let mut chunk = [0; 2048];
            let count = self.stream.read(&mut chunk).map_err(timed_out)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.ahead.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < Duration::from_millis(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The error of an operation with a timeout: `TimedOut` if the time is over.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

/// The error that Dovecot does not keep to the protocol.
pub fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The unescaped text of a field; `None` if it has more than `max` octets or a control character.
pub fn unescape(field: &str, max: usize) -> Option<String> {
    let mut text = String::new();
    let mut rest = field.chars();
    while let Some(c) = rest.next() {
        text.push(match c {
            '\u{1}' => match rest.next()? {
                '1' => '\u{1}',
                't' => '\t',
                'r' => '\r',
                'n' => '\n',
                '0' => '\0',
                _ => return None,
            },
            c => c,
        });
    }
    (text.len() <= max && !text.contains(char::is_control)).then_some(text)
}
