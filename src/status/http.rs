//! Parses HTTP requests and writes the heads of responses (RFC 9110, RFC 9112), without I/O.
//!
//! Only requests without content are accepted, with the methods GET and HEAD. The parser is strict:
//! where the RFC leaves a choice between an error and a guess, it returns an error. A connection
//! serves one request. `Host` must name this host, so that a web page from elsewhere whose name
//! leads to a loopback address (DNS rebinding) cannot read anything.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;

/// The maximum size of the head of a request, in octets.
pub const MAX_REQUEST: usize = 8 << 10;
/// The maximum number of fields in a request.
const MAX_FIELDS: usize = 100;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whether the response has no content (HEAD).
    pub is_head: bool,
    /// The path, which begins with `/`. It is not decoded.
    pub path: String,
    /// The query after `?`; empty if there is none. It is not decoded.
    pub query: String,
    /// The name or address in `Host`, without the port, in lower case.
    pub host: String,
    /// The values of all `Accept` fields, separated by commas.
    pub accept: String,
}

/// The reason for a response without a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request is malformed.
    Malformed,
    /// There is no page with this path.
    NotFound,
    /// The method is neither GET nor HEAD.
    Method,
    /// The request did not arrive in time.
    Timeout,
    /// The request has content.
    Content,
    /// `Host` does not name this host.
    Host,
    /// The head of the request is too long.
    TooLong,
    /// A bug ended the making of the page.
    Bug,
    /// Too many requests are being answered.
    Busy,
    /// The major version of HTTP is not 1.
    Version,
}

impl Refusal {
    /// The status code with its reason phrase.
    pub fn status(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::Content => "413 Content Too Large",
            Self::Host => "421 Misdirected Request",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::Bug => "500 Internal Server Error",
            Self::Busy => "503 Service Unavailable",
            Self::Version => "505 HTTP Version Not Supported",
        }
    }
}

/// Returns the length of the head of a request, with the empty line at its end; `None` if more octets
/// are needed. A head with bare line feeds has an end, too, and [`parse`] rejects it.
pub fn head_length(received: &[u8]) -> Option<usize> {
    let ends: [&[u8]; 3] = [b"\r\n\r\n", b"\n\n", b"\n\r\n"];
    let end = |end: &[u8]| received.windows(end.len()).position(|part| part == end).map(|at| at + end.len());
    ends.into_iter().filter_map(end).min()
}

/// Parses the head of a request. `own_name` is the name of this host, which `Host` may have besides
/// `localhost` and loopback addresses.
///
/// # Errors
/// The reason for which the request is refused.
pub fn parse(head: &[u8], own_name: &str) -> Result<Request, Refusal> {
    if head.len() > MAX_REQUEST {
        return Err(Refusal::TooLong);
    }
    let text = std::str::from_utf8(head).ok().filter(|text| text.is_ascii()).ok_or(Refusal::Malformed)?;
    let mut lines = text.strip_suffix("\r\n\r\n").ok_or(Refusal::Malformed)?.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    check_version(version)?;
    let fields = Fields::read(lines)?;
    if !is_token(method) || !target.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(Refusal::Malformed);
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err(Refusal::Method);
    }
    if fields.has_content {
        return Err(Refusal::Content);
    }
    // A target may name the host as well, as it does for a proxy.
    let (authority, target) = match target.get(..7).filter(|start| start.eq_ignore_ascii_case("http://")) {
        Some(start) => {
            let rest = target.get(start.len()..).unwrap_or_default();
            rest.find(['/', '?']).map_or((Some(rest), "/"), |at| (Some(&rest[..at]), &rest[at..]))
        }
        None => (None, target),
    };
    let host = host_of(fields.host.ok_or(Refusal::Malformed)?)?;
    for name in [Some(host.clone()), authority.map(host_of).transpose()?].into_iter().flatten() {
        if !is_this_host(&name, own_name) {
            return Err(Refusal::Host);
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_absent = authority.is_some() && path.is_empty();
    if !(path.starts_with('/') || is_absent) || target.contains('#') {
        return Err(Refusal::Malformed);
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(Request {
        is_head: method == "HEAD",
        path: path.to_owned(),
        query: query.to_owned(),
        host,
        accept: fields.accept,
    })
}

/// Checks the version of a request, such as `HTTP/1.1`.
fn check_version(version: &str) -> Result<(), Refusal> {
    match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some([b'1', b'.', b'0'..=b'9']) => Ok(()),
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => Err(Refusal::Version),
        _ => Err(Refusal::Malformed),
    }
}

/// The fields of a request that matter here.
#[derive(Default)]
struct Fields<'t> {
    host: Option<&'t str>,
    accept: String,
    has_content: bool,
}

