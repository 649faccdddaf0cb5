//! VRFY: answers whether a local address exists, by the look-up that RCPT uses.

use super::{Session, Step};
use crate::address;
use crate::reply;
use crate::route::{DomainClass, Expansion};

impl Session<'_> {
    pub(super) fn vrfy(&mut self, argument: &[u8]) -> Step {
        if argument.is_empty() {
            return Step::Reply(reply::verify::missing_argument());
        }
        let address = match address::parse_path(argument) {
            Ok((Some(address), [])) => self.qualified(&address),
            Ok(_) => return Step::Reply(reply::verify::cannot_verify()),
            Err(why) => return Step::Reply(reply::recipient::malformed(why)),
        };
        let router = &self.service.router;
        if router.class_of(address.domain()) != DomainClass::Local {
            return Step::Reply(reply::verify::cannot_verify());
        }
        if let Err(reply) = self.check_unknown_recipients() {
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
