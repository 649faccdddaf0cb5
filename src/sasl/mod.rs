//! Who somebody is: SASL (RFC 4422), as server and as client.
//!
//! [`client`] logs in to other hosts, [`server`] and [`dovecot`] let people log in
//! here; [`secret`] is what is kept of a password, [`throttle`] counts wrong ones.
//! An exchange is a value that takes what the other side said and gives what to
//! answer; base64, lines and time belong to whoever has the connection. Only
//! `dovecot` has a socket of its own, under a deadline.
//!
//! No password, token or key gets into an error, a log or `Debug`. Knows no SMTP.
//! There is no mechanism that protects what comes after it: that is what TLS is for.

use std::fmt;

pub mod client;
pub mod prep;
pub mod scram;

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256 bound to its TLS connection (RFC 7677, RFC 9266).
    ScramSha256Plus,
    /// SCRAM-SHA-256 (RFC 5802, RFC 7677).
    ScramSha256,
    /// Name and password at once (RFC 4616).
    Plain,
    /// Name, then password, as older programs do it.
    Login,
    /// Name and a bearer token, as some large hosts want it. Only as a client.
    Xoauth2,
}

impl Mechanism {
    /// All, the better ones first.
    pub const ALL: [Self; 5] = [Self::ScramSha256Plus, Self::ScramSha256, Self::Plain, Self::Login, Self::Xoauth2];

    /// As AUTH has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Xoauth2 => "XOAUTH2",
        }
    }

    /// Reads a name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
