//! Plays dialogues: SMTP sessions written down in text files, of which either side can be played.
//!
//! A [`Dialog`] is read once and played as a client of penfoldd, or as a server that penfoldd
//! delivers to. The format is described in tests/session/dialog.rs. The first deviation ends a
//! dialogue with a report: file, line, expected and received text, and the transcript so far. Every
//! read and write has a timeout. This module does not know SMTP; it sends and compares lines.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use rustls::{ServerConfig, ServerConnection};

use super::TIMEOUT;

/// A dialogue, ready to be played.
#[derive(Debug, Clone)]
pub struct Dialog {
    /// The name of the file, for reports.
    pub name: String,
    /// Settings of the site, in lines of the form `section.key = value`.
    pub settings: String,
    /// Lines for tables of the site: the name of the table, and the line.
    pub tables: Vec<(String, String)>,
    steps: Vec<(usize, Step)>,
}

/// The two sides of a dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Send(Side, Speech),
    Connect,
    Check(Check),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Speech {
    /// A line. The side that receives it may find a pattern instead. The number says how many times
    /// the line is repeated.
    Line(String, usize),
    /// Bytes that are sent as they are.
    Raw(Vec<u8>),
    /// Any lines, and then a line that matches this pattern.
    Until(String),
    /// The side closes the connection.
    Close,
    /// Any lines, up to the end of the connection.
    UntilClose,
    /// The side resets the connection.
    Reset,
}

/// An assertion about the mailboxes or the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// When the spool is empty, the mailbox of the user has this many messages.
    Count(String, usize),
    /// When the spool is empty, one message of the user contains these bytes.
    Contains(String, Vec<u8>),
    /// When the spool is empty, no message of the user contains these bytes.
    Lacks(String, Vec<u8>),
    /// The log has a line with this text, now or later.
    Log(String),
}

/// How a dialogue reaches the outside: connections and checks.
pub struct Stage<'a> {
    /// Opens a connection.
    pub connect: &'a mut dyn FnMut() -> io::Result<TcpStream>,
    /// Makes a check. The error says why the check fails.
    pub check: &'a mut dyn FnMut(&Check) -> Result<(), String>,
    /// Whether every byte is sent in a write of its own.
    pub in_bytes: bool,
}

impl Dialog {
    /// Reads a dialogue from a file.
    ///
    /// # Errors
    /// `name:line: text` for the first malformed line.
    pub fn load(path: &Path) -> Result<Self, String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        Self::parse(&name, &text)
    }

    /// Reads a dialogue from a text.
    ///
    /// # Errors
    /// `name:line: text` for the first malformed line.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let (settings, tables, steps) = (String::new(), Vec::new(), vec![(0, Step::Connect)]);
        let mut dialog = Self { name: name.to_owned(), settings, tables, steps };
        for (index, line) in text.lines().enumerate() {
            let malformed = || format!("{name}:{}: malformed line {line:?}", index + 1);
            match line.as_bytes() {
                [] | [b'#', ..] => {}
                [b'@', ..] => dialog.head(line[1..].trim()).ok_or_else(malformed)?,
                _ => dialog.steps.push((index + 1, step(line).ok_or_else(malformed)?)),
            }
        }
        Ok(dialog)
    }

    fn head(&mut self, line: &str) -> Option<()> {
        match line.find([':', '=']).map(|at| line.split_at(at))? {
            (table, rest) if rest.starts_with(':') => {
                self.tables.push((table.trim().to_owned(), rest[1..].trim().to_owned()));
            }
            _ => writeln!(self.settings, "{line}").expect("memory"),
        }
        Some(())
    }

    /// The number of bytes that a side sends in the whole dialogue.
    pub fn size(&self, side: Side) -> usize {
        let size = |(_, step): &(usize, Step)| match step {
            Step::Send(who, Speech::Line(text, times)) if *who == side => (text.len() + 2) * times,
            Step::Send(who, Speech::Raw(bytes)) if *who == side => bytes.len(),
            _ => 0,
        };
        self.steps.iter().map(size).sum()
    }

    /// Plays one side of the dialogue.
    ///
    /// # Errors
    /// The report of the first deviation.
    pub fn play(&self, side: Side, stage: &mut Stage<'_>) -> Result<(), String> {
        let mut player = Player { side, wires: Vec::new(), transcript: Vec::new() };
        for (line, step) in &self.steps {
            player.step(step, stage).map_err(|why| self.report(*line, &why, &player.transcript))?;
        }
        let line = self.steps.last().map_or(0, |(line, _)| *line);
        player.no_unread_text().map_err(|why| self.report(line, &why, &player.transcript))
    }

    fn report(&self, line: usize, why: &str, transcript: &[String]) -> String {
        let mut report = format!("{}:{line}: {why}\n", self.name);
        let from = transcript.len().saturating_sub(40);
        for line in &transcript[from..] {
            writeln!(report, "    {}", line.chars().take(200).collect::<String>()).expect("memory");
        }
        report
    }
}