impl<'t> Fields<'t> {
    /// Reads the lines of all fields.
    fn read(lines: impl Iterator<Item = &'t str>) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for (index, line) in lines.enumerate() {
            let (name, value) = line.split_once(':').ok_or(Refusal::Malformed)?;
            let value = value.trim_matches([' ', '\t']);
            // A name that ends with a space, and a line that continues another one, have been used
            // to smuggle requests past proxies.
            if !is_token(name) || !value.bytes().all(|octet| octet == b'\t' || (b' '..=b'~').contains(&octet)) {
                return Err(Refusal::Malformed);
            }
            if index >= MAX_FIELDS {
                return Err(Refusal::TooLong);
            }
            match name.to_ascii_lowercase().as_str() {
                "host" if fields.host.is_some() => return Err(Refusal::Malformed),
                "host" => fields.host = Some(value),
                "accept" => {
                    let comma = if fields.accept.is_empty() { "" } else { ", " };
                    fields.accept.extend([comma, value]);
                }
                "transfer-encoding" => fields.has_content = true,
                "content-length" if value.is_empty() || !value.bytes().all(|octet| octet.is_ascii_digit()) => {
                    return Err(Refusal::Malformed);
                }
                "content-length" => fields.has_content |= value.bytes().any(|octet| octet != b'0'),
                _ => {}
            }
        }
        Ok(fields)
    }
}

/// Whether a text is a token (RFC 9110 5.6.2).
fn is_token(text: &str) -> bool {
    let is_token = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
    !text.is_empty() && text.bytes().all(is_token)
}

/// Returns the host of an authority, `host` or `host:port`, in lower case. An IPv6 address keeps its
/// brackets.
fn host_of(authority: &str) -> Result<String, Refusal> {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let at = authority.get(end..).and_then(|rest| rest.find(':')).map_or(authority.len(), |colon| end + colon);
    let (host, port) = authority.split_at(at);
    let is_port = |port: &str| port.len() < 6 && port.bytes().all(|octet| octet.is_ascii_digit());
    if host.is_empty() || !port.strip_prefix(':').is_none_or(is_port) {
        return Err(Refusal::Malformed);
    }
    Ok(host.to_ascii_lowercase())
}

/// Whether a host in lower case is this host: `localhost`, a loopback address, or its own name.
fn is_this_host(host: &str, own_name: &str) -> bool {
    let six = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host == "localhost"
        || host.eq_ignore_ascii_case(own_name)
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || six.is_some_and(|six| six.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()))
}

