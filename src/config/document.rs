//! A TOML document from which keys are taken one by one.
//!
//! A [`Section`] is one table of it. Whoever reads it takes every key that exists,
//! each with a function that makes a value of it or says what it expected; what
//! nobody has taken when the section is finished is an unknown key. Trouble is
//! noted with its place and the reading goes on, so that one run finds all of it.
//! Does not know any key.

use std::cell::RefCell;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::ConfigError;

/// The errors found so far in one document.
pub(super) struct Errors<'t> {
    file: &'t Path,
    text: &'t str,
    found: RefCell<Vec<ConfigError>>,
}

impl<'t> Errors<'t> {
    /// No errors in `text`, the contents of `file`.
    pub(super) fn none(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, found: RefCell::default() }
    }

    /// The outermost table of the text; `None` if its syntax is wrong, since keys
    /// would then be found in the wrong table or not at all.
    pub(super) fn document(&self) -> Option<Section<'_, 't>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.add(error.span().map_or(0, |span| span.start), syntax(error));
        }
        let place = table.span().start;
        errors.is_empty().then(|| Section::new(self, "", place, table.into_inner()))
    }

    /// All errors, in the order of their places.
    pub(super) fn into_sorted(self) -> Vec<ConfigError> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|error| (error.line, error.column));
        found
    }

    fn add(&self, octet: usize, text: String) {
        self.found.borrow_mut().push(ConfigError::at(self.file, self.text, octet, text));
    }
}

/// The parser's own words, on one line.
fn syntax(error: &Error) -> String {
    format!("not TOML: {}", error.message().split('\n').collect::<Vec<_>>().join("; "))
}

/// One table of a document.
#[must_use = "unknown keys are found by finish()"]
pub(super) struct Section<'e, 't> {
    errors: &'e Errors<'t>,
    name: &'static str,
    place: usize,
    left: DeTable<'t>,
    /// The keys that exist, and where the value is of each that is given.
    known: Vec<(&'static str, Option<usize>)>,
}

impl<'e, 't> Section<'e, 't> {
    fn new(errors: &'e Errors<'t>, name: &'static str, place: usize, left: DeTable<'t>) -> Self {
        Self { errors, name, place, left, known: Vec::new() }
    }

    /// The value of a key, or `None` where it is absent or wrong.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.remove(key)?;
        read(value.get_ref()).map_err(|text| self.error(key, &text)).ok()
    }

    /// The value of a key that is an array; `None` where it is absent or any element is wrong.
    pub(super) fn take_all<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.remove(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.error(key, "expected an array, in brackets");
            return None;
        };
        // Collected twice, since the first error must not end the search.
        let each: Vec<Option<T>> = array.iter().map(|element| self.read_element(key, element, &read)).collect();
        each.into_iter().collect()
    }

    fn read_element<T>(
        &self,
        key: &str,
        element: &Spanned<DeValue<'t>>,
        read: impl Fn(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        read(element.get_ref()).map_err(|text| self.error_at(element.span().start, key, &text)).ok()
    }

    /// The table `[key]`, empty where it is absent or is none.
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

    /// The tables `[[key]]`; `None` where there is none.
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

    /// The tables `[[key]]`, or the only one, `[key]`.
    pub(super) fn sections_or_one(&mut self, key: &'static str) -> Vec<Section<'e, 't>> {
        let is_one = self.left.get(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)));
        if is_one { vec![self.section(key)] } else { self.sections(key).unwrap_or_default() }
    }

    /// Notes an error at the value of `key`, or at the start of the section if it is not given.
    pub(super) fn error(&self, key: &str, text: &str) {
        self.error_at(self.value_place(key).unwrap_or(self.place), key, text);
    }

    /// Whether the file gives `key`, rightly or wrongly.
    pub(super) fn gives(&self, key: &str) -> bool {
        self.value_place(key).is_some()
    }

    /// Every key that is left is unknown.
    pub(super) fn finish(self) {
        let known: Vec<&str> = self.known.iter().map(|(key, _)| *key).collect();
        let known = known.join(", ");
        for key in self.left.keys() {
            // A quoted key may have anything in it, and an error is one line.
            let name = key.get_ref().escape_debug().to_string();
            self.error_at(key.span().start, &name, &format!("unknown key; expected one of {known}"));
        }
    }

    fn error_at(&self, octet: usize, key: &str, text: &str) {
        let dot = if self.name.is_empty() { "" } else { "." };
        self.errors.add(octet, format!("{}{dot}{key}: {text}", self.name));
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
