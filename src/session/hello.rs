//! HELO, EHLO, RSET: who the client says it is, and starting anew.

use std::borrow::Cow;

use super::{Phase, Session, Step};
use crate::reply;
use crate::smtp::xclient::MAX_VALUE;

/// What the client said of itself.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The name that it gave, made printable; it is a domain or a literal only if it reads as one.
    pub name: String,
    /// Whether it said EHLO.
    pub extended: bool,
}

impl Session<'_> {
    /// HELO and EHLO; either ends a transaction (RFC 5321 4.1.4).
    pub(super) fn hello(&mut self, name: &[u8], extended: bool) -> Step {
        // Any name will do (RFC 5321 4.1.4): devices say what they like, and it lets nobody in.
        let name = &*printable(name);
        if name.is_empty() {
            return Step::Say(reply::hello::missing_name());
        }
        let reply = if extended {
            reply::hello::ehlo(self.hostname(), name, self.extensions())
        } else {
            reply::hello::helo(self.hostname(), name)
        };
        self.forwarded = None;
        self.phase = Phase::Greeted(Hello { name: name.to_owned(), extended });
        Step::Say(reply)
    }

    /// What is offered, now and to this client.
    fn extensions(&self) -> Vec<Cow<'static, str>> {
        let size = format!("SIZE {}", self.service.config.limits.message_size);
        let mut all = vec!["PIPELINING".into(), size.into(), "8BITMIME".into(), "ENHANCEDSTATUSCODES".into()];
        all.extend(self.offers_tls().then_some("STARTTLS".into()));
        all.extend(self.proxy_extensions());
        let mechanisms = self.mechanisms();
        if !mechanisms.is_empty() {
            all.push(mechanisms.iter().fold("AUTH".to_owned(), |line, m| format!("{line} {m}")).into());
        }
        all.push("HELP".into());
        all
    }

    /// What Received: and the log call the protocol (RFC 3848).
    pub(super) fn protocol(&self, hello: &Hello) -> &'static str {
        if self.client.local_user.is_some() {
            return "local";
        }
        match (hello.extended, self.is_secure(), self.login.is_some()) {
            (false, ..) => "SMTP",
            (true, false, false) => "ESMTP",
            (true, false, true) => "ESMTPA",
            (true, true, false) => "ESMTPS",
            (true, true, true) => "ESMTPSA",
        }
    }

    /// RSET: forgets the transaction.
    pub(super) fn rset(&mut self) -> Step {
        self.forget_transaction();
        Step::Say(reply::command::reset())
    }

    /// Back to what the client was before MAIL.
    pub(super) fn forget_transaction(&mut self) {
        self.forwarded = None;
        self.phase = match std::mem::replace(&mut self.phase, Phase::Connected) {
            Phase::InMail(hello, _) | Phase::Greeted(hello) => Phase::Greeted(hello),
            Phase::Connected => Phase::Connected,
        };
    }
}

/// A name as it may be repeated: ASCII without control characters, not too long.
fn printable(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.chars().take(MAX_VALUE).map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect()
}