/// Returns the head of a response, with the empty line at its end. `length` is that of the content
/// that a GET gets.
pub fn response_head(status: &str, media_type: &str, length: usize, now: Timestamp) -> String {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT");
    let _ = write!(head, "Date: {date}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n");
    if status.starts_with("405 ") {
        head.push_str("Allow: GET, HEAD\r\n");
    }
    // The page needs no script, and nothing from elsewhere; no other page may show or read it.
    head.push_str(
        "Content-Security-Policy: default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         Cache-Control: no-store\r\n\
         Vary: Accept\r\n\
         Connection: close\r\n\r\n",
    );
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> &'static str {
        parse(text.as_bytes(), "mx.example.org").map_or_else(Refusal::status, |_| "200")
    }

    #[test]
    fn requests_are_accepted_or_refused_with_a_status() {
        for (line, fields, expected) in [
            ("GET / HTTP/1.1", "Host: localhost\r\n", "200"),
            ("HEAD /metrics?x=1 HTTP/1.0", "host:127.0.0.1:8025\r\nAccept: */*\r\n", "200"),
            ("GET http://[::1]:8025 HTTP/1.1", "Host: [::1]:8025\r\nContent-Length: 0\r\n", "200"),
            ("GET http://localhost?x HTTP/1.9", "Host: MX.example.org\r\n", "200"),
            ("GET / HTTP/1.1", "", "400"),
            ("GET / HTTP/1.1", "Host: localhost\r\nHost: localhost\r\n", "400"),
            ("GET / HTTP/1.1", "Host : localhost\r\n", "400"),
            ("GET / HTTP/1.1", "Host: localhost\r\n more\r\n", "400"),
            ("GET / HTTP/1.1", "Host: localhost\nX: y\r\n", "400"),
            ("GET / HTTP/1.1", "Host: localhost:x\r\n", "400"),
            ("GET / HTTP/1.1", "Host: localhost\r\nContent-Length: +1\r\n", "400"),
            ("GET  / HTTP/1.1", "Host: localhost\r\n", "400"),
            ("GET / HTTP/1.1 ", "Host: localhost\r\n", "400"),
            ("GET /", "Host: localhost\r\n", "400"),
            ("GET / http/1.1", "Host: localhost\r\n", "400"),
            ("GET metrics HTTP/1.1", "Host: localhost\r\n", "400"),
            ("GET /\u{e9} HTTP/1.1", "Host: localhost\r\n", "400"),
            ("GET /#x HTTP/1.1", "Host: localhost\r\n", "400"),
            ("G(T / HTTP/1.1", "Host: localhost\r\n", "400"),
            ("POST / HTTP/1.1", "Host: localhost\r\nContent-Length: 5\r\n", "405"),
            ("OPTIONS * HTTP/1.1", "Host: localhost\r\n", "405"),
            ("get / HTTP/1.1", "Host: localhost\r\n", "405"),
            ("GET / HTTP/1.1", "Host: localhost\r\nContent-Length: 1\r\n", "413"),
            ("GET / HTTP/1.1", "Host: localhost\r\nTransfer-Encoding: chunked\r\n", "413"),
            ("GET / HTTP/1.1", "Host: attacker.example\r\n", "421"),
            ("GET / HTTP/1.1", "Host: localhost.attacker.example\r\n", "421"),
            ("GET / HTTP/1.1", "Host: 192.0.2.1\r\n", "421"),
            ("GET / HTTP/1.1", "Host: 2130706433\r\n", "421"),
            ("GET http://attacker.example/ HTTP/1.1", "Host: localhost\r\n", "421"),
            ("GET http://localhost/ HTTP/1.1", "Host: attacker.example\r\n", "421"),
            ("GET / HTTP/2.0", "Host: localhost\r\n", "505"),
            ("GET / HTTP/0.9", "Host: localhost\r\n", "505"),
        ] {
            let found = status(&format!("{line}\r\n{fields}\r\n"));
            assert!(found.starts_with(expected), "{line} {fields}: {found}");
        }
        assert!(status(&format!("GET / HTTP/1.1\r\nHost: ::1\r\n{}\r\n", "X: y\r\n".repeat(100))).starts_with("431"));
        assert!(status(&"x".repeat(MAX_REQUEST + 1)).starts_with("431"));
    }

    #[test]
    fn a_target_is_split_and_an_unfinished_head_has_no_length() {
        let text =
            "HEAD HTTP://localhost:80/metrics?a=b?c HTTP/1.1\r\nAccept: a\r\nHOST: LocalHost:8025\r\naccept: b\r\n\r\n";
        let found = parse(text.as_bytes(), "x").expect("a request");
        let Request { is_head, path, query, host, accept } = found;
        assert_eq!((is_head, &*path, &*query, &*host, &*accept), (true, "/metrics", "a=b?c", "localhost", "a, b"));
        assert_eq!(head_length(text.as_bytes()), Some(text.len()));
        assert!((0..text.len()).all(|end| head_length(&text.as_bytes()[..end]).is_none()));
        assert_eq!(head_length(b"GET /\n\nmore"), Some(7));
    }

    #[test]
    fn a_response_has_a_date_and_forbids_everything_from_elsewhere() {
        let now = Timestamp::from_second(784_111_777).expect("a time");
        let head = response_head(Refusal::Method.status(), "text/plain", 3, now);
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        assert!(head.ends_with("\r\nConnection: close\r\n\r\n") && head.contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(head.contains("\r\nContent-Length: 3\r\n") && head.contains("default-src 'none'"));
    }
}
