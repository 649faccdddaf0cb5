//! Writes JSON (RFC 8259), for the commands with `--json`, for the log and for the status page.
//!
//! An [`Object`] is written into a text of its own, in the order of the calls. Bytes that are not
//! UTF-8 must be replaced by the caller. All characters that could mislead are escaped, so that an
//! object is always one line, and can be read at a terminal.

use std::fmt::{Display, Write};

use crate::characters::is_misleading;

/// The form in which a command prints what it lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text for people.
    Text,
    /// JSON, one object a line.
    Json,
}

/// A JSON object that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object(String);

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a member whose value is a text.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        push_text(&mut self.0, value);
        self
    }

    /// Adds a member whose value is a text, if there is a value.
    pub fn some_text(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.text(key, value);
        }
        self
    }

    /// Adds a member whose value is a number. `value` must be a finite number.
    pub fn number(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.raw(key, value)
    }

    /// Adds a member whose value is true or false.
    pub fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, value)
    }

    /// Adds a member whose value is another object.
    pub fn object(&mut self, key: &str, value: &Self) -> &mut Self {
        self.raw(key, value)
    }

    /// Adds a member whose value is an array of texts.
    pub fn texts<T: AsRef<str>>(&mut self, key: &str, values: impl IntoIterator<Item = T>) -> &mut Self {
        self.list(key, values, |out, value| push_text(out, value.as_ref()))
    }

    /// Adds a member whose value is an array of objects.
    pub fn objects(&mut self, key: &str, values: impl IntoIterator<Item = Self>) -> &mut Self {
        self.list(key, values, |out, value| out.push_str(&value.to_string()))
    }

    fn list<T>(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = T>,
        mut push: impl FnMut(&mut String, T),
    ) -> &mut Self {
        self.key(key);
        self.0.push('[');
        for (n, value) in values.into_iter().enumerate() {
            if n > 0 {
                self.0.push(',');
            }
            push(&mut self.0, value);
        }
        self.0.push(']');
        self
    }

    fn raw(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.key(key);
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{value}");
        self
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        push_text(&mut self.0, key);
        self.0.push(':');
    }
}

impl Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}}}", self.0)
    }
}

/// A text as a TOML string, with its quotes. If all characters that must be escaped are below
/// U+10000, JSON has the same form.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text, |out, c| {
        let _ = match u32::from(c) {
            code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
            code => write!(out, "\\U{code:08x}"),
        };
    });
    out
}

/// Appends a text as a JSON string.
fn push_text(out: &mut String, text: &str) {
    push_quoted(out, text, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    });
}

/// Appends a text in quotes. `escape` appends a character that could mislead.
fn push_quoted(out: &mut String, text: &str, escape: impl Fn(&mut String, char)) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || is_misleading(c) => escape(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_one_line_of_valid_json() {
        let mut inner = Object::new();
        inner.flag("yes", true);
        let mut object = Object::new();
        object
            .text("a", "x\"\\\r\n\t\u{7f}\u{9b}\u{2028}\u{202e}\u{e0001}\u{f6}\u{200d}")
            .number("n", 1.5)
            .object("o", &inner);
        object.texts("l", ["1", "2"]).objects("e", []).objects("f", [inner.clone(), Object::new()]);
        object.some_text("none", None).some_text("some", Some(""));
        let text = r#"{"a":"x\"\\\u000d\n\t\u007f\u009b\u2028\u202e\udb40\udc01ö‍","n":1.5,"o":{"yes":true},"l":["1","2"],"e":[],"f":[{"yes":true},{}],"some":""}"#;
        assert_eq!(object.to_string(), text);
        assert_eq!(Object::default().to_string(), "{}");
        assert_eq!(quote("\u{ad}\u{e0001}"), r#""\u00ad\U000e0001""#);
    }
}
