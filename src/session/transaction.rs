//! MAIL, RCPT, VRFY: a transaction takes shape (RFC 5321 3.3).

use std::collections::HashSet;
use std::net::IpAddr;

use super::{Phase, Service, Session, Step, access, auth};
use crate::address::{self, Address, AddressError};
use crate::envelope::{Action, Body, Envelope, Origin, Recipient};
use crate::reply::{self, Reply};
use crate::route::Place;
use crate::smtp::MAX_FINAL_RECIPIENTS;
use crate::smtp::command::Path;

/// What MAIL and RCPT have said so far.
#[derive(Debug)]
pub struct Transaction {
    /// The envelope with the final recipients.
    pub envelope: Envelope,
    /// The final recipients again: nobody gets a message twice because two names are his.
    known: HashSet<(Address, Action)>,
    /// How often RCPT was answered 250.
    accepted: usize,
    /// The only address that RCPT named, for Received:.
    pub named: Option<Address>,
    /// Whether a recipient was refused.
    pub refused: bool,
}

impl Transaction {
    fn new(sender: Option<Address>, body: Body) -> Self {
        let envelope = Envelope { sender, recipients: Vec::new(), body, origin: Origin::Client };
        Self { envelope, known: HashSet::new(), accepted: 0, named: None, refused: false }
    }

    fn add(&mut self, named: Address, finals: Vec<Recipient>) {
        for recipient in finals {
            if self.known.insert((recipient.address.clone(), recipient.action.clone())) {
                let original = (recipient.address != named).then(|| named.clone());
                self.envelope.recipients.push(Recipient { original, ..recipient });
            }
        }
        self.accepted += 1;
        self.named = (self.accepted == 1).then_some(named);
    }
}

