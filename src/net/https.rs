//! Makes one HTTPS request to a host that strangers have chosen.
//!
//! Only public addresses are connected to, at port 443. The certificate must be valid for the host's
//! name, as for a mail host that needs a valid certificate. Certificates are not checked for
//! revocation. Redirects are not followed. The request ends at its deadline, also if the host sends
//! one octet at a time, and a longer answer than the caller expects is an error. The library ureq
//! writes the request and reads the answer; resolver, connection and TLS are those of mail hosts.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Agent, Error};

use super::Stream;
use crate::dns::{Dns, is_public};
use crate::endpoint::Endpoint;
use crate::timeouts::HostTimeout;
use crate::tls::{Client, Fault, Verification};

/// The only port.
const PORT: u16 = 443;
/// At most this number of addresses is tried.
const MAX_ADDRESSES: usize = 4;
/// How long an address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum size of the answer's header, in bytes.
const MAX_HEADER: usize = 16 << 10;
/// The size of each buffer, in bytes.
const BUFFER: usize = 32 << 10;

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The host, a domain or an IP address, as in a URL: an IPv6 address is in brackets.
    pub host: &'a str,
    /// The path and the query.
    pub path: &'a str,
    /// The content that is sent, with its type. With content the method is POST, otherwise GET.
    pub content: Option<(&'a str, &'a [u8])>,
    /// The maximum size of the answer's content, in bytes.
    pub max_answer: usize,
    /// The time at which the request ends at the latest.
    pub deadline: Instant,
    /// A second limit for each step: connection, handshake, answer.
    pub host_timeout: Option<&'a HostTimeout>,
}

/// The answer of the host.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The value of the field Content-Type.
    pub content_type: Option<String>,
    /// The content.
    pub content: Vec<u8>,
}

/// Why there is no answer. Its `Display` text has the details.
#[derive(Debug)]
pub enum HttpsError {
    /// The certificate is not valid for the host.
    Certificate(String),
    /// The answer is too long.
    TooLong,
    /// `host_timeout` has shortened the request.
    CutShort,
    /// The host has no public address, cannot be connected to, or speaks no valid TLS or HTTP.
    Other(String),
}

impl fmt::Display for HttpsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(what) | Self::Other(what) => f.write_str(what),
            Self::TooLong => f.write_str("the answer is too long"),
            Self::CutShort => f.write_str("the host took long, while other mail waited"),
        }
    }
}

/// Sends a request, and returns the answer with any status code.
///
/// # Errors
/// An [`HttpsError`], at the latest a few seconds after the deadline.
pub fn exchange(dns: &Dns, tls: &Client, request: &Request<'_>) -> Result<Answer, HttpsError> {
    let connection = tls.connect(bare(request.host), &Verification::authority(), true);
    let connection = connection.map_err(|e| other("TLS", &e))?.0;
    let mut stream = connect(dns, request)?;
    // Each step begins with the full limit of `host_timeout`.
    stream.set_host_timeout(request.host_timeout.cloned());
    stream.set_deadline(request.deadline);
    if let Err(error) = stream.secure(connection) {
        return Err(match Fault::of_certificate(&error) {
            Some(fault) => HttpsError::Certificate(fault.why),
            None if stream.is_cut_short() => HttpsError::CutShort,
            None => other("TLS handshake", &error),
        });
    }
    stream.set_deadline(request.deadline);
    speak(stream, request).map_err(|error| match error {
        Error::BodyExceedsLimit(_) => HttpsError::TooLong,
        // Only the deadline and `host_timeout` make a stream fail in this way. A stream takes less
        // than a millisecond before its deadline for the deadline.
        Error::Io(e) if e.kind() == io::ErrorKind::TimedOut && left(request) > Duration::from_millis(2) => {
            HttpsError::CutShort
        }
        Error::Io(e) => other("HTTP", &e),
        error => HttpsError::Other(format!("HTTP: {error}")),
    })
}

/// The time until the deadline.
fn left(request: &Request<'_>) -> Duration {
    request.deadline.saturating_duration_since(Instant::now())
}

