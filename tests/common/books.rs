//! Messages with unique tokens, and counts of those messages in mailboxes.
//!
//! A [`Letter`] is a message whose whole text follows from its token, so that a test can see
//! whether a copy is complete. [`offer`] sends a letter to a daemon that may be killed meanwhile.
//! The [`Books`] of a mailbox count its letters and the reports about letters; an incomplete or
//! changed letter fails the test at once.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::dialog::Wire;

/// The sender of every letter, which gets the reports.
pub const SENDER: &str = "ret@razorback.test";

/// What the daemon answered to the offer of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 250 at the end: the daemon has accepted the letter.
    Taken,
    /// The daemon has refused the letter with this reply.
    Refused(String),
    /// The connection was lost, so the daemon may have accepted the letter or not.
    Lost,
}

/// A message whose text follows from its token.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    token: &'a str,
}

impl<'a> Letter<'a> {
    /// The letter with this token, which must be one word.
    pub fn new(token: &'a str) -> Self {
        Self { token }
    }

    /// The text, with lines that end in LF. Two kinds of letters are special. One letter in seven,
    /// and every letter whose token begins with `long`, has about 80,000 octets, more than the
    /// daemon keeps in memory while a message arrives. A letter whose token begins with `odd` has
    /// dots at the beginning of lines, 8-bit text, and a line longer than the standard allows.
    pub fn text(&self) -> String {
        let token = self.token;
        let hash = token.bytes().fold(7_u32, |hash, b| hash.wrapping_mul(31).wrapping_add(b.into()));
        let lines = if token.starts_with("long") || hash % 7 == 0 { 4_000 } else { hash % 40 };
        let mut body: String = (0..lines).map(|n| format!("line {n} of {token}\n")).collect();
        if token.starts_with("odd") {
            body += &format!(".\n..\n.line\n\u{dc}bergr\u{f6}\u{df}e \u{1f4ee}\n{}\n", "long ".repeat(1_000));
        }
        format!("Subject: {token}\n\n{body}end of {token}\n")
    }

    /// The text as a client sends it after DATA, with dots doubled and with the final dot.
    pub fn stuffed(&self) -> String {
        let dot = |line: &str| if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") };
        self.text().lines().map(dot).chain([".\r\n".to_owned()]).collect()
    }

    /// Whether a message is this whole letter, with only trace fields such as Received before it.
    fn is_in(&self, message: &[u8]) -> bool {
        let complete = String::from_utf8_lossy(message);
        let message = if self.token.starts_with("kept") { without_added_fields(&complete).into() } else { complete };
        let Some(trace) = message.as_bytes().strip_suffix(self.text().as_bytes()) else { return false };
        let trace = String::from_utf8_lossy(trace);
        let known = ["Return-Path: ", "Delivered-To: ", "Received: ", "\t"];
        trace.lines().all(|line| known.iter().any(|field| line.starts_with(field)))
    }
}

/// A message as it was before a conversion to quoted-printable; `None` if it was not converted.
pub fn without_conversion(text: &str) -> Option<String> {
    let (header, body) = text.split_once("\n\n")?;
    let (header, added) = header.split_once("\nMIME-Version: 1.0\n")?;
    if !added.ends_with("\nContent-Transfer-Encoding: quoted-printable") {
        return None;
    }
    let (mut octets, mut rest) = (Vec::new(), body);
    while let Some((plain, escaped)) = rest.split_once('=') {
        octets.extend_from_slice(plain.as_bytes());
        rest = escaped.strip_prefix('\n').unwrap_or_else(|| {
            octets.push(u8::from_str_radix(&escaped[..2], 16).expect("two digits"));
            &escaped[2..]
        });
    }
    octets.extend_from_slice(rest.as_bytes());
    Some(format!("{header}\n\n{}", String::from_utf8(octets).expect("UTF-8")))
}

/// A message without the fields that a message of a local user gets if it lacks them.
pub fn without_added_fields(text: &str) -> String {
    let Some((header, body)) = text.split_once("\n\n") else { return text.to_owned() };
    let is_added = |line: &str| ["From: ", "Date: ", "Message-ID: "].iter().any(|field| line.starts_with(field));
    let header: Vec<&str> = header.lines().filter(|line| !is_added(line)).collect();
    format!("{}\n\n{body}", header.join("\n"))
}

