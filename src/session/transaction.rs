//! A transaction: the envelope that MAIL and RCPT build (RFC 5321 3.3).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::authenticity::SpfResults;
use super::chunk::Chunks;
use super::screen::Screening;
use super::xclient::Forwarded;
use crate::address::{Address, fold};
use crate::config::Limit;
use crate::envelope::{Action, Envelope, MailOptions, Notify, Origin, RcptOptions, Recipient};

/// The result of MAIL and RCPT so far.
#[derive(Debug)]
pub struct Transaction {
    /// The envelope with the final recipients.
    pub envelope: Envelope,
    /// The final recipients, and their places in the envelope. No final recipient is added twice,
    /// even if several addresses lead to it.
    known: HashMap<(Address, Action), u32>,
    /// The addresses that were given, in order, with the places of their final recipients.
    given: Vec<(Address, Vec<u32>)>,
    /// The set of the addresses in `given`.
    names: HashSet<Address>,
    /// The number of places in `given`.
    references: usize,
    /// The number of RCPT commands that were accepted.
    accepted: usize,
    /// The recipient of each RCPT that was accepted, in order, if each needs a reply of its own at the
    /// end of the message.
    each_rcpt: Option<Vec<Address>>,
    /// The address given at RCPT, for the Received field, if exactly one RCPT was accepted.
    pub named: Option<Address>,
    /// The size of the message that the client has declared, in octets; 0 if it has declared none.
    pub size: u64,
    /// The maximum size of a message to all recipients so far.
    pub max_size: Limit<u64>,
    /// The Message-ID of the message that has ended, for the log.
    pub message_id: Option<String>,
    /// Whether a recipient was refused.
    pub has_refused: bool,
    /// The addresses that get a copy.
    pub copies: Vec<Address>,
    /// The client that XFORWARD named for this message.
    pub forwarded: Option<Forwarded>,
    /// The SPF results for the client, in the order in which they are shown.
    pub spf: SpfResults,
    /// Whether the access table exempts the message from the rules for strangers.
    pub is_exempt: bool,
    /// The reason for quarantine, in words for people; `None` for ordinary delivery.
    pub quarantine: Option<String>,
    /// The time that the client has waited for look-ups in this transaction.
    pub lookup_time: Duration,
    /// The look-ups about the message; `None` if the client may relay.
    pub screening: Option<Box<Screening>>,
    /// The command whose message was cut off by the end of the connection.
    pub cut_off: Option<&'static str>,
    /// The message, if BDAT has begun it.
    pub chunks: Option<Box<Chunks>>,
}

impl Transaction {
    /// A transaction without recipients.
    pub fn new(sender: Option<Address>, options: MailOptions, size: u64, max_size: Limit<u64>) -> Self {
        let envelope = Envelope { sender, recipients: Vec::new(), options, origin: Origin::Client };
        Self {
            envelope,
            known: HashMap::new(),
            given: Vec::new(),
            names: HashSet::new(),
            references: 0,
            accepted: 0,
            each_rcpt: None,
            named: None,
            size,
            max_size,
            message_id: None,
            has_refused: false,
            copies: Vec::new(),
            forwarded: None,
            spf: SpfResults::default(),
            screening: None,
            chunks: None,
            cut_off: None,
            is_exempt: false,
            quarantine: None,
            lookup_time: Duration::ZERO,
        }
    }

    /// Adds a recipient that was accepted, with the options that the client gave, and its final
    /// recipients. If there are several final recipients, their success is not reported: for that
    /// report, there is one more final recipient with the action [`Action::Replaced`] (RFC 3461
    /// 5.2.7.3).
    pub fn add(&mut self, named: Address, options: &RcptOptions, mut finals: Vec<Recipient>) {
        let options_of_several = if finals.len() > 1 { options.without_success() } else { options.clone() };
        for to in &mut finals {
            to.options = if to.action == Action::Replaced { options } else { &options_of_several }.clone();
        }
        self.include(named.clone(), finals);
        self.accepted += 1;
        if let Some(all) = &mut self.each_rcpt {
            all.push(named.clone());
        }
        self.named = (self.accepted == 1).then_some(named);
    }

    /// Lowers the maximum size of the message to what the domain of a recipient takes.
    pub fn limit_size(&mut self, limit: Limit<u64>) {
        if limit.value < self.max_size.value {
            self.max_size = limit;
        }
    }

    /// Keeps the recipient of each RCPT from now on.
    pub fn keep_each_rcpt(&mut self) {
        self.each_rcpt = Some(Vec::new());
    }

    /// The recipient of each RCPT that was accepted, in order; empty if they are not kept.
    pub fn each_rcpt(&self) -> &[Address] {
        self.each_rcpt.as_deref().unwrap_or_default()
    }

    /// The addresses that were given at RCPT, in order.
    pub fn given(&self) -> impl Iterator<Item = &Address> {
        self.given.iter().map(|(named, _)| named)
    }

    fn include(&mut self, named: Address, finals: Vec<Recipient>) {
        let is_new = self.names.insert(named.clone());
        let recipients = &mut self.envelope.recipients;
        let mut places = Vec::with_capacity(finals.len());
        for recipient in finals {
            let next = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
            let place = self.known.entry((recipient.address.clone(), recipient.action.clone())).or_insert(next);
            places.push(*place);
            if let Some(known) = recipients.get_mut(*place as usize) {
                merge(&mut known.options, &recipient.options);
            } else {
                let original = (recipient.address != named).then(|| named.clone());
                recipients.push(Recipient { original, ..recipient });
            }
        }
        if is_new {
            self.references += places.len();
            self.given.push((named, places));
        }
    }

