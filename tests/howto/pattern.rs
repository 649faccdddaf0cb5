//! Output as a page shows it, and whether what came is that output.
//!
//! `...` on a line of its own stands for any lines, also for none, and `...` within a line for any
//! text. Spaces at the ends of lines do not count, and neither does their number elsewhere.

/// The lines of a text, as they are compared.
pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(plain).collect()
}

fn plain(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Compares. If it is not the same, the result is the longest part of the pattern that has an
/// equal: the number of its lines.
pub fn compare(pattern: &[String], text: &str) -> Result<(), usize> {
    let (pattern, lines) = (lines(&pattern.join("\n")), lines(text));
    // For each number of lines of the pattern, the numbers of lines of the text that they may be.
    let mut ends = vec![0];
    for (number, line) in pattern.iter().enumerate() {
        ends = match (line.as_str(), ends.first()) {
            (_, None) => unreachable!("it has returned"),
            ("...", Some(first)) => (*first..=lines.len()).collect(),
            _ => ends.iter().filter(|end| lines.get(**end).is_some_and(|l| fits(line, l))).map(|end| end + 1).collect(),
        };
        if ends.is_empty() {
            return Err(number);
        }
    }
    if ends.contains(&lines.len()) { Ok(()) } else { Err(pattern.len()) }
}

/// Whether a line of a page stands for this line.
pub fn fits(pattern: &str, line: &str) -> bool {
    let Some((start, rest)) = pattern.split_once("...") else { return pattern == line };
    let Some(mut line) = line.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split("...").collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = line.split_once(part) else { return false };
        line = after;
    }
    line.ends_with(end)
}

/// The line among `lines` for which a line of a page stands, the last one if there are several.
pub fn find<'a>(pattern: &str, lines: &'a [String]) -> Option<&'a String> {
    let pattern = plain(pattern);
    lines.iter().rev().find(|line| fits(&pattern, line))
}

#[test]
fn patterns() {
    let same = |pattern: &[&str], text: &str| {
        let pattern: Vec<String> = pattern.iter().map(|line| (*line).to_owned()).collect();
        compare(&pattern, text)
    };
    assert_eq!(same(&[], ""), Ok(()));
    assert_eq!(same(&["..."], ""), Ok(()));
    assert_eq!(same(&["a  b ", "..."], "a b\n1\n2\n"), Ok(()));
    assert_eq!(same(&["...", "b", "..."], "a\nb\nb\nc\n"), Ok(()));
    assert_eq!(same(&["...", "b"], "b\na\n"), Err(2));
    assert_eq!(same(&["a", "b"], "a\nc\n"), Err(1));
    assert_eq!(same(&["a"], "a\nb\n"), Err(1));
    assert_eq!(same(&[], "a\n"), Err(0));
    for (pattern, line, fit) in [
        ("a...c", "abc", true),
        ("a...c", "ac", true),
        ("a...c", "acd", false),
        ("...b...", "abc", true),
        ("...b...d", "abcd", true),
        ("...b...d", "acbd", true),
        ("...b...d", "acd", false),
        ("ab...b", "ab", false),
    ] {
        assert_eq!(fits(pattern, line), fit, "{pattern} {line}");
    }
    assert_eq!(find("b...", &lines("b1\nb2\nc\n")), Some(&"b2".to_owned()));
}
