//! Speaks SMTP with the daemon over the control socket, for sendmail(8).
//!
//! The daemon runs an ordinary SMTP session, so its rules for addresses and messages and its error
//! texts apply. If one recipient is rejected, nothing is sent: a user who sees sendmail fail will
//! send the message again, and no recipient should get it twice. Every answer has a time limit, in
//! case the daemon hangs. If the daemon has too many clients, sendmail tries to connect for a
//! minute.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{SFlag, fstat};

use super::options::Reports;
use super::{Failure, print};
use crate::address::{self, Address};
use crate::control::{ANSWER_TIMEOUT as CONNECT_FOR, BUSY, is_busy, not_running, request};
use crate::envelope::{Body, MailOptions, MessageTls, RcptOptions};
use crate::reply::{Reply, ReplyReader};
use crate::smtp::MAX_REPLY_LINE;
use crate::smtp::dot::DotWriter;
use crate::smtp::extensions::Extensions;
use crate::smtp::line::{Input, Line};
use crate::smtp::parameters::{MailParameters, RcptParameters, Sent};

/// The time limit for an answer. It is long because the daemon may wait for the DNS and for the
/// disk.
const REPLY_TIMEOUT: Duration = Duration::from_secs(300);
/// The time limit for the daemon to agree to a session, if the message can be kept in the drop
/// directory instead. The service manager accepts connections for a daemon that cannot start.
const AGREE_SOON: Duration = Duration::from_secs(5);
/// The time limit for the answer to QUIT. It is short, because that answer is only displayed.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval between attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Connects to the daemon and asks it for an SMTP session. Returns the connection when the daemon
/// has agreed, but has not sent its greeting. If `can_keep` is set, the time limit is short.
///
/// # Errors
/// A temporary failure if no daemon runs, or if the daemon is too busy or does not answer.
pub fn connect(socket: &Path, can_keep: bool) -> Result<UnixStream, Failure> {
    let deadline = Instant::now() + CONNECT_FOR;
    let limit = if can_keep { AGREE_SOON } else { CONNECT_FOR };
    loop {
        match open(socket, &request::write(&["submit", &parent()]), limit) {
            Ok(stream) => return Ok(stream),
            Err(Refused::Busy) if Instant::now() < deadline => thread::sleep(RETRY_INTERVAL),
            Err(Refused::Busy) => return Err(Failure::later(format!("{BUSY}: message not sent"))),
            Err(Refused::NotRunning(e)) => {
                let is_down = matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
                let failure = Failure::later(format!("{}: message not sent", not_running(socket, &e)));
                return Err(Failure { is_down, ..failure });
            }
            Err(Refused::Io(e)) if is_timeout(&e) => {
                let text = "the mail system does not answer; its log may say why: message not sent";
                return Err(Failure { is_down: true, ..Failure::later(text) });
            }
            Err(Refused::Io(e)) => return Err(Failure { is_down: is_end(&e), ..lost(e) }),
        }
    }
}

/// Whether an error says that the daemon has ended.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Whether an error says that a time limit is over.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The reason why a connection was not made.
enum Refused {
    Busy,
    NotRunning(io::Error),
    Io(io::Error),
}

/// Asks the daemon for a session, and waits for its agreement for at most `limit`.
fn open(socket: &Path, request: &str, limit: Duration) -> Result<UnixStream, Refused> {
    let mut stream = UnixStream::connect(socket).map_err(Refused::NotRunning)?;
    let limited = |stream: &UnixStream, limit| {
        stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit))).map_err(Refused::Io)
    };
    limited(&stream, limit)?;
    let sent = stream.write_all(request.as_bytes());
    match first_line(&mut stream).map_err(Refused::Io)?.as_slice() {
        b"ok" => limited(&stream, REPLY_TIMEOUT).map(|()| stream),
        line if is_busy(line) => Err(Refused::Busy),
        b"" => Err(Refused::Io(sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))),
        line => Err(Refused::Io(io::Error::other(String::from_utf8_lossy(line).escape_debug().to_string()))),
    }
}

/// Reads the first line byte by byte, so that the bytes after it stay in the socket for the
/// session.
fn first_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < 1024 && stream.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend_from_slice(&byte);
    }
    Ok(line)
}

/// Returns the name of the program that started sendmail. If that program is `sh`, which popen(3)
/// starts, returns the name of the program that started `sh`.
pub fn parent() -> String {
    let id = std::os::unix::process::parent_id().to_string();
    let name = name_of(&id);
    let grandparent = || Some(name_of(status_field(&id, "PPid:")?.trim())).filter(|name| !name.is_empty());
    if name == "sh" { grandparent().unwrap_or(name) } else { name }
}

