//! Counts the events that are logged.

use std::net::IpAddr;

use super::events::{Accepted, Attempt, Checked};
use crate::address;
use crate::stats::{self, Acceptance, Origin};

pub(super) fn accepted(event: &Accepted<'_>) {
    let account = event.user.filter(|user| !user.is_empty());
    let origin = match (event.caller, account) {
        (Some(_), _) => Origin::Local,
        (None, Some(_)) => Origin::Login,
        (None, None) => Origin::Network,
    };
    stats::accepted(&Acceptance {
        origin,
        tls: event.tls,
        size: event.size,
        recipients: event.recipients,
        sender: &address::path(event.sender),
        account,
        client: event.peer,
    });
}

/// Counts a refusal by its rule or, if there is none, by the reply.
pub(super) fn refused(address: Option<IpAddr>, rule: Option<&str>, reply: &str) {
    stats::refused(rule.unwrap_or_else(|| stats::refusal_word(reply)), &client(address));
}

pub(super) fn refused_more(address: Option<IpAddr>, count: usize) {
    stats::refused_more(&client(address), count);
}

pub(super) fn attempt(event: &Attempt<'_>) {
    stats::attempt(event.via, event.recipient.domain(), (event.outcome, event.cause), event.delay);
}

pub(super) fn checked(event: &Checked) {
    event.spf.iter().for_each(|(result, _)| stats::checked("spf", result));
    event.dkim.iter().for_each(|(result, _)| stats::checked("dkim", result));
    event.dmarc.iter().for_each(|(result, ..)| stats::checked("dmarc", result));
    event.arc.iter().for_each(|(result, _)| stats::checked("arc", result));
}

/// Counts what a filter has done; `result` stands in the line of the log, unless the filter has only
/// changed the message.
#[cfg(feature = "filters")]
pub(super) fn filtered(done: &[(&'static str, String)]) {
    let result = done.iter().find(|(key, _)| *key == "result").map_or("changed", |(_, result)| result);
    stats::filtered(result);
}

/// A client by its address alone, as in the lines about refusals.
fn client(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| format!("[{address}]"))
}