/// Parses a step, such as `S: text`, `C!*20 text`, `S$`, `===`, `M: user ...` or `W: text`.
fn step(line: &str) -> Option<Step> {
    let (who, rest) = line.split_at_checked(1)?;
    let side = match who {
        "C" => Side::Client,
        "S" => Side::Server,
        "M" => return check(rest.strip_prefix(": ")?).map(Step::Check),
        "W" => return Some(Step::Check(Check::Log(rest.strip_prefix(": ")?.to_owned()))),
        "=" => return (rest == "==").then_some(Step::Connect),
        _ => return None,
    };
    let (mark, rest) = match rest.as_bytes().first()? {
        b'*' => (":", rest),
        _ => rest.split_at_checked(1)?,
    };
    let (times, text) = match rest.strip_prefix('*') {
        None => (1, rest.strip_prefix(' ').unwrap_or(rest)),
        Some(rest) => {
            let (times, text) = rest.split_once(' ').unwrap_or((rest, ""));
            (times.parse().ok()?, text)
        }
    };
    let speech = match (mark, text) {
        (":", text) => Speech::Line(text.to_owned(), times),
        ("!", text) => Speech::Raw(unescape(text)?.repeat(times)),
        ("~", "$") => Speech::UntilClose,
        ("~", text) => Speech::Until(text.to_owned()),
        ("$", "") => Speech::Close,
        ("^", "") => Speech::Reset,
        _ => return None,
    };
    Some(Step::Send(side, speech))
}

/// Parses a check of a mailbox: `user 1`, `user contains text` or `user lacks text`.
fn check(text: &str) -> Option<Check> {
    let (user, rest) = text.split_once(' ')?;
    let user = user.to_owned();
    match rest.split_once(' ') {
        None => Some(Check::Count(user, rest.parse().ok()?)),
        Some(("contains", text)) => Some(Check::Contains(user, unescape(text)?)),
        Some(("lacks", text)) => Some(Check::Lacks(user, unescape(text)?)),
        Some(_) => None,
    }
}

/// Replaces `\r`, `\n`, `\0`, `\\` and `\xNN` by the bytes they stand for. `None` for any other
/// backslash.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, length) = match (first, tail) {
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'0', ..]) => (0, 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', hex @ ..]) => (u8::from_str_radix(std::str::from_utf8(hex.get(..2)?).ok()?, 16).ok()?, 4),
            (b'\\', _) => return None,
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    Some(bytes)
}

/// Whether a text as a whole matches a pattern, in which `*` is any text and `?` any one character.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The positions of the last star in the pattern, and of the end of the text that the star
    // matches.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, end)) => {
                    star = Some((at, end + 1));
                    (p, t) = (at + 1, end + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

struct Player {
    side: Side,
    wires: Vec<Wire>,
    transcript: Vec<String>,
}

impl Player {
    fn step(&mut self, step: &Step, stage: &mut Stage<'_>) -> Result<(), String> {
        match step {
            Step::Connect => {
                let stream = (stage.connect)().map_err(|error| format!("no connection: {error}"))?;
                self.transcript.push("===".to_owned());
                self.wires.push(Wire::new(stream, stage.in_bytes));
                Ok(())
            }
            Step::Check(check) => (stage.check)(check),
            Step::Send(side, speech) if *side == self.side => self.send(speech),
            Step::Send(_, speech) => self.expect(speech),
        }
    }

    fn wire(&mut self) -> Result<&mut Wire, String> {
        self.wires.last_mut().ok_or_else(|| "the connection is closed".to_owned())
    }

    fn send(&mut self, speech: &Speech) -> Result<(), String> {
        let bytes = match speech {
            Speech::Line(text, times) => format!("{text}\r\n").repeat(*times).into_bytes(),
            Speech::Raw(bytes) => bytes.clone(),
            Speech::Close | Speech::Reset => {
                let wire = self.wires.pop().ok_or("the connection is closed already")?;
                return wire.end(*speech == Speech::Reset).map_err(|error| error.to_string());
            }
            Speech::Until(_) | Speech::UntilClose => {
                return Err("a dialogue can wait only for the other side".to_owned());
            }
        };
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).escape_debug().to_string();
        self.transcript.push(format!("{:?} {shown}", self.side));
        // If the other side has closed the connection, the next read shows it.
        let _ = self.wire()?.send(&bytes);
        Ok(())
    }

    fn expect(&mut self, speech: &Speech) -> Result<(), String> {
        match speech {
            Speech::Line(pattern, times) => (0..*times).try_for_each(|_| match self.line()? {
                Some(line) if matches(pattern, &line) => Ok(()),
                Some(line) => Err(format!("expected {pattern:?}, got {line:?}")),
                None => Err(format!("expected {pattern:?}, got the end of the connection")),
            }),
            Speech::Until(pattern) => loop {
                match self.line()? {
                    Some(line) if matches(pattern, &line) => return Ok(()),
                    Some(_) => {}
                    None => return Err(format!("expected {pattern:?} at last, got the end of the connection")),
                }
            },
            Speech::Close => match self.line()? {
                None => Ok(()),
                Some(line) => Err(format!("expected the end of the connection, got {line:?}")),
            },
            Speech::UntilClose => {
                while self.line()?.is_some() {}
                Ok(())
            }
            Speech::Raw(_) | Speech::Reset => Err("this cannot be received".to_owned()),
        }
    }

    fn line(&mut self) -> Result<Option<String>, String> {
        let line = self.wire()?.read_line()?;
        let who = if self.side == Side::Client { Side::Server } else { Side::Client };
        self.transcript.push(format!("{who:?} {}", line.as_deref().unwrap_or("(end of the connection)")));
        Ok(line)
    }

    /// Fails if a reply has arrived that the dialogue does not expect.
    fn no_unread_text(&self) -> Result<(), String> {
        match self.wires.iter().find(|wire| !wire.ahead.is_empty()) {
            None => Ok(()),
            Some(wire) => {
                Err(format!("unexpected text after the dialogue: {:?}", String::from_utf8_lossy(&wire.ahead)))
            }
        }
    }
}

