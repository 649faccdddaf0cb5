//! Parses and expands the macro strings in SPF records and explanations (RFC 7208 7).
//!
//! A string is parsed together with its record, because a syntax error anywhere in a record makes
//! the whole record invalid. The size of an expansion is limited, whatever the string contains.

use std::net::IpAddr;

/// The maximum length of an expanded domain, in octets (RFC 7208 7.3).
const MAX_DOMAIN: usize = 253;
/// The maximum length of an explanation, in octets. It goes into one SMTP reply.
pub(super) const MAX_EXPLANATION: usize = 400;
/// The maximum length of the value of one macro, in octets. No name or address is longer.
const MAX_VALUE: usize = 1024;

/// A macro string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Macros(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Macro {
        letter: char,
        /// The number of parts of the value that are kept, counted from the right.
        parts: usize,
        is_reversed: bool,
        /// The characters at which the value is divided into parts. If the text is empty, the value
        /// is divided at dots.
        delimiters: Box<str>,
        /// Whether the value is escaped for a URL.
        is_escaped: bool,
    },
}

/// The values of the macros.
#[derive(Debug, Clone)]
pub(super) struct Values<'a> {
    pub(super) local_part: &'a str,
    pub(super) sender_domain: &'a str,
    /// The domain whose record is evaluated.
    pub(super) domain: &'a str,
    pub(super) ip: IpAddr,
    pub(super) hello: &'a str,
    /// The name of this host.
    pub(super) here: &'a str,
    /// The validated name of the client. Only strings with [`Macros::has_name`] need it.
    pub(super) client: &'a str,
    /// The time of the check, in seconds since 1970.
    pub(super) time: u64,
}

impl Macros {
    /// Parses a macro string of a record: a domain-spec or the value of an unknown modifier.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(scan(text, false)?.0)
    }

    /// Parses a domain-spec: a macro string that ends in a macro or in a top-level label.
    pub(super) fn parse_domain(text: &str) -> Option<Self> {
        let (macros, tail) = scan(text, false)?;
        let is_complete = match tail {
            "" => !text.is_empty(),
            tail => ends_in_top_label(tail),
        };
        is_complete.then_some(macros)
    }

    /// Parses an explanation, which may have spaces and more macros.
    pub(super) fn parse_explanation(text: &str) -> Option<Self> {
        Some(scan(text, true)?.0)
    }

    /// Returns whether the string uses the validated name of the client.
    pub(super) fn has_name(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Macro { letter: 'p', .. }))
    }

    /// Expands the string to a domain without the final dot. If the domain is too long, labels are
    /// removed on the left. Returns `None` if the result is not ASCII, because no domain then
    /// matches (RFC 8616 4).
    pub(super) fn domain(&self, values: &Values) -> Option<String> {
        let mut domain = String::new();
        for piece in &self.0 {
            let before = domain.len();
            piece.expand(values, &mut domain);
            if !domain[before..].is_ascii() {
                return None;
            }
            // Only the last [`MAX_DOMAIN`] octets matter, so a very long text is cut on the left.
            // The cut may leave a part of a label, which is removed below.
            if domain.len() > 8 * MAX_VALUE {
                domain.drain(..domain.len() - MAX_VALUE);
            }
        }
        let mut rest = domain.strip_suffix('.').unwrap_or(&domain);
        while rest.len() > MAX_DOMAIN {
            rest = rest.split_once('.').map_or("", |(_, rest)| rest);
        }
        Some(rest.to_ascii_lowercase())
    }

    /// Expands the string to an explanation of at most [`MAX_EXPLANATION`] octets. Returns `None`
    /// if the explanation is empty or not printable ASCII.
    pub(super) fn explanation(&self, values: &Values) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            piece.expand(values, &mut text);
            if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                return None;
            }
            text.truncate(MAX_EXPLANATION);
        }
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Piece {
    fn expand(&self, values: &Values, into: &mut String) {
        let (letter, parts, is_reversed, delimiters, is_escaped) = match self {
            Self::Text(text) => return into.push_str(text),
            Self::Macro { letter, parts, is_reversed, delimiters, is_escaped } => {
                (*letter, *parts, *is_reversed, &**delimiters, *is_escaped)
            }
        };
        let mut value = values.value(letter);
        while value.len() > MAX_VALUE {
            value.pop();
        }
        let is_delimiter = |c| if delimiters.is_empty() { c == '.' } else { delimiters.contains(c) };
        let mut split: Vec<&str> = value.split(is_delimiter).collect();
        if is_reversed {
            split.reverse();
        }
        let kept = split[split.len() - parts.min(split.len())..].join(".");
        if is_escaped { escape(&kept, into) } else { into.push_str(&kept) }
    }
}

