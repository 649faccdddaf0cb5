//! The load: clients that send messages over SMTP as fast as they are taken.
//!
//! A thread is a session. Each pipelines MAIL, RCPT and DATA as a mail server
//! does (RFC 2920), sends the message, and waits for its 250 before the next one.
//! Sessions that send many messages connect before the clock starts; with a
//! connection for each message, connect, EHLO and QUIT are on the clock. The first
//! reply that is not as hoped for ends the run with that reply. Runs on the machine
//! that it measures: what it uses of the processors the server does not have.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A client waits so long for a reply.
const TIMEOUT: Duration = Duration::from_secs(120);
/// A client needs little.
const STACK: usize = 128 << 10;

/// What is sent, and how.
#[derive(Debug, Clone)]
pub struct Load {
    /// How many sessions at once.
    pub sessions: usize,
    /// Octets of a message, as it goes over the wire.
    pub size: usize,
    /// Every message is for all of these.
    pub recipients: Vec<String>,
    /// Whether a session sends many messages, or each message has a connection.
    pub reuse: bool,
    /// No message is begun after this.
    pub time: Duration,
    /// No more messages than this.
    pub most: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Messages that got their 250.
    pub messages: usize,
    /// When the clock began to run.
    pub start: Instant,
    /// When the last 250 came.
    pub last: Instant,
}

impl Sent {
    /// Messages a second, from the start until `end`.
    pub fn rate(&self, end: Instant) -> f64 {
        self.messages as f64 / (end - self.start).as_secs_f64().max(1e-6)
    }
}

impl Load {
    /// Sends; returns when every session has left.
    ///
    /// # Errors
    /// The first thing that went wrong in a session.
    pub fn send(&self, to: SocketAddr) -> io::Result<Sent> {
        let run = Run::new(self, to);
        thread::scope(|scope| {
            let spawn = |_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || run.session());
            let sessions: Vec<_> = (0..self.sessions).map(spawn).collect::<io::Result<_>>()?;
            run.gate.wait();
            let start = Instant::now();
            let mut sent = Sent { messages: 0, start, last: start };
            for session in sessions {
                let (messages, last) = session.join().expect("no panic in a session")?;
                sent.messages += messages;
                sent.last = sent.last.max(last);
            }
            Ok(sent)
        })
    }
}

/// What the sessions of a run share.
struct Run<'a> {
    load: &'a Load,
    to: SocketAddr,
    envelope: Vec<u8>,
    message: Vec<u8>,
    tickets: AtomicUsize,
    /// Opened when all are connected.
    gate: Barrier,
}

impl<'a> Run<'a> {
    fn new(load: &'a Load, to: SocketAddr) -> Self {
        let (envelope, message) = (envelope(&load.recipients), message(load.size));
        Self { load, to, envelope, message, tickets: AtomicUsize::new(0), gate: Barrier::new(load.sessions + 1) }
    }

    /// How many messages it sent, and when the last 250 came.
    fn session(&self) -> io::Result<(usize, Instant)> {
        let mut kept = if self.load.reuse { Some(Client::connect(self.to)) } else { None };
        self.gate.wait();
        let (end, mut last, mut messages) = (Instant::now() + self.load.time, Instant::now(), 0);
        // The first message is always sent, so that there is something to measure.
        while self.tickets.fetch_add(1, Ordering::Relaxed) < self.load.most && (messages == 0 || Instant::now() < end) {
            match &mut kept {
                Some(Ok(client)) => client.send(self)?,
                Some(Err(_)) => break,
                None => {
                    let mut client = Client::connect(self.to)?;
                    client.send(self)?;
                    client.quit()?;
                }
            }
            last = Instant::now();
            messages += 1;
        }
        if let Some(client) = kept {
            client?.quit()?;
        }
        Ok((messages, last))
    }
}

/// One connection, after EHLO.
pub struct Client {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Client {
    /// Connects and says EHLO.
    ///
    /// # Errors
    /// Those of the system, and any reply but 220 and 250.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut client = Self { stream: BufReader::with_capacity(1 << 10, stream), line: Vec::new() };
        client.hear(b"220")?;
        client.say(b"EHLO client.test\r\n")?;
        client.hear(b"250")?;
        Ok(client)
    }

    fn send(&mut self, run: &Run<'_>) -> io::Result<()> {
        self.transact(&run.envelope, run.load.recipients.len(), &run.message)
    }

    /// Sends a [`message`] to one recipient.
    ///
    /// # Errors
    /// Those of the system, and any reply but the hoped-for ones.
    pub fn mail(&mut self, to: &str, message: &[u8]) -> io::Result<()> {
        self.transact(&envelope(&[to]), 1, message)
    }

    fn transact(&mut self, envelope: &[u8], recipients: usize, message: &[u8]) -> io::Result<()> {
        self.say(envelope)?;
        for _ in 0..=recipients {
            self.hear(b"250")?;
        }
        self.hear(b"354")?;
        self.say(message)?;
        self.hear(b"250")
    }

    /// Takes leave.
    ///
    /// # Errors
    /// The same.
    pub fn quit(mut self) -> io::Result<()> {
        self.say(b"QUIT\r\n")?;
        self.hear(b"221")
    }

    fn say(&mut self, text: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(text)
    }

    fn hear(&mut self, code: &[u8]) -> io::Result<()> {
        loop {
            self.line.clear();
            if self.stream.read_until(b'\n', &mut self.line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !self.line.starts_with(code) {
                return Err(io::Error::other(format!("the server says {}", String::from_utf8_lossy(&self.line))));
            }
            if self.line.get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}

fn envelope(recipients: &[impl AsRef<str>]) -> Vec<u8> {
    let mut envelope = b"MAIL FROM:<bench@client.test>\r\n".to_vec();
    recipients.iter().for_each(|to| envelope.extend(format!("RCPT TO:<{}>\r\n", to.as_ref()).bytes()));
    envelope.extend(b"DATA\r\n");
    envelope
}

/// A message of this many octets, or of a little more if they are too few for a header,
/// and the dot after it.
pub fn message(size: usize) -> Vec<u8> {
    let mut text = b"From: bench@client.test\r\nTo: all@razorback.test\r\nSubject: one of many\r\n\
        Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@client.test>\r\n\r\n"
        .to_vec();
    while text.len() < size {
        let octets = (size - text.len()).clamp(3, 78) - 2;
        text.extend(std::iter::repeat_n(b'x', octets));
        text.extend(b"\r\n");
    }
    text.extend(b".\r\n");
    text
}
