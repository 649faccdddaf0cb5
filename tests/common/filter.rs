//! Scripted filters: a milter and a policy service.
//!
//! A milter answers every event that needs an answer with CONTINUE, except where a script says
//! otherwise, and records what it was told. The script may violate the protocol in every way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::TIMEOUT;

/// How a milter behaves.
#[derive(Clone)]
pub struct Script {
    pub version: u32,
    pub actions: u32,
    pub protocol: u32,
    /// What follows the three numbers of the negotiation: lists of macros.
    pub macros: Vec<u8>,
    /// What happens instead of CONTINUE at the packets with these letters. The first rule that is
    /// not used up applies.
    pub rules: Vec<(u8, usize, Then)>,
}

/// What a milter does at a packet.
#[derive(Clone)]
pub enum Then {
    /// Sends these packets, each a letter with its data.
    Send(Vec<Vec<u8>>),
    /// Sends these octets.
    Raw(Vec<u8>),
    /// Reads and sends nothing more.
    Hang,
    /// Closes the connection.
    Close,
    /// Sends this packet again and again, with this pause.
    Forever(Vec<u8>, Duration),
}

impl Default for Script {
    fn default() -> Self {
        Self { version: 6, actions: 0x1ff, protocol: 0, macros: Vec::new(), rules: Vec::new() }
    }
}

impl Script {
    /// Adds a rule that always applies: at this letter, the milter sends these packets.
    #[must_use]
    pub fn at(self, letter: u8, packets: &[&[u8]]) -> Self {
        self.then(letter, usize::MAX, Then::Send(packets.iter().map(|packet| packet.to_vec()).collect()))
    }

    /// Adds a rule that applies this many times.
    #[must_use]
    pub fn then(mut self, letter: u8, times: usize, then: Then) -> Self {
        self.rules.push((letter, times, then));
        self
    }
}

/// What a milter was told: letters with their data, in all connections together.
#[derive(Default)]
struct Seen {
    packets: Vec<(u8, Vec<u8>)>,
    connections: usize,
    rules: Vec<(u8, usize, Then)>,
}

/// A milter that listens on a loopback address or a Unix socket.
pub struct Milter {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Milter {
    /// Starts a milter. Its threads end with the process.
    pub fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        Self::on(address, script, move || listener.accept().map(|(stream, _)| stream))
    }

    /// Starts a milter on a Unix socket that every user can connect to.
    pub fn at(socket: &Path, script: Script) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).expect("mode 777");
        // Reading and writing are the same for both kinds of sockets.
        let accept = move || listener.accept().map(|(stream, _)| TcpStream::from(OwnedFd::from(stream)));
        Self::on(SocketAddr::from(([0; 4], 0)), script, accept)
    }

    fn on(address: SocketAddr, script: Script, accept: impl Fn() -> io::Result<TcpStream> + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Seen { rules: script.rules.clone(), ..Seen::default() }));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            while let Ok(stream) = accept() {
                let (script, seen) = (script.clone(), Arc::clone(&shared));
                thread::spawn(move || serve(&stream, &script, &seen));
            }
        });
        Self { address, seen }
    }

    /// The packets so far: letters with their data.
    pub fn packets(&self) -> Vec<(u8, Vec<u8>)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).packets.clone()
    }

    /// The letters of the packets so far, without those of macros.
    pub fn letters(&self) -> String {
        self.packets().iter().map(|(letter, _)| char::from(*letter)).filter(|letter| *letter != 'D').collect()
    }

    /// The data of the packets with this letter, as text in which NUL is `|`.
    pub fn texts(&self, letter: u8) -> Vec<String> {
        let texts = self.packets().into_iter().filter(|(l, _)| *l == letter);
        texts.map(|(_, data)| String::from_utf8_lossy(&data).replace('\0', "|")).collect()
    }

    /// The values that a macro has had so far.
    pub fn macros(&self, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        for text in self.texts(b'D') {
            let words: Vec<&str> = text.get(1..).unwrap_or_default().split('|').collect();
            values.extend(words.chunks(2).filter(|pair| pair[0] == name).map(|pair| pair[1].to_owned()));
        }
        values
    }

    /// Waits until a packet with this letter has arrived.
    pub fn wait_for(&self, letter: u8) {
        let end = Instant::now() + TIMEOUT;
        while !self.packets().iter().any(|(l, _)| *l == letter) {
            assert!(Instant::now() < end, "no packet {:?} in {}", char::from(letter), self.letters());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the letters of the packets after the first `before` ones are `wanted`.
    pub fn wait_for_letters(&self, before: usize, wanted: &str) {
        let end = Instant::now() + TIMEOUT;
        while self.letters().get(before..) != Some(wanted) {
            assert!(Instant::now() < end, "{} after {before} letters, and not {wanted}", self.letters());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).connections
    }
}

fn packet(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u32).to_be_bytes(), packet].concat()
}

