//! An HTTPS server that publishes policies or takes reports, with every fault that such a server can
//! have.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a server does with each connection.
#[derive(Clone)]
pub enum Conduct {
    /// Sends this answer to a request, and closes the connection.
    Answer(Vec<u8>),
    /// The same, without the end of TLS.
    Cut(Vec<u8>),
    /// The same, and resets the connection.
    Reset(Vec<u8>),
    /// Sends this answer, one octet every ten milliseconds.
    Drip(Vec<u8>),
    /// Sends this answer, and then nothing more.
    AnswerAndHang(Vec<u8>),
    /// Sends nothing, not even in the TLS handshake.
    Hang,
    /// Sends these octets instead of TLS.
    Plain(Vec<u8>),
    /// Closes each connection at once.
    Close,
}

/// A server, which runs until the process ends.
pub struct Server {
    conduct: Arc<Mutex<Conduct>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// What came over a connection; empty if there was no whole request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The name of the server, from the TLS handshake.
    pub server: String,
    /// The request line and the header.
    pub head: String,
    pub content: Vec<u8>,
}

impl Server {
    /// Starts a server at port 443 of an address, in the network of the calling thread.
    pub fn start(address: &str, config: &Arc<ServerConfig>, conduct: Conduct) -> Self {
        let address = SocketAddr::new(address.parse::<IpAddr>().expect("an address"), 443);
        let listener = TcpListener::bind(address).expect("port 443");
        let server = Self { conduct: Arc::new(Mutex::new(conduct)), requests: Arc::default() };
        let (conduct, requests, config) =
            (Arc::clone(&server.conduct), Arc::clone(&server.requests), Arc::clone(config));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let conduct = conduct.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let (requests, config) = (Arc::clone(&requests), Arc::clone(&config));
                // The client may end at any time.
                thread::spawn(move || drop(serve(client, &config, conduct, &requests)));
            }
        });
        server
    }

    /// Changes what the server does with later connections.
    pub fn behave(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap_or_else(PoisonError::into_inner) = conduct;
    }

    /// What came over each connection so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(
    mut client: TcpStream,
    config: &Arc<ServerConfig>,
    conduct: Conduct,
    requests: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let at = {
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(Request::default());
        requests.len() - 1
    };
    match &conduct {
        Conduct::Hang => return hang(&mut client),
        Conduct::Close => return Ok(()),
        Conduct::Plain(octets) => {
            let _ = client.read(&mut [0; 4096])?;
            client.write_all(octets)?;
            return hang(&mut client);
        }
        _ => {}
    }
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, client);
    let request = read(&mut stream)?;
    requests.lock().unwrap_or_else(PoisonError::into_inner)[at] = request;
    match conduct {
        Conduct::Answer(answer) => {
            stream.write_all(&answer)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
        Conduct::Cut(answer) => stream.write_all(&answer).and_then(|()| stream.flush()),
        Conduct::Reset(answer) => {
            stream.write_all(&answer)?;
            stream.flush()?;
            // The client gets the answer first.
            thread::sleep(Duration::from_millis(200));
            socket2::SockRef::from(&stream.sock).set_linger(Some(Duration::ZERO))
        }
        Conduct::Drip(answer) => {
            for octet in answer {
                stream.write_all(&[octet])?;
                stream.flush()?;
                thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        }
        Conduct::AnswerAndHang(answer) => {
            stream.write_all(&answer)?;
            stream.flush()?;
            hang(&mut stream.sock)
        }
        Conduct::Hang | Conduct::Plain(_) | Conduct::Close => Ok(()),
    }
}

fn read(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<Request> {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        head.extend(octet);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut content = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut content)?;
    Ok(Request { server: stream.conn.server_name().unwrap_or_default().to_owned(), head, content })
}

/// Waits until the client closes the connection.
fn hang(client: &mut TcpStream) -> std::io::Result<()> {
    let mut discarded = [0; 4096];
    while client.read(&mut discarded)? > 0 {}
    Ok(())
}

/// A server's answer with this status, this content type and this content.
pub fn answer(status: &str, kind: &str, content: &str) -> Vec<u8> {
    let length = content.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{content}").into_bytes()
}
