//! Takes the keys of a TOML document one by one, for `keys`.
//!
//! A [`Section`] is one table of the document. The function that reads a section takes every key
//! that it knows, with a parser that returns the value or a text that says what was expected. When
//! the section is finished, the keys that were not taken are unknown. Errors are recorded with
//! their places and reading continues, so that one run finds all errors. The keys themselves are
//! defined in `keys`.

use std::cell::RefCell;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::{ConfigError, Places};

/// The errors found so far in one document.
pub(super) struct Errors<'t> {
    file: &'t Path,
    text: &'t str,
    found: RefCell<Vec<ConfigError>>,
    /// The unknown keys, until they are reported.
    unknown: RefCell<Vec<UnknownKey>>,
    /// The headers of optional tables, each with the keys that no other table has. If such a key is
    /// found in another table, the line with the header is probably missing.
    optional: RefCell<Vec<(&'static str, &'static [&'static str])>>,
    /// The places of all keys, once the document has been parsed.
    places: RefCell<Places>,
}

/// An unknown key in a table.
struct UnknownKey {
    place: usize,
    name: String,
    key: String,
    known: String,
    /// The header of the key in the file, such as `[name]`, if its value is a table or an array of
    /// tables.
    header: Option<String>,
}

impl<'t> Errors<'t> {
    /// Makes an empty list of errors for `text`, the contents of `file`.
    pub(super) fn none(file: &'t Path, text: &'t str) -> Self {
        let (found, unknown, optional, places) = Default::default();
        Self { file, text, found, unknown, optional, places }
    }

    /// Parses the text. Returns its outermost table, or `None` after a syntax error, because such
    /// an error could move keys into the wrong table.
    pub(super) fn document(&self) -> Option<Section<'_, 't>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let place = error.span().map_or(0, |span| span.start);
            self.add(place, duplicate(self.text, place, error).unwrap_or_else(|| syntax(error)));
        }
        let place = table.span().start;
        self.places.replace(Places::of(self.file, self.text, table.get_ref()));
        errors.is_empty().then(|| Section::new(self, "", place, table.into_inner()))
    }

    /// Returns the places of all keys.
    pub(super) fn places(&self) -> Places {
        self.places.take()
    }

    /// Returns all errors, in the order of their places.
    pub(super) fn into_sorted(self) -> Vec<ConfigError> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|error| (error.line, error.column));
        found
    }

    /// Adds an error for each unknown key. `outermost` lists the known keys at the top level of the
    /// file. `gives` says whether the file has the given key at the top level.
    fn report_unknown(&self, outermost: &[&str], gives: impl Fn(&str) -> bool) {
        for UnknownKey { place, name, key, known, header } in self.unknown.take() {
            // A quoted key may contain any character, and an error must fit on one line.
            let full = full_name(&name, &key.escape_debug().to_string());
            let text = match (header, self.optional_table(&name, &key)) {
                (_, Some(table)) if gives(bare(table)) => format!("it belongs below {table}"),
                (_, Some(table)) => format!("it belongs below {table} (is that line still a comment?)"),
                _ if name.is_empty() || is_nearly(&key, &known) || !outermost.contains(&key.as_str()) => {
                    format!("expected one of {known}")
                }
                (Some(header), _) => format!("what it has belongs below {header}"),
                (None, _) => "it belongs above the first [table]".to_owned(),
            };
            self.add(place, format!("{full}: unknown key; {text}"));
        }
    }

    /// Returns the header of the optional table to which the unknown key `key` belongs. `name` is
    /// the table in which the key was found; that table itself is never returned.
    fn optional_table(&self, name: &str, key: &str) -> Option<&'static str> {
        let is_it = |(table, keys): &&(&'static str, &[&str])| bare(table) != name && keys.contains(&key);
        self.optional.borrow().iter().find(is_it).map(|(table, _)| *table)
    }

    fn add(&self, octet: usize, text: String) {
        self.found.borrow_mut().push(ConfigError::at(self.file, self.text, octet, text));
    }
}

