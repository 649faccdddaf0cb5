//! VRFY: answers whether an address exists that is local or in a relay domain whose recipients are known,
//! by the look-up that RCPT uses.

use super::{Session, Step};
use crate::address::{self, Address};
use crate::callout::Question;
use crate::envelope::Recipient;
use crate::policy::rcpt::NextHost;
use crate::reply::{self, Reply};
use crate::route::{DomainClass, Expansion};

impl Session<'_> {
    /// VRFY. The address may be followed by the parameter SMTPUTF8, if the extension is offered
    /// (RFC 6531 3.7.4.2).
    pub(super) fn vrfy(&mut self, argument: &[u8]) -> Step {
        if argument.is_empty() {
            return Step::Reply(reply::verify::missing_argument());
        }
        let (address, rest) = match address::parse_path(argument) {
            Ok((Some(address), rest)) => (self.qualified(&address), rest),
            Ok(_) => return Step::Reply(reply::verify::cannot_verify()),
            Err(why) => return Step::Reply(reply::recipient::malformed(why)),
        };
        let is_utf8 = rest.trim_ascii().eq_ignore_ascii_case(b"SMTPUTF8") && self.extensions().smtp_utf8;
        if !is_utf8 && !rest.is_empty() {
            return Step::Reply(reply::verify::cannot_verify());
        }
        if !is_utf8 && !argument.is_ascii() {
            return Step::Reply(reply::verify::not_ascii());
        }
        self.has_utf8_reply = is_utf8;
        let router = &self.service.router;
        let is_known = match router.class_of(address.domain()) {
            DomainClass::Local => true,
            DomainClass::Relay => router.has_recipients_of_relay_domains(),
            DomainClass::Elsewhere => false,
        };
        if !is_known {
            return Step::Reply(reply::verify::cannot_verify());
        }
        if let Err(reply) = self.apply(self.unknown_recipients()) {
            return Step::Reply(reply);
        }
        Step::Reply(match router.resolve(&address) {
            Expansion::Finals(finals) => self.verified(&address, &finals),
            Expansion::Unknown => self.unknown(&address),
            Expansion::Refused(status, text) => reply::recipient::refused(&address, status, &text),
            Expansion::Temporary(_) => reply::verify::cannot_verify(),
        })
    }

    /// The reply about an address with these final recipients. If the next host must be asked about it,
    /// the reply is what is remembered: VRFY asks no other host.
    fn verified(&mut self, address: &Address, finals: &[Recipient]) -> Reply {
        let service = self.service;
        let Some((to, target)) = service.router.to_be_asked(finals) else {
            return reply::verify::exists(address);
        };
        let known = service.site.callouts.remembered(&Question::new(&self.client.session, to, &target));
        match known.filter(|known| !known.accepts_all).map(|known| known.answer) {
            Some(NextHost::Accepted | NextHost::Full(_)) => reply::verify::exists(address),
            Some(NextHost::Unknown) => self.unknown(address),
            Some(NextHost::Refused(_) | NextHost::NoAnswer) | None => reply::verify::cannot_verify(),
        }
    }

    fn unknown(&mut self, address: &Address) -> Reply {
        self.note_refused_recipient(true);
        reply::recipient::unknown_user(address)
    }
}
