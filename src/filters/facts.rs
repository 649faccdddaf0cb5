//! The facts that filters are told about a client, a sender and a recipient.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::address::Address;
use crate::config::FilterGroup;

/// The client of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The group of clients to which this client belongs.
    pub group: FilterGroup,
    /// The client's address; `None` for a local process.
    pub address: Option<IpAddr>,
    /// The client's port; 0 if it is unknown.
    pub port: u16,
    /// The verified host name; `None` if there is none.
    pub name: Option<String>,
    /// The address and port of this server that the client is connected to, if it is known.
    pub own: Option<SocketAddr>,
    /// The argument of HELO or EHLO.
    pub hello: String,
    /// Whether the client has sent EHLO.
    pub is_extended: bool,
    /// The TLS version and the cipher suite; `None` in plaintext.
    pub tls: Option<(String, String)>,
    /// The authenticated user and the mechanism; `None` if the client has not authenticated.
    pub login: Option<(String, String)>,
}

impl Client {
    /// The client's address. A local process has the loopback address, as with Postfix.
    pub fn ip(&self) -> IpAddr {
        self.address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.to_canonical())
    }

    /// The client's address as text.
    pub fn shown_address(&self) -> String {
        self.ip().to_string()
    }

    /// The client's name, or `unknown`.
    pub fn shown_name(&self) -> &str {
        match (&self.name, self.address) {
            (Some(name), _) => name,
            (None, None) => "localhost",
            (None, Some(_)) => "unknown",
        }
    }

    /// Whether a connection to a filter that began for `other` can be used for this client. HELO
    /// and TLS may differ, because the filter can be told the new facts.
    pub fn continues(&self, other: &Self) -> bool {
        let same = Self { hello: other.hello.clone(), is_extended: other.is_extended, ..self.clone() };
        Self { tls: other.tls.clone(), login: other.login.clone(), ..same } == *other
    }
}

/// The sender or a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The address; `None` for the null path.
    pub address: Option<Address>,
    /// The parameters of the command, such as `SIZE=100`.
    pub parameters: Vec<String>,
    /// Whether the domain is local.
    pub is_local: bool,
}
