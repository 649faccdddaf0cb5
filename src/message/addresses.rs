//! Finds the addresses in a field that is checked and completed, such as From (RFC 5322 3.4).
//!
//! The list of addresses in the field is read with caution: if a name looks like an address, some
//! mail programs show it in place of the address, so such a name counts as an address here. Names,
//! comments, quotes, groups and folded lines are understood. [`complete`] adds a domain to
//! addresses without one, and changes no other octet. A list that cannot be read is left unchanged.
//! Time and memory are linear in the length of the field. Recipients are read by
//! [`super::recipients`].

use crate::address::Address;

/// An address in a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// The address; `None` if penfold cannot send mail to it.
    address: Option<Address>,
    /// For an address without a domain, the offset of the end of its local part, where a domain can
    /// be added; otherwise `None`.
    end: Option<usize>,
    /// The offsets of the start and the end of the whole address, without brackets.
    place: (usize, usize),
}

impl Mailbox {
    /// The address, completed with `domain` if it has no domain of its own.
    pub fn address_at(&self, domain: &str) -> Option<Address> {
        self.address.as_ref().map(|address| if self.end.is_some() { address.at(domain) } else { address.clone() })
    }
}

/// The addresses of a list; `None` if the list cannot be read.
pub fn mailboxes(value: &[u8]) -> Option<Vec<Mailbox>> {
    let mut tokens = Tokens { value, position: 0 };
    let (mut list, mut words) = (Vec::new(), Vec::new());
    // Whether the next token is inside a group, and whether it follows an address in brackets or a
    // group. After an address in brackets or a group, only a separator may stand.
    let (mut in_group, mut is_complete) = (false, false);
    while let Some(token) = tokens.next()? {
        match token.kind {
            Kind::Special(end @ (b',' | b';')) => {
                if end == b';' && !std::mem::take(&mut in_group) {
                    return None;
                }
                if !is_complete && !words.is_empty() {
                    list.push(address(value, &words)?);
                }
                words.clear();
                is_complete = end == b';';
            }
            _ if is_complete => return None,
            Kind::Special(b':') if !in_group && !words.is_empty() && !has_at(&words) => {
                in_group = true;
                words.clear();
            }
            Kind::Special(b'<') => {
                // Some readers take a name that looks like an address as an address.
                if has_at(&words) {
                    list.push(address(value, &words)?);
                }
                list.push(in_brackets(&mut tokens)?);
                is_complete = true;
            }
            Kind::Special(b':' | b'>') => return None,
            _ => words.push(token),
        }
    }
    if in_group {
        return None;
    }
    if !is_complete && !words.is_empty() {
        list.push(address(value, &words)?);
    }
    Some(list)
}

/// Whether all mail programs find the same addresses in a list: the list has no control characters,
/// and no characters that a name may contain only in quotes.
pub fn is_clear(value: &[u8]) -> bool {
    let (mut tokens, mut before) = (Tokens { value, position: 0 }, Kind::Special(b','));
    loop {
        let token = match tokens.next() {
            Some(Some(token)) => token,
            Some(None) => break,
            None => return false,
        };
        let is_clear = match token.kind {
            Kind::Special(b) => b",;:<>@".contains(&b),
            Kind::Literal => before == Kind::Special(b'@'),
            Kind::Quoted => true,
            Kind::Stray => false,
            // A name cannot begin with a dot.
            Kind::Atom => value.get(token.start) != Some(&b'.') || before == Kind::Atom || before == Kind::Quoted,
        };
        if !is_clear {
            return false;
        }
        before = token.kind;
    }
    !value.iter().any(|&b| b.is_ascii_control() && !is_blank(b))
}

/// Copies the list to `out`. Appends `@domain` to every address without a domain, and replaces an
/// address by the result of `rewrite`, if there is one.
pub fn complete(
    value: &[u8],
    list: &[Mailbox],
    domain: &str,
    rewrite: &dyn Fn(&Address) -> Option<Address>,
    out: &mut Vec<u8>,
) {
    let mut from = 0;
    for mailbox in list {
        if let Some(replacement) = mailbox.address_at(domain).and_then(|address| rewrite(&address)) {
            let (start, end) = mailbox.place;
            out.extend_from_slice(value.get(from..start).unwrap_or_default());
            out.extend_from_slice(replacement.to_string().as_bytes());
            from = end;
        } else if let Some(end) = mailbox.end {
            out.extend_from_slice(value.get(from..end).unwrap_or_default());
            out.push(b'@');
            out.extend_from_slice(domain.as_bytes());
            from = end;
        }
    }
    out.extend_from_slice(value.get(from..).unwrap_or_default());
}

/// The address between `<` and `>`.
fn in_brackets(tokens: &mut Tokens<'_>) -> Option<Mailbox> {
    let mut words = Vec::new();
    loop {
        let token = tokens.next()??;
        match token.kind {
            Kind::Special(b'>') if words.is_empty() => {
                return Some(Mailbox { address: None, end: None, place: (0, 0) });
            }
            Kind::Special(b'>') => return address(tokens.value, &words),
            // A source route is obsolete, and readers understand it in different ways (RFC 5322
            // 4.4).
            Kind::Special(b'@') if words.is_empty() => return None,
            _ => words.push(token),
        }
    }
}

