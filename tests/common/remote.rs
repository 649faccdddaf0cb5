//! Another mail server, to which penfoldd delivers.
//!
//! A [`Remote`] accepts and keeps all mail, except where a [`Rule`] says otherwise; or it plays
//! dialogues, one for each connection. It records commands with their times. It listens on a
//! loopback address, or on a Unix socket; several servers can share one port on different addresses,
//! see [`listeners`]. It speaks SMTP, or LMTP as a mail store does.
//! A server ends when it is dropped. It offers TLS with a certificate of [`super::tls`], and checks
//! no credentials other than those of SCRAM.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use socket2::Socket;

use super::TIMEOUT;
use super::dialog::{Dialog, Side, Stage, Wire};
use super::scram::Scram;
use super::tls::Leaf;

/// How a remote server behaves.
pub enum Conduct {
    /// The server accepts all mail, except for its rules.
    Sink(Sink),
    /// The server plays the first dialogue on the first connection, the second on the second, and
    /// so on. All further connections get the last dialogue.
    Script(Vec<Dialog>),
}

/// A server that accepts all mail.
pub struct Sink {
    /// The greeting, with its code.
    pub banner: String,
    /// The extensions that the server announces in its reply to EHLO.
    pub keywords: Vec<String>,
    /// The exceptions. The first rule that matches and is not used up applies.
    pub rules: Vec<Rule>,
    /// The TLS that the server offers, if any.
    pub tls: Option<Offer>,
    /// The credentials that the server accepts with AUTH SCRAM-SHA-256, if any.
    pub scram: Option<Scram>,
    pub speaks: Speaks,
}

/// The protocols that a server speaks. By LMTP, it replies to each recipient after the final dot, and
/// a rule at `. <name` changes the reply about that recipient.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Smtp,
    Lmtp,
    /// Both: LHLO begins a session by LMTP.
    Both,
}

/// The TLS of a server.
#[derive(Clone)]
pub struct Offer {
    pub config: Arc<ServerConfig>,
    /// Whether TLS begins with the first octet, without STARTTLS.
    pub implicit: bool,
    /// The extensions that are announced under TLS, if they differ.
    pub keywords: Option<Vec<String>>,
}

impl Offer {
    pub fn starttls(leaf: &Leaf) -> Self {
        Self { config: Arc::clone(&leaf.config), implicit: false, keywords: None }
    }

    pub fn implicit(leaf: &Leaf) -> Self {
        Self { implicit: true, ..Self::starttls(leaf) }
    }
}

/// An exception to the usual behaviour of a server.
pub struct Rule {
    /// The beginning of the command, in upper or lower case. `CONNECT` stands for the banner,
    /// `BODY` for the middle of a message, `.` for its end, and the empty text for an empty line.
    pub at: String,
    pub then: Then,
    /// How many times the rule applies.
    pub times: usize,
}

/// What the server does instead of the usual reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Sends this reply, whose lines are separated by `\n`.
    Reply(String),
    /// Sends these octets.
    Octets(Vec<u8>),
    /// Sends these octets and closes the connection.
    OctetsAndClose(Vec<u8>),
    /// Waits this long, like a distant host, and then continues as usual.
    Pause(Duration),
    /// Sends and reads nothing more, but keeps the connection open.
    Hang,
    /// Closes the connection.
    Close,
    /// Sends this reply and closes the connection.
    ReplyAndClose(String),
    /// Resets the connection.
    Reset,
    /// Sends this reply, and then nothing more. Keeps the connection open, but does not read.
    ReplyAndHang(String),
    /// Sends this reply, reads a line, sends these octets and closes the connection.
    Babble(String, Vec<u8>),
}

impl Default for Sink {
    fn default() -> Self {
        let keywords = ["PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES"];
        let keywords = keywords.map(str::to_owned).to_vec();
        let banner = "220 sink.test ESMTP".to_owned();
        Self { banner, keywords, rules: Vec::new(), tls: None, scram: None, speaks: Speaks::Smtp }
    }
}

impl Sink {
    /// A mail store that accepts all mail.
    pub fn store() -> Self {
        Self { speaks: Speaks::Lmtp, banner: "220 sink.test LMTP".to_owned(), ..Self::default() }
    }

