//! Sockets, and a thread for every client.
//!
//! Counts connections, in all and from each host, and turns away what is too
//! much with a 421. When the system has no descriptor or no thread to give, the
//! client is told to come back too. Who submits over the control socket is
//! served here too, and counted there. Who comes through a trusted proxy is the client
//! that the proxy names in its first octets, or nobody. A panic in a session is a bug that ends that
//! session alone. When the daemon goes down, sessions between two messages are
//! told so at once, the others get a moment.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Kind, Listen, ListenTls};
use crate::net::Stream;
use crate::reply;
use crate::session::{Caller, Client, Service, Session, Watch};
use crate::smtp::proxy::{self, Source};
use crate::sys;

/// A session needs little: its buffers are on the heap.
const STACK: usize = 256 << 10;
/// Clients that the system keeps waiting for us.
const BACKLOG: i32 = 1024;
/// What a session in the middle of a message gets when the daemon goes down.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when accept(2) fails: not at full speed.
const BREATH: Duration = Duration::from_millis(10);
/// What all get then to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long a proxy may take to say for whom it comes.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// How long to try to reach a listening socket of one's own.
const KNOCK: Duration = Duration::from_millis(500);

/// How often it is looked whether there are descriptors again.
const SHORTAGE: Duration = Duration::from_millis(100);

/// Opens a listening socket.
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2).
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Who wants IPv4 too has a line for it.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listening socket, and how clients are served that come there.
pub struct Entrance {
    /// The socket.
    pub socket: TcpListener,
    /// What the configuration says of it.
    pub listen: Listen,
    /// Whether the service manager has it too, and others may listen there after us.
    pub is_shared: bool,
}

impl Entrance {
    /// Makes the thread that waits for clients return, when the door is closed. A shared
    /// socket cannot be shut down: the next client is us, if nobody is faster.
    fn wake(&self) {
        if self.is_shared {
            let address = self.socket.local_addr();
            let _ = address.and_then(|address| TcpStream::connect_timeout(&address, KNOCK));
        } else {
            sys::wake_acceptor(&self.socket);
        }
    }
}

/// All that is connected, and what new sessions work with.
pub struct Door {
    /// Replaced as a whole by a reload; the lock guards the replacing only.
    service: RwLock<Arc<Service>>,
    /// Who is here: entered by the thread that accepts, left by the session's own.
    guests: Mutex<Guests>,
    left: Condvar,
    watch: Watch,
    sessions: AtomicU64,
}

#[derive(Default)]
struct Guests {
    next: u64,
    here: HashMap<u64, Guest>,
    by_host: HashMap<IpAddr, usize>,
    /// How many of them are processes on this host.
    callers: usize,
}

impl Guests {
    fn admit(&mut self, socket: &Arc<TcpStream>, watch: &Watch, is_caller: bool) -> u64 {
        self.next += 1;
        self.callers += usize::from(is_caller);
        let guest = Guest { host: None, socket: Arc::clone(socket), watch: watch.clone(), is_caller };
        self.here.insert(self.next, guest);
        self.next
    }
}

struct Guest {
    /// What it is counted for, once that is known.
    host: Option<IpAddr>,
    /// Shared with the session, which alone reads and writes it.
    socket: Arc<TcpStream>,
    watch: Watch,
    is_caller: bool,
}

