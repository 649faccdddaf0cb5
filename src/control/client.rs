//! Sends requests to the daemon over the control socket, for the commands and for sessions under
//! inetd.
//!
//! Answers may be shown to root at a terminal, so control characters in them, and others that could
//! mislead, are replaced. Otherwise an attacker could use them against the terminal.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{NOT_UNDERSTOOD, is_forbidden, request};
use crate::characters;

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
    let mut out = Plain::new(out);
    io::copy(&mut answer, &mut out)?;
    out.finish()
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

/// Checks that a daemon answers at `socket` within `timeout`. The answer may be a refusal. If only a
/// service manager holds the socket, it accepts connections, and nothing answers.
///
/// # Errors
/// `ConnectionRefused` or `NotFound` if nothing listens, `WouldBlock` if no answer came in time, and
/// others of the connection.
pub fn knock(socket: &Path, timeout: Duration) -> io::Result<()> {
    match send(socket, &["knock"], timeout) {
        // An error of the system has a number, and a refusal by the daemon has a text.
        Err(e) if e.raw_os_error().is_none() && e.kind() != io::ErrorKind::UnexpectedEof => Ok(()),
        result => result.map(drop),
    }
}

/// Returns a text without characters that could mislead, except line feed and tab.
pub fn plain(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    // Writing to a vector cannot fail.
    let mut out = Plain::new(&mut plain);
    let _ = out.write_all(text).and_then(|()| out.finish());
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

/// A writer that drops [`ALIVE`] and replaces characters that could mislead, except line feed and tab,
/// by question marks.
pub struct Plain<'a> {
    out: &'a mut dyn Write,
    /// The start of a character whose other bytes have not come yet.
    part: Vec<u8>,
}

impl<'a> Plain<'a> {
    /// A writer to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, part: Vec::new() }
    }

    /// Writes what is left at the end.
    ///
    /// # Errors
    /// Those of the other writer.
    pub fn finish(self) -> io::Result<()> {
        self.out.write_all(&self.part)
    }
}

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = std::mem::take(&mut self.part);
        text.extend(bytes.iter().filter(|byte| **byte != ALIVE));
        let mut plain = String::with_capacity(text.len());
        let mut shown = Vec::with_capacity(text.len());
        for chunk in text.utf8_chunks() {
            plain.clear();
            plain
                .extend(chunk.valid().chars().map(|c| if matches!(c, '\n' | '\t') { c } else { characters::shown(c) }));
            shown.extend_from_slice(plain.as_bytes());
            // Other bytes are no characters, and stay, unless some terminals take them for control characters.
            shown.extend(chunk.invalid().iter().map(|&byte| if (0x80..0xa0).contains(&byte) { b'?' } else { byte }));
        }
        if let Some(start) = text.utf8_chunks().last().map(|chunk| chunk.invalid()).filter(|rest| is_start(rest)) {
            self.part = start.to_vec();
            shown.truncate(shown.len() - start.len());
        }
        self.out.write_all(&shown)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether bytes are the start of a character in UTF-8.
fn is_start(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_mislead_at_a_terminal_is_replaced_wherever_the_text_is_split() {
        let text =
            "a\x1b[2J\u{9b}\u{202e}\u{2066}\u{200b}\u{ad}\u{2028}\u{e0001}\0\tj\u{f6}n \u{65e5}\u{1f468}\u{200d}\n";
        let want = "a?[2J???????\tj\u{f6}n \u{65e5}\u{1f468}\u{200d}\n";
        for size in 1..=text.len() {
            let mut shown = Vec::new();
            let mut out = Plain::new(&mut shown);
            text.as_bytes().chunks(size).for_each(|part| out.write_all(part).expect("a vector"));
            out.finish().expect("a vector");
            assert_eq!(String::from_utf8(shown).expect("UTF-8"), want, "in pieces of {size} bytes");
        }
        assert_eq!(plain(b"j\xf6n \x9b2J \xe2\x80"), b"j\xf6n ?2J \xe2\x80");
    }
}