/// Whether one of the known keys is the plural of a key.
fn is_nearly(key: &str, known: &str) -> bool {
    known.split(", ").any(|known| known.strip_suffix('s') == Some(key))
}

/// Returns the name in a table's header: `listen` for `[[listen]]`.
fn bare(header: &str) -> &str {
    header.trim_matches(['[', ']'])
}

/// Returns the parser's message, on one line.
fn syntax(error: &Error) -> String {
    format!("not TOML: {}", error.message().split('\n').collect::<Vec<_>>().join("; "))
}

/// Returns the text for a duplicate key or table, with the place where the key or table first
/// occurs; `None` for any other error, or if that place is not found. A table `t` begins with its
/// header, or with a top-level key `t = ...` or `t.key = ...`.
fn duplicate(text: &str, place: usize, error: &Error) -> Option<String> {
    error.message().strip_prefix("duplicate key")?;
    let (before, _) = text.split_at_checked(place)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let mut above = text.get(..start)?.lines().enumerate();
    let line = text.get(start..)?.lines().next()?.trim();
    // Returns the text after `name` if the line begins with that name.
    let after = |line: &str, name| line.trim_start().strip_prefix(name).map(|rest: &str| rest.trim_start().to_owned());
    let (what, at) = match line.strip_prefix('[') {
        Some(header) => {
            let name = header.trim_start_matches('[').split([']', '#']).next()?.trim();
            let mut is_top = true;
            let mut begins = |line: &str| match line.trim_start().strip_prefix('[') {
                Some(header) => {
                    is_top = false;
                    after(header.trim_start_matches('['), name).is_some_and(|rest| rest.starts_with(']'))
                }
                None => is_top && after(line, name).is_some_and(|rest| rest.starts_with(['.', '='])),
            };
            (format!("[{name}] has begun"), above.find(|(_, line)| begins(line)))
        }
        None => {
            let name = line.split(['=', ' ', '\t']).next()?;
            let is_it = |line: &str| after(line, name).is_some_and(|rest| rest.starts_with('='));
            (format!("{name} stands"), above.filter(|(_, line)| is_it(line)).last())
        }
    };
    let (number, first) = at?;
    let column = first.chars().take_while(|c| c.is_whitespace()).count() + 1;
    Some(format!("duplicate key: {what} above, at {}:{column}", number + 1))
}

/// One table of a document.
#[must_use = "unknown keys are found by finish()"]
pub(super) struct Section<'e, 't> {
    errors: &'e Errors<'t>,
    name: &'static str,
    place: usize,
    left: DeTable<'t>,
    /// The keys that were asked for, each with the place of its value as an octet offset; `None` if
    /// the file does not have the key.
    known: Vec<(&'static str, Option<usize>)>,
}

impl<'e, 't> Section<'e, 't> {
    fn new(errors: &'e Errors<'t>, name: &'static str, place: usize, left: DeTable<'t>) -> Self {
        Self { errors, name, place, left, known: Vec::new() }
    }

    /// Takes a key and returns its value; `None` if the key is absent or the value is invalid.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.remove(key)?;
        read(value.get_ref()).map_err(|text| self.error(key, &text)).ok()
    }