/// One end of a connection, read by lines.
pub struct Wire {
    stream: TcpStream,
    /// The TLS session, if a handshake as a server was made.
    tls: Option<Box<ServerConnection>>,
    /// Bytes that were received but not returned yet.
    ahead: Vec<u8>,
    in_bytes: bool,
}

impl Wire {
    /// A connection that sends every write at once. If `in_bytes`, every byte is a write of its
    /// own.
    pub fn new(stream: TcpStream, in_bytes: bool) -> Self {
        let prepare = || {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))
        };
        // If the connection is closed already, the next use shows it.
        let _: io::Result<()> = prepare();
        Self { stream, tls: None, ahead: Vec::new(), in_bytes }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Errors of the socket.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.in_bytes {
            return bytes.iter().try_for_each(|byte| self.write(&[*byte]));
        }
        self.write(bytes)
    }

    /// The next line without its CR LF, or `None` at the end or after a reset.
    ///
    /// # Errors
    /// After a timeout, or if a line lacks its CR LF; the error is a text for the report.
    pub fn read_line(&mut self) -> Result<Option<String>, String> {
        Ok(self.read_line_bytes()?.map(|line| String::from_utf8_lossy(&line).into_owned()))
    }

    /// The next line as bytes, without its CR LF, or `None` at the end or after a reset.
    ///
    /// # Errors
    /// The errors of [`Wire::read_line`].
    pub fn read_line_bytes(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(end) = self.ahead.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                let complete = line.strip_suffix(b"\r\n").map(|line| Some(line.to_vec()));
                return complete.ok_or_else(|| format!("{line:?} does not end in CR LF"));
            }
            let mut buffer = [0; 8192];
            match self.read(&mut buffer) {
                Ok(0) if self.ahead.is_empty() => return Ok(None),
                Ok(0) => {
                    let rest = String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned();
                    return Err(format!("the connection ended in the middle of {rest:?}"));
                }
                Ok(length) => self.ahead.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(format!("nothing arrived within {TIMEOUT:?}"));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Performs a TLS handshake, in the role of the server.
    ///
    /// # Errors
    /// If the handshake fails.
    pub fn secure(&mut self, config: &Arc<ServerConfig>) -> io::Result<()> {
        let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut self.stream)?;
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// The host name that the client sent in its TLS handshake (SNI).
    pub fn sni(&self) -> Option<String> {
        self.tls.as_ref()?.server_name().map(str::to_owned)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).write_all(bytes),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read(buffer),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(buffer),
        }
    }

    /// Sends a line and returns the next one.
    ///
    /// # Errors
    /// Errors of [`Wire::read_line`], and the end of the connection.
    pub fn ask(&mut self, line: &str) -> Result<String, String> {
        self.send(format!("{line}\r\n").as_bytes()).map_err(|error| format!("{line}: {error}"))?;
        self.read_line()?.ok_or_else(|| format!("{line}: the connection ended"))
    }

    /// Closes the connection, or resets it.
    ///
    /// # Errors
    /// Errors of the socket.
    pub fn end(self, reset: bool) -> io::Result<()> {
        if reset {
            return socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
        }
        self.stream.shutdown(Shutdown::Both)
    }
}