fn name_of(process: &str) -> String {
    let name = fs::read(format!("/proc/{process}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned()
}

/// Returns the value of a field in /proc/PID/status; `None` if it cannot be read.
fn status_field(process: &str, name: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{process}/status")).ok()?;
    String::from_utf8_lossy(&status).lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

/// The envelope of a message.
pub struct Envelope<'a> {
    /// The sender; `None` for the null path.
    pub sender: Option<&'a Address>,
    /// The recipients.
    pub recipients: &'a [Address],
    /// The reports that the sender asks for.
    pub reports: &'a Reports,
    /// Whether the header has addresses outside ASCII.
    pub is_utf8: bool,
    /// Whether the message needs TLS on its way.
    pub needs_tls: bool,
}

impl<'a> Envelope<'a> {
    /// The commands MAIL and RCPT for a server with these extensions. `size` is the size of the
    /// message in octets.
    pub fn commands(&self, extensions: &Extensions, size: u64) -> impl Iterator<Item = String> + use<'a> {
        let (sender, recipients) = (self.sender, self.recipients);
        let Reports { notify, ret, envid } = self.reports.clone();
        let is_ascii = recipients.iter().chain(sender).all(Address::is_ascii);
        let given = MailOptions { body: Body::EightBit, ret, envid, ..MailOptions::default() };
        let sent = Sent { options: &given, size, is_ascii: false };
        let mut parameters = MailParameters::for_host(extensions, sent, 0);
        // If the daemon does not offer SMTPUTF8, its reply says so.
        parameters.options.utf8 = self.is_utf8 || !is_ascii;
        // The same holds for REQUIRETLS.
        parameters.options.tls = if self.needs_tls { MessageTls::Required } else { MessageTls::Default };
        let of_rcpt = RcptParameters::for_host(extensions, &RcptOptions { notify, orcpt: None });
        let mail = format!("MAIL FROM:{}{parameters}", address::path(sender));
        let rcpt = move |recipient: &Address| format!("RCPT TO:<{recipient}>{of_rcpt}");
        std::iter::once(mail).chain(recipients.iter().map(rcpt))
    }
}

/// A dialogue with the daemon.
pub struct Dialogue {
    input: Input<UnixStream>,
    out: UnixStream,
    verbose: bool,
    /// The extensions that the daemon offers.
    extensions: Extensions,
}

impl Dialogue {
    /// Connects and sends EHLO.
    ///
    /// # Errors
    /// If [`connect`] fails, or the daemon rejects the session.
    pub fn begin(socket: &Path, can_keep: bool, verbose: bool) -> Result<Self, Failure> {
        let stream = connect(socket, can_keep)?;
        let out = stream.try_clone().map_err(lost)?;
        let extensions = Extensions::default();
        let mut dialogue = Self { input: Input::new(stream), out, verbose, extensions };
        // A daemon that is ending answers with a 421, or not at all.
        let greeted = dialogue.expect(2).and_then(|_| dialogue.ask("EHLO localhost", 2));
        let greeted = greeted.map_err(|failure| Failure { is_down: failure.is_lost || failure.is_closing, ..failure });
        dialogue.extensions = Extensions::parse(&greeted?);
        Ok(dialogue)
    }

    /// Sends a message, and returns the last reply. `size` is the size in octets that the command
    /// MAIL announces. If the daemon does not offer DSN, no reports are asked for.
    ///
    /// # Errors
    /// If the daemon rejects a command or the message, the connection fails, or the text cannot be
    /// read.
    pub fn send(&mut self, envelope: &Envelope<'_>, size: u64, text: &mut dyn Read) -> Result<Reply, Failure> {
        for command in envelope.commands(&self.extensions, size) {
            self.ask(&command, 2)?;
        }
        self.ask("DATA", 3)?;
        let (mut dots, mut wire, mut piece) = (DotWriter::default(), Vec::new(), vec![0; 32 << 10]);
        loop {
            let count = match text.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(|e| Failure::io(&e))?,
            };
            wire.clear();
            dots.feed(piece.get(..count).unwrap_or_default(), &mut wire);
            if count == 0 {
                break;
            }
            self.out.write_all(&wire).map_err(lost)?;
        }
        dots.finish(&mut wire);
        self.out.write_all(&wire).map_err(lost)?;
        let reply = self.expect(2)?;
        // The daemon is responsible for the message now, so later errors are ignored.
        if self.verbose {
            let _ = self.out.set_read_timeout(Some(QUIT_TIMEOUT));
            let _ = self.ask("QUIT", 2);
        } else {
            let _ = self.out.write_all(b"QUIT\r\n");
        }
        Ok(reply)
    }

    fn ask(&mut self, command: &str, class: u16) -> Result<Reply, Failure> {
        if self.verbose {
            print(&format!(">>> {command}\n"));
        }
        let sent = self.out.write_all(format!("{command}\r\n").as_bytes());
        // While the daemon shuts down, it may send a reply before it closes the connection. So a
        // reply is read even if sending has failed.
        self.expect(class).map_err(|failure| if failure.is_lost { sent.err().map_or(failure, lost) } else { failure })
    }

    fn expect(&mut self, class: u16) -> Result<Reply, Failure> {
        let reply = self.reply()?;
        if self.verbose {
            print(&format!("{reply}\n"));
        }
        if reply.code() / 100 == class { Ok(reply) } else { Err(Failure::of(&reply)) }
    }

    fn reply(&mut self) -> Result<Reply, Failure> {
        let mut reader = ReplyReader::default();
        loop {
            let line = match self.input.line(MAX_REPLY_LINE).map_err(lost)? {
                Line::Complete(line) => line,
                Line::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
                _ => return Err(lost(io::ErrorKind::InvalidData.into())),
            };
            match reader.line(line) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(_) => return Err(lost(io::ErrorKind::InvalidData.into())),
            }
        }
    }
}

