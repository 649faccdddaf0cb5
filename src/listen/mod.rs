//! Accepts clients at the listening sockets, and runs a session for each in a thread of its own.
//!
//! Connections are counted. A client beyond a limit gets a 421, and so does one for which the
//! system has no descriptor or thread. Submission over the control socket is served here, too, but
//! the limit on its connections is in `control`. Behind a trusted proxy, the client is the one that
//! the PROXY header names. A panic in a session is a bug, and ends only that session. At shutdown,
//! sessions between two messages end at once, and the others at the latest after a grace period.
//!
//! - `connections`: the open connections, and the limits on their number
//! - `socket`: listening sockets

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Kind, Listen, ListenTls};
use crate::message::trace::LocalUser;
use crate::net::Stream;
use crate::reply;
use crate::session::{Client, Flush, Notify, Service, Session, Watch};
use crate::site::Site;
use crate::smtp::proxy::{self, Source};
use crate::spool::QueueId;
use crate::stats::{self, Event};
use crate::sys;

mod connections;
mod socket;

use connections::{ClientClass, Connection, Connections, LimitReached};
pub use socket::{ListenSocket, Owner};

/// The size of the stack of a session's thread, in bytes. The session has its buffers on the heap.
const SESSION_STACK: usize = 256 << 10;
/// How long sessions may take at shutdown to finish the current message.
const MESSAGE_GRACE: Duration = Duration::from_secs(5);
/// The delay after a failed accept(2).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(10);
/// How long sessions may take to send the last reply.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limit for a PROXY header.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval at which the system is asked again for a descriptor if it had no free one.
const DESCRIPTOR_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A listening socket and its configuration.
pub struct Listener {
    /// The socket.
    pub socket: ListenSocket,
    /// The `[[listen]]` section of the configuration for the socket.
    pub listen: Listen,
    /// Whether the service manager holds the socket too, and may pass it to a later process.
    pub is_shared: bool,
}

impl Listener {
    /// Makes a waiting accept(2) return when the server is being closed. A shared socket must not
    /// be shut down, so this process connects to it instead.
    fn wake(&self) {
        if self.is_shared {
            self.socket.connect_to();
        } else {
            sys::wake_acceptor(&self.socket);
        }
    }
}

/// The open connections, and the service for new sessions.
pub struct Server {
    site: Arc<Site>,
    notify: Arc<Notify>,
    flush: Arc<Flush>,
    /// The thread that accepts a connection adds it, and the thread of its session removes it.
    connections: Mutex<Connections>,
    closed: Condvar,
    watch: Watch,
    sessions: AtomicU64,
}

