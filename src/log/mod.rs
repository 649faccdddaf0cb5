//! The log: events of a message's life, one line each, and where they go.
//!
//! The queue id comes first, then `key=value` pairs in a fixed order, so that a
//! person and a script can follow a message. Values with anything but plain
//! characters are quoted and escaped: nothing that a client says can forge a line.
//! A message that cannot be logged goes to standard error; mail never waits for
//! the log for more than a second. Everything else that is said to the operator
//! goes through the macros of the `log` crate: `error` where he must act, `warn`
//! where he should know.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::log::{Level, LevelFilter, info, warn};

use crate::address::{self, Address};
use crate::config::LogTo;
use crate::outcome::{Encryption, Fate, Outcome};

mod zone;

pub use zone::{warn_of_zone, zone};

/// A message came in and is kept.
pub struct Accepted<'a> {
    /// The queue id.
    pub id: &'a dyn fmt::Display,
    /// The session's id.
    pub session: &'a str,
    /// The reverse-path.
    pub sender: Option<&'a Address>,
    /// How many final recipients there are.
    pub recipients: usize,
    /// Octets in the spool.
    pub size: u64,
    /// The client: name and address.
    pub peer: &'a str,
    /// The front end that spoke for it; empty for none.
    pub via: &'a str,
    /// What the front end calls the message; empty if it does not say.
    pub ident: &'a str,
    /// `SMTP`, `ESMTP`, `ESMTPS`.
    pub protocol: &'a str,
    /// How the session is encrypted.
    pub tls: Encryption,
    /// Who had logged in, or the login of a caller on this host.
    pub user: Option<&'a str>,
    /// The caller on this host: uid, and its program as it says.
    pub caller: Option<(u32, &'a str)>,
}

/// Logs that a client and this server do not agree on TLS.
pub fn handshake_failed(session: &str, address: Option<IpAddr>, error: &std::io::Error) {
    let (peer, why) = (peer(None, address), error.to_string());
    info!("{session} tls-failed peer={} reply={}", Value(&peer), Value(&why));
}

/// Logs an accepted message.
pub fn accepted(event: &Accepted<'_>) {
    let Accepted { id, session, sender, recipients, size, peer, via, ident, protocol, tls, user, caller } = event;
    let sender = address::path(*sender);
    let (from, peer, user) = (Value(&sender), Value(peer), Value(user.filter(|user| !user.is_empty()).unwrap_or("-")));
    let mut front = String::new();
    for (key, value) in
        [("via", *via), ("ident", *ident), ("proto", *protocol), ("tls", tls.name()), ("cipher", tls.cipher())]
    {
        if !value.is_empty() {
            push(&mut front, key, value);
        }
    }
    if let Some((uid, program)) = caller {
        push(&mut front, "uid", &uid.to_string());
        push(&mut front, "program", if program.is_empty() { "-" } else { program });
    }
    info!("{id} accept from={from} to={recipients} size={size} peer={peer}{front} user={user} session={session}");
}

/// Logs that somebody has logged in.
pub fn logged_in(session: &str, user: &str, address: Option<IpAddr>, mechanism: &str) {
    info!("{session} auth user={} peer={} mechanism={mechanism}", Value(user), host(address));
}

/// Logs that somebody has tried to log in and may not, in a line that is made to be
/// watched: what he says he is cannot forge another one.
pub fn auth_failed(session: &str, user: &str, address: Option<IpAddr>, mechanism: &str) {
    info!("{session} auth-failed user={} peer={} mechanism={mechanism}", Value(user), host(address));
}

/// Logs that a client's command, as it came, was refused.
pub fn refused(session: &str, address: Option<IpAddr>, command: &str, reply: &dyn fmt::Display) {
    info!("{session} refused command={} peer={} reply={}", Value(command), host(address), Value(&reply.to_string()));
}

/// Logs how many commands of a client were refused that have no line of their own.
pub fn refused_more(session: &str, address: Option<IpAddr>, count: usize) {
    info!("{session} refused more={count} peer={}", host(address));
}

/// Logs that an account has reached a limit on what it may send.
pub fn limit_reached(session: &str, account: &str, what: &str, limit: usize) {
    warn!("{session} limit account={} {what}={limit}", Value(account));
}

