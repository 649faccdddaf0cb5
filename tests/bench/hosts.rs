//! Plays distant hosts, some of them faulty: one thread serves port 25 of every loopback address.
//!
//! Every reply is sent one round trip after its command has arrived, and the banner two round trips
//! after the connection; since load and servers are local, these delays simulate the distance of
//! the hosts. Replies to commands that arrived together are sent together. A host is identified by
//! its [`address`]. A message is identified by a number, the local part of its recipient: 17 in
//! `m17@d3.test`. The thread and its sockets end with the process. It stores no mail and checks no
//! syntax.

use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{cmp::Reverse, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt::ReusePort};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

const SMTP: u16 = 25;
/// How long a tarpit, a host that answers very slowly, delays each reply.
const TAR: Duration = Duration::from_secs(20);
/// How long a greylisting host rejects a recipient that it did not know.
const GREY: Duration = Duration::from_secs(18);
/// The retry interval that is set for the measured servers.
pub const RETRY: Duration = Duration::from_secs(20);
/// Events within this time are handled together, to save calls of poll(2).
const BATCH: Duration = Duration::from_micros(500);
const BACKLOG: i32 = 4096;
/// The number of connections that fill the backlog of a dead host; the last of them never
/// completes.
const FILLERS: usize = 2;

/// The behaviour of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The host is distant, and has no fault.
    Healthy,
    /// The host replies 451 to a recipient until it has known the recipient for [`GREY`].
    Grey,
    /// The host waits for [`TAR`] before each reply.
    Tarpit,
    /// The host accepts connections and sends nothing.
    Mute,
    /// The backlog of the host is full: a connection never completes.
    Dead,
}

/// The address of the host with this number.
pub fn address(host: usize) -> Ipv4Addr {
    let octet = |value: usize| u8::try_from(value % 256).unwrap_or_default();
    Ipv4Addr::new(127, octet(1 + host / 60_000), octet(host / 250 % 240), octet(host % 250 + 1))
}

fn host(address: IpAddr) -> Option<usize> {
    let IpAddr::V4(address) = address else { return None };
    let [_, high, middle, low] = address.octets().map(usize::from);
    Some(high.checked_sub(1)? * 60_000 + middle * 250 + low.checked_sub(1)?)
}

/// What the hosts have observed.
#[derive(Default)]
pub struct Seen {
    /// The time at which each message arrived, by the number of the message; `None` if it has not
    /// arrived.
    pub arrived: Vec<Option<Instant>>,
    /// How long after the due time each retry at a greylisting host began.
    pub late: Vec<Duration>,
    /// The most connections that any one address had at once.
    pub most: usize,
    /// Processor time of the thread that plays the hosts.
    pub cpu: Duration,
    /// The number of open connections of each host.
    open: Vec<usize>,
    /// The recipients that a greylisting host has rejected, by number: the times of the first and
    /// of the last rejection.
    refused: HashMap<usize, (Instant, Instant)>,
}

/// All hosts, while they serve.
pub struct Hosts(Arc<Mutex<Seen>>);

impl Hosts {
    /// Starts the hosts. `kinds` has the behaviour of the hosts from number 0 on; all further hosts
    /// are healthy. `trip` is the round-trip time.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn start(kinds: Vec<Kind>, messages: usize, trip: Duration) -> io::Result<Self> {
        let listener: TcpListener = listen(Ipv4Addr::UNSPECIFIED, BACKLOG)?.into();
        listener.set_nonblocking(true)?;
        let mut held = Vec::new();
        for (number, _) in kinds.iter().enumerate().filter(|(_, kind)| **kind == Kind::Dead) {
            held.extend(dead(address(number))?);
        }
        let seen = Seen { arrived: vec![None; messages], open: vec![0; kinds.len()], ..Seen::default() };
        let seen = Arc::new(Mutex::new(seen));
        let mut desk =
            Desk { listener, _held: held, kinds, trip, peers: BTreeMap::new(), due: BinaryHeap::new(), next: 0 };
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            if let Err(error) = desk.serve(&shared) {
                eprintln!("bench: the hosts: {error}");
            }
        });
        Ok(Self(seen))
    }

    /// The observations up to now.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.0)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens on port 25 of an address. The option SO_REUSEPORT lets a dead host listen on an address