/// The host as DNS and TLS know it: in a URL, an IPv6 address is in brackets.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Connects to the first address that accepts the connection.
fn connect(dns: &Dns, request: &Request<'_>) -> Result<Stream, HttpsError> {
    let all = match bare(request.host).parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => dns.addresses(request.host).map_err(|error| {
            // The text also reaches the domain, in a TLS report.
            HttpsError::Other(format!("{}: {}", request.host, error.for_strangers()))
        })?,
    };
    let mut last = HttpsError::Other(format!("{} has no public address", request.host));
    for address in all.into_iter().filter(|address| is_public(*address)).take(MAX_ADDRESSES) {
        let left = left(request);
        if left < Duration::from_millis(1) {
            break;
        }
        let address = SocketAddr::new(address.to_canonical(), PORT);
        match Stream::connect(&Endpoint::Tcp(address), None, left.min(CONNECT_TIMEOUT), request.host_timeout) {
            Ok(stream) => return Ok(stream),
            Err((_, true)) => return Err(HttpsError::CutShort),
            Err((error, false)) => last = other(&format!("connection to {address}"), &error),
        }
    }
    Err(last)
}

fn other(what: &str, error: &io::Error) -> HttpsError {
    HttpsError::Other(match error.kind() {
        io::ErrorKind::TimedOut => format!("{what}: timed out"),
        _ => format!("{what}: {error}"),
    })
}

/// Sends the request over an encrypted connection, and reads the answer.
fn speak(stream: Stream, request: &Request<'_>) -> Result<Answer, Error> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(true)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(MAX_HEADER)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .max_idle_connections(0)
        .user_agent("penfold")
        .build();
    let agent = Agent::with_parts(config, Given(Mutex::new(Some(stream))), Nowhere);
    let uri = format!("https://{}{}", request.host, request.path);
    let mut answer = match request.content {
        None => agent.get(uri).call()?,
        Some((kind, content)) => agent.post(uri).content_type(kind).send(content)?,
    };
    let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let content = answer.body_mut().with_config().limit(request.max_answer as u64).read_to_vec()?;
    Ok(Answer { status: answer.status().as_u16(), content_type, content })
}

/// An attacker can cut off the rest of an answer, so an end without close_notify is an error. For ureq
/// such an end, or a reset, would be the end of an answer of unknown length, so it gets another error.
fn cut_off(error: io::Error) -> io::Error {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
    match error.kind() {
        ConnectionAborted | ConnectionReset | UnexpectedEof => io::Error::new(InvalidData, "the answer was cut off"),
        _ => error,
    }
}

/// Gives ureq the connection that is open already.
#[derive(Debug)]
struct Given(Mutex<Option<Stream>>);

impl Connector for Given {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, Error> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(stream.map(|stream| Wire { stream, buffers }))
    }
}

/// The resolver of ureq, which is not needed.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(&self, _: &http::Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut none = self.empty();
        none.push(SocketAddr::from(([192, 0, 2, 1], PORT)));
        Ok(none)
    }
}

/// An encrypted connection as ureq uses it. The stream has the deadline, so those of ureq are not
/// used.
#[derive(Debug)]
struct Wire {
    stream: Stream,
    buffers: LazyBuffers,
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let bytes = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(bytes)?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let amount = self.stream.read(self.buffers.input_append_buf()).map_err(cut_off)?;
        if amount == 0 && !self.stream.is_closed_by_peer() {
            return Err(cut_off(io::ErrorKind::UnexpectedEof.into()).into());
        }
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// A certificate can be for an address, but for no name in brackets.
    #[test]
    fn an_address_in_brackets_is_an_address_for_tls() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let file = std::env::temp_dir().join(format!("penfold-https-{}.pem", std::process::id()));
        std::fs::write(&file, params.self_signed(&key).expect("a certificate").pem()).expect("a file");
        let tls = Client::with_authorities(&file).expect("an authority");
        let dns = config::Dns { nameservers: Vec::new(), timeout: Duration::from_secs(5), trust_ad: None };
        let (dns, deadline) = (Dns::new(&dns), Instant::now());
        for host in ["[::1]", "127.0.0.1"] {
            let request = Request { host, path: "/", content: None, max_answer: 1, deadline, host_timeout: None };
            let why = exchange(&dns, &tls, &request).expect_err("not a public address").to_string();
            assert_eq!(why, format!("{host} has no public address"));
        }
        std::fs::remove_file(&file).expect("removed");
    }
}
