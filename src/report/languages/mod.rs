//! The languages in which reports are written.
//!
//! The texts are in the files of etc/languages, which are built in, and in the files of a directory
//! of the site (`report.texts`), which win. [`Languages::choose`] chooses the languages of a report
//! from the header of the original message and from `report.languages`. English is always the last
//! one, because the postmasters of other systems read it.
//!
//! - `file`: the texts of one language, read and filled in
//! - `tags`: language tags in header fields, and which language fits one

mod file;
mod tags;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::Zoned;

use crate::config::{Config, ConfigError, table};

pub use file::Language;

/// The maximum number of files of a site.
const MAX_FILES: usize = 100;
/// The maximum size of a file of a site, in bytes.
const MAX_SIZE: usize = 256 << 10;

/// A file that is built in. It is parsed when a report needs it.
struct BuiltIn {
    tag: &'static str,
    text: &'static str,
    language: OnceLock<Arc<Language>>,
}

impl BuiltIn {
    const fn new(tag: &'static str, text: &'static str) -> Self {
        Self { tag, text, language: OnceLock::new() }
    }

    fn language(&self) -> Arc<Language> {
        let base = || if self.tag == ENGLISH.tag { None } else { Some(ENGLISH.language()) };
        let read = || Arc::new(Language::read(Path::new(self.tag), self.tag, self.text, base().as_deref()).0);
        Arc::clone(self.language.get_or_init(read))
    }
}

static ENGLISH: BuiltIn = BuiltIn::new("en", include_str!("../../../etc/languages/en.toml"));

/// The languages that are built in besides English. A new file in etc/languages gets a line here.
static OTHERS: [BuiltIn; 11] = [
    BuiltIn::new("ar", include_str!("../../../etc/languages/ar.toml")),
    BuiltIn::new("de", include_str!("../../../etc/languages/de.toml")),
    BuiltIn::new("es", include_str!("../../../etc/languages/es.toml")),
    BuiltIn::new("fr", include_str!("../../../etc/languages/fr.toml")),
    BuiltIn::new("it", include_str!("../../../etc/languages/it.toml")),
    BuiltIn::new("ja", include_str!("../../../etc/languages/ja.toml")),
    BuiltIn::new("nl", include_str!("../../../etc/languages/nl.toml")),
    BuiltIn::new("pl", include_str!("../../../etc/languages/pl.toml")),
    BuiltIn::new("pt", include_str!("../../../etc/languages/pt.toml")),
    BuiltIn::new("ru", include_str!("../../../etc/languages/ru.toml")),
    BuiltIn::new("zh-Hans", include_str!("../../../etc/languages/zh-Hans.toml")),
];

/// The languages of a site.
#[derive(Debug, Default)]
pub struct Languages {
    /// The tags of the languages of the site's users, the preferred one first.
    preferred: Vec<String>,
    /// Whether each language gets a part of its own.
    is_multilingual: bool,
    /// The languages in files of the site, by tag.
    own: BTreeMap<String, Arc<Language>>,
}

impl Languages {
    /// Reads the files of the site. Returns the languages, and all errors. A text with an error is
    /// replaced by the one that is built in.
    pub fn open(config: &Config) -> (Self, Vec<ConfigError>) {
        let report = &config.report;
        let (own, mut errors) = own_files(&report.texts.path, report.texts.required);
        let (preferred, is_multilingual) = (report.languages.clone(), report.multilingual);
        let languages = Self { preferred, is_multilingual, own };
        for tag in languages.preferred.iter().filter(|tag| languages.find(tag).is_none()) {
            let text = format!("report.languages: there are no texts in the language {tag}");
            errors.push(config.places.complaint("report.languages", text));
        }
        (languages, errors)
    }

    /// Whether each language of a report gets a part of its own (RFC 8255).
    pub fn is_multilingual(&self) -> bool {
        self.is_multilingual
    }

    /// Returns the languages of a report, at least one. The last one is English. `original` is the
    /// header of the original message, if its sender gets the report. The language that the sender
    /// wants to read comes first (Accept-Language), or else the one of the message
    /// (Content-Language), or else those of the site's users.
    pub fn choose(&self, original: Option<&[u8]>) -> Vec<Arc<Language>> {
        let english = self.own.get(ENGLISH.tag).cloned().unwrap_or_else(|| ENGLISH.language());
        let wanted = original.map(tags::wanted).unwrap_or_default();
        let mut chosen: Vec<_> = wanted.iter().find_map(|tag| self.find(tag)).into_iter().collect();
        if chosen.is_empty() {
            chosen.extend(self.preferred.iter().filter_map(|tag| self.find(tag)));
        }
        // The languages after English are dropped: a reader that prefers English needs no other.
        let end = chosen.iter().position(|language| language.tag == english.tag).unwrap_or(chosen.len());
        chosen.truncate(end);
        chosen.push(english);
        chosen
    }

    /// Returns the language that fits a tag best.
    fn find(&self, wanted: &str) -> Option<Arc<Language>> {
        let built_in = || std::iter::once(&ENGLISH).chain(&OTHERS);
        let tags = self.own.keys().map(String::as_str).chain(built_in().map(|file| file.tag));
        let tag = tags::best(wanted, tags)?;
        let own = self.own.get(tag).cloned();
        own.or_else(|| built_in().find(|file| file.tag == tag).map(BuiltIn::language))
    }
}

