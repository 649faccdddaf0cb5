//! What a filter has done to a message: the line in the log, and the changes that are taken over.

use super::super::changes::{Changes, RecipientChange};
use super::super::milter::{Change, Edits, Response};
use super::super::text::Text;
use crate::address;
use crate::config::Filter;
use crate::log;

/// The maximum number of added and removed recipients that a line names.
const MAX_NAMED: usize = 20;

/// Logs what a filter has done to a message, if it has done anything, and whether it was shown only
/// a part of the header.
pub fn note(id: &str, filter: &Filter, response: &Response, edits: &Edits) {
    let mut done: Vec<(&'static str, String)> = Vec::new();
    match response {
        Response::Discard => done.push(("result", "discard".to_owned())),
        Response::Refuse(reply) => done.push(("reply", reply.to_string())),
        Response::Close => done.push(("result", "close".to_owned())),
        _ => {}
    }
    if edits.header.is_some() {
        done.push(("header", "changed".to_owned()));
    }
    if edits.body.is_some() {
        done.push(("body", "changed".to_owned()));
    }
    if let Some(sender) = &edits.sender {
        done.push(("sender", address::path(sender.as_ref())));
    }
    for change in edits.recipients.iter().take(MAX_NAMED) {
        match change {
            Change::AddRecipient(address) => done.push(("added", format!("<{address}>"))),
            Change::DeleteRecipient(address) => done.push(("removed", format!("<{address}>"))),
            _ => {}
        }
    }
    if let Some(reason) = &edits.quarantine {
        done.push(("quarantine", reason.clone()));
    }
    if edits.cut > 0 {
        done.push(("cut", edits.cut.to_string()));
    }
    if !done.is_empty() {
        log::filtered(id, &filter.socket, &done);
    }
}

/// Adopts the changes of a filter.
pub fn adopt(filter: &Filter, edits: Edits, text: &mut Text<'_>, changes: &mut Changes) {
    if let Some(header) = edits.header {
        text.header = header;
    }
    if edits.body.is_some() {
        text.body = edits.body;
    }
    if edits.sender.is_some() {
        changes.sender = edits.sender;
    }
    if let Some(reason) = edits.quarantine {
        changes.quarantine = Some(quarantine(filter, &reason));
    }
    let change = |change| match change {
        Change::AddRecipient(address) => Some(RecipientChange::Add(address)),
        Change::DeleteRecipient(address) => Some(RecipientChange::Delete(address)),
        _ => None,
    };
    changes.recipients.extend(edits.recipients.into_iter().filter_map(change));
}

/// The reason for quarantine, with the filter that wants it.
pub fn quarantine(filter: &Filter, reason: &str) -> String {
    let reason = if reason.is_empty() { "no reason given" } else { reason };
    format!("the filter {} says: {reason}", filter.socket)
}