impl Door {
    /// Nobody here yet. `seed` makes the sessions' ids differ from those of other runs.
    pub fn new(service: Arc<Service>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            service: RwLock::new(service),
            guests: Mutex::default(),
            left: Condvar::new(),
            watch: Watch::default(),
            sessions: AtomicU64::new(seed << 20),
        })
    }

    /// What sessions that begin from now on work with.
    pub fn replace(&self, service: Arc<Service>) {
        *self.service.write().unwrap_or_else(PoisonError::into_inner) = service;
    }

    /// Serves one client on standard input and output, and returns when it has left.
    ///
    /// # Errors
    /// When there is no standard input.
    pub fn serve_standard_input(&self) -> io::Result<()> {
        let stream = Stream::from_standard_input()?;
        let address = stream.peer().map(|a| a.ip().to_canonical());
        let listen = Arc::new(Listen::at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))));
        let (session, is_local) = (self.session_id(), stream.is_local());
        let client = Client { session, address, is_local, via: None, is_unknown: false, listen, caller: None };
        Session::new(&self.service(), client, self.watch.clone(), stream).run();
        Ok(())
    }

    /// Serves a process on this host that the kernel has named, and returns when it has
    /// left. How many there are is not counted here: neither do they keep out clients from
    /// elsewhere, nor these them.
    pub fn serve_caller(&self, stream: UnixStream, caller: Caller) {
        let socket = Arc::new(TcpStream::from(OwnedFd::from(stream)));
        let watch = Watch { stop: Arc::clone(&self.watch.stop), ..Watch::default() };
        let number = self.guests().admit(&socket, &watch, true);
        let mut listen = Listen::at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        (listen.kind, listen.tls) = (Kind::Submission, ListenTls::None);
        let (session, listen) = (self.session_id(), Arc::new(listen));
        ::log::debug!("{session} connect {}", caller.comment());
        let caller = Some(caller);
        let client = Client { session, address: None, is_local: true, via: None, is_unknown: false, listen, caller };
        let (service, stream) = (self.service(), Stream::from_socket(socket));
        let session = client.session.clone();
        if catch_unwind(AssertUnwindSafe(|| Session::new(&service, client, watch, stream).run())).is_err() {
            ::log::error!("{session}: a bug ended this session");
        }
        self.leave(number);
    }

    /// Accepts clients until the daemon goes down.
    pub fn accept_from(self: &Arc<Self>, entrance: &Entrance) {
        let (listener, listen) = (&entrance.socket, &Arc::new(entrance.listen.clone()));
        // Given up for a moment when no descriptor is left, to tell the client so.
        let mut reserve = File::open("/dev/null").ok();
        let mut is_short = false;
        loop {
            match listener.accept() {
                // The others wait for who listens next.
                Ok((socket, _)) if self.is_closed() => return self.turn_away(&socket, listen),
                Ok((socket, peer)) => {
                    is_short = false;
                    self.welcome(socket, peer, listen);
                }
                Err(_) if self.is_closed() => return,
                Err(e) if matches!(e.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) => {
                    if !std::mem::replace(&mut is_short, true) {
                        ::log::error!("accept: {e}");
                    }
                    drop(reserve.take());
                    let waiting = accept_waiting(listener);
                    if let Ok(socket) = &waiting {
                        self.turn_away(socket, listen);
                    }
                    reserve = File::open("/dev/null").ok();
                    if waiting.is_err() {
                        thread::sleep(SHORTAGE);
                    }
                }
                // What went wrong with one connection, or what may pass.
                Err(e) => {
                    ::log::warn!("accept: {e}");
                    thread::sleep(BREATH);
                }
            }
        }
    }

    /// Goes down: lets nobody in, ends the sessions, and returns when they are
    /// over, within seconds.
    pub fn close(&self, entrances: &[Arc<Entrance>]) {
        self.watch.stop.store(true, Ordering::SeqCst);
        entrances.iter().for_each(|entrance| entrance.wake());
        self.hang_up(|guest| !guest.watch.busy.load(Ordering::SeqCst));
        if !self.wait(GRACE) {
            self.hang_up(|_| true);
            self.wait(GOODBYE);
        }
    }

    fn hang_up(&self, is_meant: impl Fn(&Guest) -> bool) {
        for guest in self.guests().here.values().filter(|g| is_meant(g)) {
            // One that is gone already is meant to be.
            let _ = guest.socket.shutdown(Shutdown::Read);
        }
    }

    /// Whether everyone has left in time.
    fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut guests = self.guests();
        while !guests.here.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guests = self.left.wait_timeout(guests, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn welcome(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, listen: &Arc<Listen>) {
        let (service, socket) = (self.service(), Arc::new(socket));
        // Who comes through a proxy is counted when it is known who it is.
        let is_proxy = listen.proxy.iter().any(|network| network.contains(peer.ip()));
        let host = (!is_proxy).then(|| host_of(peer.ip()));
        // Without it a reply waits for the client's delayed acknowledgement.
        let _ = socket.set_nodelay(true);
        let watch = Watch { stop: Arc::clone(&self.watch.stop), ..Watch::default() };
        let Some(number) = self.enter(&service, host, &socket, &watch) else { return self.turn_away(&socket, listen) };
        let (session, address) = (self.session_id(), Some(peer.ip().to_canonical()));
        let client = Client {
            session,
            address,
            is_local: false,
            via: None,
            is_unknown: false,
            listen: Arc::clone(listen),
            caller: None,
        };
        ::log::debug!("{} connect peer=[{peer}]", client.session);
        let (door, stream) = (Arc::clone(self), Stream::from_socket(Arc::clone(&socket)));
        let started = thread::Builder::new().name("session".into()).stack_size(STACK).spawn(move || {
            let session = client.session.clone();
            let served = catch_unwind(AssertUnwindSafe(|| {
                let arrived =
                    if is_proxy { door.introduce(number, &service, client, stream) } else { Some((client, stream)) };
                if let Some((client, stream)) = arrived {
                    Session::new(&service, client, watch, stream).run();
                }
            }));
            if served.is_err() {
                ::log::error!("{session}: a bug ended this session");
            }
            door.leave(number);
        });
        if let Err(e) = started {
            ::log::error!("start a session: {e}");
            self.leave(number);
            self.turn_away(&socket, listen);
        }
    }

    /// Hears from a proxy for whom a connection comes: the client as it is then, unless
    /// the proxy does not say, or there are too many of these.
    fn introduce(
        &self,
        number: u64,
        service: &Service,
        mut client: Client,
        mut stream: Stream,
    ) -> Option<(Client, Stream)> {
        let (session, proxy) = (client.session.clone(), client.address?);
        stream.set_limit(INTRODUCTION);
        match proxy::read(&mut stream) {
            Ok(Source::Client(address)) => (client.address, client.via) = (Some(address.ip()), Some(proxy)),
            Ok(Source::Unknown) => (client.is_unknown, client.via) = (true, Some(proxy)),
            Ok(Source::Proxy) => {}
            Err(_) if self.is_closed() => return None,
            Err(e) => {
                let why = match e.kind() {
                    io::ErrorKind::TimedOut => "no PROXY header in time".to_owned(),
                    io::ErrorKind::UnexpectedEof => "gone without a PROXY header".to_owned(),
                    _ => e.to_string(),
                };
                ::log::warn!("{session} closed peer=[{proxy}] reason=\"{why}\"");
                return None;
            }
        }
        let host = client.address.unwrap_or(proxy);
        ::log::debug!("{session} proxied peer=[{host}] via=[{proxy}]");
        if self.count(number, service, host_of(host)) {
            return Some((client, stream));
        }
        let mut text = Vec::new();
        reply::too_many_connections(&service.config.hostname).write_to(&mut text);
        stream.set_limit(GOODBYE);
        // One that does not listen is gone all the same.
        let is_clear = client.listen.tls != ListenTls::Implicit;
        if is_clear && stream.write_all(&text).is_ok() {
            stream.part();
        }
        None
    }

    /// Counts a client in, unless there are too many.
    fn enter(&self, service: &Service, host: Option<IpAddr>, socket: &Arc<TcpStream>, watch: &Watch) -> Option<u64> {
        let mut guests = self.guests();
        let all = guests.here.len().saturating_sub(guests.callers);
        if all >= service.config.limits.connections {
            drop(guests);
            ::log::warn!("too many connections: {all}");
            return None;
        }
        let number = guests.admit(socket, watch, false);
        drop(guests);
        if host.is_none_or(|host| self.count(number, service, host)) {
            return Some(number);
        }
        self.leave(number);
        None
    }

    /// Counts a client that is here for its host, unless there are too many from there.
    fn count(&self, number: u64, service: &Service, host: IpAddr) -> bool {
        let mut guests = self.guests();
        let from_host = guests.by_host.get(&host).copied().unwrap_or(0);
        if from_host >= service.config.limits.connections_per_host {
            drop(guests);
            ::log::warn!("too many connections from [{host}]: {from_host}");
            return false;
        }
        if let Some(guest) = guests.here.get_mut(&number) {
            guest.host = Some(host);
            *guests.by_host.entry(host).or_default() += 1;
        }
        true
    }

    fn leave(&self, number: u64) {
        let mut guests = self.guests();
        let gone = guests.here.remove(&number);
        guests.callers -= usize::from(gone.as_ref().is_some_and(|guest| guest.is_caller));
        let host = gone.and_then(|guest| guest.host);
        if let Some((host, count)) = host.and_then(|host| guests.by_host.get_mut(&host).map(|count| (host, count))) {
            *count -= 1;
            if *count == 0 {
                guests.by_host.remove(&host);
            }
        }
        self.left.notify_all();
    }

    fn turn_away(&self, mut socket: &TcpStream, listen: &Listen) {
        if listen.tls == ListenTls::Implicit {
            return; // It is awaiting a handshake, for which nothing is to be had now.
        }
        let (mut text, service) = (Vec::new(), self.service());
        let why = if self.is_closed() { reply::shutting_down } else { reply::too_many_connections };
        why(&service.config.hostname).write_to(&mut text);
        // It fits into any socket's buffer; who does not take it is not waited for.
        let _ = socket.set_nonblocking(true).and_then(|()| socket.write_all(&text));
    }

    fn session_id(&self) -> String {
        format!("s{:x}", self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.watch.stop.load(Ordering::SeqCst)
    }
}

/// A client that is here already: accept(2) wants a descriptor before it looks for
/// one, and would wait with it.
fn accept_waiting(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let accepted = listener.accept();
    listener.set_nonblocking(false)?;
    accepted.map(|(socket, _)| socket)
}

/// What counts as one host: an IPv4 address, or a /64 of IPv6.
fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}
