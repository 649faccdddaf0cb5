//! Writes the facts about a message as JSON.

use std::time::Duration;

use super::facts::{Dialogues, Facts, ForSender, RecipientFacts};
use super::is_held;
use crate::destination::listed_name;
use crate::dialogue::{Dialogue, Kind, Line};
use crate::json::Object;
use crate::log;

/// The object with the facts.
pub fn object(facts: &Facts<'_>) -> Object {
    let (Facts { entry, now, .. }, mut object) = (facts, Object::new());
    let arrived = entry.id().seconds();
    object.text("id", &entry.id().to_string()).number("size", entry.content_size());
    object.text("arrived", &log::timestamp(arrived)).number("age", now.saturating_sub(arrived));
    object.text("sender", &entry.sender().map(ToString::to_string).unwrap_or_default());
    object.some_text("message_id", facts.message_id.as_deref());
    object.some_text("source", facts.source.as_deref());
    object.texts("options", &facts.options);
    object.flag("held", is_held(entry));
    object.some_text("reason", facts.hold_reason.as_deref());
    object.some_text("release", facts.release.map(log::timestamp).as_deref());
    object.text("expires", &log::timestamp(facts.expires));
    object.objects("recipients", facts.recipients.iter().map(recipient));
    match &facts.dialogues {
        Dialogues::Whole(all) => object.objects("dialogues", all.iter().map(dialogue)),
        Dialogues::ForSender(all) => object.objects("dialogues", all.iter().map(dialogue_for_sender)),
    };
    object
}

fn recipient(to: &RecipientFacts) -> Object {
    let (recipient, record, mut object) = (&to.entry.recipient, &to.entry.record, Object::new());
    let time = |time: u64| Some(time).filter(|time| *time > 0).map(log::timestamp);
    object.text("address", &recipient.address.to_string());
    object.some_text("original", recipient.original.as_ref().map(ToString::to_string).as_deref());
    object.text("state", to.state);
    object.some_text("notify", recipient.options.notify.map(|notify| notify.to_string()).as_deref());
    object.some_text("orcpt", recipient.options.orcpt.as_deref());
    object.some_text("route", to.route.as_deref());
    object.some_text("destination_state", to.status.as_ref().map(|status| status.state));
    let paced = to.status.as_ref().and_then(|status| status.paced);
    object.some_text("paced", paced.map(|(_, reason)| reason.to_string()).as_deref());
    object.some_text("last", time(record.last).as_deref());
    object.some_text("warned", time(record.warned).as_deref());
    object.some_text("next", to.next.map(log::timestamp).as_deref());
    if let Some((since, activity)) = &to.attempt {
        object.number("running", seconds(*since));
        if let Some(now) = activity {
            object.text("stage", now.stage).number("stage_for", seconds(now.since));
            object.some_text("host", Some(&*now.host).filter(|host| !host.is_empty()));
        }
    }
    object.objects(
        "attempts",
        to.results.iter().map(|result| {
            let mut object = Object::new();
            object.text("time", &log::timestamp(result.time)).text("result", &result.text);
            object
        }),
    );
    object
}

fn dialogue(dialogue: &Dialogue) -> Object {
    let mut object = Object::new();
    object.text("time", &log::timestamp(dialogue.time)).text("destination", listed_name(&dialogue.destination));
    let line = |line: &Line| {
        let mut object = Object::new();
        object
            .text("kind", line.kind.word())
            .some_text("recipient", dialogue.recipient_of(line))
            .text("text", &line.text);
        object
    };
    object.objects("lines", dialogue.lines.iter().map(line));
    object
}

fn dialogue_for_sender(dialogue: &ForSender) -> Object {
    let mut object = Object::new();
    object.text("time", &log::timestamp(dialogue.time)).some_text("destination", dialogue.destination.as_deref());
    let line = |(kind, text): &(Kind, String)| {
        let mut object = Object::new();
        object.text("kind", kind.word()).text("text", text);
        object
    };
    object.objects("lines", dialogue.lines.iter().map(line));
    object
}

/// A duration in seconds with three digits after the point.
fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}
