//! Sends requests to the daemon over the control socket, for the commands and for sessions under
//! inetd.
//!
//! Answers may be shown to root at a terminal, so control characters in them are replaced.
//! Otherwise an attacker who has taken over the daemon could use them against the terminal.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{NOT_UNDERSTOOD, is_forbidden, request};

/// Sends a request to the daemon at `socket` and copies its answer to `out`. Each part of the
/// answer must arrive within `timeout`.
///
/// # Errors
/// `ConnectionRefused` or `NotFound` if no daemon runs. `PermissionDenied` if the user may not make
/// this request, `Unsupported` if the daemon does not know the request, and `ResourceBusy` for any other refusal,
/// with a text.
/// Otherwise the errors of the connection.
pub fn ask(socket: &Path, words: &[&str], out: &mut dyn Write, timeout: Duration) -> io::Result<()> {
    let mut answer = send(socket, words, timeout)?;
    io::copy(&mut answer, &mut Plain { out, last: 0 }).map(|_| ())
}

/// Like [`ask`], but returns the answer with its control characters. It must not be written to a terminal.
///
/// # Errors
/// As for [`ask`].
pub fn ask_exactly(socket: &Path, words: &[&str], timeout: Duration) -> io::Result<Vec<u8>> {
    let (mut answer, mut exact) = (send(socket, words, timeout)?, Vec::new());
    answer.read_to_end(&mut exact)?;
    Ok(exact)
}

/// Returns a text without control characters, except line feed and tab.
pub fn plain(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    // Writing to a vector cannot fail.
    let _ = Plain { out: &mut plain, last: 0 }.write_all(text);
    plain
}

/// Sends a request, and returns the answer after its first line, which must be `ok`.
fn send(socket: &Path, words: &[&str], timeout: Duration) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // A daemon that is too busy sends its answer and closes the connection without reading. So an
    // answer may be there even if sending fails.
    let sent = stream.write_all(request::write(words).as_bytes());
    let mut answer = BufReader::new(stream);
    let mut first = String::new();
    answer.by_ref().take(1024).read_line(&mut first)?;
    match &*String::from_utf8_lossy(&plain(first.trim_end().as_bytes())) {
        "ok" => Ok(answer),
        "" => Err(sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        // A daemon of an earlier version may still run after an upgrade.
        NOT_UNDERSTOOD => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "it does not know this request; if it is of an earlier version, restart it",
        )),
        why if is_forbidden(why) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())),
        why => Err(io::Error::new(io::ErrorKind::ResourceBusy, why.to_owned())),
    }
}

/// The octet that a daemon sends while it is at work and has nothing to write yet. The client drops it.
pub const ALIVE: u8 = 0;

/// A writer that drops [`ALIVE`] and replaces all other control characters, except line feed and tab, by question marks.
struct Plain<'a> {
    out: &'a mut dyn Write,
    /// The last byte that was copied; 0 at the start.
    last: u8,
}

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let plain = bytes.iter().filter(|byte| **byte != ALIVE).map(|&byte| {
            // In UTF-8, a C1 control character is the byte 0xc2 and a byte from 0x80 to 0x9f.
            let is_c1 = std::mem::replace(&mut self.last, byte) == 0xc2 && (0x80..0xa0).contains(&byte);
            let is_control = byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t');
            if is_c1 || is_control { b'?' } else { byte }
        });
        let plain: Vec<u8> = plain.collect();
        self.out.write_all(&plain)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
