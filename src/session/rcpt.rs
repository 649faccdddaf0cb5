//! RCPT: adds a recipient to the transaction. [`policy::rcpt`] decides whether the recipient is
//! accepted.

use std::net::IpAddr;

use super::mail::rejected;
use super::{Phase, Session, Step, filters};
use crate::address::{Address, AddressError};
use crate::config::Listen;
use crate::envelope::{Action, RcptOptions, Recipient};
use crate::policy::rcpt::{Found, Lookup, Rcpt};
use crate::policy::{self, relay};
use crate::reply::{self, Reply};
use crate::route::{DomainClass, Expansion, Route};
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
        let is_unknown = checked.as_ref().is_err_and(|reply| reply == &reply::recipient::unknown_user(&recipient));
        let checked = checked.and_then(|finals| self.screen(&recipient).map(|()| finals));
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
        let domain = class(self.service.router.class_of(recipient.domain()));
        let max_recipients = self.service.config.limits.recipients;
        let rcpt = Rcpt { recipient, domain, accepted, max_recipients };
        self.apply(policy::rcpt::precheck(&facts, &rcpt))?;
        let is_rewritten = self.service.router.is_rewritten_sender(recipient);
        self.apply(policy::rcpt::only_bounces(&rcpt, is_rewritten, transaction.envelope.sender.is_some()))?;
        self.check_unknown_recipients()?;
        let expansion = self.expand(recipient, domain);
        let lookup = match &expansion {
            Expansion::Finals(finals) => Lookup::Found(finals.len() + usize::from(is_expanded(finals, options))),
            Expansion::Unknown => Lookup::Unknown,
            Expansion::Refused(status, text) => Lookup::Refused(*status, text),
            Expansion::Temporary(_) => Lookup::Failed,
        };
        let found = Found { lookup, final_recipients: transaction.references() };
        self.apply(policy::rcpt::check(&facts, &rcpt, &found))?;
        let Expansion::Finals(mut finals) = expansion else { return Ok(Vec::new()) };
        if is_expanded(&finals, options) {
            finals.push(Recipient { action: Action::Replaced, ..Recipient::new(recipient.clone()) });
        }
        Ok(finals)
    }

    /// Looks up a recipient that a filter adds. `None` if mail for it cannot be accepted. The error
    /// is the reply if the look-up fails temporarily.
    #[cfg(feature = "filters")]
    pub(super) fn expand_added(&self, recipient: &Address) -> Result<Option<Vec<Recipient>>, Reply> {
        match self.expand(recipient, class(self.service.router.class_of(recipient.domain()))) {
            Expansion::Finals(finals) => Ok(Some(finals)),
            Expansion::Unknown | Expansion::Refused(..) => Ok(None),
            Expansion::Temporary(_) => Err(reply::recipient::temporary_failure(recipient)),
        }
    }

    /// Looks up a recipient. A temporary failure is logged, unless the session has logged too many
    /// refusals.
    fn expand(&self, recipient: &Address, domain: relay::Domain) -> Expansion {
        let router = &self.service.router;
        if domain != relay::Domain::Local {
            return match router.route(recipient) {
                Route::Refused(status, text) => Expansion::Refused(status, text),
                _ => Expansion::Finals(vec![Recipient::new(recipient.clone())]),
            };
        }
        let expansion = router.expand(recipient);
        if let Expansion::Temporary(why) = &expansion
            && self.tally.has_line()
        {
            ::log::warn!("recipient <{recipient}>: {why}");
        }
        expansion
    }

    /// The address, completed with a domain. If the domain is an IP address of this host, as in
    /// `jon@[192.0.2.1]`, it is replaced by the local domain (RFC 1123 5.2.17).
    pub(super) fn qualified(&self, address: &Address) -> Address {
        let (router, config) = (&self.service.router, &self.service.config);
        let is_own = |ip: IpAddr| {
            let connected = self.input.source.own_address().map(|address| address.ip());
            let bound = config
                .listen
                .iter()
                .filter_map(Listen::tcp)
                .map(|address| address.ip())
                .filter(|ip| !ip.is_unspecified());
            connected.into_iter().chain(bound).any(|own_ip| own_ip.to_canonical() == ip.to_canonical())
        };
        if router.class_of(address.domain()) == DomainClass::Elsewhere && address.literal().is_some_and(is_own) {
            let local = router.qualify(&address.at(""));
            if router.class_of(local.domain()) == DomainClass::Local {
                return local;
            }
        }
        router.qualify(address)
    }
}

/// Whether several final recipients replace a recipient for whom the sender wants a report about the
/// success. The report says that the address was expanded (RFC 3461 5.2.7.3).
fn is_expanded(finals: &[Recipient], options: &RcptOptions) -> bool {
    finals.len() > 1 && options.wants_success()
}

fn class(place: DomainClass) -> relay::Domain {
    match place {
        DomainClass::Local => relay::Domain::Local,
        DomainClass::Relay => relay::Domain::Relay,
        DomainClass::Elsewhere => relay::Domain::Other,
    }
}
