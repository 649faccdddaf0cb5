//! Writes and recognizes Authentication-Results: fields (RFC 8601), in which a server states what
//! it has found out about a message.
//!
//! [`field`] writes one field with all results. Its values come from strangers. So values are
//! quoted where the syntax needs quotes, comments are escaped, characters other than printable
//! ASCII become `?`, and long values are cut. No value can forge a result, a field or a line, and
//! no line is longer than 998 octets.
//!
//! [`claims_to_be`] recognizes a field in an incoming message that claims to be this server's. Such
//! a field must be removed (RFC 8601 5). A field whose identifier cannot be read must be removed,
//! too, because another reader might take the identifier for this server's.
//!
//! - `methods`: the result of each method
//! - `read`: whose field an Authentication-Results field is, and what it says about DMARC
//! - `write`: one field out of all results

mod methods;
mod read;
mod write;

pub use read::claims_to_be;
#[cfg(feature = "arc")]
pub use read::says_dmarc_passed;
pub use write::field;

/// The name of the field.
pub const NAME: &str = "Authentication-Results";

/// The maximum number of results in one field. Further results are left out.
pub const MAX_RESULTS: usize = 24;

/// All results for one message, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    results: Vec<One>,
}

/// The result of one method of RFC 8601, such as SPF or DKIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct One {
    method: &'static str,
    result: &'static str,
    comment: Option<String>,
    properties: Vec<Property>,
}

/// The name of a property, such as `smtp.mailfrom`, and its value.
type Property = (&'static str, String);

impl Results {
    /// Adds a result. A result beyond [`MAX_RESULTS`] is dropped.
    pub fn add(&mut self, one: One) {
        if self.results.len() < MAX_RESULTS {
            self.results.push(one);
        }
    }

    /// Returns whether there is no result. If so, the field says `none`.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }
}

impl One {
    /// Returns the result of a method, such as `pass` of `spf`. Both words must be keywords of RFC
    /// 8601.
    pub fn new(method: &'static str, result: &'static str) -> Self {
        Self { method, result, comment: None, properties: Vec::new() }
    }

    /// Adds a comment for people, such as the reason for the result. An empty comment is left out.
    #[must_use]
    pub fn comment(mut self, text: &str) -> Self {
        self.comment = (!text.is_empty()).then(|| text.to_owned());
        self
    }

    /// Adds a property. `name` consists of the property's type and name, such as `header.d`. A
    /// property without a value is left out.
    #[must_use]
    pub fn property(mut self, name: &'static str, value: &str) -> Self {
        if !value.is_empty() {
            self.properties.push((name, value.to_owned()));
        }
        self
    }
}

#[cfg(test)]
mod tests;