/// Offers a letter with sendmail(8), as the user that runs the tests and with parameters of MAIL.
/// `config` is the path of the configuration.
pub fn offer_locally(config: &Path, mail: &str, to: &[&str], letter: Letter<'_>) -> Answer {
    let mut command = Command::new(super::built::program("penfoldctl"));
    command.arg0("sendmail").arg("-bs").env("PENFOLD_CONFIG", config);
    let mut dialogue = format!("EHLO here\r\nMAIL FROM:<{SENDER}> {mail}\r\n");
    to.iter().for_each(|to| dialogue += &format!("RCPT TO:<{to}>\r\n"));
    dialogue += &format!("DATA\r\n{}QUIT\r\n", letter.stuffed());
    let output = super::programs::feed(&mut command, dialogue.as_bytes());
    let is_taken = String::from_utf8_lossy(&output.stdout).contains(" Message accepted");
    if is_taken { Answer::Taken } else { Answer::Lost }
}

/// Has sendmail(8) keep a letter in the drop directory, as the user that runs the tests. The token must
/// begin with `kept`. `config` is the path of a configuration whose control socket does not exist.
pub fn keep(config: &Path, to: &[&str], letter: Letter<'_>) -> Answer {
    let mut command = Command::new(super::built::program("penfoldctl"));
    command.arg0("sendmail").args(["-i", "-f", SENDER]).args(to).env("PENFOLD_CONFIG", config);
    let output = super::programs::feed(&mut command, letter.text().as_bytes());
    if output.status.success() { Answer::Taken } else { Answer::Lost }
}

/// Offers a letter from [`SENDER`] to a daemon, for the recipients `to`. Parameters of RCPT may follow
/// an address after a blank.
pub fn offer(address: SocketAddr, to: &[&str], letter: Letter<'_>) -> Answer {
    offer_with(address, "", to, letter)
}

/// Offers a letter like [`offer`], with parameters of MAIL. A binary message is sent in one chunk.
pub fn offer_with(address: SocketAddr, mail: &str, to: &[&str], letter: Letter<'_>) -> Answer {
    converse(address, mail, to, letter).unwrap_or(Answer::Lost)
}

/// Offers a letter, but stops after this many octets of its text. Returns the open connection, or
/// `None` if the daemon did not ask for the text.
pub fn offer_part(address: SocketAddr, to: &[&str], letter: Letter<'_>, octets: usize) -> Option<Wire> {
    let mut wire = begin(address, "", to).ok()?.ok()?;
    let text = letter.stuffed();
    wire.send(&text.as_bytes()[..octets.min(text.len() - 1)]).ok()?;
    Some(wire)
}

fn converse(address: SocketAddr, mail: &str, to: &[&str], letter: Letter<'_>) -> Result<Answer, String> {
    let mut wire = match begin(address, mail, to)? {
        Ok(wire) => wire,
        Err(refusal) => return Ok(Answer::Refused(refusal)),
    };
    let text = if is_binary(mail) {
        let text = letter.text().replace('\n', "\r\n");
        format!("BDAT {} LAST\r\n{text}", text.len())
    } else {
        letter.stuffed()
    };
    wire.send(text.as_bytes()).map_err(|e| e.to_string())?;
    let reply = wire.read_line()?.ok_or("the connection ended")?;
    // The reply is the result, even if the connection fails now.
    let _ = wire.send(b"QUIT\r\n");
    Ok(if reply.starts_with("250") { Answer::Taken } else { Answer::Refused(reply) })
}

fn is_binary(mail: &str) -> bool {
    mail.contains("BINARYMIME")
}

