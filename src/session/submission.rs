//! Message submission (RFC 6409): rewrites senders, limits the mail of each account, and completes
//! headers.
//!
//! All this applies only on a submission listener. [`crate::policy::mail`] requires authentication
//! or a trusted network for MAIL there, and decides which senders an account may use.

use std::sync::Arc;

use super::Session;
use super::transaction::Transaction;
use crate::address::Address;
use crate::config::{Kind, Limit};
use crate::log;
use crate::message::trace;
use crate::policy;
use crate::reply::{self, Reply};
use crate::submit::usage::{Allowance, Counted};
use crate::submit::{HeaderFilter, MAX_HEADER, Refusal, Submission};

impl Session<'_> {
    /// Whether the Received field omits the client.
    pub(super) fn hides_client(&self) -> bool {
        self.is_submission() && self.service.config.submission.hide_client
    }

    /// The reverse-path, after the rewrite table was applied to it.
    pub(super) fn rewritten(&self, sender: Address) -> Address {
        let rewritten = self.is_submission().then(|| self.service.senders.rewriting.apply(&sender)).flatten();
        rewritten.unwrap_or(sender)
    }

    /// Counts a message of the account. The error is the reply if the message is not allowed now.
    pub(super) fn count_message(&self) -> Result<(), Reply> {
        self.count_of_local_user()?;
        let Some(account) = self.account() else { return Ok(()) };
        let limit = self.service.config.messages_per_hour(account);
        let is_within = self.count(Counted::Messages, "messages", limit.value);
        self.apply(policy::mail::hourly(is_within, limit))
    }

    /// Counts a message that a user of this system sends with sendmail(8).
    fn count_of_local_user(&self) -> Result<(), Reply> {
        let config = &self.service.config.submission;
        let limit = config.local_messages_per_hour;
        let Some(user) = self.client.local_user.as_ref().filter(|_| limit > 0) else { return Ok(()) };
        let uid = user.uid.to_string();
        if config.local_exempt.iter().any(|name| *name == user.login || *name == uid) {
            return Ok(());
        }
        match self.service.site.local_usage.count(&uid, Counted::Messages, limit) {
            Allowance::Granted => return Ok(()),
            Allowance::Reached => log::limit_reached(&self.client.session, &user.login, "messages", limit),
            Allowance::Beyond => {}
        }
        self.apply(policy::mail::hourly(false, Limit { value: limit, key: "submission.local_messages_per_hour" }))
    }

    /// Counts a recipient of the account. The error is the reply if the recipient is not allowed
    /// now.
    pub(super) fn count_recipient(&self) -> Result<(), Reply> {
        let Some(account) = self.account() else { return Ok(()) };
        let limit = self.service.config.recipients_per_hour(account);
        let is_within = self.count(Counted::Recipients, "recipients", limit.value);
        self.apply(policy::rcpt::hourly(is_within, limit))
    }

    /// Counts a message or a recipient of the account. Returns whether it is within the limit.
    fn count(&self, kind: Counted, word: &str, limit: usize) -> bool {
        let Some(account) = self.account() else { return true };
        let answer = self.service.site.usage.count(account, kind, limit);
        if answer == Allowance::Reached {
            log::limit_reached(&self.client.session, account, word, limit);
        }
        answer == Allowance::Granted
    }

    /// The filter for the header of a message.
    pub(super) fn header_filter(&self, id: &str, transaction: &Transaction) -> HeaderFilter {
        if !self.is_submission() {
            return HeaderFilter::unchanged();
        }
        let config = &self.service.config;
        HeaderFilter::new(Submission {
            hostname: config.hostname.clone(),
            domain: config.own_domain().to_owned(),
            id: id.to_owned(),
            date: trace::date(&log::local_time()),
            sender: transaction.envelope.sender.clone(),
            rewriting: Some(Arc::clone(&self.service.senders.rewriting)),
            identity: self.account().and_then(|login| self.service.senders.identity(login)),
        })
    }

    /// The authenticated user; `None` if the listener is not one for submission.
    fn account(&self) -> Option<&str> {
        self.login.as_deref().filter(|_| self.is_submission())
    }

    fn is_submission(&self) -> bool {
        self.client.listen.kind == Kind::Submission
    }
}

/// The reply to a message that [`HeaderFilter`] does not let through.
pub(super) fn refused(refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::NotAllowed(author) => reply::message::author_not_yours(author),
        Refusal::Unreadable => reply::message::author_unreadable(),
        Refusal::TooLong => reply::message::header_too_long(MAX_HEADER),
    }
}
