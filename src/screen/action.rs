//! Reads the actions of the access table.

use crate::policy::Mark;
use crate::policy::strangers::Action;
use crate::reply::Status;

/// The maximum length of the text of a refusal, in octets. With this length the reply fits on one
/// line (RFC 5321 4.5.3.1.5).
const MAX_TEXT: usize = 400;
/// The maximum length of the name of a tag, in octets.
const MAX_TAG: usize = 32;

/// Reads an action: `ok`, `reject [CODE] [STATUS] [TEXT]`, `defer [CODE] [STATUS] [TEXT]`,
/// `quarantine` or `tag NAME`.
///
/// # Errors
/// A message that says what was expected.
pub fn parse(text: &str) -> Result<Action, String> {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let rest = rest.trim();
    match (&*word.to_ascii_lowercase(), rest) {
        ("ok", "") => Ok(Action::Ok),
        ("quarantine", "") => Ok(Action::Mark(Mark::Quarantine)),
        ("ok" | "quarantine", _) => Err(format!("expected nothing after {word}")),
        ("tag", name) if is_tag(name) => Ok(Action::Mark(Mark::Tag(name.into()))),
        ("tag", _) => Err(format!("expected a name of letters, digits, - and _, with at most {MAX_TAG}")),
        ("reject", rest) => refusal(rest, 5, (550, Status(5, 7, 1)), "Access denied"),
        ("defer", rest) => refusal(rest, 4, (450, Status(4, 7, 1)), "Access denied for now, please try again later"),
        _ => Err("expected ok, reject, defer, quarantine or tag NAME".to_owned()),
    }
}

fn is_tag(name: &str) -> bool {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=MAX_TAG).contains(&name.len()) && name.bytes().all(is_good)
}

/// Reads what follows `reject` or `defer`: a code and a status, both of the class `class`, and a
/// text. Each of the three may be missing, and has a default.
fn refusal(rest: &str, class: u8, default: (u16, Status), default_text: &str) -> Result<Action, String> {
    let (code, rest) = code(rest).unwrap_or((default.0, rest));
    // The code 421 would say that this server closes the connection.
    if code / 100 != u16::from(class) || code == 421 {
        return Err(format!("expected a code from {class}00 to {class}59, but not 421"));
    }
    let (status, text) = Status::read(rest).unwrap_or((default.1, rest));
    if status.0 != class {
        return Err(format!("expected a status that begins with {class}"));
    }
    let text = if text.trim().is_empty() { default_text } else { text.trim() };
    if text.len() > MAX_TEXT || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(format!("expected a text in ASCII of at most {MAX_TEXT} characters"));
    }
    Ok(Action::Refuse(code, status, text.into()))
}

/// Splits off a reply code: a word of three digits, as RFC 5321 4.2 defines them.
fn code(text: &str) -> Option<(u16, &str)> {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let is_code = matches!(word.as_bytes(), [b'2'..=b'5', b'0'..=b'5', b'0'..=b'9']);
    let code = word.parse().ok().filter(|_| is_code)?;
    Some((code, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_defaults_for_code_status_and_text() {
        let refuse = |code, status, text: &str| Ok(Action::Refuse(code, status, text.into()));
        for (text, want) in [
            ("ok", Ok(Action::Ok)),
            ("OK", Ok(Action::Ok)),
            ("quarantine", Ok(Action::Mark(Mark::Quarantine))),
            ("tag a-b_1", Ok(Action::Mark(Mark::Tag("a-b_1".into())))),
            ("reject", refuse(550, Status(5, 7, 1), "Access denied")),
            ("REJECT  gone away ", refuse(550, Status(5, 7, 1), "gone away")),
            ("reject 554", refuse(554, Status(5, 7, 1), "Access denied")),
            ("reject 5.1.1", refuse(550, Status(5, 1, 1), "Access denied")),
            ("reject 554 5.1.1 gone", refuse(554, Status(5, 1, 1), "gone")),
            ("reject 5000 reasons", refuse(550, Status(5, 7, 1), "5000 reasons")),
            ("defer", refuse(450, Status(4, 7, 1), "Access denied for now, please try again later")),
            ("defer 451 4.3.2 busy", refuse(451, Status(4, 3, 2), "busy")),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
        for text in [
            "",
            "refuse",
            "ok 550",
            "quarantine please",
            "tag",
            "tag a b",
            "tag \u{fc}",
            "reject 450",
            "reject 250 x",
            "reject 4.7.1 x",
            "defer 550",
            "defer 421 x",
            "defer 5.7.1 x",
            "reject \u{fc}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("tag {}", "x".repeat(MAX_TAG + 1))).is_err());
        assert!(parse(&format!("reject {}", "x".repeat(MAX_TEXT + 1))).is_err());
    }
}