    /// Takes a key whose value is an array; `None` if the key is absent or an element is invalid.
    pub(super) fn take_all<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.remove(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.error(key, "expected an array, in brackets");
            return None;
        };
        // All elements are read before an invalid one ends the collection, so that every error is
        // reported.
        let each: Vec<Option<T>> = array.iter().map(|element| self.read_element(key, element, &mut read)).collect();
        each.into_iter().collect()
    }

    fn read_element<T>(
        &self,
        key: &str,
        element: &Spanned<DeValue<'t>>,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        read(element.get_ref()).map_err(|text| self.error_at(element.span().start, key, &text)).ok()
    }

    /// Takes the table `[key]`. The section is empty if the key is absent or not a table.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'e, 't> {
        let (place, table) = match self.remove(key).map(|value| (value.span().start, value.into_inner())) {
            Some((place, DeValue::Table(table))) => (place, table),
            Some((place, _)) => {
                self.error(key, &format!("expected a table, [{key}]"));
                (place, DeTable::default())
            }
            None => (self.place, DeTable::default()),
        };
        Section::new(self.errors, key, place, table)
    }

    /// Takes the tables `[[key]]`; `None` if the key is absent or not an array.
    pub(super) fn sections(&mut self, key: &'static str) -> Option<Vec<Section<'e, 't>>> {
        let DeValue::Array(array) = self.remove(key)?.into_inner() else {
            self.error(key, &format!("expected [[{key}]], with two brackets on each side"));
            return None;
        };
        let section = |element: Spanned<DeValue<'t>>| match (element.span().start, element.into_inner()) {
            (place, DeValue::Table(table)) => Some(Section::new(self.errors, key, place, table)),
            (place, _) => {
                self.error_at(place, key, &format!("expected a table, [[{key}]]"));
                None
            }
        };
        Some(array.into_iter().filter_map(section).collect())
    }

    /// Takes the tables `[[key]]`, or the single table `[key]`.
    pub(super) fn sections_or_one(&mut self, key: &'static str) -> Vec<Section<'e, 't>> {
        let is_one = self.left.get(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)));
        if is_one { vec![self.section(key)] } else { self.sections(key).unwrap_or_default() }
    }

    /// Adds an error at the value of `key`, or at the start of the section if the key is absent.
    pub(super) fn error(&self, key: &str, text: &str) {
        self.error_at(self.value_place(key).unwrap_or(self.place), key, text);
    }

    /// Whether the file has `key`, even with an invalid value. The key must have been taken before.
    pub(super) fn gives(&self, key: &str) -> bool {
        self.value_place(key).is_some()
    }

    /// Ends the section. Every key that was not taken is recorded as unknown. The end of the
    /// outermost section reports all unknown keys.
    pub(super) fn finish(self) {
        let known: Vec<&str> = self.known.iter().map(|(key, _)| *key).collect();
        for (key, value) in &self.left {
            let header = match value.get_ref() {
                DeValue::Table(_) => Some(format!("[{}]", key.get_ref())),
                DeValue::Array(tables) if matches!(tables.first().map(Spanned::get_ref), Some(DeValue::Table(_))) => {
                    Some(format!("[[{}]]", key.get_ref()))
                }
                _ => None,
            };
            let (name, place) = (self.name.to_owned(), key.span().start);
            let key = key.get_ref().to_string();
            self.errors.unknown.borrow_mut().push(UnknownKey { place, name, key, known: known.join(", "), header });
        }
        if self.name.is_empty() {
            self.errors.report_unknown(&known, |key| self.gives(key));
        }
    }

    /// Declares the keys that only the optional table `header` has. If such a key is in another
    /// table, the error says that the header may be missing.
    pub(super) fn may_have(&self, header: &'static str, keys: &'static [&'static str]) {
        self.errors.optional.borrow_mut().push((header, keys));
    }

    /// If the value of `key` is a string in place of a table, adds an error with `text`, and treats
    /// the key as absent.
    pub(super) fn refuse_text(&mut self, key: &'static str, text: &str) {
        let is_text = |value: &Spanned<DeValue<'t>>| value.get_ref().as_str().is_some();
        if self.left.get(key).is_some_and(is_text)
            && let Some(value) = self.left.remove(key)
        {
            self.error_at(value.span().start, key, text);
        }
    }

    fn error_at(&self, octet: usize, key: &str, text: &str) {
        self.errors.add(octet, format!("{}: {text}", full_name(self.name, key)));
    }

    fn value_place(&self, key: &str) -> Option<usize> {
        self.known.iter().find(|(known, _)| *known == key).and_then(|(_, place)| *place)
    }

    fn remove(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        let value = self.left.remove(key);
        self.known.push((key, value.as_ref().map(|value| value.span().start)));
        value
    }
}

fn full_name(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}
