//! The side of penfoldctl, and of a session under inetd.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::FORBIDDEN;

/// Sends a request to the daemon at `socket` and copies its answer to `out`; no
/// part of the answer may take longer than `patience`.
///
/// # Errors
/// `ConnectionRefused` or `NotFound` where no daemon runs; with its words,
/// `PermissionDenied` if it may not and `ResourceBusy` if it does not answer; and
/// those of the connection.
pub fn ask(socket: &Path, request: &str, out: &mut dyn Write, patience: Duration) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // A daemon that is too busy to read has answered and left already.
    let sent = stream.write_all(format!("{request}\n").as_bytes());
    let mut answer = BufReader::new(stream);
    let mut first = String::new();
    answer.by_ref().take(1024).read_line(&mut first)?;
    match first.trim_end() {
        "ok" => io::copy(&mut answer, out).map(|_| ()),
        "" => Err(sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        why if why == FORBIDDEN => Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())),
        why => Err(io::Error::new(io::ErrorKind::ResourceBusy, why.to_owned())),
    }
}