/// of its own while another listener has all addresses.
fn listen(address: Ipv4Addr, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    setsockopt(&socket, ReusePort, &true)?;
    socket.bind(&SocketAddr::from((address, SMTP)).into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// Makes a host dead. Returns the sockets that must stay open for that.
fn dead(address: Ipv4Addr) -> io::Result<Vec<Socket>> {
    let mut held = vec![listen(address, 0)?];
    for _ in 0..FILLERS {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // The connection is still in progress when this returns, or it never completes.
        let _ = socket.connect(&SocketAddr::from((address, SMTP)).into());
        held.push(socket);
    }
    Ok(held)
}

/// The connection of one client.
struct Peer {
    stream: TcpStream,
    host: usize,
    kind: Kind,
    /// When the transaction began, with the connection or with a later MAIL.
    begun: Instant,
    is_new: bool,
    /// The beginning of an incomplete line.
    line: Vec<u8>,
    /// The number of the accepted recipient.
    to: Option<usize>,
    /// Whether the client is sending a message, after DATA.
    in_data: bool,
    /// The replies that are not sent yet, with the time at which each is due.
    replies: VecDeque<(Instant, &'static [u8])>,
}

/// The state of the thread.
struct Desk {
    listener: TcpListener,
    _held: Vec<Socket>,
    kinds: Vec<Kind>,
    trip: Duration,
    peers: BTreeMap<u64, Peer>,
    /// The due times of replies, with their connections.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    next: u64,
}

const BYE: &[u8] = b"221 2.0.0 bye\r\n";

impl Desk {
    fn serve(&mut self, shared: &Mutex<Seen>) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            thread::sleep(BATCH);
            let ready = self.wait()?;
            let mut seen = lock(shared);
            self.accept(&mut seen)?;
            for id in ready {
                self.receive(id, &mut buffer, &mut seen);
            }
            self.speak(&mut seen);
            seen.cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into();
        }
    }

    /// Waits for input or for the next reply that is due. Returns the connections that have input
    /// or have ended.
    fn wait(&self) -> io::Result<Vec<u64>> {
        let next = self
            .due
            .peek()
            .map_or(Duration::from_secs(1), |Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        let timeout = u16::try_from(next.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let mut polled = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        polled.extend(self.peers.values().map(|peer| PollFd::new(peer.stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut polled, PollTimeout::from(timeout)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let peers = self.peers.keys().zip(&polled[1..]);
        Ok(peers.filter(|(_, fd)| fd.any() == Some(true)).map(|(&id, _)| id).collect())
    }

    fn accept(&mut self, seen: &mut Seen) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The client has disconnected already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let Some(host) = host(stream.local_addr()?.ip()) else { continue };
            let kind = self.kinds.get(host).copied().unwrap_or(Kind::Healthy);
            let (begun, id) = (Instant::now(), self.next);
            self.next += 1;
            let mut peer = Peer {
                stream,
                host,
                kind,
                begun,
                is_new: true,
                line: Vec::new(),
                to: None,
                in_data: false,
                replies: VecDeque::new(),
            };
            if kind != Kind::Mute {
                peer.replies.push_back((begun + self.trip + self.delay(kind), b"220 mx ESMTP\r\n"));
                self.due.push(Reverse((begun + self.trip + self.delay(kind), id)));
            }
            self.peers.insert(id, peer);
            seen.opened(host);
        }
    }

    fn delay(&self, kind: Kind) -> Duration {
        self.trip + if kind == Kind::Tarpit { TAR } else { Duration::ZERO }
    }

    /// Reads once from a connection. If there is more input, the next poll(2) reports it.
    fn receive(&mut self, id: u64, buffer: &mut [u8], seen: &mut Seen) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let octets = match peer.stream.read(buffer) {
            Ok(count) if count > 0 => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            _ => return self.close(id, seen),
        };
        if peer.kind == Kind::Mute {
            return;
        }
        let now = Instant::now();
        let at = now + self.trip + if peer.kind == Kind::Tarpit { TAR } else { Duration::ZERO };
        let replies = peer.replies.len();
        for part in octets.split_inclusive(|&octet| octet == b'\n') {
            peer.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let reply = peer.answer(now, at, seen);
                peer.replies.extend(reply.map(|text| (at, text)));
                peer.line.clear();
            }
        }
        if peer.replies.len() > replies {
            self.due.push(Reverse((at, id)));
        }
    }

    /// Sends the replies that are due.
    fn speak(&mut self, seen: &mut Seen) {
        let now = Instant::now();
        while let Some(&Reverse((at, id))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let (mut text, mut ends) = (Vec::new(), false);
            while let Some((at, reply)) = peer.replies.front()
                && *at <= now
            {
                text.extend_from_slice(reply);
                ends |= *reply == BYE;
                peer.replies.pop_front();
            }
            // Replies are few and short, so a write fails only if the client has disconnected.
            if peer.stream.write_all(&text).is_err() || ends {
                self.close(id, seen);
            }
        }
    }

    fn close(&mut self, id: u64, seen: &mut Seen) {
        if let Some(peer) = self.peers.remove(&id) {
            seen.closed(peer.host);
        }
    }
}

impl Peer {
    /// Returns the reply to the line that is complete; the reply will be sent at `at`.
    fn answer(&mut self, now: Instant, at: Instant, seen: &mut Seen) -> Option<&'static [u8]> {
        if self.in_data {
            if self.line != b".\r\n" {
                return None;
            }
            self.in_data = false;
            if let Some(number) = self.to.take() {
                seen.arrived(number, now);
            }
            return Some(b"250 2.0.0 taken\r\n");
        }
        Some(match self.line.get(..4).unwrap_or_default() {
            b"EHLO" => b"250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 50000000\r\n",
            b"MAIL" => {
                if !std::mem::take(&mut self.is_new) {
                    self.begun = now;
                }
                self.to = None;
                b"250 2.1.0 OK\r\n"
            }
            b"RCPT" => match number(&self.line) {
                Some(number) if self.kind == Kind::Grey && seen.refuses(number, self.begun, now, at) => {
                    b"451 4.7.1 greylisted, come back later\r\n"
                }
                number => {
                    self.to = number;
                    b"250 2.1.5 OK\r\n"
                }
            },
            b"DATA" if self.to.is_none() => b"554 5.5.1 no recipients\r\n",
            b"DATA" => {
                self.in_data = true;
                b"354 go on\r\n"
            }
            b"QUIT" => BYE,
            _ => b"250 2.0.0 OK\r\n",
        })
    }
}

/// The number of a message: 17 for `RCPT TO:<m17@d3.test>`.
fn number(line: &[u8]) -> Option<usize> {
    let text = str::from_utf8(line).ok()?;
    let (_, after) = text.split_once('<')?;
    after.split_once('@')?.0.strip_prefix('m')?.parse().ok()
}

impl Seen {
    fn opened(&mut self, host: usize) {
        if self.open.len() <= host {
            self.open.resize(host + 1, 0);
        }
        self.open[host] += 1;
        self.most = self.most.max(self.open[host]);
    }

    fn closed(&mut self, host: usize) {
        self.open[host] -= 1;
    }

    fn arrived(&mut self, number: usize, now: Instant) {
        if let Some(arrived) = self.arrived.get_mut(number) {
            arrived.get_or_insert(now);
        }
    }

    /// Whether a greylisting host rejects a recipient now. `at` is the time at which the reply will
    /// be sent.
    fn refuses(&mut self, number: usize, begun: Instant, now: Instant, at: Instant) -> bool {
        let Some((first, last)) = self.refused.get_mut(&number) else {
            self.refused.insert(number, (now, at));
            return true;
        };
        self.late.push(begun.saturating_duration_since(*last + RETRY));
        *last = at;
        now - *first < GREY
    }
}
