//! Generates load: clients that send messages over SMTP as fast as the server accepts them.
//!
//! Each thread is a session. It pipelines MAIL, RCPT and DATA like a mail server (RFC 2920), sends
//! the message, and waits for the 250 before it begins the next message. Sessions that send many
//! messages connect before the clock starts; with a connection for each message, connect, EHLO and
//! QUIT are on the clock. An unexpected reply ends the run with that reply. The clients run on the
//! measured machine, so the server does not have the processor time that they use.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for a reply.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The size of the stack of a client's thread, in bytes.
const STACK: usize = 128 << 10;

/// A load.
#[derive(Debug, Clone)]
pub struct Load {
    /// The number of sessions.
    pub sessions: usize,
    /// The octets of a message on the wire.
    pub size: usize,
    /// The recipients of every message.
    pub recipients: Vec<String>,
    /// Whether a session sends many messages; otherwise each message has a new connection.
    pub reuse: bool,
    /// The time after which no message is begun.
    pub time: Duration,
    /// The most messages of all sessions together.
    pub most: usize,
}

/// The result of a load.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// The number of acknowledged messages.
    pub messages: usize,
    /// The start of the clock.
    pub start: Instant,
    /// When the last message was acknowledged.
    pub last: Instant,
}

impl Sent {
    /// Messages per second, from the start until `end`.
    pub fn rate(&self, end: Instant) -> f64 {
        self.messages as f64 / (end - self.start).as_secs_f64().max(1e-6)
    }
}

impl Load {
    /// Sends the load, and returns when every session has ended.
    ///
    /// # Errors
    /// The first failure of a session.
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

/// The state that the sessions of a run share.
struct Run<'a> {
    load: &'a Load,
    to: SocketAddr,
    envelope: Vec<u8>,
    message: Vec<u8>,
    tickets: AtomicUsize,
    /// Holds every session back until all of them are connected.
    gate: Barrier,
}

impl<'a> Run<'a> {
    fn new(load: &'a Load, to: SocketAddr) -> Self {
        let (envelope, message) = (envelope(&load.recipients), message(load.size));
        Self { load, to, envelope, message, tickets: AtomicUsize::new(0), gate: Barrier::new(load.sessions + 1) }
    }

    /// Runs a session. Returns the number of its messages, and the time of the last 250.
    fn session(&self) -> io::Result<(usize, Instant)> {
        let mut kept = if self.load.reuse { Some(Client::connect(self.to)) } else { None };
        self.gate.wait();
        let (end, mut last, mut messages) = (Instant::now() + self.load.time, Instant::now(), 0);
        // The first message is always sent, so that there is a result.
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

/// One connection on which EHLO has been sent.
pub struct Client {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Client {
    /// Connects and sends EHLO.
    ///
    /// # Errors
    /// Errors of the system, and any reply but 220 and 250.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut client = Self { stream: BufReader::with_capacity(1 << 10, stream), line: Vec::new() };
        client.expect_code(b"220")?;
        client.write(b"EHLO client.test\r\n")?;
        client.expect_code(b"250")?;
        Ok(client)
    }

    fn send(&mut self, run: &Run<'_>) -> io::Result<()> {
        self.transact(&run.envelope, run.load.recipients.len(), &run.message)
    }

    /// Sends a [`message`] to one recipient.
    ///
    /// # Errors
    /// Errors of the system, and any unexpected reply.
    pub fn mail(&mut self, to: &str, message: &[u8]) -> io::Result<()> {
        self.transact(&envelope(&[to]), 1, message)
    }

    fn transact(&mut self, envelope: &[u8], recipients: usize, message: &[u8]) -> io::Result<()> {
        self.write(envelope)?;
        for _ in 0..=recipients {
            self.expect_code(b"250")?;
        }
        self.expect_code(b"354")?;
        self.write(message)?;
        self.expect_code(b"250")
    }

    /// Sends QUIT.
    ///
    /// # Errors
    /// Errors of the system, and any unexpected reply.
    pub fn quit(mut self) -> io::Result<()> {
        self.write(b"QUIT\r\n")?;
        self.expect_code(b"221")
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(text)
    }

    fn expect_code(&mut self, code: &[u8]) -> io::Result<()> {
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

/// A message of this many octets, with the final dot. It is a little longer if the header alone
/// takes more.
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
