//! RCPT: adds a recipient to the transaction. [`policy::rcpt`] decides whether the recipient is
//! accepted.

use std::cell::OnceCell;

use super::mail::rejected;
use super::{Phase, Session, Step, filters};
use crate::address::{Address, AddressError};
use crate::envelope::{Action, RcptOptions, Recipient};
use crate::policy;
use crate::policy::rcpt::{Found, Rcpt};
use crate::reply::{self, Reply};
use crate::route::Expansion;
use crate::smtp::command::Path;
use crate::smtp::parameters::RcptParameters;

impl Session<'_> {
    pub(super) fn rcpt(&mut self, path: Result<Path<'_>, AddressError>) -> Step {
        let parameters = filters::parameters(&path);
        let (recipient, options) = match self.check_rcpt(path) {
            Ok(checked) => checked,
            Err(reply) => return Step::Reply(reply),
        };
        let checked = self.check_recipient(&recipient, &options);
        let checked = checked.and_then(|finals| self.screen(&recipient).map(|()| finals));
        let checked = checked.and_then(|finals| self.check_room(&recipient, &finals).map(|()| finals));
        let checked = checked.and_then(|finals| self.ask_next_host(&recipient, &finals).map(|()| finals));
        let is_unknown = checked.as_ref().is_err_and(|reply| reply == &reply::recipient::unknown_user(&recipient));
        if let (Err(reply), Phase::InMail(_, transaction)) = (&checked, &mut self.phase) {
            transaction.has_refused |= *reply != reply::recipient::too_many();
        }
        match checked.and_then(|finals| self.count_recipient().map(|()| finals)) {
            Ok(finals) => {
                let asked = self.ask_about_recipient(&recipient, &parameters);
                if let (Err(_), Phase::InMail(_, transaction)) = (&asked, &mut self.phase) {
                    transaction.has_refused = true;
                }
                if let Err(step) = asked {
                    return step;
                }
                let reply = reply::recipient::accepted(&recipient);
                if let Phase::InMail(_, transaction) = &mut self.phase {
                    transaction.limit_size(self.service.config.message_size_of(recipient.domain()));
                    transaction.add(recipient, &options, finals);
                }
                Step::Reply(reply)
            }
            Err(reply) => {
                if reply.code() >= 500 {
                    self.note_refused_recipient(is_unknown);
                }
                Step::Reply(reply)
            }
        }
    }

    /// Returns the recipient, completed with a domain, and its options. The error is the reply to an invalid
    /// command.
    fn check_rcpt(&self, path: Result<Path<'_>, AddressError>) -> Result<(Address, RcptOptions), Reply> {
        let is_utf8 = match &self.phase {
            Phase::Connected => return Err(reply::hello::required()),
            Phase::Greeted(..) => return Err(reply::recipient::needs_sender()),
            Phase::InMail(_, transaction) if transaction.chunks.is_some() => {
                return Err(reply::message::chunks_have_begun());
            }
            Phase::InMail(_, transaction) => transaction.envelope.options.utf8,
        };
        let path = path.map_err(reply::recipient::malformed)?;
        let RcptParameters { options } =
            RcptParameters::parse(path.parameters(), &self.extensions()).map_err(rejected)?;
        if !path.is_ascii && !is_utf8 {
            return Err(reply::recipient::not_ascii());
        }
        // In the type utf-8, ORCPT may have UTF-8 only together with SMTPUTF8 (RFC 6533 3).
        if !is_utf8 && options.orcpt.as_ref().is_some_and(|orcpt| !orcpt.is_ascii()) {
            return Err(reply::command::bad_parameter("ORCPT"));
        }
        let address = path.address.ok_or_else(|| reply::recipient::malformed(AddressError::Empty))?;
        Ok((self.qualified(&address), options))
    }

    /// Returns the final recipients that the address `recipient` expands to. The error is the reply
    /// that refuses the recipient.
    fn check_recipient(&self, recipient: &Address, options: &RcptOptions) -> Result<Vec<Recipient>, Reply> {
        let Phase::InMail(_, transaction) = &self.phase else { return Ok(Vec::new()) };
        let (facts, accepted) = (self.facts(), transaction.accepted());
        let router = &self.service.router;
        let domain = router.class_of(recipient.domain()).into();
        let max_recipients = self.service.config.limits.recipients;
        let (size, max_size) = (transaction.size, self.service.config.message_size_of(recipient.domain()));
        let users = self.service.config.key_of_users(recipient.domain());
        let rcpt = Rcpt { recipient, domain, accepted, max_recipients, size, max_size, users };
        let bounces = || {
            let has_sender = transaction.envelope.sender.is_some();
            policy::rcpt::only_bounces(&rcpt, router.is_rewritten_sender(recipient), has_sender)
        };
        let expansion = OnceCell::new();
        let find = || {
            let found = expansion.get_or_init(|| self.expand_or_keep(recipient));
            Found {
                lookup: found.lookup(|finals| is_expanded(finals, options)),
                final_recipients: transaction.references(),
            }
        };
        self.apply(policy::rcpt::decide(&facts, &rcpt, bounces, || self.unknown_recipients(), find))?;
        let Some(expansion) = expansion.into_inner() else { return Ok(Vec::new()) };
        let Expansion::Finals(mut finals) = expansion else { return Ok(Vec::new()) };
        if is_expanded(&finals, options) {
            finals.push(Recipient { action: Action::Replaced, ..Recipient::new(recipient.clone()) });
        }
        Ok(finals)
    }

    /// Asks the next host about a recipient, if that is configured for it. This is the last check, so that
    /// a client that is refused by the others causes no connection. The error is the reply that refuses
    /// the recipient. The postmaster is accepted in any case. A message of the drop directory keeps its
    /// recipients, as in [`Session::expand_or_keep`].
    fn ask_next_host(&self, recipient: &Address, finals: &[Recipient]) -> Result<(), Reply> {
        let service = self.service;
        let Some(asked) = service.router.to_be_asked(finals).filter(|_| self.client.dropped.is_none()) else {
            return Ok(());
        };
        let (address, target) = &asked;
        let class = service.router.class_of(recipient.domain());
        if policy::rcpt::is_postmaster(class.into(), recipient) {
            return Ok(());
        }
        let answer = service
            .site
            .ask_next_host(&service.settings, &self.client.session, (*address, target), || self.is_stopping());
        let class = service.router.class_of(address.domain()).into();
        let key = policy::rcpt::next_host_key(class, service.config.key_of_users(address.domain()));
        self.apply(policy::rcpt::next_host(recipient, key, answer))
    }

    /// Checks whether the message fits into the mailbox of the recipient. The error is the reply that
    /// refuses the recipient.
    fn check_room(&self, recipient: &Address, finals: &[Recipient]) -> Result<(), Reply> {
        let Phase::InMail(_, transaction) = &self.phase else { return Ok(()) };
        let router = &self.service.router;
        let full = || {
            let full = self.service.site.full(router, finals, transaction.size)?;
            Some((full.quota.is_final, router.source_of_quota(finals, full.quota)))
        };
        self.apply(policy::rcpt::quota(&self.facts(), recipient, full))
    }

    /// Looks up a recipient that a filter adds. `None` if mail for it cannot be accepted. The error
    /// is the reply if the look-up fails temporarily.
    #[cfg(feature = "filters")]
    pub(super) fn expand_added(&self, recipient: &Address) -> Result<Option<Vec<Recipient>>, Reply> {
        match self.expand(recipient) {
            Expansion::Finals(finals) => Ok(Some(finals)),
            Expansion::Unknown | Expansion::Refused(..) => Ok(None),
            Expansion::Temporary(_) => Err(reply::recipient::temporary_failure(recipient)),
        }
    }

    /// Looks up a recipient. A temporary failure is logged, unless the session has logged too many
    /// refusals.
    fn expand(&self, recipient: &Address) -> Expansion {
        let expansion = self.service.router.resolve(recipient);
        if let Expansion::Temporary(why) = &expansion
            && self.tally.has_line()
        {
            ::log::warn!("recipient <{recipient}>: {why}");
        }
        expansion
    }

    /// Looks up a recipient. A message of the drop directory keeps a recipient that cannot be found:
    /// the attempt to deliver it fails, and its sender gets a report.
    fn expand_or_keep(&self, recipient: &Address) -> Expansion {
        match self.expand(recipient) {
            Expansion::Finals(finals) => Expansion::Finals(finals),
            _ if self.client.dropped.is_some() => Expansion::Finals(vec![Recipient::new(recipient.clone())]),
            unknown => unknown,
        }
    }

    /// The address, completed with a domain.
    pub(super) fn qualified(&self, address: &Address) -> Address {
        self.service.router.qualify_here(address, || self.own_addresses())
    }
}

/// Whether several final recipients replace a recipient for whom the sender wants a report about the
/// success. The report says that the address was expanded (RFC 3461 5.2.7.3).
fn is_expanded(finals: &[Recipient], options: &RcptOptions) -> bool {
    finals.len() > 1 && options.wants_success()
}
