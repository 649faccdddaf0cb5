//! XCLIENT and XFORWARD: a trusted proxy names its client.
//!
//! Both commands are offered only to connections from a network in the listener's setting
//! `xclient`. Other clients get a 550. The right to use the commands belongs to the connection, and
//! XCLIENT does not change it. XCLIENT restarts the session as that of the named client, whose
//! address then decides about its rights; the counts of errors and the encryption do not change.
//! XFORWARD only adds the client to the log and the Received field of one message, and gives no
//! rights. A line with a malformed attribute changes nothing.

use std::net::IpAddr;

use super::hello::Hello;
use super::screen;
use super::{Client, Phase, Session, Step};
use crate::log;
use crate::message::trace;
use crate::reply::{self, Reply};
use crate::smtp::xclient::{self, Attribute, AttributeError, XCLIENT, XFORWARD};

/// The client that XFORWARD named for the next message.
#[derive(Debug, Default)]
pub struct Forwarded {
    name: Option<String>,
    address: Option<IpAddr>,
    protocol: Option<String>,
    hello: Option<String>,
    ident: Option<String>,
}

/// The origin of a message, for the log.
pub struct Origin {
    /// The name and address of the client.
    pub peer: String,
    /// The name and address of the proxy; empty if there is none.
    pub via: String,
    /// The proxy's id for the message; empty if unknown.
    pub ident: String,
}

impl Forwarded {
    /// The client's part of the Received field; `None` if the proxy gave no address, for example
    /// because the message originated at the proxy itself.
    pub fn trace(&self) -> Option<trace::Forwarded<'_>> {
        let (name, hello, protocol) = (self.name.as_deref(), self.hello.as_deref(), self.protocol.as_deref());
        Some(trace::Forwarded { address: self.address?, name, hello, protocol })
    }
}

impl Session<'_> {
    /// XCLIENT: restarts the session as that of another client.
    pub(super) fn xclient(&mut self, argument: &[u8]) -> Step {
        match self.attributes(XCLIENT, argument) {
            Ok(attributes) => self.restart(attributes),
            Err(reply) => Step::Reply(reply),
        }
    }

    /// XFORWARD: names the client of the next message.
    pub(super) fn xforward(&mut self, argument: &[u8]) -> Step {
        let attributes = match self.attributes(XFORWARD, argument) {
            Ok(attributes) => attributes,
            Err(reply) => return Step::Reply(reply),
        };
        // Before HELO the attributes are ignored: HELO would drop them anyway.
        let Phase::Greeted(_, forwarded) = &mut self.phase else { return Step::Reply(reply::xclient::forwarded()) };
        let forwarded = forwarded.get_or_insert_default();
        for attribute in attributes {
            match attribute {
                Attribute::Name(name) => forwarded.name = name,
                Attribute::Addr(address) => forwarded.address = address,
                Attribute::Proto(protocol) => forwarded.protocol = protocol,
                Attribute::Helo(hello) => forwarded.hello = hello,
                Attribute::Ident(ident) => forwarded.ident = ident,
                _ => {}
            }
        }
        Step::Reply(reply::xclient::forwarded())
    }

    fn attributes(&self, offered: &'static str, argument: &[u8]) -> Result<Vec<Attribute>, Reply> {
        if self.trusted_proxy.is_none() {
            return Err(reply::xclient::not_permitted());
        }
        if matches!(self.phase, Phase::InMail(..)) {
            return Err(reply::xclient::in_transaction());
        }
        xclient::parse(offered, argument).map_err(|error| match error {
            AttributeError::Missing | AttributeError::Unknown => reply::xclient::unknown_attribute(offered),
            AttributeError::Malformed(name) => reply::xclient::bad_attribute(name),
        })
    }

    /// Restarts the session with the attributes of XCLIENT. Without the attribute HELO the session
    /// waits for a HELO, and without LOGIN it has no authenticated user. Without ADDR the client's
    /// address does not change. Without NAME the client's name does not change either, unless ADDR
    /// replaces the address.
    fn restart(&mut self, attributes: Vec<Attribute>) -> Step {
        let (mut name, mut hello, mut login, mut extended) = (None, None, None, self.is_lmtp());
        for attribute in attributes {
            match attribute {
                Attribute::Name(value) => name = Some(value),
                Attribute::Addr(address) => (self.client.address, self.name) = (address, None),
                Attribute::Helo(value) => hello = value,
                Attribute::Proto(protocol) => {
                    extended = self.is_lmtp() || protocol.is_some_and(|p| p != "SMTP");
                }
                Attribute::Login(value) => login = value.map(|name| name.to_lowercase()),
                _ => {}
            }
        }
        if name.is_some() {
            self.name = name;
        }
        self.screen = screen::Client::default();
        self.client.proxy = self.trusted_proxy;
        self.login = login;
        self.mechanism = XCLIENT;
        self.phase = hello.map_or(Phase::Connected, |name| Phase::Greeted(Hello { name, extended }, None));
        let Client { session, address, .. } = &self.client;
        ::log::debug!("{session} xclient peer={} via={:?}", log::peer(None, *address), self.trusted_proxy);
        self.begin_lists();
        Step::Reply(self.banner())
    }

    /// The origin of the current message.
    pub(super) fn origin(&mut self, forwarded: Option<&Forwarded>) -> Origin {
        let name = self.verified_name();
        let client = log::peer(name.as_deref(), self.client.address);
        match forwarded {
            Some(Forwarded { name, address, ident, .. }) => Origin {
                peer: log::peer(name.as_deref(), *address),
                via: client,
                ident: ident.clone().unwrap_or_default(),
            },
            None => Origin {
                peer: client,
                via: self.client.proxy.map(|address| format!("[{address}]")).unwrap_or_default(),
                ident: String::new(),
            },
        }
    }
}