/// Serves a connection until it ends.
fn serve(mut stream: &TcpStream, script: &Script, seen: &Mutex<Seen>) -> Option<()> {
    seen.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut data = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut data).ok()?;
        let letter = data.remove(0);
        let then = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.packets.push((letter, data));
            let rule = seen.rules.iter_mut().find(|(l, times, _)| *l == letter && *times > 0);
            rule.map(|(_, times, then)| {
                *times -= 1;
                then.clone()
            })
        };
        let then = then.unwrap_or_else(|| usual(letter, script));
        match then {
            Then::Send(packets) => packets.iter().try_for_each(|p| stream.write_all(&packet(p))).ok()?,
            Then::Raw(octets) => stream.write_all(&octets).ok()?,
            Then::Hang => {
                if letter == b'B' {
                    thread::sleep(TIMEOUT);
                }
                // Until the other side closes the connection.
                let _ = stream.read_to_end(&mut Vec::new());
                return None;
            }
            Then::Close => return None,
            Then::Forever(p, pause) => loop {
                stream.write_all(&packet(&p)).ok()?;
                thread::sleep(pause);
            },
        }
    }
}

fn usual(letter: u8, script: &Script) -> Then {
    let unanswered = [
        (b'L', 0x80),
        (b'C', 0x1000),
        (b'H', 0x2000),
        (b'M', 0x4000),
        (b'R', 0x8000),
        (b'T', 0x1_0000),
        (b'U', 0x2_0000),
        (b'N', 0x4_0000),
        (b'B', 0x8_0000),
    ];
    let is_silent = unanswered.iter().any(|(l, flag)| *l == letter && script.protocol & flag != 0);
    Then::Send(match letter {
        b'O' => {
            let numbers = [script.version, script.actions, script.protocol].map(u32::to_be_bytes).concat();
            vec![[b"O".as_slice(), &numbers, &script.macros].concat()]
        }
        b'D' | b'A' | b'Q' => Vec::new(),
        _ if is_silent => Vec::new(),
        _ => vec![b"c".to_vec()],
    })
}

/// A policy service of Postfix that listens on a loopback address.
pub struct PolicyService {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl PolicyService {
    /// Starts a service that answers a request with the text that `answer` makes of it, or closes
    /// the connection. Its threads end with the process.
    pub fn start(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (requests, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let shared = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                thread::spawn(move || advise(&stream, &requests, &*answer));
            }
        });
        Self { address, requests }
    }

    /// The requests so far, each with its lines.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn advise(
    mut stream: &TcpStream,
    requests: &Mutex<Vec<String>>,
    answer: &dyn Fn(&str) -> Option<String>,
) -> Option<()> {
    let (mut reader, mut request) = (BufReader::new(stream), String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line != "\n" {
            request.push_str(&line);
            continue;
        }
        requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        stream.write_all(answer(&request)?.as_bytes()).ok()?;
        request.clear();
    }
}