/// Starts a transaction with the commands up to DATA. The inner error is the first reply that
/// refuses a command.
fn begin(address: SocketAddr, mail: &str, to: &[&str]) -> Result<Result<Wire, String>, String> {
    let stream = TcpStream::connect(address).map_err(|e| e.to_string())?;
    let mut wire = Wire::new(stream, false);
    let banner = wire.read_line()?.ok_or("the connection ended")?;
    if !banner.starts_with("220") {
        return Ok(Err(banner));
    }
    let hello = if mail.is_empty() { "HELO" } else { "EHLO" };
    let mut lines = vec![format!("{hello} client.test"), format!("MAIL FROM:<{SENDER}> {mail}").trim_end().to_owned()];
    lines.extend(to.iter().map(|recipient| match recipient.split_once(' ') {
        Some((address, parameters)) => format!("RCPT TO:<{address}> {parameters}"),
        None => format!("RCPT TO:<{recipient}>"),
    }));
    lines.extend((!is_binary(mail)).then(|| "DATA".to_owned()));
    for line in lines {
        let mut reply = wire.ask(&line)?;
        while reply.as_bytes().get(3) == Some(&b'-') {
            reply = wire.read_line()?.ok_or("the connection ended")?;
        }
        if !reply.starts_with(['2', '3']) {
            return Ok(Err(reply));
        }
    }
    Ok(Ok(wire))
}

/// The counts of the letters and reports in a mailbox.
#[derive(Debug, Default)]
pub struct Books {
    letters: HashMap<String, usize>,
    reports: HashMap<String, usize>,
    /// The number of reports, by the token of the letter and the recipient that failed.
    failed: HashMap<(String, String), usize>,
    /// The text of each message that is neither a complete letter nor a complete report, after the
    /// reason.
    pub damaged: Vec<String>,
}

impl Books {
    /// Counts the messages that [`super::Site::mail`] returns.
    ///
    /// # Panics
    /// When one of them is neither a complete letter nor a complete report.
    pub fn of(messages: Vec<Vec<u8>>) -> Self {
        let books = Self::count(messages);
        assert!(books.damaged.is_empty(), "{}", books.damaged.join("\n"));
        books
    }

    /// Counts messages like [`Books::of`], but records incomplete ones in `damaged` instead of
    /// failing.
    pub fn count(messages: Vec<Vec<u8>>) -> Self {
        let mut books = Self::default();
        for message in messages {
            let text = String::from_utf8_lossy(&message);
            // A report ends with the header of its letter, so the last subject is that of the
            // letter.
            let token = text.lines().filter_map(|line| line.strip_prefix("Subject: ")).next_back();
            let Some(token) = token else {
                books.damaged.push(format!("a message without a token:\n{text}"));
                continue;
            };
            // The null sender alone does not show that a message is a report: letters may have it,
            // too.
            let is_letter = Letter::new(token).is_in(&message);
            let is_report = text.starts_with("Return-Path: <>\n") && !is_letter;
            let is_whole = if is_report { text.ends_with("--\n") } else { is_letter };
            if !is_whole {
                books.damaged.push(format!("{token} is not whole:\n{text}"));
                continue;
            }
            if is_report {
                let failed = text.lines().filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; "));
                failed.for_each(|r| *books.failed.entry((token.to_owned(), r.to_owned())).or_default() += 1);
            }
            let counts = if is_report { &mut books.reports } else { &mut books.letters };
            *counts.entry(token.to_owned()).or_default() += 1;
        }
        books
    }

    /// The number of copies of a letter.
    pub fn letters(&self, token: &str) -> usize {
        self.letters.get(token).copied().unwrap_or(0)
    }

    /// The number of reports about a letter, whatever the recipient.
    pub fn reports(&self, token: &str) -> usize {
        self.reports.get(token).copied().unwrap_or(0)
    }

    /// The number of reports that a letter could not be delivered to a recipient.
    pub fn failures(&self, token: &str, recipient: &str) -> usize {
        self.failed.get(&(token.to_owned(), recipient.to_owned())).copied().unwrap_or(0)
    }

    /// The tokens of the letters that have a report.
    pub fn reported(&self) -> impl Iterator<Item = &str> {
        self.reports.keys().map(String::as_str)
    }

    /// The tokens of the letters that are in the mailbox.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.letters.keys().map(String::as_str)
    }

    /// The number of all messages in the mailbox.
    pub fn total(&self) -> usize {
        self.letters.values().chain(self.reports.values()).sum()
    }
}
