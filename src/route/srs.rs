//! Decides which senders are rewritten when a message is forwarded, and recognizes senders that
//! this host has rewritten (see [`crate::srs`]).
//!
//! A sender is rewritten when a message leaves again: an alias, the virtual table or a `.forward`
//! has replaced a local recipient by one elsewhere, or a copy goes elsewhere, and the sender is not
//! local. The spool keeps
//! the original sender, because this host sends its own reports directly to that sender. A sender
//! that is a user of this host is not rewritten: the address belongs to the user, and a smart host
//! may accept no other sender.
//!
//! Rewritten addresses are made with the first secret in the file or, if there is no file, with a
//! secret that is derived from the spool's key. They are verified with all secrets, so that a
//! secret can be replaced.
//!
//! A copy of a message (see [`super::copies`]) that leaves carries a mark. By the mark this host
//! recognizes the message if another host copies it back.

use std::path::Path;
use std::sync::OnceLock;

use super::{DomainClass, Expansion, Route, RoutedMail, Router, Sender};
use crate::address::Address;
use crate::config::table::{Watched, lines};
use crate::config::{Config, ConfigError};
use crate::envelope::{Action, Notify, Origin, Recipient};
use crate::privsep::Rights;
use crate::srs::{self, Secret};
use crate::sys;

/// How a message leaves for a recipient. An attempt has recipients for whom it leaves in the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Departure {
    /// Whether the sender is rewritten.
    pub is_forwarded: bool,
    /// Whether it is a copy, which gets a mark.
    pub is_copy: bool,
}

/// The least length of a secret in the file, in bytes.
const MIN_SECRET: usize = 16;

/// The rewriting of senders.
#[derive(Debug)]
pub struct SenderRewriting {
    /// The domain of rewritten senders.
    domain: Box<str>,
    /// The secrets in the file. The file may be missing.
    secrets: Watched<Vec<Secret>>,
    /// The secret that is derived from the spool's key.
    own: OnceLock<Secret>,
}

impl SenderRewriting {
    /// Reads the secrets. Returns `None` if senders are not rewritten, because the configuration
    /// says so or because bounces could not come back to this host's domain.
    ///
    /// # Errors
    /// The errors in the file of secrets.
    pub(super) fn open(config: &Config, rights: &Rights) -> Result<Option<Self>, Vec<ConfigError>> {
        // Bounces could not come back to a domain without a dot.
        let is_usable = |domain: &&str| domain.contains('.') && !domain.starts_with('[');
        let Some(domain) = config.local_domains().find(is_usable).filter(|_| config.remote.srs) else {
            return Ok(None);
        };
        let secrets = Watched::open_private(rights, &config.remote.srs_secret, parse)?;
        Ok(Some(Self { domain: domain.into(), secrets, own: OnceLock::new() }))
    }

    /// All secrets, the one that makes addresses first.
    fn all(&self) -> Vec<Secret> {
        self.secrets.current().iter().chain(self.own.get()).cloned().collect()
    }
}

fn parse(file: &Path, text: &str) -> Result<Vec<Secret>, Vec<ConfigError>> {
    let (mut secrets, mut errors) = (Vec::new(), Vec::new());
    for line in lines(text) {
        match line.text.trim() {
            short if short.len() < MIN_SECRET => {
                errors.push(line.error(
                    file,
                    line.text,
                    format!("expected a secret of at least {MIN_SECRET} characters"),
                ));
            }
            secret => secrets.push(Secret::new(secret.as_bytes())),
        }
    }
    if errors.is_empty() { Ok(secrets) } else { Err(errors) }
}

impl Router {
    /// Sets the key from which a secret is derived, if the file has none.
    pub fn set_srs_key(&self, key: &[u8]) {
        if let Some(rewriting) = &self.srs {
            let _ = rewriting.own.set(Secret::derived(key));
        }
    }

    /// Whether senders are rewritten.
    pub fn rewrites_senders(&self) -> bool {
        self.srs.is_some()
    }

