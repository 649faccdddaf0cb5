//! Writes HTML and SVG in which every text is escaped.
//!
//! Markup is part of the program, so its type is `&'static str`. Everything else goes through
//! [`Html::text`] or [`Html::attribute`].

use std::fmt::Display;

use crate::characters::is_hidden;

/// A part of a page.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Adds markup.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        for c in text.to_string().chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Characters that could hide a part of a text, or change the order of others.
                c if c.is_control() || is_hidden(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Adds an attribute to a tag that is not closed yet.
    pub fn attribute(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.raw(" ").raw(name).raw("=\"").text(value).raw("\"")
    }

    /// Adds an element that contains text. `open` is its start tag and `close` its end tag.
    pub fn element(&mut self, open: &'static str, text: impl Display, close: &'static str) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    /// Returns the text of the page.
    pub fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_become_markup() {
        let mut html = Html::default();
        html.raw("<p").attribute("title", "a\" onclick='x'").raw(">").text("<b>&\u{202e}\u{ad}\n\0\u{e9}").raw("</p>");
        let expected =
            "<p title=\"a&quot; onclick=&#39;x&#39;\">&lt;b&gt;&amp;\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{e9}</p>";
        assert_eq!(html.into_text(), expected);
    }
}