/// One attempt for one recipient.
pub struct Attempt<'a> {
    /// The queue id.
    pub id: &'a dyn fmt::Display,
    /// Who it was for.
    pub recipient: &'a Address,
    /// Whom the sender named, if an alias made another of it.
    pub original: Option<&'a Address>,
    /// How: `maildir`, `smtp`.
    pub via: &'a str,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// How long ago the message came.
    pub delay: Duration,
    /// When it is tried again, in seconds since 1970, if it is.
    pub next: Option<u64>,
}

/// Logs an attempt.
pub fn attempt(event: &Attempt<'_>) {
    let Attempt { id, recipient, original, via, outcome, delay, next } = event;
    let word = match outcome.fate {
        Fate::Delivered => "sent",
        Fate::Deferred => "deferred",
        Fate::Failed => "failed",
    };
    let mut line = format!("{id} {word} to={}", Value(&format!("<{recipient}>")));
    if let Some(original) = original {
        push(&mut line, "orig", &format!("<{original}>"));
    }
    push(&mut line, "via", via);
    if !outcome.host.is_empty() {
        push(&mut line, "host", &outcome.host);
    }
    if !outcome.tls.name().is_empty() {
        push(&mut line, "tls", outcome.tls.name());
    }
    if !outcome.tls.cipher().is_empty() {
        push(&mut line, "cipher", outcome.tls.cipher());
    }
    line.push_str(&format!(" delay={:.1}", delay.as_secs_f64()));
    if let Some(next) = next {
        push(&mut line, "next", &timestamp(*next));
    }
    if let Some(reply) = &outcome.reply {
        line.push_str(&format!(" code={}", reply.code()));
    }
    line.push_str(&format!(" dsn={}", outcome.status));
    if outcome.fate != Fate::Delivered && outcome.reply.is_some() {
        push(&mut line, "said_to", outcome.answered);
    }
    match &outcome.reply {
        Some(reply) => push(&mut line, "reply", &reply.to_string()),
        None if outcome.why.is_empty() => {}
        None => push(&mut line, "reason", &outcome.why),
    }
    info!("{line}");
}

/// Logs that a host offers TLS that does not work, and gets the message in clear.
pub fn in_clear(id: &dyn fmt::Display, host: &dyn fmt::Display, why: &str) {
    info!("{id} tls-failed host={} tls=none reason={}", Value(&host.to_string()), Value(why));
}

/// Logs that a report about a message was made.
pub fn bounced(id: &dyn fmt::Display, report: &dyn fmt::Display, to: &Address) {
    info!("{id} bounced report={report} to={}", Value(&format!("<{to}>")));
}

/// Logs that nobody is left to be told about a failure.
pub fn dropped(id: &dyn fmt::Display, why: &str) {
    info!("{id} dropped reason={}", Value(why));
}

/// Logs that every recipient of a message is settled.
pub fn done(id: &dyn fmt::Display) {
    info!("{id} done");
}

/// A client in the log: `name[192.0.2.1]`.
pub fn peer(name: Option<&str>, address: Option<IpAddr>) -> String {
    match address {
        Some(address) => format!("{}[{address}]", name.unwrap_or("unknown")),
        None => "-".to_owned(),
    }
}

fn host(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| format!("[{address}]"))
}

/// The time here. The zone is read once, at the start of the log: reading it takes
/// more stack than a session has.
pub fn local_time() -> jiff::Zoned {
    jiff::Timestamp::now().to_zoned(zone().clone())
}

/// Seconds since 1970 as `2026-11-22T10:15:00Z`.
pub fn timestamp(seconds: u64) -> String {
    i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).unwrap_or_default().to_string()
}

fn push(line: &mut String, key: &str, value: &str) {
    use fmt::Write;
    // Writing to a string cannot fail.
    let _ = write!(line, " {key}={}", Value(value));
}

/// A value: as it is if it is plain, otherwise quoted and escaped.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !self.0.is_empty() && self.0.bytes().all(plain) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        self.0.chars().try_for_each(|c| match c {
            '"' | '\\' => write!(f, "\\{c}"),
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => write!(f, "{c}"),
        })?;
        f.write_str("\"")
    }
}