/// Reads the files of a directory. A file that is named like a language which is built in replaces
/// some of its texts.
fn own_files(directory: &Path, is_required: bool) -> (BTreeMap<String, Arc<Language>>, Vec<ConfigError>) {
    let (mut own, mut errors) = (BTreeMap::new(), Vec::new());
    let mut paths: Vec<PathBuf> = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| has_texts(path)).collect(),
        Err(error) => {
            if is_required {
                errors.push(ConfigError::whole(directory, error.to_string()));
            }
            return (own, errors);
        }
    };
    paths.sort();
    if paths.len() > MAX_FILES {
        errors.push(ConfigError::whole(directory, format!("only the first {MAX_FILES} files are read")));
        paths.truncate(MAX_FILES);
    }
    for path in paths {
        let Some(tag) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        match table::read_text(&path) {
            Ok(text) if text.len() > MAX_SIZE => {
                errors.push(ConfigError::whole(&path, format!("the file has more than {} KiB", MAX_SIZE >> 10)));
            }
            Ok(text) => {
                let base = OTHERS.iter().find(|file| file.tag == tag).unwrap_or(&ENGLISH).language();
                let (language, found) = Language::read(&path, tag, &text, Some(&base));
                errors.extend(found);
                own.insert(tag.to_owned(), Arc::new(language));
            }
            Err(error) => errors.push(error),
        }
    }
    (own, errors)
}

/// Whether a path names a file with texts. The hidden files of editors are left out.
fn has_texts(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".toml") && !name.starts_with('.')
}

/// Returns a zone in the form that everybody reads, such as `UTC` or `UTC+5:30`.
fn zone(time: &Zoned) -> String {
    let seconds = time.offset().seconds();
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs() / 60);
    match (minutes / 60, minutes % 60) {
        (0, 0) => "UTC".to_owned(),
        (hours, 0) => format!("UTC{sign}{hours}"),
        (hours, minutes) => format!("UTC{sign}{hours}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cause::CAUSES;
    use super::*;

    /// All files of etc/languages, with their tags.
    fn files() -> Vec<(String, String)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/languages");
        let paths = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        let tag = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        paths.map(|path| (tag(&path), fs::read_to_string(&path).expect("UTF-8"))).collect()
    }

    /// Each file has all texts, with the placeholders of the English ones, and is built in.
    #[test]
    fn every_language_is_complete() {
        let english = ENGLISH.language();
        let mut names: Vec<String> = english.keys().map(str::to_owned).collect();
        names.sort();
        for (cause, name) in CAUSES {
            assert_eq!(cause.name(), name);
            for text in ["what", "advice"] {
                assert!(!english.text(&format!("cause.{name}.{text}")).is_empty(), "{name}");
            }
        }
        assert_eq!(names.iter().filter(|name| name.starts_with("cause.")).count(), 2 * CAUSES.len());
        let files = files();
        assert_eq!(files.len(), OTHERS.len() + 1, "each file has a line in OTHERS");
        for (tag, text) in files {
            assert!(tag == ENGLISH.tag || OTHERS.iter().any(|file| file.tag == tag && file.text == text), "{tag}");
            // A language that is read on no base has only the texts of its file.
            let (language, errors) = Language::read(Path::new(&tag), &tag, &text, None);
            assert_eq!(errors, [], "{tag}");
            let (_, errors) = Language::read(Path::new(&tag), &tag, &text, Some(&english));
            assert_eq!(errors, [], "{tag}");
            let mut keys: Vec<String> = language.keys().map(str::to_owned).collect();
            keys.sort();
            assert_eq!(keys, names, "{tag}");
            for key in keys {
                let (text, model) = (language.text(&key), english.text(&key));
                let end = |text: &str| {
                    text.chars().last().map(|c| match c {
                        '.' | '\u{3002}' | '\u{6d4}' => '.',
                        ':' | '\u{ff1a}' => ':',
                        '}' => '}',
                        _ => ' ',
                    })
                };
                assert_eq!(end(text), end(model), "{tag} {key}: {text}");
            }
        }
    }

    #[test]
    fn a_zone_is_told_as_its_distance_from_utc() {
        for (text, want) in [
            ("Sat, 21 Nov 2026 10:00:00 +0000", "UTC"),
            ("Sat, 21 Nov 2026 10:00:00 +0200", "UTC+2"),
            ("Sat, 21 Nov 2026 10:00:00 -0330", "UTC-3:30"),
            ("Sat, 21 Nov 2026 10:00:00 +0545", "UTC+5:45"),
        ] {
            assert_eq!(zone(&jiff::fmt::rfc2822::parse(text).expect(text)), want);
        }
    }

    fn tags(languages: &Languages, header: Option<&str>) -> String {
        let chosen = languages.choose(header.map(str::as_bytes));
        chosen.iter().map(|language| language.tag.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_senders_language_comes_first_then_those_of_the_site_and_always_english() {
        let german = Languages { preferred: vec!["de".into()], ..Languages::default() };
        let none = Languages::default();
        for (languages, header, want) in [
            (&none, None, "en"),
            (&none, Some("Content-Language: de-AT\n"), "de en"),
            (&none, Some("Content-Language: tlh, de\n"), "de en"),
            (&none, Some("Content-Language: de\nAccept-Language: en-GB, de;q=0.5\n"), "en"),
            (&none, Some("Content-Language: en\nAccept-Language: en;q=0.3, de;q=0.5\n"), "de en"),
            (&none, Some("Accept-Language: tlh\n"), "en"),
            (&german, None, "de en"),
            (&german, Some(""), "de en"),
            (&german, Some("Accept-Language: tlh\n"), "de en"),
            (&german, Some("Accept-Language: en-US\n"), "en"),
        ] {
            assert_eq!(tags(languages, header), want, "{header:?}");
        }
    }
}