    /// A server that accepts all mail by SMTP and by LMTP.
    pub fn host_and_store() -> Self {
        Self { speaks: Speaks::Both, ..Self::default() }
    }

    /// Adds a rule: the server always sends this reply to this command.
    #[must_use]
    pub fn reply(self, at: &str, reply: &str) -> Self {
        self.when(at, Then::Reply(reply.to_owned()), usize::MAX)
    }

    /// Adds a rule: the server reacts to this command with `then`, this many times.
    #[must_use]
    pub fn when(mut self, at: &str, then: Then, times: usize) -> Self {
        self.rules.push(Rule { at: at.to_owned(), then, times });
        self
    }
}

/// What a remote server has recorded.
#[derive(Default)]
pub struct Seen {
    pub connections: usize,
    /// The address of each client, by the number of the connection; 0.0.0.0 at a Unix socket.
    pub clients: Vec<IpAddr>,
    pub commands: Vec<Command>,
    pub messages: Vec<Received>,
    /// The host name that each client sent in its TLS handshake (SNI); empty if the client sent
    /// none.
    pub names: Vec<String>,
    /// The reports of dialogues that did not go as written.
    pub failures: Vec<String>,
    /// The number of connections that have ended.
    pub ended: usize,
    /// The most connections that were open at once.
    pub most_open: usize,
}

/// A command as the server received it. The commands of a dialogue are not recorded.
#[derive(Debug, Clone)]
pub struct Command {
    /// The number of the connection; the first one is 0.
    pub connection: usize,
    pub at: Instant,
    pub line: String,
    /// Whether the command was encrypted.
    pub tls: bool,
}

/// A message that the server has accepted.
#[derive(Debug, Clone)]
pub struct Received {
    pub connection: usize,
    /// The text after `MAIL FROM:`. The recipients have the texts after `RCPT TO:`.
    pub sender: String,
    pub recipients: Vec<String>,
    /// The text of the message, without dot-stuffing, with lines that end in CR LF.
    pub data: Vec<u8>,
    /// Whether the message was encrypted.
    pub tls: bool,
}

/// The running server.
pub struct Remote {
    /// The address; 0.0.0.0 and port 0 if the server listens on a Unix socket.
    pub address: SocketAddr,
    /// A second handle of the listener, if it is not a Unix socket.
    listening: Option<Socket>,
    /// The Unix socket, if the server listens on one.
    socket: Option<PathBuf>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    conduct: Mutex<Conduct>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seen: Seen,
    /// A second handle of each open connection, by number, so that another thread can end it.
    open: HashMap<usize, TcpStream>,
    stopped: bool,
}

/// Listeners on 127.0.0.2, 127.0.0.3 and so on, all with the same port.
pub fn listeners(count: u8) -> Vec<TcpListener> {
    let bind = |last: u8, port: u16| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).ok();
    loop {
        let first = bind(2, 0).expect("127.0.0.2 is on loopback");
        let port = first.local_addr().expect("bound").port();
        let others: Option<Vec<_>> = (3..2 + count).map(|last| bind(last, port)).collect();
        if let Some(others) = others {
            return std::iter::once(first).chain(others).collect();
        }
    }
}

impl Remote {
    /// A server on 127.0.0.1 that accepts all mail.
    pub fn sink() -> Self {
        Self::with(Sink::default())
    }