/// Starts the log. `verbose` shows more; PENFOLD_LOG overrides both, in
/// env_logger's syntax.
///
/// # Errors
/// When the file cannot be opened.
pub fn start(to: &LogTo, verbose: bool, program: &'static str) -> io::Result<()> {
    zone();
    let mut builder = env_logger::Builder::new();
    builder.filter_level(if verbose { LevelFilter::Debug } else { LevelFilter::Info });
    // It does not say of whom it speaks; what ends a handshake is in a line of ours.
    builder.filter_module("rustls", LevelFilter::Off);
    builder.parse_env("PENFOLD_LOG");
    match to {
        LogTo::Stderr => {
            builder.format(|f, record| writeln!(f, "{}", Clean(&record.args().to_string())));
        }
        LogTo::File(path) => {
            let file = open_log(path)?;
            builder.target(env_logger::Target::Pipe(Box::new(LogFile { path: path.clone(), file })));
            builder.format(move |f, record| {
                let time = local_time().strftime("%Y-%m-%dT%H:%M:%S%:z");
                writeln!(f, "{time} {program}[{}]: {}", std::process::id(), Clean(&record.args().to_string()))
            });
        }
        LogTo::Syslog => {
            builder.target(env_logger::Target::Pipe(Box::new(Syslog { socket: None })));
            builder.format(move |f, record| {
                // Facility mail is 2; RFC 3164 as every syslogd reads it.
                let (priority, time) = (2 * 8 + severity(record.level()), local_time().strftime("%b %e %H:%M:%S"));
                writeln!(
                    f,
                    "<{priority}>{time} {program}[{}]: {}",
                    std::process::id(),
                    Clean(&record.args().to_string())
                )
            });
        }
    }
    // A second start, in tests, leaves the first one in force.
    let _ = builder.try_init();
    Ok(())
}

/// From now on a panic is logged where everything is: it is a bug of ours.
pub fn report_bugs() {
    std::panic::set_hook(Box::new(|bug| ::log::error!("bug: {bug}")));
}

/// Opens a log file anew at the next line, after it was rotated.
pub fn reopen() {
    REOPEN.store(true, Ordering::Relaxed);
}

static REOPEN: AtomicBool = AtomicBool::new(false);

/// What is left of control characters where a whole line is printed.
struct Clean<'a>(&'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.chars().any(char::is_control) {
            return f.write_str(self.0);
        }
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
    }
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn open_log(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

struct LogFile {
    path: PathBuf,
    file: File,
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if REOPEN.swap(false, Ordering::Relaxed) {
            // Without the new file the old one goes on.
            self.file = open_log(&self.path).or_else(|_| self.file.try_clone())?;
        }
        if self.file.write_all(line).is_err() {
            let _ = io::stderr().write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where syslogd listens.
const DEV_LOG: &str = "/dev/log";

struct Syslog {
    socket: Option<UnixDatagram>,
}

impl Syslog {
    fn connect() -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(DEV_LOG)?;
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket)
    }
}

impl Write for Syslog {
    /// env_logger hands over a record at once, so one record is one datagram.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let datagram = line.strip_suffix(b"\n").unwrap_or(line);
        // A second try, for syslogd may have been restarted.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = Self::connect().ok();
            }
            match &self.socket {
                Some(socket) if socket.send(datagram).is_ok() => return Ok(line.len()),
                _ => self.socket = None,
            }
        }
        let _ = io::stderr().write_all(without_priority(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line as people read it.
fn without_priority(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|&b| b == b'>').map_or(0, |end| end + 1);
    line.get(end..).unwrap_or(line)
}

/// Warns that a daemon that leaves the terminal will have no log at all.
pub fn warn_of_silence(to: &LogTo) {
    if *to == LogTo::Syslog && Syslog::connect().is_err() {
        warn!("no syslog at {DEV_LOG}: nothing is logged in the background; see log.to");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_forge_a_line() {
        for (value, shown) in [
            ("<a@b>", "<a@b>"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a\r\n4FQ sent", "\"a\\r\\n4FQ sent\""),
            ("\"\\", "\"\\\"\\\\\""),
            ("\u{1b}[2J\u{85}", "\"\\u{1b}[2J\\u{85}\""),
        ] {
            assert_eq!(Value(value).to_string(), shown);
        }
        assert_eq!(Clean("a\nb\tc").to_string(), "a\\nb\\tc");
    }
}
