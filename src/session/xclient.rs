//! XCLIENT and XFORWARD: a front end that speaks for others.
//!
//! Only whoever connects from a network of the listener's `xclient` may say either; it
//! is not even offered to anybody else, and refused with 550. The right is that of the
//! connection and not of whom it speaks for: XCLIENT neither gives nor takes it. After
//! XCLIENT the session begins anew, as that client's: its address decides what it may
//! do. What XFORWARD says is for the log and a comment in Received: alone, gives no
//! rights, and holds for one message. A line that is wrong anywhere changes nothing.
//! The counts of mistakes go on, and so does the encryption.

use std::net::IpAddr;

use super::hello::Hello;
use super::{Client, Phase, Session, Step};
use crate::log;
use crate::message::trace;
use crate::reply::{self, Reply};
use crate::smtp::xclient::{self, Attribute, Wrong, XCLIENT, XFORWARD};

/// For whom the next message comes.
#[derive(Debug, Default)]
pub struct Forwarded {
    name: Option<String>,
    address: Option<IpAddr>,
    protocol: Option<String>,
    hello: Option<String>,
    ident: Option<String>,
}

/// Where a message comes from, for the log.
pub struct Origin {
    /// The client.
    pub peer: String,
    /// Who spoke for it; empty for nobody.
    pub via: String,
    /// What that one calls the message; empty if it does not say.
    pub ident: String,
}

impl Forwarded {
    /// What the trace field says of it. Without an address the message began at the front
    /// end itself.
    pub fn trace(&self) -> Option<trace::Forwarded<'_>> {
        let (name, hello, protocol) = (self.name.as_deref(), self.hello.as_deref(), self.protocol.as_deref());
        Some(trace::Forwarded { address: self.address?, name, hello, protocol })
    }
}

impl Session<'_> {
    /// XCLIENT: from here on the session is another client's.
    pub(super) fn xclient(&mut self, argument: &[u8]) -> Step {
        match self.attributes(XCLIENT, argument) {
            Ok(attributes) => self.begin_anew(attributes),
            Err(reply) => Step::Say(reply),
        }
    }

    /// XFORWARD: what there is to know of the next message.
    pub(super) fn xforward(&mut self, argument: &[u8]) -> Step {
        let attributes = match self.attributes(XFORWARD, argument) {
            Ok(attributes) => attributes,
            Err(reply) => return Step::Say(reply),
        };
        // Before HELO there is no message that it could be for.
        let Phase::Greeted(_, forwarded) = &mut self.phase else { return Step::Say(reply::xclient::forwarded()) };
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
        Step::Say(reply::xclient::forwarded())
    }

    fn attributes(&self, offered: &'static str, argument: &[u8]) -> Result<Vec<Attribute>, Reply> {
        if self.trusted_proxy.is_none() {
            return Err(reply::xclient::not_permitted());
        }
        if matches!(self.phase, Phase::InMail(..)) {
            return Err(reply::xclient::in_transaction());
        }
        xclient::parse(offered, argument).map_err(|wrong| match wrong {
            Wrong::Nothing | Wrong::Unknown => reply::xclient::unknown_attribute(offered),
            Wrong::Value(name) => reply::xclient::bad_attribute(name),
        })
    }

    /// Address and name stay until another XCLIENT says otherwise; what the client has
    /// said and who it has proved to be are gone, unless this one says it.
    fn begin_anew(&mut self, attributes: Vec<Attribute>) -> Step {
        let (mut name, mut hello, mut login, mut extended) = (None, None, None, false);
        for attribute in attributes {
            match attribute {
                Attribute::Name(given) => name = Some(given),
                Attribute::Addr(address) => (self.client.address, self.name) = (address, None),
                Attribute::Helo(given) => hello = given,
                Attribute::Proto(protocol) => extended = protocol.is_some_and(|p| p == "ESMTP"),
                Attribute::Login(given) => login = given.map(|name| name.to_lowercase()),
                _ => {}
            }
        }
        if name.is_some() {
            self.name = name;
        }
        self.client.proxy = self.trusted_proxy;
        self.login = login;
        self.phase = hello.map_or(Phase::Connected, |name| Phase::Greeted(Hello { name, extended }, None));
        let Client { session, address, .. } = &self.client;
        ::log::debug!("{session} xclient peer={} via={:?}", log::peer(None, *address), self.trusted_proxy);
        Step::Say(reply::connection::banner(self.hostname()))
    }

    /// Where the message comes from that is being taken.
    pub(super) fn origin(&mut self, forwarded: Option<&Forwarded>) -> Origin {
        let name = self.verified_name();
        let speaker = log::peer(name.as_deref(), self.client.address);
        match forwarded {
            Some(Forwarded { name, address, ident, .. }) => Origin {
                peer: log::peer(name.as_deref(), *address),
                via: speaker,
                ident: ident.clone().unwrap_or_default(),
            },
            None => Origin {
                peer: speaker,
                via: self.client.proxy.map(|address| format!("[{address}]")).unwrap_or_default(),
                ident: String::new(),
            },
        }
    }
}
