//! The fields that a message gets when it leaves: the ARC set of a forwarded message, and the mark
//! of a copy.

use std::io::Read;

use super::Attempt;
#[cfg(feature = "arc")]
use crate::mailauth::arc::seal_forwarded;
use crate::message::field;
use crate::route::copies;
use crate::route::srs::Departure;
use crate::spool::Content;
use crate::sys;

/// The maximum number of octets of a header in which the Message-ID is found.
const MAX_HEADER: u64 = 64 << 10;

/// Returns the fields to put before the content, each with its line end.
pub fn fields(attempt: &Attempt<'_>, departure: Departure, content: Content<'_>) -> String {
    let mark = if departure.is_copy { mark(attempt, content.clone()) } else { String::new() };
    if departure.is_forwarded { mark + &seal(attempt, content) } else { mark }
}

/// The mark of a copy; empty if it gets none.
fn mark(attempt: &Attempt<'_>, content: Content<'_>) -> String {
    let mut text = Vec::new();
    if let Err(e) = content.into_text().take(MAX_HEADER).read_to_end(&mut text) {
        // The delivery will find the same error, and report it.
        ::log::debug!("{} is not marked: {e}", attempt.entry.id());
        return String::new();
    }
    let ids = field::fields(&text).filter(|field| field.is("Message-ID")).map(|field| field.text());
    let id = ids.map(|id| id.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).find(|id| !id.is_empty());
    let mark = id.and_then(|id| attempt.settings.router.mark_of_copy(&id));
    mark.map_or_else(String::new, |mark| format!("{}: {mark}\n", copies::MARK))
}

/// The ARC set for the content of a message that is forwarded; empty if the message is not sealed.
#[cfg(feature = "arc")]
fn seal(attempt: &Attempt<'_>, content: Content<'_>) -> String {
    let (settings, entry) = (&attempt.settings, &attempt.entry);
    let Some(domain) = settings.router.forwarding_domain() else { return String::new() };
    match seal_forwarded(&settings.keys, domain, &settings.config.hostname, content.into_text(), sys::now()) {
        Ok(Ok(set)) => return set,
        Ok(Err(why)) => ::log::debug!("{} is not sealed: {why}", entry.id()),
        // The delivery will find the same error, and report it.
        Err(e) => ::log::debug!("{} is not sealed: {e}", entry.id()),
    }
    String::new()
}

#[cfg(not(feature = "arc"))]
fn seal(_: &Attempt<'_>, _: Content<'_>) -> String {
    String::new()
}