impl Values<'_> {
    fn value(&self, letter: char) -> String {
        match letter {
            's' => format!("{}@{}", self.local_part, self.sender_domain),
            'l' => self.local_part.to_owned(),
            'o' => self.sender_domain.to_owned(),
            'd' => self.domain.to_owned(),
            'i' => dotted(self.ip),
            'p' => self.client.to_owned(),
            'v' => if self.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            'h' => self.hello.to_owned(),
            'c' => self.ip.to_string(),
            'r' => self.here.to_owned(),
            _ => self.time.to_string(),
        }
    }
}

/// Returns an address with dots between its parts: the octets of an IPv4 address, or the
/// hexadecimal digits of an IPv6 address.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let digits = ip.octets().map(|octet| format!("{:X}.{:X}", octet >> 4, octet & 15));
            digits.join(".")
        }
    }
}

fn escape(text: &str, into: &mut String) {
    for octet in text.bytes() {
        match octet {
            b'-' | b'.' | b'_' | b'~' => into.push(octet.into()),
            _ if octet.is_ascii_alphanumeric() => into.push(octet.into()),
            _ => into.push_str(&format!("%{octet:02X}")),
        }
    }
}

/// Parses a macro string. Returns it, and the literal text after its last macro.
fn scan(text: &str, is_explanation: bool) -> Option<(Macros, &str)> {
    let is_literal = |b: u8| (b'!'..=b'~').contains(&b) || (is_explanation && b == b' ');
    let (mut pieces, mut rest) = (Vec::new(), text);
    loop {
        let (literal, after) = rest.split_at(rest.find('%').unwrap_or(rest.len()));
        if !literal.bytes().all(is_literal) {
            return None;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        let Some(after) = after.strip_prefix('%') else { return Some((Macros(pieces), literal)) };
        let fixed = match after.bytes().next()? {
            b'%' => "%",
            b'_' => " ",
            b'-' => "%20",
            b'{' => {
                let (inside, after) = after[1..].split_once('}')?;
                pieces.push(parse_macro(inside, is_explanation)?);
                rest = after;
                continue;
            }
            _ => return None,
        };
        pieces.push(Piece::Text(fixed.into()));
        rest = &after[1..];
    }
}

/// Parses a macro, the text between the braces of `%{...}`.
fn parse_macro(inside: &str, is_explanation: bool) -> Option<Piece> {
    let letter = inside.chars().next()?;
    let (small, is_escaped) = (letter.to_ascii_lowercase(), letter.is_ascii_uppercase());
    let is_known = "slodipvh".contains(small) || (is_explanation && "crt".contains(small));
    if !is_known {
        return None;
    }
    let rest = &inside[1..];
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (digits, rest) = rest.split_at(digits);
    let parts = match digits {
        "" => usize::MAX,
        // If the number is too large for its type, all parts are kept.
        digits => Some(digits.parse().unwrap_or(usize::MAX)).filter(|parts| *parts > 0)?,
    };
    let delimiters = rest.strip_prefix(['r', 'R']);
    let is_reversed = delimiters.is_some();
    let delimiters = delimiters.unwrap_or(rest);
    let is_good = delimiters.chars().all(|c| ".-+,/_=".contains(c));
    is_good.then(|| Piece::Macro { letter: small, parts, is_reversed, delimiters: delimiters.into(), is_escaped })
}

/// Returns whether a text ends in a dot and a label that does not consist of digits only. A final
/// dot may follow the label.
fn ends_in_top_label(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let Some((_, label)) = text.rsplit_once('.') else { return false };
    !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.bytes().all(|b| b.is_ascii_digit())
        && !label.starts_with('-')
        && !label.ends_with('-')
}
