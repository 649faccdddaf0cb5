//! SPF (RFC 7208): whether a client may use the domain of a sender.

use std::fmt;
use std::net::IpAddr;

use super::lookup::Lookup;

/// The result of a check (RFC 7208 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpfResult {
    /// There is no SPF record, or no domain to check.
    None,
    /// The record says nothing about the client.
    Neutral,
    /// The client may use the domain.
    Pass,
    /// The client may not use the domain.
    Fail,
    /// The client probably may not use the domain.
    SoftFail,
    /// DNS trouble; a later check may succeed.
    TempError,
    /// The domain's records cannot be interpreted.
    PermError,
}

/// The name that a client gives, and that a check is about (RFC 7208 2.3, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The name in HELO or EHLO. This includes the check of a null sender.
    Hello,
    /// The domain of the envelope sender.
    MailFrom,
}

/// A check and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The result.
    pub result: SpfResult,
    /// Which name was checked.
    pub identity: Identity,
    /// The domain that was checked, in lower case.
    pub domain: Box<str>,
    /// The explanation of the domain's owner for `Fail`: printable ASCII, of bounded length.
    pub explanation: Option<Box<str>>,
    /// The mechanism that led to the result, such as `ip4:192.0.2.0/24` or `default`, or the reason
    /// for `None` or an error: printable ASCII, of bounded length.
    pub mechanism: Box<str>,
}

impl fmt::Display for SpfResult {
    /// The word for the result in an Authentication-Results field (RFC 8601 2.7.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        })
    }
}

/// Checks the envelope sender, an address without brackets. If it is empty, checks
/// `postmaster@HELO` in its place (RFC 7208 2.4). `hello` is the argument of HELO or EHLO; `here` is
/// the name of this host, for explanations.
pub fn check(dns: &dyn Lookup, ip: IpAddr, hello: &str, sender: &str, here: &str) -> Checked {
    let _ = (dns, ip, sender, here);
    Checked {
        result: SpfResult::None,
        identity: Identity::Hello,
        domain: hello.into(),
        explanation: None,
        mechanism: "".into(),
    }
}

/// Checks the name in HELO or EHLO (RFC 7208 2.3).
pub fn check_hello(dns: &dyn Lookup, ip: IpAddr, hello: &str, here: &str) -> Checked {
    check(dns, ip, hello, "", here)
}
