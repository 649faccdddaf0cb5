//! Reads the file of a language, and fills in its texts.
//!
//! The file is TOML. English has every text, and is the model for all others: a text must have the
//! placeholders of the English one. A text with an error, or one that is missing, is taken from the
//! language on which the file is based.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use jiff::Zoned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::zone;
use crate::config::ConfigError;

/// The maximum length of a text, in characters.
const MAX_TEXT: usize = 1000;
/// The maximum length of the beginning of a subject, in characters.
const MAX_SUBJECT: usize = 50;
/// The maximum length of the name of a month, in characters.
const MAX_MONTH: usize = 20;

/// The texts of a language.
#[derive(Debug, Clone, Default)]
pub struct Language {
    /// The tag of the language (RFC 5646).
    pub tag: String,
    /// The texts, by the names of their tables and keys, such as `text.greeting`.
    texts: HashMap<String, String>,
    months: Vec<String>,
}

impl Language {
    /// Returns a text without placeholders.
    pub fn text(&self, key: &str) -> &str {
        self.texts.get(key).map_or("", String::as_str)
    }

    /// Returns a text with values in place of its placeholders. In a text from right to left, a value
    /// from left to right is marked (UAX 9) if its parts would be shown in the wrong order without.
    pub fn fill(&self, key: &str, values: &[(&str, &str)]) -> String {
        let (mut out, mut rest) = (String::new(), self.text(key));
        let is_from_right = rest.contains(is_right_to_left);
        while let Some((before, inside)) = rest.split_once('{') {
            let Some((name, after)) = inside.split_once('}') else { break };
            out += before;
            let value = values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
            let is_marked = is_from_right && needs_isolation(value);
            out += &if is_marked { format!("\u{2066}{value}\u{2069}") } else { value.to_owned() };
            rest = after;
        }
        out + rest
    }

    /// Returns a date and a time.
    pub fn date(&self, time: &Zoned) -> String {
        let month = usize::try_from(time.month()).ok().and_then(|month| self.months.get(month.wrapping_sub(1)));
        let (day, year, hour, minute) = (time.day(), time.year(), time.hour(), time.minute());
        self.fill(
            "text.date",
            &[
                ("day", &day.to_string()),
                ("month", month.map_or("", String::as_str)),
                ("year", &year.to_string()),
                ("hour", &format!("{hour:02}")),
                ("minute", &format!("{minute:02}")),
                ("zone", &zone(time)),
            ],
        )
    }

    /// Reads the text of a file. Returns the language, and all errors. `tag` is the name of the
    /// file without its ending. `base` has the texts that the file lacks; without a base, any key is
    /// accepted.
    pub fn read(file: &Path, tag: &str, text: &str, base: Option<&Self>) -> (Self, Vec<ConfigError>) {
        let mut language = base.cloned().unwrap_or_default();
        tag.clone_into(&mut language.tag);
        let (table, syntax) = DeTable::parse_recoverable(text);
        let mut reader = Reader { file, text, base, errors: Vec::new(), language };
        for error in &syntax {
            let place = error.span().map_or(0, |span| span.start);
            reader.error(place, &format!("not TOML: {}", error.message().replace('\n', "; ")));
        }
        if syntax.is_empty() {
            reader.table("", table.into_inner());
        }
        reader.errors.sort_by_key(|error| (error.line, error.column));
        (reader.language, reader.errors)
    }

    /// The names of all texts.
    #[cfg(test)]
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let months = (!self.months.is_empty()).then_some("text.months");
        self.texts.keys().map(String::as_str).chain(months)
    }
}

/// Reads one file.
struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    base: Option<&'a Language>,
    errors: Vec<ConfigError>,
    language: Language,
}

