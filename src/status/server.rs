//! Accepts connections to a status listener, and answers one request on each.
//!
//! Each connection has a thread and short deadlines, and few are open at a time. At the limit, the
//! connection that has waited longest for its client is closed, whether for the request or for the
//! client to take more of the response. So a client that sends or reads nothing keeps nobody out.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::http::{self, MAX_REQUEST, Refusal, Request};
use crate::listen::{Listener, Server};
use crate::net::Stream;

/// The size of the stack of a thread that answers a request, in bytes.
const STACK: usize = 256 << 10;
/// The maximum number of connections at a time.
const MAX_CONNECTIONS: usize = 16;
/// The time in which a request must arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which a client must accept the response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of octets of a response that are written at a time.
const PIECE: usize = 16 << 10;
/// The delay after a failed accept(2).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// The media type of the response to a refused request.
const PLAIN: &str = "text/plain; charset=utf-8";

/// The content of a response.
#[derive(Debug, Clone)]
pub struct Page {
    /// The value of `Content-Type`.
    pub media_type: &'static str,
    /// The content.
    pub content: Arc<str>,
}

/// A function that makes the page for a request.
pub type Pages = dyn Fn(&Request) -> Result<Page, Refusal> + Send + Sync;

/// The open connections of all status listeners.
#[derive(Default)]
pub struct Connections(Mutex<Open>);

#[derive(Default)]
struct Open {
    /// The number of the latest connection.
    latest: u64,
    /// The connections by number.
    sockets: BTreeMap<u64, (Arc<TcpStream>, Stage)>,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client, since then: for its request, or for it to take more of the response.
    Client(Instant),
    /// The page, which this server is making.
    Page,
}

impl Open {
    /// The connection that is closed at the limit: the one that has waited longest for its client.
    fn superfluous(&self) -> Option<u64> {
        let waiting = self.sockets.iter().filter_map(|(number, (_, stage))| match stage {
            Stage::Client(since) => Some((*since, *number)),
            Stage::Page => None,
        });
        waiting.min().map(|(_, number)| number)
    }
}

impl Connections {
    /// Adds a connection, and returns its number; `None` at the limit, if none waits for its client.
    fn admit(&self, socket: &Arc<TcpStream>) -> Option<u64> {
        let mut open = self.lock();
        if open.sockets.len() >= MAX_CONNECTIONS {
            let number = open.superfluous()?;
            // The thread of the connection gets the end of its input, or an error.
            let _ = open.sockets.remove(&number).map(|(socket, _)| socket.shutdown(Shutdown::Both));
        }
        open.latest += 1;
        let number = open.latest;
        open.sockets.insert(number, (Arc::clone(socket), Stage::Client(Instant::now())));
        Some(number)
    }

    /// Notes what a connection waits for now.
    fn waits_for(&self, number: u64, now: Stage) {
        if let Some((_, stage)) = self.lock().sockets.get_mut(&number) {
            *stage = now;
        }
    }