impl Session<'_> {
    pub(super) fn mail(&mut self, path: Result<Path<'_>, AddressError>) -> Step {
        let hello = match &self.phase {
            Phase::Connected => return Step::Say(reply::hello::required()),
            Phase::InMail(..) => return Step::Say(reply::sender::nested()),
            Phase::Greeted(hello) => hello.clone(),
        };
        if !self.may_submit() {
            return Step::Say(reply::sender::needs_login());
        }
        let path = match path {
            Ok(path) => path,
            Err(why) => return Step::Say(reply::sender::malformed(why)),
        };
        match self.begin(path).and_then(|begun| self.count_message().map(|()| begun)) {
            Ok(transaction) => {
                let reply = reply::sender::accepted(&address::path(transaction.envelope.sender.as_ref()));
                self.phase = Phase::InMail(hello, transaction);
                Step::Say(reply)
            }
            Err(reply) => Step::Say(reply),
        }
    }

    fn begin(&self, path: Path<'_>) -> Result<Transaction, Reply> {
        let (mut size, mut body) = (0, Body::SevenBit);
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in path.parameters() {
            // Of two one would be taken silently.
            if seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                return Err(reply::command::repeated_parameter(&printable(name)));
            }
            seen.push(name);
            if name.eq_ignore_ascii_case("SIZE") {
                // RFC 1870 4: up to twenty digits, so one that does not fit is too big.
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                size = digits
                    .then(|| value.parse().unwrap_or(u64::MAX))
                    .ok_or_else(|| reply::command::bad_parameter("SIZE"))?;
            } else if name.eq_ignore_ascii_case("BODY") {
                body = match value.to_ascii_uppercase().as_str() {
                    "7BIT" => Body::SevenBit,
                    "8BITMIME" => Body::EightBit,
                    _ => return Err(reply::command::bad_parameter("BODY")),
                };
            } else if name.eq_ignore_ascii_case("AUTH") {
                // It grants nothing, and some hosts say it where AUTH was not offered.
                if !auth::is_xtext(value) {
                    return Err(reply::command::bad_parameter("AUTH"));
                }
            } else {
                return Err(reply::command::unknown_parameter(&printable(name)));
            }
        }
        let limit = self.service.config.limits.message_size;
        if size > limit {
            return Err(reply::message::too_big(limit));
        }
        match self.service.spool.has_room(size) {
            Ok(true) => {}
            Ok(false) => return Err(reply::failure::no_storage()),
            Err(e) => {
                ::log::error!("spool: look for room: {e}");
                return Err(reply::failure::local_error());
            }
        }
        let sender = match path.address {
            Some(address) if address.domain().is_empty() && !self.may_relay() => {
                return Err(reply::sender::needs_domain());
            }
            sender => sender.map(|address| self.service.router.qualify(&address)),
        };
        self.check_sender(sender.as_ref())?;
        Ok(Transaction::new(sender.map(|sender| self.rewritten(sender)), body))
    }

    pub(super) fn rcpt(&mut self, path: Result<Path<'_>, AddressError>) -> Step {
        let (accepted, expanded) = match &self.phase {
            Phase::Connected => return Step::Say(reply::hello::required()),
            Phase::Greeted(_) => return Step::Say(reply::recipient::needs_sender()),
            Phase::InMail(_, transaction) => (transaction.accepted, transaction.envelope.recipients.len()),
        };
        let path = match path {
            Ok(path) => path,
            Err(why) => return Step::Say(reply::recipient::malformed(why)),
        };
        if let Some((name, _)) = path.parameters().next() {
            return Step::Say(reply::command::unknown_parameter(&printable(name)));
        }
        let Some(named) = path.address else { return Step::Say(reply::recipient::malformed(AddressError::Empty)) };
        // A program that calls sendmail cannot send the rest in another message.
        let is_program = self.client.local_user.is_some();
        if accepted >= self.service.config.limits.recipients && !is_program {
            return Step::Say(reply::recipient::too_many());
        }
        let named = self.qualified(&named);
        match access::recipient(self.service, self.may_relay(), self.tally.has_line(), &named) {
            Ok(finals) if finals.len() + expanded > MAX_FINAL_RECIPIENTS => Step::Say(reply::recipient::too_many()),
            Ok(finals) => {
                if let Err(reply) = self.count_recipient() {
                    return Step::Say(reply);
                }
                let reply = reply::recipient::accepted(&named);
                if let Phase::InMail(_, transaction) = &mut self.phase {
                    transaction.add(named, finals);
                }
                Step::Say(reply)
            }
            Err(reply) => {
                if let Phase::InMail(_, transaction) = &mut self.phase {
                    transaction.refused = true;
                }
                Step::Say(reply)
            }
        }
    }

    /// The address with a domain: a literal of our own is as good as none (RFC 1123 5.2.17).
    fn qualified(&self, address: &Address) -> Address {
        let Service { router, config, .. } = self.service;
        let is_own = |ip: IpAddr| {
            let connected = self.input.source.own_address().map(|own| own.ip());
            let bound = config.listen.iter().map(|listen| listen.address.ip()).filter(|own| !own.is_unspecified());
            connected.into_iter().chain(bound).any(|own| own.to_canonical() == ip.to_canonical())
        };
        if router.place(address.domain()) == Place::Elsewhere && address.literal().is_some_and(is_own) {
            let local = router.qualify(&address.at(""));
            if router.place(local.domain()) == Place::Local {
                return local;
            }
        }
        router.qualify(address)
    }

    pub(super) fn vrfy(&mut self, argument: &[u8]) -> Step {
        if argument.is_empty() {
            return Step::Say(reply::verify::missing_argument());
        }
        let address = match address::parse_path(argument) {
            Ok((Some(address), [])) => self.qualified(&address),
            Ok(_) => return Step::Say(reply::verify::cannot_verify()),
            Err(why) => return Step::Say(reply::recipient::malformed(why)),
        };
        Step::Say(access::verify(self.service, &address))
    }
}

/// A keyword as it may be repeated to the client.
fn printable(name: &str) -> String {
    name.chars().take(32).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}
