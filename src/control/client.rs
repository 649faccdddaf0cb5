//! The side of penfoldctl, and of a session under inetd.
//!
//! What the daemon says is shown to root, perhaps at a terminal: of what could be more than
//! text there, nothing comes through, whoever the daemon may be by now.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{FORBIDDEN, request};

/// Sends a request to the daemon at `socket` and copies its answer to `out`; no
/// part of the answer may take longer than `patience`.
///
/// # Errors
/// `ConnectionRefused` or `NotFound` where no daemon runs; with its words,
/// `PermissionDenied` if it may not and `ResourceBusy` if it does not answer; and
/// those of the connection.
pub fn ask(socket: &Path, words: &[&str], out: &mut dyn Write, patience: Duration) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // A daemon that is too busy to read has answered and left already.
    let sent = stream.write_all(request::write(words).as_bytes());
    let mut answer = BufReader::new(stream);
    let mut first = String::new();
    answer.by_ref().take(1024).read_line(&mut first)?;
    let mut plain = Vec::new();
    Plain { out: &mut plain, last: 0 }.write_all(first.trim_end().as_bytes())?;
    match &*String::from_utf8_lossy(&plain) {
        "ok" => io::copy(&mut answer, &mut Plain { out, last: 0 }).map(|_| ()),
        "" => Err(sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        why if why == FORBIDDEN => Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())),
        why => Err(io::Error::new(io::ErrorKind::ResourceBusy, why.to_owned())),
    }
}

/// Puts a question mark in the place of control characters but line feed and tab.
struct Plain<'a> {
    out: &'a mut dyn Write,
    /// The octet before.
    last: u8,
}

impl Write for Plain<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let plain = octets.iter().map(|&octet| {
            // Those of C1, too, in UTF-8.
            let is_c1 = std::mem::replace(&mut self.last, octet) == 0xc2 && (0x80..0xa0).contains(&octet);
            let is_control = octet.is_ascii_control() && !matches!(octet, b'\n' | b'\t');
            if is_c1 || is_control { b'?' } else { octet }
        });
        let plain: Vec<u8> = plain.collect();
        self.out.write_all(&plain)?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
