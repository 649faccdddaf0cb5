//! Sockets, and a thread for every client.
//!
//! Counts connections ([`connections`]), and turns away what is too much with a 421. When the system has no descriptor or no thread to give, the
//! client is told to come back too. Who submits over the control socket is
//! served here too, and counted there. Who comes through a trusted proxy is the client
//! that the proxy names in its first octets, or nobody. A panic in a session is a bug that ends that
//! session alone. When the daemon goes down, sessions between two messages are
//! told so at once, the others get a moment.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Kind, Listen, ListenTls};
use crate::message::trace::LocalUser;
use crate::net::Stream;
use crate::reply;
use crate::session::{Client, Service, Session, Watch};
use crate::smtp::proxy::{self, Source};
use crate::sys;

mod connections;

use connections::{Full, Guest, Places, Standing};

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
    guests: Mutex<Places>,
    left: Condvar,
    watch: Watch,
    sessions: AtomicU64,
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
    pub fn serve_caller(&self, stream: UnixStream, caller: LocalUser) {
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
        let standing = Standing::of(&service.config, peer.ip(), true, listen.kind);
        let counted = (!is_proxy).then_some((peer.ip(), standing));
        // Without it a reply waits for the client's delayed acknowledgement.
        let _ = socket.set_nodelay(true);
        let watch = Watch { stop: Arc::clone(&self.watch.stop), ..Watch::default() };
        let Some(number) = self.enter(&service, counted, &socket, &watch) else {
            return self.turn_away(&socket, listen);
        };
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
        let standing = Standing::of(&service.config, host, !client.is_unknown, client.listen.kind);
        if self.count(number, service, (host, standing)) {
            return Some((client, stream));
        }
        let mut text = Vec::new();
        reply::connection::too_many_connections(&service.config.hostname).write_to(&mut text);
        stream.set_limit(GOODBYE);
        // One that does not listen is gone all the same.
        let is_clear = client.listen.tls != ListenTls::Implicit;
        if is_clear && stream.write_all(&text).is_ok() {
            stream.part();
        }
        None
    }

    /// Counts a client in, unless there are too many.
    fn enter(
        &self,
        service: &Service,
        counted: Option<(IpAddr, Standing)>,
        socket: &Arc<TcpStream>,
        watch: &Watch,
    ) -> Option<u64> {
        let mut guests = self.guests();
        if let Err(why) = guests.has_room(&service.config.limits) {
            self.warn(guests, why);
            return None;
        }
        let number = guests.admit(socket, watch, false);
        drop(guests);
        if counted.is_none_or(|counted| self.count(number, service, counted)) {
            return Some(number);
        }
        self.leave(number);
        None
    }

    /// Counts a client that is here for its address, unless there are too many from there.
    fn count(&self, number: u64, service: &Service, (address, standing): (IpAddr, Standing)) -> bool {
        let mut guests = self.guests();
        match guests.count(number, &service.config.limits, address, standing) {
            Ok(()) => true,
            Err(why) => {
                self.warn(guests, why);
                false
            }
        }
    }

    /// Logs why a client was turned away, when nobody waits for the lock any more.
    fn warn(&self, mut guests: MutexGuard<'_, Places>, why: Full) {
        let warning = guests.warning(why, Instant::now());
        drop(guests);
        if let Some(warning) = warning {
            ::log::warn!("{warning}");
        }
    }

    fn leave(&self, number: u64) {
        self.guests().leave(number);
        self.left.notify_all();
    }

    fn turn_away(&self, mut socket: &TcpStream, listen: &Listen) {
        if listen.tls == ListenTls::Implicit {
            return; // It is awaiting a handshake, for which nothing is to be had now.
        }
        let (mut text, service) = (Vec::new(), self.service());
        let why =
            if self.is_closed() { reply::connection::shutting_down } else { reply::connection::too_many_connections };
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

    fn guests(&self) -> MutexGuard<'_, Places> {
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
