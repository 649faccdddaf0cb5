//! VRFY: answers whether a local address exists, by the look-up that RCPT uses.

use super::{Session, Step};
use crate::address;
use crate::reply;
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
        if router.class_of(address.domain()) != DomainClass::Local {
            return Step::Reply(reply::verify::cannot_verify());
        }
        if let Err(reply) = self.apply(self.unknown_recipients()) {
            return Step::Reply(reply);
        }
        Step::Reply(match router.expand(&address) {
            Expansion::Finals(_) => reply::verify::exists(&address),
            Expansion::Unknown => {
                self.note_refused_recipient(true);
                reply::recipient::unknown_user(&address)
            }
            Expansion::Refused(status, text) => reply::recipient::refused(&address, status, &text),
            Expansion::Temporary(_) => reply::verify::cannot_verify(),
        })
    }
}