impl Server {
    /// A server without connections. `seed` makes session ids differ from those of other runs.
    pub fn new(site: Arc<Site>, notify: Arc<Notify>, flush: Arc<Flush>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            site,
            notify,
            flush,
            connections: Mutex::default(),
            closed: Condvar::new(),
            watch: Watch::default(),
            sessions: AtomicU64::new(seed << 20),
        })
    }

    /// Serves one client on standard input and output, and returns when its session ends.
    ///
    /// # Errors
    /// If there is no standard input.
    pub fn serve_standard_input(&self) -> io::Result<()> {
        let stream = Stream::from_standard_input()?;
        let address = stream.peer().map(|a| a.ip().to_canonical());
        let listen = Arc::new(Listen::at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))));
        let (session, is_local) = (self.session_id(), stream.is_local());
        let client = Client {
            session,
            address,
            is_local,
            proxy: None,
            is_unidentified: false,
            listen,
            local_user: None,
            dropped: None,
        };
        Session::new(&self.service(), client, self.watch.clone(), stream).run();
        Ok(())
    }

    /// Serves a local process, whose user the kernel has identified, and returns when its session
    /// ends. The limits on connections do not count the process, and do not apply to it.
    pub fn serve_local_user(&self, stream: UnixStream, user: LocalUser) {
        self.serve_user(stream, (user, None), self.service());
    }

    /// Does the same for a message of this user in the drop directory. The entry gets the given id.
    /// `notify` is called when it was committed, instead of the function for other messages.
    pub fn serve_dropped(&self, stream: UnixStream, (user, id): (LocalUser, QueueId), notify: Arc<Notify>) {
        self.serve_user(stream, (user, Some(id)), Service { notify, ..self.service() });
    }

    fn serve_user(&self, stream: UnixStream, (user, dropped): (LocalUser, Option<QueueId>), service: Service) {
        let socket = Arc::new(TcpStream::from(OwnedFd::from(stream)));
        let watch = Watch { stop: Arc::clone(&self.watch.stop), ..Watch::default() };
        let number = self.connections().admit(&socket, &watch, true);
        let mut listen = Listen::at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        (listen.kind, listen.tls) = (Kind::Submission, ListenTls::None);
        let (session, listen) = (self.session_id(), Arc::new(listen));
        ::log::debug!("{session} connect {}", user.comment());
        let client = Client {
            session,
            address: None,
            is_local: true,
            proxy: None,
            is_unidentified: false,
            listen,
            local_user: Some(Box::new(user)),
            dropped,
        };
        let stream = Stream::from_socket(socket);
        let session = client.session.clone();
        if catch_unwind(AssertUnwindSafe(|| Session::new(&service, client, watch, stream).run())).is_err() {
            ::log::error!("{session}: a bug ended this session");
        }
        self.remove(number);
    }

    /// Returns the number of open connections, with those of local processes.
    pub fn connection_count(&self) -> usize {
        self.connections().open.len()
    }

    /// Accepts clients until the server is closed.
    pub fn accept_from(self: &Arc<Self>, listener: &Listener) {
        let (listener, listen) = (&listener.socket, &Arc::new(listener.listen.clone()));
        // A reserved descriptor. If no other descriptor is left, this one is closed for a moment,
        // so that a client can be accepted and sent a 421.
        let mut reserve = File::open("/dev/null").ok();
        let mut is_short = false;
        loop {
            match listener.accept() {
                // The server is closed. Other waiting clients are left to the next process.
                Ok((socket, _)) if self.is_closed() => return self.reject(&socket, listen),
                Ok((socket, peer)) => {
                    is_short = false;
                    self.accept(socket, peer, listen);
                }
                Err(_) if self.is_closed() => return,
                Err(e) if matches!(e.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) => {
                    if !std::mem::replace(&mut is_short, true) {
                        ::log::error!("accept: {e}");
                    }
                    drop(reserve.take());
                    let waiting = accept_waiting(listener);
                    if let Ok(socket) = &waiting {
                        self.reject(socket, listen);
                    }
                    reserve = File::open("/dev/null").ok();
                    if waiting.is_err() {
                        thread::sleep(DESCRIPTOR_POLL_INTERVAL);
                    }
                }
                // The error is temporary or concerns one connection only.
                Err(e) => {
                    ::log::warn!("accept: {e}");
                    thread::sleep(ACCEPT_RETRY_DELAY);
                }
            }
        }
    }

    /// From now on, the server is closed to new clients.
    pub fn refuse(&self) {
        self.watch.stop.store(true, Ordering::SeqCst);
    }

    /// Shuts down: accepts no more clients, ends the sessions, and waits until they are over, for a
    /// few seconds at most.
    pub fn close(&self, listeners: &[Arc<Listener>]) {
        self.refuse();
        listeners.iter().for_each(|listener| listener.wake());
        self.hang_up(|connection| !connection.watch.busy.load(Ordering::SeqCst));
        if !self.wait(MESSAGE_GRACE) {
            self.hang_up(|_| true);
            self.wait(CLOSE_TIMEOUT);
        }
    }

    fn hang_up(&self, is_affected: impl Fn(&Connection) -> bool) {
        for connection in self.connections().open.values().filter(|c| is_affected(c)) {
            // `shutdown` fails only if the connection is closed already.
            let _ = connection.socket.shutdown(Shutdown::Read);
        }
    }

    /// Waits until all connections are closed, but no longer than `limit`. Returns whether all are
    /// closed.
    fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut connections = self.connections();
        while !connections.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            connections = self.closed.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Starts a session. A client of a Unix socket has no `peer` address.
    fn accept(self: &Arc<Self>, socket: TcpStream, peer: Option<SocketAddr>, listen: &Arc<Listen>) {
        stats::event(Event::Connection);
        let (service, socket) = (self.service(), Arc::new(socket));
        // The client of a proxy is counted once the proxy has named it.
        let ip = peer.map(|peer| peer.ip());
        let is_proxy = ip.is_some_and(|ip| listen.proxy.iter().any(|network| network.contains(ip)));
        let class = |ip| ClientClass::of(&service.config, ip, true, listen.kind);
        let counted = ip.filter(|_| !is_proxy).map(|ip| (ip, class(ip)));
        // Nagle's algorithm would delay replies until the client's acknowledgement.
        let _ = socket.set_nodelay(true);
        let watch = Watch { stop: Arc::clone(&self.watch.stop), ..Watch::default() };
        let Some(number) = self.add(&service, counted, &socket, &watch) else {
            return self.reject(&socket, listen);
        };
        let (session, address) = (self.session_id(), ip.map(|ip| ip.to_canonical()));
        let client = Client {
            session,
            address,
            is_local: peer.is_none(),
            proxy: None,
            is_unidentified: false,
            listen: Arc::clone(listen),
            local_user: None,
            dropped: None,
        };
        let shown = peer.map_or_else(|| "-".to_owned(), |peer| format!("[{peer}]"));
        ::log::debug!("{} connect peer={shown}", client.session);
        let (server, stream) = (Arc::clone(self), Stream::from_socket(Arc::clone(&socket)));
        // In a box, because otherwise each frame of the thread's stack has a copy of it.
        let accepted = Box::new(Accepted { client, watch, stream, is_proxy });
        let builder = thread::Builder::new().name("session".into()).stack_size(SESSION_STACK);
        let started = builder.spawn(move || server.serve(number, &service, accepted));
        if let Err(e) = started {
            ::log::error!("start a session: {e}");
            self.remove(number);
            self.reject(&socket, listen);
        }
    }

    /// Runs the session of an accepted client.
    fn serve(&self, number: u64, service: &Service, accepted: Box<Accepted>) {
        let id = accepted.client.session.clone();
        let served = catch_unwind(AssertUnwindSafe(|| {
            // A session that is moved would take its place on the stack twice.
            if let Some(session) = &mut self.begin(number, service, accepted) {
                session.run();
            }
        }));
        if served.is_err() {
            ::log::error!("{id}: a bug ended this session");
        }
        self.remove(number);
    }

    /// Begins the session of an accepted client. Returns `None` if a proxy does not name the client.
    #[inline(never)]
    fn begin<'a>(&self, number: u64, service: &'a Service, accepted: Box<Accepted>) -> Option<Session<'a>> {
        let Accepted { client, watch, stream, is_proxy } = *accepted;
        let (client, stream) =
            if is_proxy { self.read_proxy_header(number, service, client, stream)? } else { (client, stream) };
        Some(Session::new(service, client, watch, stream))
    }

    /// Reads the PROXY header and returns the client that it names. Returns `None` if there is no
    /// valid header, or if the client exceeds a limit.
    fn read_proxy_header(
        &self,
        number: u64,
        service: &Service,
        mut client: Client,
        mut stream: Stream,
    ) -> Option<(Client, Stream)> {
        let (session, proxy) = (client.session.clone(), client.address?);
        stream.set_limit(PROXY_HEADER_TIMEOUT);
        match proxy::read(&mut stream) {
            Ok(Source::Client(address)) => (client.address, client.proxy) = (Some(address.ip()), Some(proxy)),
            Ok(Source::Unknown) => (client.is_unidentified, client.proxy) = (true, Some(proxy)),
            Ok(Source::Proxy) => {}
            Err(_) if self.is_closed() => return None,
            Err(e) => {
                let why = match e.kind() {
                    io::ErrorKind::TimedOut => "no PROXY header in time".to_owned(),
                    io::ErrorKind::UnexpectedEof => "disconnected without a PROXY header".to_owned(),
                    _ => e.to_string(),
                };
                ::log::warn!("{session} closed peer=[{proxy}] reason=\"{why}\"");
                return None;
            }
        }
        let host = client.address.unwrap_or(proxy);
        ::log::debug!("{session} proxied peer=[{host}] via=[{proxy}]");
        let class = ClientClass::of(&service.config, host, !client.is_unidentified, client.listen.kind);
        if self.count(number, service, (host, class)) {
            return Some((client, stream));
        }
        let mut text = Vec::new();
        reply::connection::too_many_connections(&service.config.hostname).write_to(&mut text);
        stream.set_limit(CLOSE_TIMEOUT);
        // A client that expects a TLS handshake gets no reply. The connection is dropped in any
        // case, even if writing the reply fails.
        let is_clear = client.listen.tls != ListenTls::Implicit;
        if is_clear && stream.write_all(&text).is_ok() {
            stream.close();
        }
        None
    }

    /// Adds a connection and returns its number. Returns `None` if the connection exceeds a limit.
    fn add(
        &self,
        service: &Service,
        counted: Option<(IpAddr, ClientClass)>,
        socket: &Arc<TcpStream>,
        watch: &Watch,
    ) -> Option<u64> {
        let mut connections = self.connections();
        if let Err(why) = connections.has_room(&service.config.limits) {
            self.warn(connections, why);
            return None;
        }
        let number = connections.admit(socket, watch, false);
        drop(connections);
        if counted.is_none_or(|counted| self.count(number, service, counted)) {
            return Some(number);
        }
        self.remove(number);
        None
    }

    /// Counts a connection for its address. Returns false if the connection exceeds a limit.
    fn count(&self, number: u64, service: &Service, (address, class): (IpAddr, ClientClass)) -> bool {
        let mut connections = self.connections();
        match connections.count(number, &service.config.limits, address, class) {
            Ok(()) => true,
            Err(why) => {
                self.warn(connections, why);
                false
            }
        }
    }

    /// Logs the reason for a rejection, after releasing the lock.
    fn warn(&self, mut connections: MutexGuard<'_, Connections>, why: LimitReached) {
        stats::event(Event::ConnectionRejected);
        let warning = connections.warning(why, Instant::now());
        drop(connections);
        if let Some(warning) = warning {
            ::log::warn!("{warning}");
        }
    }

    fn remove(&self, number: u64) {
        self.connections().remove(number);
        self.closed.notify_all();
    }

    fn reject(&self, mut socket: &TcpStream, listen: &Listen) {
        if listen.tls == ListenTls::Implicit {
            return; // The client expects a TLS handshake, for which there are no resources.
        }
        let (mut text, service) = (Vec::new(), self.service());
        let why =
            if self.is_closed() { reply::connection::shutting_down } else { reply::connection::too_many_connections };
        why(&service.config.hostname).write_to(&mut text);
        // The reply fits into the socket's buffer, so this thread never waits for the client to
        // read the reply.
        let _ = socket.set_nonblocking(true).and_then(|()| socket.write_all(&text));
    }

    fn session_id(&self) -> String {
        format!("s{:x}", self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    fn service(&self) -> Service {
        let (site, notify, flush) = (Arc::clone(&self.site), Arc::clone(&self.notify), Arc::clone(&self.flush));
        Service { settings: site.settings(), site, notify, flush }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server accepts no more clients.
    pub fn is_closed(&self) -> bool {
        self.watch.stop.load(Ordering::SeqCst)
    }
}

/// A client for which a thread was started.
struct Accepted {
    client: Client,
    watch: Watch,
    stream: Stream,
    /// Whether the connection comes from a proxy, which names the client.
    is_proxy: bool,
}

/// Accepts a waiting client without blocking. A blocking accept(2) would take the free descriptor
/// and hold it while it waits for a client.
fn accept_waiting(listener: &ListenSocket) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let accepted = listener.accept();
    listener.set_nonblocking(false)?;
    accepted.map(|(socket, _)| socket)
}