    /// The domain of rewritten senders; `None` if senders are not rewritten.
    pub fn forwarding_domain(&self) -> Option<&str> {
        self.srs.as_ref().map(|rewriting| &*rewriting.domain)
    }

    /// Returns the sender that replaces `sender` when a message leaves again; `None` if the sender
    /// cannot be rewritten.
    pub fn rewritten_sender(&self, sender: &Address) -> Option<Address> {
        let rewriting = self.srs.as_ref()?;
        srs::forward(rewriting.all().first()?, sender, &rewriting.domain, sys::now())
    }

    /// Whether a message leaves again for `recipient` and has a sender that must be rewritten.
    pub fn is_forwarded(&self, mail: &RoutedMail<'_>, recipient: &Recipient) -> bool {
        let (Some(_), Sender::Address(sender), Origin::Client) = (&self.srs, mail.sender, mail.origin) else {
            return false;
        };
        let is_local = |address: &Address| self.class_of(address.domain()) == DomainClass::Local;
        recipient.action == Action::Deliver
            && recipient.original.as_ref().is_some_and(|original| is_local(original) || recipient.is_copy())
            && !is_local(&recipient.address)
            && !is_local(sender)
    }

    /// How a message leaves for `recipient`.
    pub fn departure(&self, mail: &RoutedMail<'_>, recipient: &Recipient) -> Departure {
        let is_local = |address: &Address| self.class_of(address.domain()) == DomainClass::Local;
        // An alias may lead from the address on the line to another one. About copies no report is sent. A
        // client may have asked for none about another recipient: then the mark does no harm.
        let is_led = |original: &Address| is_local(original) && recipient.options.notify == Some(Notify::default());
        let is_copy = self.srs.is_some()
            && recipient.action == Action::Deliver
            && (recipient.is_copy() || recipient.original.as_ref().is_some_and(is_led))
            && !is_local(&recipient.address)
            && self.makes_copies();
        Departure { is_forwarded: self.is_forwarded(mail, recipient), is_copy }
    }

    /// The mark of a copy of the message with this Message-ID; `None` if it gets none.
    pub fn mark_of_copy(&self, message_id: &str) -> Option<String> {
        let secrets = self.srs.as_ref()?.all();
        (!message_id.is_empty()).then_some(srs::mark(secrets.first()?, message_id, sys::now()))
    }

    /// Whether this host has made a mark for a copy of the message with this Message-ID.
    pub fn has_made_mark(&self, mark: &str, message_id: &str) -> bool {
        let is_own = |rewriting: &SenderRewriting| srs::is_mark(&rewriting.all(), mark, message_id, sys::now());
        !message_id.is_empty() && self.srs.as_ref().is_some_and(is_own)
    }

    /// Whether an address is a rewritten sender of this host, valid or not.
    pub fn is_rewritten_sender(&self, address: &Address) -> bool {
        self.srs.is_some()
            && self.class_of(address.domain()) == DomainClass::Local
            && srs::is_rewritten(address.local())
    }

    /// The recipients of a bounce to a rewritten sender; `None` if the address is not a rewritten
    /// sender.
    pub(super) fn expand_rewritten(&self, address: &Address) -> Option<Expansion> {
        let rewriting = self.srs.as_ref().filter(|_| self.is_rewritten_sender(address))?;
        let Some(original) = srs::reverse(&rewriting.all(), address.local(), sys::now()) else {
            return Some(Expansion::Unknown);
        };
        // A sender that is local is never rewritten, so this address was made by another host with
        // the same secret, or the domain has become local.
        if self.class_of(original.domain()) == DomainClass::Local {
            // The recursion ends, because each address is shorter than the one that contains it.
            return Some(self.expand(&original));
        }
        Some(match self.route(&original) {
            Route::Refused(status, why) => Expansion::Refused(status, why),
            _ => Expansion::Finals(vec![Recipient::new(original)]),
        })
    }
}
