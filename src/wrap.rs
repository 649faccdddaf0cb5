//! Wraps the lines of listings.

/// The maximum number of characters in a line.
const WIDTH: usize = 100;

/// Returns `line` as lines of at most 100 characters without an end of the last line. Lines are
/// broken at blanks only, so a longer word has a longer line. Lines after the first one are indented
/// by `indent` blanks.
pub fn wrapped(line: &str, indent: usize) -> String {
    let text = line.trim_start_matches(' ');
    let mut width = line.len() - text.len();
    let mut out = " ".repeat(width);
    for (number, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if number > 0 && width + 1 + length > WIDTH && !word.is_empty() {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            width = indent;
        } else if number > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks_and_indented() {
        let long = "x".repeat(120);
        let words = ["word"; 40].join(" ");
        for (line, wanted) in [
            ("", String::new()),
            ("a  b", "a  b".into()),
            ("    a b", "    a b".into()),
            (&*long, long.clone()),
            (&format!("a {long} b"), format!("a\n    {long}\n    b")),
            (&format!("  {words}"), format!("  {0}\n    {0}\n    word word", ["word"; 19].join(" "))),
            (&words, format!("{}\n    {}\n    word", ["word"; 20].join(" "), ["word"; 19].join(" "))),
        ] {
            assert_eq!(wrapped(line, 4), wanted, "{line}");
        }
    }
}
