//! Writes addresses and paths, with quotes where the syntax requires them.

use std::fmt;

use super::Address;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            f.write_str(&self.local)?;
        } else {
            f.write_str("\"")?;
            for c in self.local.chars() {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str("\"")?;
        }
        if self.domain.is_empty() { Ok(()) } else { write!(f, "@{}", self.domain) }
    }
}

/// Writes a path: an address in angle brackets, such as `<a@b>`, or `<>` for `None`.
pub fn path(address: Option<&Address>) -> String {
    address.map_or_else(|| "<>".to_owned(), |a| format!("<{a}>"))
}

/// Whether an ASCII character needs no quotes in a local part. Characters outside ASCII never need
/// quotes (RFC 6531 3.3).
pub(super) fn is_atom(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}

fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(|b| is_atom(b) || !b.is_ascii()))
}
