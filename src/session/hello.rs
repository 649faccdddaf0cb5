//! Handles the commands HELO, EHLO, LHLO, HELP and RSET.

use super::{Phase, Session, Step};
use crate::policy;
use crate::reply::help::Available;
use crate::reply::{self, Reply};
use crate::retry;
use crate::smtp::command::Command;
use crate::smtp::extensions::{Extensions, FutureRelease, Limits};
use crate::sys;

/// The client's HELO, EHLO or LHLO.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The client's argument, made printable. It need not be a domain or an address literal.
    pub name: String,
    /// Whether the command was EHLO or LHLO.
    pub extended: bool,
}

impl Session<'_> {
    /// HELO, EHLO and LHLO. Each ends a transaction (RFC 5321 4.1.4).
    pub(super) fn hello(&mut self, name: &[u8], extended: bool) -> Step {
        let name = &*policy::hello::printable(name);
        if let Err(reply) = self.apply(policy::hello::check(&self.facts(), name)) {
            return Step::Reply(reply);
        }
        let reply = if extended {
            reply::hello::ehlo(self.hostname(), name, self.extensions().lines())
        } else {
            reply::hello::helo(self.hostname(), name)
        };
        self.filters.abort();
        self.phase = Phase::Greeted(Hello { name: name.to_owned(), extended }, None);
        Step::Reply(reply)
    }

    /// Refuses the commands of SMTP that LMTP does not have, and the other way round (RFC 2033 4.1).
    pub(super) fn wrong_protocol(&self, command: &Command<'_>) -> Option<Reply> {
        match (self.is_lmtp(), command) {
            (true, Command::Helo(_) | Command::Ehlo(_)) => Some(reply::hello::only_lmtp()),
            (true, Command::Mail(_) | Command::Rcpt(_) | Command::Data) if self.phase.hello().is_none() => {
                Some(self.hello_required())
            }
            (true, Command::Etrn(_)) => Some(reply::command::disabled()),
            (false, Command::Lhlo(_)) => Some(reply::hello::only_smtp()),
            _ => None,
        }
    }

    /// Refuses a command before the greeting.
    pub(super) fn hello_required(&self) -> Reply {
        if self.is_lmtp() { reply::hello::lhlo_required() } else { reply::hello::required() }
    }

    /// The extensions that are offered to this client in this state.
    pub(super) fn extensions(&self) -> Extensions {
        let mechanisms = self.mechanisms();
        let mut extensions = Extensions {
            pipelining: true,
            size: Some(self.service.config.limits.message_size),
            eight_bit: true,
            enhanced_status: true,
            starttls: self.offers_tls(),
            xclient: self.trusted_proxy.is_some(),
            auth: (!mechanisms.is_empty()).then_some(mechanisms),
            help: true,
            chunking: true,
            // Filters are told of lines.
            binary_mime: self.service.config.filters.is_empty(),
            dsn: true,
            smtp_utf8: true,
            etrn: policy::etrn::is_offered(&self.facts(), &self.service.config.relay.etrn),
            limits: self.client.local_user.is_none().then_some(Limits {
                recipients: u32::try_from(self.service.config.limits.recipients).ok(),
                ..Limits::default()
            }),
            deliver_by: policy::mail::may_set_deadline(&self.facts()).then_some(0),
            future_release: policy::mail::may_hold(&self.facts()).then(|| FutureRelease {
                max_interval: retry::MAX_HOLD.as_secs(),
                max_time: sys::now() + retry::MAX_HOLD.as_secs(),
            }),
            mt_priority: true,
            require_tls: policy::mail::may_require_tls(&self.facts()),
        };
        extensions.withhold(&self.service.config.smtp.disable);
        extensions
    }

    /// Whether the configuration withholds a command.
    pub(super) fn is_disabled(&self, command: &Command<'_>) -> bool {
        let is_withheld = |keyword| self.service.config.smtp.disable.contains(&keyword);
        match command {
            Command::StartTls => is_withheld("STARTTLS"),
            Command::Bdat(_) => is_withheld("CHUNKING"),
            Command::Auth(_) => is_withheld("AUTH"),
            Command::Vrfy(_) => is_withheld("VRFY"),
            Command::Etrn(_) => is_withheld("ETRN"),
            Command::Help => is_withheld("HELP"),
            Command::Xclient(_) | Command::Xforward(_) => is_withheld("XCLIENT"),
            _ => false,
        }
    }

    /// HELP: lists the commands that are offered in this state.
    #[inline(never)]
    pub(super) fn help(&self) -> Step {
        let Extensions { starttls, auth, xclient, chunking, etrn, .. } = self.extensions();
        let vrfy = !self.is_disabled(&Command::Vrfy(b""));
        let lmtp = self.is_lmtp();
        Step::Reply(reply::help::commands(Available {
            lmtp,
            starttls,
            auth: auth.is_some(),
            xclient,
            chunking,
            vrfy,
            etrn,
        }))
    }

    /// The name of the protocol for the Received field and the log (RFC 3848, RFC 6531 4.3).
    pub(super) fn protocol(&self, hello: &Hello, is_utf8: bool) -> &'static str {
        if self.client.local_user.is_some() {
            return "local";
        }
        if !hello.extended && !self.is_lmtp() {
            return "SMTP";
        }
        let names = match (self.is_lmtp(), is_utf8) {
            (false, false) => ["ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"],
            (false, true) => ["UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"],
            (true, false) => ["LMTP", "LMTPA", "LMTPS", "LMTPSA"],
            (true, true) => ["UTF8LMTP", "UTF8LMTPA", "UTF8LMTPS", "UTF8LMTPSA"],
        };
        names[2 * usize::from(self.is_secure()) + usize::from(self.login.is_some())]
    }

    /// RSET: drops the transaction.
    pub(super) fn rset(&mut self) -> Step {
        self.forget_transaction();
        Step::Reply(reply::command::reset())
    }

    /// Drops the transaction, and the attributes of XFORWARD.
    pub(super) fn forget_transaction(&mut self) {
        self.filters.abort();
        self.phase = match std::mem::replace(&mut self.phase, Phase::Connected) {
            Phase::InMail(hello, _) | Phase::Greeted(hello, _) => Phase::Greeted(hello, None),
            Phase::Connected => Phase::Connected,
        };
    }
}