    /// Adds the final recipients of copies to those that the message has. Returns whether there are new
    /// ones. A recipient that the message has already keeps its options.
    pub fn add_copies(&mut self, copies: Vec<(Address, Vec<Recipient>)>) -> bool {
        let key = |to: &Recipient| (to.address.with_local(&fold(to.address.local())), to.action.clone());
        let recipients = &mut self.envelope.recipients;
        let mut known: HashSet<_> =
            if copies.is_empty() { HashSet::new() } else { recipients.iter().map(key).collect() };
        for (named, finals) in copies {
            let count = recipients.len();
            recipients.extend(finals.into_iter().filter(|to| known.insert(key(to))));
            if recipients.len() > count {
                self.copies.push(named);
            }
        }
        !self.copies.is_empty()
    }

    /// Removes an address that was given at RCPT. [`Transaction::rebuild`] removes those of its
    /// final recipients to which no other address leads. If no given address is spelled like
    /// `named`, those that differ only in upper and lower case are removed.
    #[cfg(feature = "filters")]
    pub fn remove(&mut self, named: &Address) {
        let is_exact = self.names.contains(named);
        let is_same = |other: &Address| other.domain() == named.domain() && fold(other.local()) == fold(named.local());
        self.given.retain(|(other, places)| {
            let is_removed = if is_exact { other == named } else { is_same(other) };
            if is_removed {
                self.names.remove(other);
                self.references -= places.len();
            }
            !is_removed
        });
    }

    /// Makes the envelope's recipients from the addresses that are left after removals.
    #[cfg(feature = "filters")]
    pub fn rebuild(&mut self) {
        let recipients = std::mem::take(&mut self.envelope.recipients);
        let given = std::mem::take(&mut self.given);
        self.known.clear();
        self.names.clear();
        self.references = 0;
        for (named, places) in given {
            let finals = places.iter().filter_map(|&place| recipients.get(place as usize).cloned()).collect();
            self.include(named, finals);
        }
    }

    /// The number of final recipients of all addresses. A final recipient counts for each address
    /// that leads to it, so that the number bounds the memory of the transaction.
    pub fn references(&self) -> usize {
        self.references
    }

    /// The number of recipients that were accepted.
    pub fn accepted(&self) -> usize {
        self.accepted
    }
}

/// Adds the options of another address that leads to the same final recipient. The sender gets each
/// report that one of the addresses asks for.
fn merge(options: &mut RcptOptions, other: &RcptOptions) {
    if options.notify != other.notify {
        let [one, two] = [options.notify, other.notify].map(|notify| notify.unwrap_or(Notify::DEFAULT));
        options.notify = Some(one.or(two));
    }
}

#[cfg(all(test, feature = "filters"))]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(&format!("{text}@x.test")).expect("an address")
    }

    /// Each line has the addresses given at RCPT with their final recipients, the given addresses
    /// that are removed, and the recipients that are left in the envelope. If a recipient differs
    /// from the given address, the given address follows in parentheses.
    #[test]
    fn the_recipients_that_are_left_after_removals() {
        for (given, removed, wanted) in [
            (&[("list", "jon ann"), ("jon", "jon")][..], &["list"][..], "jon"),
            (&[("jon", "jon"), ("list", "jon ann")], &["list"], "jon"),
            (&[("list", "jon ann"), ("jon", "jon")], &["jon"], "jon(list) ann(list)"),
            (&[("jon", "jon"), ("list", "jon ann")], &["jon"], "jon(list) ann(list)"),
            (&[("jon", "jon"), ("list", "jon ann")], &["ann", "bob"], "jon ann(list)"),
            (&[("jon", "jon"), ("list", "jon ann")], &["LIST", "list"], "jon"),
            (&[("jon", "jon"), ("jon", "jon"), ("bob", "bob")], &["jon"], "bob"),
            (&[("jon", "jon"), ("Jon", "Jon")], &["Jon"], "jon"),
            (&[("jon", "jon"), ("Jon", "Jon")], &["JON"], ""),
            (&[("a", "jon"), ("b", "jon")], &["a"], "jon(b)"),
        ] {
            let max_size = Limit { value: 1, key: "limits.message_size" };
            let mut transaction = Transaction::new(None, MailOptions::default(), 0, max_size);
            for (named, finals) in given {
                let finals = finals.split(' ').map(|name| Recipient::new(address(name))).collect();
                transaction.add(address(named), &RcptOptions::default(), finals);
            }
            removed.iter().for_each(|named| transaction.remove(&address(named)));
            transaction.rebuild();
            let original = |recipient: &Recipient| {
                recipient.original.as_ref().map(|original| format!("({})", original.local())).unwrap_or_default()
            };
            let recipients = transaction.envelope.recipients.iter();
            let left: Vec<_> = recipients.map(|one| format!("{}{}", one.address.local(), original(one))).collect();
            assert_eq!(left.join(" "), wanted, "{given:?} without {removed:?}");
            // What was removed can be added again.
            transaction.add(address("ann"), &RcptOptions::default(), vec![Recipient::new(address("ann"))]);
            let count = transaction.envelope.recipients.iter().filter(|one| one.address == address("ann")).count();
            assert_eq!(count, 1);
        }
    }
}