impl Reader<'_> {
    fn error(&mut self, place: usize, what: &str) {
        self.errors.push(ConfigError::at(self.file, self.text, place, what));
    }

    fn table(&mut self, prefix: &str, table: DeTable<'_>) {
        for (key, value) in table {
            // A quoted key may contain any character, and an error must fit on one line.
            let name = format!("{prefix}{}", key.get_ref().escape_debug());
            let place = value.span().start;
            match (value.into_inner(), &*name) {
                (DeValue::Table(table), _) if prefix.matches('.').count() < 2 => self.table(&format!("{name}."), table),
                (DeValue::Array(months), "text.months") => self.months(place, &months),
                (DeValue::String(text), "language") if text != self.language.tag => {
                    self.error(place, &format!("language: the file is named {}.toml", self.language.tag));
                }
                (DeValue::String(_), "language") => {}
                (DeValue::String(text), _) => self.one(key.span().start, place, &name, &text),
                _ => self.error(place, &format!("{name}: expected a text in quotation marks")),
            }
        }
    }

    fn one(&mut self, key_place: usize, place: usize, name: &str, text: &str) {
        let model = match self.base {
            Some(base) => base.texts.get(name),
            None => None,
        };
        let max = if name.starts_with("subject.") { MAX_SUBJECT } else { MAX_TEXT };
        let expected = match model {
            None if self.base.is_some() => return self.error(key_place, &format!("{name}: unknown key")),
            _ if text.trim().is_empty() => "expected a text".to_owned(),
            _ if text.chars().any(char::is_control) => "expected a text on one line".to_owned(),
            _ if text.chars().count() > max => format!("expected at most {max} characters"),
            Some(model) if placeholders(text) != placeholders(model) => match placeholders(model) {
                names if names.is_empty() => "expected no placeholder in braces".to_owned(),
                names => format!("expected the placeholders {}", names.into_iter().collect::<Vec<_>>().join(" ")),
            },
            _ => {
                self.language.texts.insert(name.to_owned(), text.to_owned());
                return;
            }
        };
        self.error(place, &format!("{name}: {expected}"));
    }

    fn months(&mut self, place: usize, months: &[Spanned<DeValue<'_>>]) {
        let is_month =
            |month: &&str| (1..=MAX_MONTH).contains(&month.chars().count()) && !month.contains(char::is_control);
        let months: Vec<&str> = months.iter().filter_map(|month| month.get_ref().as_str()).filter(is_month).collect();
        if months.len() == 12 {
            self.language.months = months.into_iter().map(str::to_owned).collect();
        } else {
            self.error(place, "text.months: expected the names of twelve months");
        }
    }
}

/// Whether a character belongs to a script from right to left, such as Arabic or Hebrew.
fn is_right_to_left(c: char) -> bool {
    matches!(u32::from(c), 0x590..=0x8ff | 0xfb1d..=0xfdff | 0xfe70..=0xfefc)
}

/// Whether the parts of a value change their places within a text from right to left. Without a
/// letter at its beginning and a letter or a digit at its end, 1@example.org becomes example.org@1.
fn needs_isolation(value: &str) -> bool {
    let is_whole = value.starts_with(char::is_alphabetic) && value.ends_with(char::is_alphanumeric);
    !is_whole && value.contains(char::is_alphabetic) && !value.contains(is_right_to_left)
}

