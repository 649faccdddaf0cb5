//! The lines of events in plain words.

use crate::address::Address;
use crate::characters::is_misleading;
use crate::log::line::Line;

/// The number of recipients that are named on one line.
const MAX_NAMED: usize = 20;

/// Returns what has happened, and then details, each as one line.
pub(super) fn words(line: &Line<'_>) -> Vec<String> {
    match line.event {
        "accept" => accepted(line),
        "checked" => vec![checked(line)],
        "sent" => vec![sent(line)],
        "deferred" | "failed" => not_sent(line),
        "bounced" => vec![format!("reported the failure to {}, in message {}", to(line), value(line, "report"))],
        "warned" => vec![format!("reported the delay to {}, in message {}", to(line), value(line, "report"))],
        "confirmed" => vec![format!("reported the delivery to {}, in message {}", to(line), value(line, "report"))],
        "dropped" => vec![format!("no report was sent: {}", value(line, "reason"))],
        "held" => vec![line.get("reason").map_or_else(|| "held".to_owned(), |reason| format!("held: {reason}"))],
        "paced" => vec![format!(
            "waits for a limit on mail for {}: {}, probably until {}",
            value(line, "dest"),
            value(line, "reason"),
            local(value(line, "next"))
        )],
        "released" => vec![format!("released by {}", value(line, "user"))],
        "removed" => vec![format!("removed by {}, before {} had the message", value(line, "user"), to(line))],
        "converted" => vec![format!("converted to {} for {}", value(line, "form"), value(line, "host"))],
        "done" => vec!["finished: the message has left the queue".to_owned()],
        "refused" if line.get("more").is_some() => {
            vec![format!("refused {} more commands of {}", value(line, "more"), foreign(line, "peer"))]
        }
        "refused" => refused(line),
        "asked" => vec![format!("asked {} about {}: {}", foreign(line, "dest"), to(line), value(line, "result"))],
        "discarded" => discarded(line),
        "lost" => {
            let first = format!(
                "the connection of a client ended after {}, before the end of its message: {}",
                value(line, "stage"),
                value(line, "reason")
            );
            let sender = line.get("from").map(|from| format!("sender {}", quoted(from)));
            with_details(first, &[Some(client(line)), sender, recipients(line)])
        }
        "returned" => vec![format!("returned to the sender by {}: {}", value(line, "user"), value(line, "reason"))],
        "auth" => vec![format!(
            "{} logged in with {} from {}",
            foreign(line, "user"),
            foreign(line, "mechanism"),
            foreign(line, "peer")
        )],
        "auth-failed" => vec![format!(
            "{} failed to log in with {} from {}",
            foreign(line, "user"),
            foreign(line, "mechanism"),
            foreign(line, "peer")
        )],
        "tls-failed" => match line.get("host") {
            Some(host) => vec![format!("no TLS with {}, sent in plaintext: {}", quoted(host), value(line, "reason"))],
            None => vec![format!("the TLS handshake with {} failed: {}", foreign(line, "peer"), value(line, "reply"))],
        },
        _ => vec![other(line)],
    }
}

/// A message that a filter or a route has discarded.
fn discarded(line: &Line<'_>) -> Vec<String> {
    if line.get("to").is_some() {
        return vec![format!("discarded for {}: {}", to(line), value(line, "reason"))];
    }
    let first = format!("a filter has discarded a message from {}; the client got 250", foreign(line, "from"));
    with_details(first, &[Some(client(line)), message_id(line), recipients(line)])
}

fn value<'a>(line: &'a Line<'_>, key: &str) -> &'a str {
    line.get(key).unwrap_or("-")
}

/// A value that a stranger may have chosen; `-` if there is none.
fn foreign(line: &Line<'_>, key: &str) -> String {
    line.get(key).map_or_else(|| "-".to_owned(), quoted)
}

