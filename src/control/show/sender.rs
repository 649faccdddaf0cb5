//! What the sender of a message may see of the facts: each address as the sender gave it, and
//! nothing about where the aliases and the routes of this site lead.

use std::collections::HashMap;

use super::facts::{ForSender, MAX_STATUSES, RecipientFacts};
use crate::address::Address;
use crate::control::visible::{self, Way};
use crate::dialogue::{Dialogue, Kind};
use crate::envelope::{Action, Recipient};
use crate::report::remote_mta;

/// The states in the order in which one stands for all addresses of an alias.
const STATES: [&str; 8] = ["running", "ready", "deferred", "scheduled", "held", "failed", "delivered", "replaced"];

/// The recipients as the sender gave them, each once.
pub fn recipients(all: Vec<RecipientFacts>) -> Vec<RecipientFacts> {
    let mut shown: Vec<RecipientFacts> = Vec::new();
    let mut places: HashMap<Address, usize> = HashMap::new();
    for mut to in all {
        let recipient = &to.entry.recipient;
        let is_hidden = visible::is_replaced(recipient);
        let action = if recipient.action == Action::Replaced { Action::Replaced } else { Action::Deliver };
        to.entry.recipient = Recipient { action, ..visible::as_given(recipient) };
        if is_hidden {
            hide(&mut to);
        }
        to.results.iter_mut().for_each(|result| result.text = visible::result(&result.text, to.way));
        match places.get(&to.entry.recipient.address).and_then(|place| shown.get_mut(*place)) {
            None => {
                places.insert(to.entry.recipient.address.clone(), shown.len());
                shown.push(to);
            }
            Some(other) => {
                let order = |to: &RecipientFacts| STATES.iter().position(|state| *state == to.state);
                if order(&to) < order(other) {
                    *other = to;
                }
                hide(other);
            }
        }
    }
    shown
}

/// Removes everything that shows where an alias leads.
fn hide(to: &mut RecipientFacts) {
    (to.way, to.route) = (Way::Hidden, None);
    to.results.clear();
}

/// The lines of the dialogues that the sender may see, for each recipient that still waits.
pub fn dialogues_for_sender(dialogues: &[Dialogue], recipients: &[RecipientFacts]) -> Vec<ForSender> {
    let open = recipients.iter().filter(|to| to.entry.record.state.is_open()).take(MAX_STATUSES);
    open.flat_map(|to| {
        let address = &to.entry.recipient.address;
        dialogues.iter().filter(move |dialogue| dialogue.is_about(address)).filter_map(move |d| for_sender(d, to))
    })
    .collect()
}

fn for_sender(dialogue: &Dialogue, to: &RecipientFacts) -> Option<ForSender> {
    let address = &to.entry.recipient.address;
    let lines = match to.way {
        Way::Public => dialogue.kinds_of(address, remote_mta),
        Way::Here | Way::Hidden => {
            let mut lines = dialogue.kinds_of(address, |_| Some("another host".to_owned()));
            lines.retain(|(kind, _)| *kind != Kind::Remark);
            // What a host says before MAIL names the host.
            let is_mail = |(kind, text): &(Kind, String)| *kind == Kind::Command && text.starts_with("MAIL FROM:");
            if lines.get(1).is_some_and(is_mail) { lines } else { Vec::new() }
        }
    };
    let destination = (to.way == Way::Public).then(|| address.domain().to_owned());
    (!lines.is_empty()).then_some(ForSender { time: dialogue.time, destination, lines })
}