    /// A server on 127.0.0.1 with rules.
    pub fn with(sink: Sink) -> Self {
        Self::start(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback"), Conduct::Sink(sink))
    }

    /// A server on 127.0.0.1 that plays dialogues.
    pub fn script(dialogues: &[&str]) -> Self {
        let read = |text: &&str| Dialog::parse("remote", text).expect("a dialogue");
        let script = Conduct::Script(dialogues.iter().map(read).collect());
        Self::start(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback"), script)
    }

    /// A server that accepts connections from a listener.
    pub fn start(listener: TcpListener, conduct: Conduct) -> Self {
        let address = listener.local_addr().expect("bound");
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { conduct: Mutex::new(conduct), state, changed });
        let served = Arc::clone(&shared);
        let listening = listener.try_clone().expect("a descriptor");
        let acceptor = Some(thread::spawn(move || served.accept(listener.incoming())));
        Self { address, listening: Some(Socket::from(listening)), socket: None, shared, acceptor }
    }

    /// A server that listens on a Unix socket with this path.
    pub fn at_socket(path: &Path, sink: Sink) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { conduct: Mutex::new(Conduct::Sink(sink)), state, changed });
        let served = Arc::clone(&shared);
        // Reading, writing and closing a socket are the same calls for each kind of socket.
        let accept =
            move || served.accept(listener.incoming().map(|stream| Ok(TcpStream::from(OwnedFd::from(stream?)))));
        let acceptor = Some(thread::spawn(accept));
        let address = (Ipv4Addr::UNSPECIFIED, 0).into();
        Self { address, listening: None, socket: Some(path.to_owned()), shared, acceptor }
    }

    /// The address as `host:port`, for a smart host or a route.
    pub fn host_port(&self) -> String {
        self.address.to_string()
    }

    /// Calls `at` with the records up to now, and returns its result.
    pub fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&self.shared.lock().seen)
    }

    /// Waits until `enough` is true of the records.
    ///
    /// # Panics
    /// After a timeout, with all recorded commands in the message.
    pub fn wait(&self, what: &str, enough: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + TIMEOUT;
        let mut state = self.shared.lock();
        while !enough(&state.seen) {
            let left = end.saturating_duration_since(Instant::now());
            let commands: Vec<_> = state.seen.commands.iter().map(|c| &c.line).collect();
            let failures = &state.seen.failures;
            assert!(!left.is_zero(), "{} timed out waiting for {what}: {commands:?} {failures:?}", self.address);
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until this many messages have arrived, and returns all.
    pub fn messages(&self, count: usize) -> Vec<Received> {
        self.wait(&format!("{count} messages"), |seen| seen.messages.len() >= count);
        self.look(|seen| seen.messages.clone())
    }

    /// Returns all messages up to now, and forgets them and their commands.
    pub fn take(&self) -> Vec<Received> {
        let mut state = self.shared.lock();
        state.seen.commands.clear();
        std::mem::take(&mut state.seen.messages)
    }

    /// Changes the behaviour from the next command on.
    pub fn behave(&self, conduct: Conduct) {
        *self.shared.conduct.lock().unwrap_or_else(PoisonError::into_inner) = conduct;
    }

    /// Waits until all connections have ended. Fails if a dialogue did not go as written, or if
    /// none was played.
    pub fn finish(self) {
        self.wait("the end of all connections", |seen| seen.connections > 0 && seen.ended == seen.connections);
        self.look(|seen| assert!(seen.failures.is_empty(), "{}", seen.failures.join("\n")));
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        for stream in state.open.values() {
            // The call fails if the connection is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // This wakes the thread that accepts, which then ends. A connection to the address would not
        // do, because the listener may be in another network than this thread.
        if let Some(listener) = &self.listening {
            let _ = listener.shutdown(Shutdown::Both);
        }
        if let Some(path) = &self.socket {
            drop(UnixStream::connect(path));
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, connections: impl Iterator<Item = io::Result<TcpStream>>) {
        for stream in connections {
            let mut state = self.lock();
            if state.stopped {
                return;
            }
            let Ok(stream) = stream else { continue };
            let number = state.seen.connections;
            state.seen.connections += 1;
            let client = stream.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
            state.seen.clients.push(client);
            state.seen.most_open = state.seen.most_open.max(state.seen.connections - state.seen.ended);
            state.open.insert(number, stream.try_clone().expect("a descriptor"));
            drop(state);
            let shared = Arc::clone(self);
            thread::spawn(move || {
                shared.serve(number, stream);
                shared.tell(|state| {
                    state.open.remove(&number);
                    state.seen.ended += 1;
                });
            });
        }
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn serve(&self, number: usize, stream: TcpStream) {
        let mut conduct = self.conduct.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *conduct {
            Conduct::Sink(_) => {
                drop(conduct);
                let wire = Wire::new(stream, false);
                let mut session = Session {
                    shared: self,
                    number,
                    wire,
                    sender: None,
                    recipients: Vec::new(),
                    tls: false,
                    lmtp: false,
                };
                if session.converse() == Some(Then::Reset) {
                    // A socket is reset only when its last descriptor is closed, so this copy goes
                    // first.
                    self.lock().open.remove(&number);
                    let _ = session.wire.end(true);
                }
            }
            Conduct::Script(dialogues) => {
                let dialog = if dialogues.len() > 1 { dialogues.remove(0) } else { dialogues[0].clone() };
                drop(conduct);
                // A socket is closed only with its last descriptor, so this copy goes first.
                self.lock().open.remove(&number);
                self.play(stream, &dialog);
            }
        }
    }

    fn play(&self, stream: TcpStream, dialog: &Dialog) {
        let mut stream = Some(stream);
        let mut connect = || stream.take().ok_or_else(|| std::io::Error::other("a server cannot connect"));
        let mut check = |_: &_| Err("a server has no mailboxes".to_owned());
        let mut stage = Stage { connect: &mut connect, check: &mut check, in_bytes: false };
        if let Err(report) = dialog.play(Side::Server, &mut stage) {
            self.tell(|state| state.seen.failures.push(report));
        }
    }

    /// The reaction that a rule prescribes for a command. The rule is used up by one.
    fn rule(&self, command: &str) -> Option<Then> {
        let mut conduct = self.conduct.lock().unwrap_or_else(PoisonError::into_inner);
        let Conduct::Sink(sink) = &mut *conduct else { return None };
        let begins = |rule: &Rule| match rule.at.as_str() {
            "" => command.is_empty(),
            at => command.get(..at.len()).is_some_and(|c| c.eq_ignore_ascii_case(at)),
        };
        let rule = sink.rules.iter_mut().find(|rule| rule.times > 0 && begins(rule))?;
        rule.times -= 1;
        Some(rule.then.clone())
    }
}

/// A connection of a server without dialogues.
struct Session<'a> {
    shared: &'a Shared,
    number: usize,
    wire: Wire,
    sender: Option<String>,
    recipients: Vec<String>,
    tls: bool,
    /// Whether the client has begun with LHLO.
    lmtp: bool,
}

impl Session<'_> {
    /// Serves the client to the end of the connection. Returns the reaction that ended it, if a
    /// rule did.
    fn converse(&mut self) -> Option<Then> {
        if self.offer().is_some_and(|offer| offer.implicit) {
            self.secure()?;
        }
        let banner = match &*self.shared.conduct.lock().unwrap_or_else(PoisonError::into_inner) {
            Conduct::Sink(sink) => sink.banner.clone(),
            Conduct::Script(_) => return None,
        };
        if let Err(then) = self.react("CONNECT", &banner) {
            return then;
        }
        loop {
            let Ok(Some(line)) = self.wire.read_line() else { return None };
            let (connection, at, tls) = (self.number, Instant::now(), self.tls);
            self.shared.tell(|s| s.seen.commands.push(Command { connection, at, line: line.clone(), tls }));
            if let Err(then) = self.command(&line) {
                return then;
            }
        }
    }

    fn command(&mut self, line: &str) -> Result<(), Option<Then>> {
        let verb = line.get(..4).unwrap_or(line).to_ascii_uppercase();
        let argument = line.split_once(':').map_or("", |(_, argument)| argument.trim()).to_owned();
        if let (Some(first), Some(scram)) = (line.strip_prefix("AUTH SCRAM-SHA-256 "), self.scram()) {
            return self.play_scram(&scram, first);
        }
        let usual = self.usual(&verb);
        let reply = self.react(line, &usual)?;
        match verb.as_str() {
            "MAIL" if reply.starts_with('2') => self.sender = Some(argument),
            "RCPT" if reply.starts_with('2') => self.recipients.push(argument),
            "LHLO" => {
                self.lmtp = reply.starts_with('2') && self.speaks() != Speaks::Smtp;
                self.forget();
            }
            "HELO" | "EHLO" | "RSET" => self.forget(),
            "DATA" if reply.starts_with('3') => self.message()?,
            "STAR" if reply.starts_with("220") => {
                self.forget();
                self.secure().ok_or(None)?;
            }
            "QUIT" => return Err(None),
            _ => {}
        }
        Ok(())
    }

    fn usual(&self, verb: &str) -> String {
        match verb {
            "LHLO" if self.speaks() != Speaks::Smtp => self.extended_hello(),
            "EHLO" | "HELO" if self.speaks() == Speaks::Lmtp => "500 5.5.1 this is LMTP".to_owned(),
            "EHLO" => self.extended_hello(),
            "HELO" | "NOOP" | "RSET" => "250 ok".to_owned(),
            "MAIL" if self.sender.is_none() => "250 2.1.0 sender ok".to_owned(),
            "RCPT" if self.sender.is_some() => "250 2.1.5 recipient ok".to_owned(),
            "DATA" if !self.recipients.is_empty() => "354 go ahead".to_owned(),
            "MAIL" | "RCPT" | "DATA" => "503 5.5.1 bad sequence of commands".to_owned(),
            "STAR" if !self.tls && self.offer().is_some() => "220 2.0.0 go ahead".to_owned(),
            "QUIT" => "221 2.0.0 goodbye".to_owned(),
            _ => "500 5.5.1 unknown command".to_owned(),
        }
    }

    fn extended_hello(&self) -> String {
        let conduct = self.shared.conduct.lock().unwrap_or_else(PoisonError::into_inner);
        let Conduct::Sink(sink) = &*conduct else { return "421 4.3.2 going down".to_owned() };
        let mut lines = vec!["sink.test"];
        let secured = sink.tls.as_ref().and_then(|offer| offer.keywords.as_ref()).filter(|_| self.tls);
        lines.extend(secured.unwrap_or(&sink.keywords).iter().map(String::as_str));
        lines.extend((sink.tls.is_some() && !self.tls).then_some("STARTTLS"));
        let last = lines.pop().unwrap_or_default();
        lines.iter().map(|line| format!("250-{line}\n")).chain([format!("250 {last}")]).collect()
    }

    /// Receives a message, from the 354 to the reply to the final dot.
    fn message(&mut self) -> Result<(), Option<Then>> {
        let mut data = Vec::new();
        loop {
            let Ok(Some(line)) = self.wire.read_line_bytes() else { return Err(None) };
            if line == b"." {
                break;
            }
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            data.extend_from_slice(b"\r\n");
            match self.shared.rule("BODY") {
                None => {}
                Some(Then::Reply(reply)) => drop(self.reply(&reply)),
                Some(then) => return Err(self.act(then)),
            }
        }
        if self.lmtp {
            return self.reply_to_each(data);
        }
        let (reply, is_said) = self.decide(".", "250 2.0.0 taken")?;
        if reply.starts_with('2') {
            // The message is recorded before the reply is sent, since a test may look for it as
            // soon as the client has the reply.
            let (sender, recipients) = (self.sender.clone().unwrap_or_default(), self.recipients.clone());
            let message = Received { connection: self.number, sender, recipients, data, tls: self.tls };
            self.shared.tell(|state| state.seen.messages.push(message));
        }
        self.forget();
        if is_said { Ok(()) } else { self.reply(&reply).map_err(|_| None) }
    }

    /// Replies to each recipient of a message. The message is recorded for each recipient with a 2xx.
    fn reply_to_each(&mut self, data: Vec<u8>) -> Result<(), Option<Then>> {
        for recipient in std::mem::take(&mut self.recipients) {
            let address = recipient.split(' ').next().unwrap_or_default();
            let (reply, is_said) = self.decide(&format!(". {address}"), &format!("250 2.0.0 {address} has it"))?;
            if reply.starts_with('2') {
                let (sender, recipients) = (self.sender.clone().unwrap_or_default(), vec![recipient]);
                let message =
                    Received { connection: self.number, sender, recipients, data: data.clone(), tls: self.tls };
                self.shared.tell(|state| state.seen.messages.push(message));
            }
            if !is_said {
                self.reply(&reply).map_err(|_| None)?;
            }
        }
        self.forget();
        Ok(())
    }

    fn speaks(&self) -> Speaks {
        match &*self.shared.conduct.lock().unwrap_or_else(PoisonError::into_inner) {
            Conduct::Sink(sink) => sink.speaks,
            Conduct::Script(_) => Speaks::Smtp,
        }
    }

    fn offer(&self) -> Option<Offer> {
        match &*self.shared.conduct.lock().unwrap_or_else(PoisonError::into_inner) {
            Conduct::Sink(sink) => sink.tls.clone(),
            Conduct::Script(_) => None,
        }
    }

    fn secure(&mut self) -> Option<()> {
        self.wire.secure(&self.offer()?.config).ok()?;
        self.tls = true;
        let name = self.wire.sni().unwrap_or_default();
        self.shared.tell(|state| state.seen.names.push(name));
        Some(())
    }

    fn scram(&self) -> Option<Scram> {
        match &*self.shared.conduct.lock().unwrap_or_else(PoisonError::into_inner) {
            Conduct::Sink(sink) => sink.scram.clone(),
            Conduct::Script(_) => None,
        }
    }

    /// Plays AUTH SCRAM-SHA-256. `first` is the client's initial response.
    fn play_scram(&mut self, scram: &Scram, first: &str) -> Result<(), Option<Then>> {
        let (asked, challenge) = scram.challenge(first).ok_or(None)?;
        let last = self.wire.ask(&format!("334 {challenge}")).map_err(|_| None)?;
        let Some(proof) = scram.verdict(&asked, &last) else {
            return self.reply("535 5.7.8 no").map_err(|_| None);
        };
        let end = self.wire.ask(&format!("334 {proof}")).map_err(|_| None)?;
        let (connection, at, tls) = (self.number, Instant::now(), self.tls);
        self.shared.tell(|s| s.seen.commands.push(Command { connection, at, line: end.clone(), tls }));
        let reply = if end.is_empty() { "235 2.7.0 welcome" } else { "501 5.7.0 as you like" };
        self.reply(reply).map_err(|_| None)
    }

    fn forget(&mut self) {
        self.sender = None;
        self.recipients.clear();
    }

    /// Replies to a command, with the reply of a rule or else with the usual one. The error ends
    /// the connection.
    fn react(&mut self, command: &str, usual: &str) -> Result<String, Option<Then>> {
        let (reply, is_said) = self.decide(command, usual)?;
        if !is_said {
            self.reply(&reply).map_err(|_| None)?;
        }
        Ok(reply)
    }

    /// Returns the reply to a command, and whether it has been sent already. The error ends the
    /// connection.
    fn decide(&mut self, command: &str, usual: &str) -> Result<(String, bool), Option<Then>> {
        match self.shared.rule(command) {
            None => Ok((usual.to_owned(), false)),
            Some(Then::Reply(reply)) => Ok((reply, false)),
            Some(Then::Pause(time)) => {
                thread::sleep(time);
                Ok((usual.to_owned(), false))
            }
            Some(Then::Octets(octets)) => {
                self.wire.send(&octets).map_err(|_| None)?;
                Ok((String::from_utf8_lossy(&octets).into_owned(), true))
            }
            Some(then) => Err(self.act(then)),
        }
    }

    fn act(&mut self, then: Then) -> Option<Then> {
        match &then {
            Then::ReplyAndClose(reply) => drop(self.reply(reply)),
            Then::OctetsAndClose(octets) => drop(self.wire.send(octets)),
            Then::Babble(reply, octets) => {
                let _ = self.reply(reply);
                let _ = self.wire.read_line_bytes();
                let _ = self.wire.send(octets);
            }
            Then::Hang | Then::ReplyAndHang(_) => {
                if let Then::ReplyAndHang(reply) = &then {
                    let _ = self.reply(reply);
                }
                let mut state = self.shared.lock();
                while !state.stopped {
                    state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            Then::Pause(_) | Then::Reply(_) | Then::Octets(_) | Then::Close | Then::Reset => {}
        }
        Some(then)
    }

    fn reply(&mut self, text: &str) -> std::io::Result<()> {
        self.wire.send(format!("{}\r\n", text.replace('\n', "\r\n")).as_bytes())
    }
}