/// A text in quotes, unless it is one word: with a comma or a blank, it could add words of its own to
/// a line.
fn quoted(text: &str) -> String {
    let is_escaped = |c: char| c.is_control() || is_misleading(c);
    let is_odd = |c: char| c.is_whitespace() || matches!(c, ',' | '"' | '\\') || is_escaped(c);
    // An address has quotes of its own where it needs them.
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let is_address =
        inner.is_some_and(|inner| inner.parse::<Address>().is_ok_and(|address| address.to_string() == inner));
    if is_address || !text.is_empty() && !text.contains(is_odd) {
        return text.to_owned();
    }
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_escaped(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A command that was refused. Only a command of the usual form stands without quotes.
fn command(text: &str) -> String {
    let front = ["RCPT TO:", "MAIL FROM:"].into_iter().find(|front| text.starts_with(front)).unwrap_or_default();
    match text.strip_prefix(front) {
        Some(rest) if quoted(rest) == rest => text.to_owned(),
        _ => quoted(text),
    }
}

/// The recipient, and the address that it had before aliases.
fn to(line: &Line<'_>) -> String {
    let to = foreign(line, "to");
    match line.get("orig") {
        Some(original) => format!("{to} (given as {})", quoted(original)),
        None => to,
    }
}

fn with_details(first: String, details: &[Option<String>]) -> Vec<String> {
    [first].into_iter().chain(details.iter().flatten().cloned()).collect()
}

fn accepted(line: &Line<'_>) -> Vec<String> {
    let first = format!("accepted from {}, {} octets", foreign(line, "from"), value(line, "size"));
    with_details(first, &[Some(client(line)), message_id(line), recipients(line)])
}

/// The client, with the protocol and the user.
fn client(line: &Line<'_>) -> String {
    let mut text = match line.get("uid") {
        Some(uid) => {
            format!("by the local user {} (uid {uid}) with {}", foreign(line, "user"), foreign(line, "program"))
        }
        None => format!("client {}", foreign(line, "peer")),
    };
    let is_local = line.get("uid").is_some();
    for (key, before) in [("helo", "HELO "), ("proto", ""), ("tls", ""), ("user", "user "), ("via", "through ")] {
        if let Some(value) =
            line.get(key).filter(|value| *value != "-" && !(is_local && matches!(key, "user" | "proto")))
        {
            text.push_str(&format!(", {before}{}", quoted(value)));
        }
    }
    text
}

fn message_id(line: &Line<'_>) -> Option<String> {
    line.get("msgid").map(|id| format!("Message-ID {}", quoted(id)))
}

fn recipients(line: &Line<'_>) -> Option<String> {
    let all: Vec<String> = line.all("rcpt").map(quoted).collect();
    let shown = all.get(..MAX_NAMED).unwrap_or(&all).join(", ");
    let unlisted: usize = line.get("unlisted").and_then(|count| count.parse().ok()).unwrap_or(0);
    match all.len().saturating_sub(MAX_NAMED).saturating_add(unlisted) {
        _ if all.is_empty() => None,
        0 => Some(format!("to {shown}")),
        more => Some(format!("to {shown} and {more} more")),
    }
}

fn checked(line: &Line<'_>) -> String {
    let mut results = Vec::new();
    for (key, name) in [("spf", "SPF"), ("dkim", "DKIM"), ("dmarc", "DMARC"), ("arc", "ARC")] {
        for value in line.all(key) {
            results.push(match value.split_once(':') {
                Some((result, domain)) => format!("{name} {result} for {}", quoted(domain)),
                None => format!("{name} {}", quoted(value)),
            });
        }
    }
    if let Some(policy) = line.get("policy") {
        results.push(format!("the author's domain asks for: {}", quoted(policy)));
    }
    format!("checked: {}", results.join(", "))
}

fn sent(line: &Line<'_>) -> String {
    let (to, via) = (to(line), value(line, "via"));
    match via {
        "hold" => format!("held for {to}: {}", value(line, "reason")),
        "forward" | "list" => {
            let how = if via == "list" { "to the members of the list" } else { "as the .forward file says" };
            match line.get("reason") {
                Some(reason) => format!("passed on for {to} {how}: {reason}"),
                None => format!("passed on for {to} {how}"),
            }
        }
        _ => {
            let mut text = format!("delivered to {to}");
            if let Some(via) = line.get("via") {
                text.push_str(&format!(" by {via}"));
            }
            if let Some(host) = line.get("host") {
                text.push_str(&format!(", {}", quoted(host)));
            }
            if let Some(tls) = line.get("tls") {
                text.push_str(if tls == "-" { ", in plaintext" } else { ", with " });
                text.push_str(if tls == "-" { "" } else { tls });
            }
            if let Some(reply) = line.get("reply").or(line.get("reason")) {
                text.push_str(&format!(": {reply}"));
            }
            text
        }
    }
}

fn not_sent(line: &Line<'_>) -> Vec<String> {
    let what = if line.event == "failed" { "failed for" } else { "not delivered yet to" };
    let why = line.get("reply").or(line.get("reason")).or(line.get("dsn")).unwrap_or("-");
    let first = format!("{what} {}: {why}", to(line));
    let host = line.get("host").map(|host| {
        let said_to = line.get("said_to").map(|what| format!(", in reply to {}", quoted(what))).unwrap_or_default();
        format!("by {}, {}{said_to}", value(line, "via"), quoted(host))
    });
    let next = match (line.event, line.get("next")) {
        ("failed", _) => None,
        (_, Some(next)) => Some(format!("next attempt at {}", local(next))),
        (_, None) if line.get("via").is_none() => None,
        (_, None) => Some("this was the last attempt".to_owned()),
    };
    with_details(first, &[host, next])
}

/// A time of a line in the zone of this host.
fn local(time: &str) -> String {
    let read = time.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok());
    read.map_or_else(|| time.to_owned(), crate::log::local_timestamp)
}

fn refused(line: &Line<'_>) -> Vec<String> {
    let what = match value(line, "command") {
        "" => "a client was refused".to_owned(),
        "DATA" | "BDAT" => "a message was refused".to_owned(),
        given => format!("refused {}", command(given)),
    };
    let rule = line.get("reason").map(|reason| {
        let place = line.get("table").or(line.get("key")).map(|place| format!(" ({place})")).unwrap_or_default();
        format!("rule: {reason}{place}")
    });
    let sender = line.get("from").map(|from| format!("sender {}", quoted(from)));
    let details = [Some(client(line)), sender, message_id(line), recipients(line), rule];
    with_details(format!("{what}: {}", value(line, "reply")), &details)
}

/// An event without words of its own.
fn other(line: &Line<'_>) -> String {
    let pairs: Vec<String> = line.pairs.iter().map(|(key, value)| format!("{key} {}", quoted(value))).collect();
    if pairs.is_empty() { line.event.to_owned() } else { format!("{}: {}", line.event, pairs.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_in_words() {
        for (line, told) in [
            (
                "1K accept from=<a@x.test> to=1 size=9 peer=mx[192.0.2.7] proto=ESMTPS tls=TLS1.3 user=- session=s1 helo=mx msgid=<m@x> rcpt=<j@h> rcpt=<k@h> unlisted=3",
                "accepted from <a@x.test>, 9 octets|client mx[192.0.2.7], HELO mx, ESMTPS, TLS1.3|Message-ID <m@x>|to <j@h>, <k@h> and 3 more",
            ),
            (
                "1K accept from=<j@h> to=1 size=9 peer=- proto=local tls=- uid=1000 program=cron user=jon session=s1 rcpt=<k@h>",
                "accepted from <j@h>, 9 octets|by the local user jon (uid 1000) with cron|to <k@h>",
            ),
            (
                "1K checked session=s1 spf=pass:x dkim=fail:y dmarc=pass:z policy=none arc=fail",
                "checked: SPF pass for x, DKIM fail for y, DMARC pass for z, ARC fail, the author's domain asks for: none",
            ),
            (
                "1K sent to=<j@h> orig=<s@h> via=maildir host=/m/j delay=0.0 dsn=2.0.0",
                "delivered to <j@h> (given as <s@h>) by maildir, /m/j",
            ),
            (
                "1K sent to=<e@x> via=smtp host=mx.x:25 tls=- delay=0.1 code=250 dsn=2.0.0 reply=\"250 ok\"",
                "delivered to <e@x> by smtp, mx.x:25, in plaintext: 250 ok",
            ),
            (
                "1K sent to=<j@h> via=forward delay=0.1 dsn=2.0.0 reason=1L",
                "passed on for <j@h> as the .forward file says: 1L",
            ),
            (
                "1K deferred to=<g@x> via=smtp host=mx.x:25 delay=0.1 next=2026-11-22T05:50:40Z code=451 dsn=4.7.1 said_to=RCPT reply=\"451 later\"",
                &format!(
                    "not delivered yet to <g@x>: 451 later|by smtp, mx.x:25, in reply to RCPT|next attempt at {}",
                    local("2026-11-22T05:50:40Z")
                ),
            ),
            (
                "1K deferred to=<g@x> via=smtp delay=9 dsn=4.4.1 reason=\"timed out\"",
                "not delivered yet to <g@x>: timed out|this was the last attempt",
            ),
            (
                "1K failed to=<g@x> via=smtp host=mx.x:25 delay=9 dsn=5.1.1 reply=550",
                "failed for <g@x>: 550|by smtp, mx.x:25",
            ),
            (
                "s1 refused command=\"RCPT TO:<e@h>\" peer=[192.0.2.7] reply=\"550 no\" from=<a@x> helo=mx reason=unknown-user key=local.users",
                "refused RCPT TO:<e@h>: 550 no|client [192.0.2.7], HELO mx|sender <a@x>|rule: unknown-user (local.users)",
            ),
            (
                "s1 refused command=\"\" peer=[192.0.2.7] reply=\"421 bye\"",
                "a client was refused: 421 bye|client [192.0.2.7]",
            ),
            (
                "s1 lost from=<a@x> peer=[192.0.2.7] stage=DATA reason=\"closed by the client\" helo=mx rcpt=<j@h>",
                "the connection of a client ended after DATA, before the end of its message: closed by the client|client [192.0.2.7], HELO mx|sender <a@x>|to <j@h>",
            ),
            ("1K returned reason=\"x is gone\" user=root", "returned to the sender by root: x is gone"),
            (
                r#"1K accept from="<\"a, <b\"@x>" size=9 peer=[192.0.2.7] helo="a.test, TLS1.3, user admin" msgid="<x\u{202e} y@x>" rcpt=<j@h>"#,
                r#"accepted from <"a, <b"@x>, 9 octets|client [192.0.2.7], HELO "a.test, TLS1.3, user admin"|Message-ID "<x\u{202e} y@x>"|to <j@h>"#,
            ),
            (
                r#"s1 refused command="NOOP: 250 ok" peer=[192.0.2.7] reply="500 no""#,
                r#"refused "NOOP: 250 ok": 500 no|client [192.0.2.7]"#,
            ),
            (
                r#"s1 refused command="RCPT TO:<a> 250 ok" peer=[192.0.2.7] reply="501 no""#,
                r#"refused "RCPT TO:<a> 250 ok": 501 no|client [192.0.2.7]"#,
            ),
            (
                r#"s1 auth-failed user="root logged in with" peer=[192.0.2.7] mechanism=PLAIN"#,
                r#""root logged in with" failed to log in with PLAIN from [192.0.2.7]"#,
            ),
            (r#"1K checked dkim="fail:y, DMARC pass for z""#, r#"checked: DKIM fail for "y, DMARC pass for z""#),
            ("s1 refused more=7 peer=[192.0.2.7]", "refused 7 more commands of [192.0.2.7]"),
            ("s1 limit account=jon messages=300", "limit: account jon, messages 300"),
            ("1K frozen", "frozen"),
            ("1K sent", "delivered to -"),
        ] {
            let read = Line::parse(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(words(&read).join("|"), told);
        }
    }
}
