//! Makes the replies that filters and policy services decide.

use super::{Reply, ReplyReader, Status};

/// The maximum length of a line of text, so that a line with its codes has at most 512 octets (RFC
/// 5321 4.5.3.1.5).
const MAX_TEXT: usize = 480;

/// Refuses a command or message that a filter refuses without a text.
pub fn rejected() -> Reply {
    Reply::new(550, Status(5, 7, 1), "Refused by the policy of this site")
}

/// Defers a command or message that a filter defers without a text.
pub fn deferred() -> Reply {
    Reply::new(451, Status(4, 7, 1), "Not accepted now, please try again later")
}

/// Ends the session, because a filter demands it.
pub fn closing(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Not available to you now, closing connection"))
}

/// Defers a command or message, because a filter fails.
pub fn unavailable() -> Reply {
    Reply::new(451, Status(4, 3, 0), "A filter is not available now, please try again later")
}

/// Refuses a message whose header is too long to be shown to filters.
pub fn header_too_long() -> Reply {
    Reply::new(552, Status(5, 3, 4), "The header is too long, or has too many fields")
}

/// Reads the reply that a filter gives, of one or several lines. The text becomes printable ASCII
/// in lines of limited length. A missing or impossible status, and a missing text, are replaced.
/// Returns `None` if the reply is no refusal.
pub fn said(text: &[u8]) -> Option<Reply> {
    let mut reader = ReplyReader::default();
    let mut lines = text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii_end);
    let reply = lines.find_map(|line| reader.line(line).transpose()).transpose().ok()?;
    let reply = reply.or_else(|| reader.cut_short()).filter(|reply| reply.is_refusal() && !reply.is_unclear())?;
    Some(refusal(reply.code(), reply.status(), reply.lines().iter().map(AsRef::as_ref)))
}

/// Makes a refusal with this code, which must be from 400 to 599, and these lines.
pub fn refusal<'a>(code: u16, status: Option<Status>, lines: impl Iterator<Item = &'a str>) -> Reply {
    let class = if code < 500 { 4 } else { 5 };
    let status = status.filter(|status| u16::from(status.0) == class).unwrap_or(Status(class as u8, 7, 1));
    let mut lines: Vec<String> = lines.map(printable).take(super::MAX_LINES).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if lines.is_empty() {
        let default = if class == 4 { deferred() } else { rejected() };
        lines.extend(default.lines().iter().map(ToString::to_string));
    }
    Reply { code, status: Some(status), lines: lines.into_iter().map(Into::into).collect(), is_mixed: false }
}

fn printable(text: &str) -> String {
    let shown = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.trim().chars().take(MAX_TEXT).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_a_filter_is_well_formed_or_rejected() {
        let long = format!("550 5.7.1 {}", "x".repeat(5000));
        let many = "550-5.7.1 x\r\n".repeat(100) + "550 5.7.1 x";
        for (text, want) in [
            ("550 5.7.1 no", Some("550 5.7.1 no")),
            ("451 4.7.1 later", Some("451 4.7.1 later")),
            ("550", Some("550 5.7.1 Refused by the policy of this site")),
            ("550 5.7.2", Some("550 5.7.2 Refused by the policy of this site")),
            ("450 ", Some("450 4.7.1 Not accepted now, please try again later")),
            ("550 4.7.1 mixed", Some("550 5.7.1 mixed")),
            ("550 no status", Some("550 5.7.1 no status")),
            ("550-5.7.1 one\r\n550 5.7.1 two\r\n", Some("550 5.7.1 one two")),
            ("550-5.7.1 one\r\n550-5.7.1 two", Some("550 5.7.1 one two")),
            ("550 5.7.1 a\u{1}b\u{e9}\tc", Some("550 5.7.1 a?b? c")),
            ("550-5.7.1 one\r\n450 4.7.1 two", None),
            ("250 2.0.0 fine", None),
            ("354 go", None),
            ("999 x", None),
            ("5", None),
            ("no", None),
            ("", None),
        ] {
            assert_eq!(said(text.as_bytes()).map(|reply| reply.to_string()).as_deref(), want, "{text}");
        }
        for text in [long, many] {
            let mut out = Vec::new();
            said(text.as_bytes()).expect("a reply").write_to(&mut out);
            let lines: Vec<_> = out.split_inclusive(|&b| b == b'\n').collect();
            assert!(lines.len() <= super::super::MAX_LINES && lines.iter().all(|line| line.len() <= 512));
        }
    }
}