/// The placeholders of a text, with their braces.
fn placeholders(text: &str) -> BTreeSet<&str> {
    let is_end = |c: char| c == '}';
    let starts = text.match_indices('{').map(|(at, _)| at);
    starts.filter_map(|at| text.get(at..)?.split_inclusive(is_end).next()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ENGLISH;
    use super::*;

    fn errors(text: &str) -> (Language, Vec<String>) {
        let (language, errors) = Language::read(Path::new("xx.toml"), "xx", text, Some(&ENGLISH.language()));
        (language, errors.iter().map(|e| format!("{}:{}: {}", e.line, e.column, e.text)).collect())
    }

    #[test]
    fn a_file_of_a_site_may_have_a_few_texts_and_its_errors_are_told() {
        for (text, want) in [
            ("", ""),
            ("language = \"xx\"\nname = \"X\"\n[subject]\nfailure = \"Nix\"", ""),
            ("language = \"yy\"", "1:12: language: the file is named xx.toml"),
            ("[subject]\nfalure = \"Nix\"", "2:1: subject.falure: unknown key"),
            ("[cause.nonsense]\nwhat = \"Nix\"", "2:1: cause.nonsense.what: unknown key"),
            ("[subject]\nfailure = 7", "2:11: subject.failure: expected a text in quotation marks"),
            ("[subject]\nfailure = \"a\\nb\"", "2:11: subject.failure: expected a text on one line"),
            ("[subject]\nfailure = \" \"", "2:11: subject.failure: expected a text"),
            (&format!("[subject]\nfailure = \"{}\"", "x".repeat(51)), "2:11: subject.failure: expected at most 50"),
            ("[text]\ngreeting = \"Hi\"", "2:12: text.greeting: expected the placeholders {host}"),
            ("[text]\ngreeting = \"Hi {host} {host\"", "2:12: text.greeting: expected the placeholders {host}"),
            ("[text]\nsuccess = \"Hi {host}\"", "2:11: text.success: expected no placeholder in braces"),
            ("[text]\nmonths = [\"1\", 2]", "2:10: text.months: expected the names of twelve months"),
            ("[text\n", "1:6: not TOML"),
            ("[a.b.c.d]\ne = 1", "1:6: a.b.c: expected a text in quotation marks"),
        ] {
            let (language, found) = errors(text);
            assert!(
                found.len() <= 1 && found.first().map_or("", String::as_str).starts_with(want),
                "{text}: {found:?}"
            );
            assert_eq!(found.is_empty(), want.is_empty(), "{text}: {found:?}");
            assert_eq!(language.text("text.details"), "Details for the postmaster:");
        }
        assert_eq!(errors("[subject]\nfailure = \"Nix\"").0.text("subject.failure"), "Nix");
    }

    #[test]
    fn a_value_is_never_read_as_a_text() {
        let (language, _) = errors("[text]\nforwarded = \"{target} <- {address}\"");
        let filled = language.fill("text.forwarded", &[("address", "{target}"), ("target", "}{address")]);
        assert_eq!(filled, "}{address <- {target}");
    }

    #[test]
    fn a_value_in_a_text_from_right_to_left_keeps_its_order() {
        for (text, value, want) in [
            ("\u{625}\u{644}\u{649} {host}.", "mx1.example.org", "mx1.example.org"),
            ("\u{625}\u{644}\u{649} {host}.", "1@example.org", "\u{2066}1@example.org\u{2069}"),
            ("\u{625}\u{644}\u{649} {host}.", "a@[192.0.2.1]", "\u{2066}a@[192.0.2.1]\u{2069}"),
            ("\u{625}\u{644}\u{649} {host}.", "12", "12"),
            ("\u{625}\u{644}\u{649} {host}.", "\u{645}!", "\u{645}!"),
            ("at {host}.", "1@example.org", "1@example.org"),
        ] {
            let (language, found) = errors(&format!("[text]\ngreeting = \"{text}\""));
            assert_eq!(found, Vec::<String>::new(), "{text}");
            assert_eq!(language.fill("text.greeting", &[("host", value)]), text.replace("{host}", want));
        }
    }

    #[test]
    fn a_date_is_written_as_the_language_does() {
        let time = jiff::fmt::rfc2822::parse("Sun, 1 Mar 2026 09:05:00 +0200");
        let time = time.expect("a date");
        assert_eq!(ENGLISH.language().date(&time), "1 March 2026, 09:05 (UTC+2)");
        let (language, _) = errors(
            "[text]\ndate = \"{year}/{month}/{day} {hour}h{minute} {zone}\"\nmonths = [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\"]",
        );
        assert_eq!(language.date(&time), "2026/3/1 09h05 UTC+2");
    }
}