/// Whether there is an `@` among the tokens.
fn has_at(words: &[Token]) -> bool {
    words.iter().any(|word| word.kind == Kind::Special(b'@'))
}

/// The address that tokens form, without brackets around it.
fn address(value: &[u8], words: &[Token]) -> Option<Mailbox> {
    let at_sign = words.iter().position(|word| word.kind == Kind::Special(b'@'));
    let (local, domain) = words.split_at(at_sign.unwrap_or(words.len()));
    let text = |words: &[Token]| joined(value, words);
    let local_text = text(local)?;
    let place = (words.first()?.start, words.last()?.end);
    match domain.split_first() {
        Some((_, [literal])) if literal.kind == Kind::Literal => {
            let domain = value.get(literal.start..literal.end)?;
            Some(Mailbox { address: parsed(&local_text, domain), end: None, place })
        }
        Some((_, domain)) => Some(Mailbox { address: parsed(&local_text, &text(domain)?), end: None, place }),
        None => {
            let is_name = !local_text.starts_with(b".") && !local_text.ends_with(b".");
            let address = parsed(&local_text, b"").filter(|_| is_name);
            let end = address.as_ref().and(local.last()).map(|word| word.end);
            Some(Mailbox { address, end, place })
        }
    }
}

/// Joins atoms and quoted strings with dots between them to one text without quotes. Returns `None`
/// if there are other tokens, or no text.
pub(super) fn joined(value: &[u8], words: &[Token]) -> Option<Vec<u8>> {
    let mut text: Vec<u8> = Vec::new();
    let mut is_open = true;
    for word in words {
        let piece = value.get(word.start..word.end)?;
        match word.kind {
            Kind::Atom if is_open || piece.starts_with(b".") => text.extend_from_slice(piece),
            Kind::Quoted if is_open => text.extend(unquoted(piece)),
            _ => return None,
        }
        is_open = word.kind == Kind::Atom && piece.ends_with(b".");
    }
    (!text.is_empty()).then_some(text)
}

/// The text of a quoted string, without the quotes and the escaping backslashes.
pub(super) fn unquoted(quoted: &[u8]) -> impl Iterator<Item = u8> {
    let inside = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut is_literal = false;
    inside.iter().copied().filter(move |&b| {
        is_literal = b == b'\\' && !is_literal;
        !is_literal
    })
}

/// An address from its two parts; `None` if the address is invalid.
pub(super) fn parsed(local: &[u8], domain: &[u8]) -> Option<Address> {
    Address::new(std::str::from_utf8(local).ok()?, std::str::from_utf8(domain).ok()?).ok()
}

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word, which may contain dots.
    Atom,
    Quoted,
    Literal,
    Special(u8),
    /// Text that may stand in a name but in no address.
    Stray,
}

/// A piece of a list, other than blanks and comments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

/// Reads a list token by token.
struct Tokens<'a> {
    value: &'a [u8],
    position: usize,
}

impl Tokens<'_> {
    /// Returns the next token, or `Some(None)` at the end. Returns `None` if a quote, literal or
    /// comment is not closed.
    #[expect(clippy::option_option, reason = "the end and an error are different")]
    fn next(&mut self) -> Option<Option<Token>> {
        self.skip_blanks()?;
        let start = self.position;
        let Some(&first) = self.value.get(start) else { return Some(None) };
        let kind = match first {
            b'"' => {
                self.skip_to(b'"')?;
                Kind::Quoted
            }
            b'[' => {
                self.skip_to(b']')?;
                Kind::Literal
            }
            _ if is_special(first) => {
                self.position += 1;
                Kind::Special(first)
            }
            _ => {
                let tail = self.value.get(start..).unwrap_or_default();
                self.position += tail.iter().position(|&b| is_special(b) || is_blank(b)).unwrap_or(tail.len());
                Kind::Atom
            }
        };
        Some(Some(Token { kind, start, end: self.position }))
    }

    /// Skips blanks, line ends and comments, which may be nested.
    fn skip_blanks(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        while let Some(&b) = self.value.get(self.position) {
            match b {
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b'\\' if depth > 0 => self.position += 1,
                _ if depth > 0 || is_blank(b) => {}
                _ => break,
            }
            self.position += 1;
        }
        (depth == 0).then_some(())
    }

    /// Moves from an opening character past the closing one.
    fn skip_to(&mut self, close: u8) -> Option<()> {
        loop {
            self.position += 1;
            match *self.value.get(self.position)? {
                b'\\' => self.position += 1,
                b if b == close => break,
                _ => {}
            }
        }
        self.position += 1;
        Some(())
    }
}

pub(super) fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r')
}

pub(super) fn is_special(b: u8) -> bool {
    b"()<>[]:;@\\,\"".contains(&b)
}
