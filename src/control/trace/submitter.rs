//! What an unprivileged user may know about a message that this user has submitted.
//!
//! Only addresses that the user has given are shown. Where an alias leads, the number of final
//! recipients, the hosts and the mailboxes are hidden.

use super::search::{Event, Found};
use crate::log::line::Line;
use crate::log::pairs;

/// The keys of the line `accept` that the user may see.
const ACCEPTED: &[&str] = &[
    "from", "size", "peer", "proto", "priority", "release", "deadline", "uid", "program", "user", "msgid", "rcpt",
    "unlisted",
];

/// Keeps what the user with this uid may see: the message with this id, if the user has submitted it.
pub(super) fn restrict(found: &mut Found, id: &str, uid: u32) {
    let story = found.stories.remove(id).filter(|story| {
        let accepted = story.events.iter().filter_map(|event| Line::parse(&event.line)).find(|l| l.event == "accept");
        accepted.is_some_and(|line| line.get("uid").and_then(|uid| uid.parse().ok()) == Some(uid))
    });
    *found = Found { begins: found.begins, ..Found::default() };
    let Some(mut story) = story else { return };
    story.events.sort_by_key(|event| event.time);
    let mut events: Vec<Event> = Vec::new();
    for event in story.events {
        let Some(line) = Line::parse(&event.line).and_then(|line| visible(&line)) else { continue };
        // Several final recipients of one address look like one.
        if !events.iter().any(|other| other.line == line) {
            events.push(Event { time: event.time, line });
        }
    }
    story.events = events;
    found.stories.insert(id.to_owned(), story);
}

/// The line without the parts that the user may not see; `None` if nothing is left.
fn visible(line: &Line<'_>) -> Option<String> {
    let given = line.get("orig").or(line.get("to"));
    let to = given.map(|to| ("to", to));
    let mut shown: Vec<(&str, &str)> = Vec::new();
    match line.event {
        "accept" => {
            shown.extend(
                line.pairs.iter().map(|(key, value)| (*key, &**value)).filter(|(key, _)| ACCEPTED.contains(key)),
            );
        }
        "sent" | "deferred" | "failed" => {
            shown.extend(to);
            let is_failure = line.event != "sent";
            let is_given = line.get("orig").is_none();
            shown.extend(line.get("next").filter(|_| is_given).map(|time| ("next", time)));
            shown.extend(line.get("dsn").filter(|_| is_failure).map(|status| ("dsn", status)));
        }
        // A report goes to the sender, an address that the user has given.
        "bounced" | "warned" | "confirmed" => {
            shown.extend(["report", "to"].iter().filter_map(|key| Some((*key, line.get(key)?))));
        }
        "removed" | "released" | "returned" => {
            shown.extend(to.filter(|_| line.event == "removed"));
            shown.extend(["reason", "user"].iter().filter_map(|key| Some((*key, line.get(key)?))));
        }
        "held" | "done" => {}
        _ => return None,
    }
    Some(format!("{} {}{}", line.id, line.event, pairs(&shown)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::trace::search::Story;

    #[test]
    fn a_user_sees_only_own_messages_and_the_addresses_that_the_user_gave() {
        let lines = [
            "1K accept from=<j@h> to=3 size=9 peer=- proto=local tls=- uid=1000 program=cron user=jon session=s1 msgid=<m@h> rcpt=<team@h> rcpt=<ann@far.test>",
            "1K checked session=s1 spf=pass:x",
            "1K filter by=/run/f",
            "1K sent to=<secret1@far.test> orig=<team@h> via=smtp host=mx:25 delay=0.1 dsn=2.0.0 reply=\"250 secret1\"",
            "1K sent to=<secret2@far.test> orig=<team@h> via=smtp host=mx:25 delay=0.1 dsn=2.0.0 reply=\"250 secret2\"",
            "1K deferred to=<secret1@far.test> orig=<team@h> via=smtp delay=1 next=2026-11-22T05:50:40Z dsn=4.4.1 reason=x",
            "1K deferred to=<ann@far.test> via=smtp delay=1 next=2026-11-22T05:50:40Z dsn=4.4.1 reason=x",
            "1K failed to=<ann@far.test> via=smtp host=inner:25 delay=9 dsn=5.1.1 said_to=RCPT reply=\"550 inner\"",
            "1K bounced report=1L to=<j@h>",
            "1K held reason=\"by a secret rule\"",
            "1K done",
        ];
        let found = || {
            let events = lines.iter().map(|line| Event { time: 1, line: (*line).to_owned() }).collect();
            let other =
                Story { events: vec![Event { time: 1, line: "1L accept from=<> uid=1000".into() }], left_out: 0 };
            let stories = [("1K".to_owned(), Story { events, left_out: 0 }), ("1L".to_owned(), other)];
            Found { stories: stories.into(), at_the_door: [Vec::new()].into(), ..Found::default() }
        };
        let mut own = found();
        restrict(&mut own, "1K", 1000);
        let shown: Vec<&str> = own.stories.values().flat_map(|s| &s.events).map(|event| event.line.as_str()).collect();
        assert_eq!(
            shown,
            [
                "1K accept from=<j@h> size=9 peer=- proto=local uid=1000 program=cron user=jon msgid=<m@h> rcpt=<team@h> rcpt=<ann@far.test>",
                "1K sent to=<team@h>",
                "1K deferred to=<team@h> dsn=4.4.1",
                "1K deferred to=<ann@far.test> next=2026-11-22T05:50:40Z dsn=4.4.1",
                "1K failed to=<ann@far.test> dsn=5.1.1",
                "1K bounced report=1L to=<j@h>",
                "1K held",
                "1K done",
            ]
        );
        assert!(own.at_the_door.is_empty());
        for (id, uid) in [("1K", 1001), ("1M", 1000)] {
            let mut others = found();
            restrict(&mut others, id, uid);
            assert!(others.stories.is_empty() && others.at_the_door.is_empty(), "{id} {uid}");
        }
    }
}