    fn remove(&self, number: u64) {
        self.lock().sockets.remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers requests until the server is closed. `own_name` returns the name of this host.
pub fn serve(
    listener: &Listener,
    server: &Server,
    connections: &Arc<Connections>,
    own_name: impl Fn() -> String,
    pages: &Arc<Pages>,
) {
    loop {
        match listener.socket.accept() {
            _ if server.is_closed() => return,
            Ok((socket, _)) => start(socket, connections, own_name(), pages),
            Err(e) => {
                ::log::warn!("accept: {e}");
                thread::sleep(ACCEPT_RETRY_DELAY);
            }
        }
    }
}

/// Starts a thread that answers a request, or refuses the client if too many are being answered.
fn start(socket: TcpStream, connections: &Arc<Connections>, own_name: String, pages: &Arc<Pages>) {
    let socket = Arc::new(socket);
    let Some(number) = connections.admit(&socket) else { return refuse_at_once(&socket) };
    let (ours, pages, shared) = (Arc::clone(connections), Arc::clone(pages), Arc::clone(&socket));
    let run = move || {
        let mut stream = Stream::from_socket(shared);
        let answered = catch_unwind(AssertUnwindSafe(|| {
            answer(&mut stream, &own_name, &*pages, |stage| ours.waits_for(number, stage));
        }));
        if answered.is_err() {
            ::log::error!("status: a bug ended this request");
            let _ = respond(&mut stream, false, Err(Refusal::Bug), || ());
        }
        ours.remove(number);
    };
    if let Err(e) = thread::Builder::new().name("status".into()).stack_size(STACK).spawn(run) {
        ::log::error!("answer a request for the status page: {e}");
        connections.remove(number);
        refuse_at_once(&socket);
    }
}

/// Writes a response that fits into the socket's buffer, so this thread never waits for the client.
fn refuse_at_once(mut socket: &TcpStream) {
    let text = response(false, Err(Refusal::Busy));
    let _ = socket.set_nonblocking(true).and_then(|()| socket.write_all(&text));
}

/// Reads a request and answers it. Calls `waits_for` when the connection waits for something else.
fn answer(stream: &mut Stream, own_name: &str, pages: &Pages, waits_for: impl Fn(Stage)) {
    stream.set_limit(REQUEST_TIMEOUT);
    let head = match read_head(stream) {
        Ok(Some(head)) => head,
        // The client has disconnected, or was disconnected because others wait.
        Ok(None) => return,
        Err(why) => {
            let _ = respond(stream, false, Err(why), || ());
            return;
        }
    };
    waits_for(Stage::Page);
    let page = http::parse(&head, own_name).and_then(|request| pages(&request));
    let _ = respond(stream, head.starts_with(b"HEAD "), page, || waits_for(Stage::Client(Instant::now())));
}

/// Reads the head of a request; `None` if the client disconnects before the end of the head.
fn read_head(stream: &mut impl Read) -> Result<Option<Vec<u8>>, Refusal> {
    let (mut received, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        // The end of the head can begin in the last piece, and is searched only from there on.
        let start = received.len().saturating_sub(3);
        match stream.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(count) => received.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(Refusal::Timeout),
            Err(_) => return Ok(None),
        }
        if let Some(length) = received.get(start..).and_then(http::head_length) {
            received.truncate(start + length);
            return Ok(Some(received));
        }
        if received.len() > MAX_REQUEST {
            return Err(Refusal::TooLong);
        }
    }
}

/// Writes a response and closes the connection. Calls `proceed` before each piece and at the end.
fn respond(stream: &mut Stream, is_head: bool, page: Result<Page, Refusal>, proceed: impl Fn()) -> io::Result<()> {
    stream.set_limit(RESPONSE_TIMEOUT);
    for piece in response(is_head, page).chunks(PIECE) {
        proceed();
        stream.write_all(piece)?;
    }
    proceed();
    stream.close();
    Ok(())
}

/// Returns a whole response.
fn response(is_head: bool, page: Result<Page, Refusal>) -> Vec<u8> {
    let (status, page) = match page {
        Ok(page) => ("200 OK", page),
        Err(why) => {
            let status = why.status();
            (status, Page { media_type: PLAIN, content: format!("{status}\n").into() })
        }
    };
    let mut text = http::response_head(status, page.media_type, page.content.len(), Timestamp::now()).into_bytes();
    if !is_head {
        text.extend_from_slice(page.content.as_bytes());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        (Arc::new(listener.accept().expect("a client").0), client)
    }

    #[test]
    fn at_the_limit_the_client_that_waited_longest_is_disconnected() {
        let (connections, mut pairs) = (Connections::default(), Vec::new());
        for number in 1..=MAX_CONNECTIONS as u64 {
            pairs.push(pair());
            assert_eq!(connections.admit(&pairs[pairs.len() - 1].0), Some(number));
        }
        connections.waits_for(1, Stage::Page);
        let (more, _client) = pair();
        assert_eq!(connections.admit(&more), Some(MAX_CONNECTIONS as u64 + 1));
        assert_eq!(pairs[1].1.read(&mut [0]).expect("the end"), 0);
        // Number 2 is gone. Number 3 has taken a part of its response, so number 4 waits longest.
        connections.waits_for(3, Stage::Client(Instant::now()));
        assert!(connections.admit(&more).is_some());
        assert_eq!(pairs[3].1.read(&mut [0]).expect("the end"), 0);
        (1..20).for_each(|number| connections.waits_for(number, Stage::Page));
        assert_eq!(connections.admit(&more), None);
        connections.remove(1);
        assert!(connections.admit(&more).is_some());
    }

    /// Clients that ask for a long page and read nothing of it do not keep it from others.
    #[test]
    fn clients_that_read_nothing_keep_nobody_out() {
        const LENGTH: usize = 8 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let page = Page { media_type: PLAIN, content: "x".repeat(LENGTH).into() };
        let pages: Arc<Pages> = Arc::new(move |_: &Request| Ok(page.clone()));
        let connections = Arc::new(Connections::default());
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                start(socket, &connections, "mx.example.org".into(), &pages);
            }
        });
        let ask = || {
            let mut client = TcpStream::connect(address).expect("a connection");
            client.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
            client
        };
        for _ in 0..3 {
            let idle: Vec<_> = (0..MAX_CONNECTIONS)
                .map(|_| {
                    let mut client = ask();
                    client.read_exact(&mut [0]).expect("the start of a response");
                    client
                })
                .collect();
            let mut received = Vec::new();
            ask().read_to_end(&mut received).expect("a response");
            assert!(received.len() > LENGTH && received.starts_with(b"HTTP/1.1 200 "), "{} octets", received.len());
            drop(idle);
        }
    }

    #[test]
    fn a_head_gets_no_content_and_a_long_or_unfinished_request_no_page() {
        let page = || Ok(Page { media_type: "text/html", content: "<p>".into() });
        let [get, head] = [false, true].map(|is_head| String::from_utf8(response(is_head, page())).expect("text"));
        assert!(get.ends_with("\r\n\r\n<p>") && head.ends_with("\r\n\r\n") && head.contains("Content-Length: 3\r\n"));
        let read = |mut text: &[u8]| read_head(&mut text);
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\nmore"), Ok(Some(b"GET / HTTP/1.1\r\n\r\n".to_vec())));
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Ok(None));
        let mut single = b"GET / HTTP/1.1\r\n\r\nmore"
            .chunks(1)
            .fold(Box::new(io::empty()) as Box<dyn Read>, |all, one| Box::new(all.chain(one)));
        assert_eq!(read_head(&mut single), Ok(Some(b"GET / HTTP/1.1\r\n\r\n".to_vec())));
        assert_eq!(read(&[b'x'; 2 * MAX_REQUEST]), Err(Refusal::TooLong));
    }
}