fn lost(error: io::Error) -> Failure {
    Failure { is_lost: true, ..Failure::later(format!("the mail system does not answer: {error}: message not sent")) }
}

/// Copies standard input to an SMTP session with the daemon, and the daemon's replies to standard
/// output, for a program that speaks SMTP itself (`-bs`). If standard input is not a socket, the
/// program may end lines in LF alone.
///
/// # Errors
/// If [`connect`] fails, in which case the program gets a 421 reply, or if copying fails.
pub fn pass_through(socket: &Path) -> Result<(), Failure> {
    let stream = connect(socket, false).inspect_err(|_| print("421 4.3.0 The mail system is not running\r\n"))?;
    let mut to = stream.try_clone().map_err(lost)?;
    // Reading has no time limit here, because the daemon ends the session of a silent client.
    stream.set_read_timeout(None).map_err(lost)?;
    thread::Builder::new()
        .spawn(move || {
            let mut stdin = io::stdin().lock();
            // A program or terminal on this host may end lines in LF. A socket may lead to another
            // host, so its input is copied unchanged.
            let _ =
                if is_socket(&stdin) { copy(&mut stdin, &mut to) } else { copy(&mut WithCr::of(&mut stdin), &mut to) };
            let _ = to.shutdown(Shutdown::Write);
        })
        .map_err(lost)?;
    copy(&mut &stream, &mut io::stdout().lock()).map_err(|e| Failure::io(&e))
}

/// Whether a stream is a socket. If its type is unknown, it counts as a socket.
fn is_socket(stream: impl AsFd) -> bool {
    fstat(stream).map_or(true, |stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits())
}

/// A reader that adds a CR before each LF that has none.
struct WithCr<'a> {
    from: &'a mut dyn Read,
    piece: Vec<u8>,
    /// The text that was read and has not been returned yet.
    left: io::Cursor<Vec<u8>>,
    last: u8,
}

impl<'a> WithCr<'a> {
    fn of(from: &'a mut dyn Read) -> Self {
        Self { from, piece: vec![0; 16 << 10], left: io::Cursor::default(), last: 0 }
    }
}

impl Read for WithCr<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.left.read(out)?;
        if count > 0 {
            return Ok(count);
        }
        let count = self.from.read(&mut self.piece)?;
        let mut more = Vec::with_capacity(count + count / 16);
        for &byte in self.piece.get(..count).unwrap_or_default() {
            if byte == b'\n' && self.last != b'\r' {
                more.push(b'\r');
            }
            more.push(byte);
            self.last = byte;
        }
        self.left = io::Cursor::new(more);
        self.left.read(out)
    }
}

/// Copies a stream to its end, and flushes the output after each piece.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut piece = vec![0; 32 << 10];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(piece.get(..count).unwrap_or_default()).and_then(|()| to.flush())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
