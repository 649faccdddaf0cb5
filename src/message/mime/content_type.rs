//! Reads the field Content-Type (RFC 2045 5.1), as tolerantly as mail programs do.
//!
//! Comments may stand anywhere between words. A parameter that is split or encoded (RFC 2231) is
//! put together. An unquoted value may have any characters up to a blank or a semicolon.

/// The maximum length of a boundary, in octets. RFC 2046 5.1.1 allows 70.
const MAX_BOUNDARY: usize = 900;

/// A value of Content-Type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType {
    /// The type in lower case, such as `text`.
    pub main: String,
    /// The subtype in lower case.
    pub sub: String,
    /// The parameter `boundary`; `None` if it is absent or unusable.
    pub boundary: Option<Vec<u8>>,
}

impl ContentType {
    /// Parses the body of the field. Returns `None` if it does not begin with a type and a subtype.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut words = Words(body);
        let main = words.token();
        words.skip();
        let sub = words.byte(b'/').then(|| words.token())?;
        if main.is_empty() || sub.is_empty() {
            return None;
        }
        let mut pieces = Vec::new();
        while words.next_parameter() {
            words.skip();
            let name = words.until(b"=; \t\n(").to_ascii_lowercase();
            words.skip();
            if words.byte(b'=') {
                words.skip();
                let value = words.value();
                pieces.extend(Piece::parse(&name, value));
            }
        }
        // Boundary lines are sent as they are, so they must not contain what a host cannot take. A
        // boundary that is encoded (RFC 2231), or is in a binary message, can have any octets.
        let is_usable = |boundary: &Vec<u8>| {
            (1..=MAX_BOUNDARY).contains(&boundary.len()) && boundary.iter().all(|b| matches!(b, b' '..=b'~'))
        };
        let boundary = Piece::join(pieces).filter(is_usable);
        Some(Self { main, sub, boundary })
    }

    /// Whether the type is `main` and the subtype is `sub`.
    pub fn is(&self, main: &str, sub: &str) -> bool {
        self.main == main && self.sub == sub
    }
}

/// The first word of a field in lower case, without comments.
pub fn word(body: &[u8]) -> String {
    Words(body).token()
}

/// A piece of the parameter `boundary`.
struct Piece {
    /// The number of the piece; `None` for a parameter in one piece.
    number: Option<u32>,
    is_encoded: bool,
    value: Vec<u8>,
}

impl Piece {
    fn parse(name: &[u8], value: Vec<u8>) -> Option<Self> {
        let rest = name.strip_prefix(b"boundary")?;
        let (rest, is_encoded) = rest.strip_suffix(b"*").map_or((rest, false), |rest| (rest, true));
        let number = match rest {
            b"" => None,
            rest => Some(std::str::from_utf8(rest.strip_prefix(b"*")?).ok()?.parse().ok()?),
        };
        Some(Self { number, is_encoded, value })
    }

    /// The value of the parameter: in one piece if there is such a piece, else in numbered ones.
    fn join(mut pieces: Vec<Self>) -> Option<Vec<u8>> {
        let value = if let Some(whole) = pieces.iter().find(|piece| piece.number.is_none()) {
            whole.decoded(true)
        } else {
            pieces.sort_by_key(|piece| piece.number);
            let in_order = (0..).zip(&pieces).take_while(|(number, piece)| piece.number == Some(*number));
            let parts: Vec<_> = in_order.map(|(number, piece)| piece.decoded(number == 0)).collect();
            parts.concat()
        };
        let end = value.iter().rposition(|b| !matches!(b, b' ' | b'\t'))?;
        Some(value[..=end].to_vec())
    }

    /// The value without the percent encoding. The first piece begins with a character set and a
    /// language.
    fn decoded(&self, is_first: bool) -> Vec<u8> {
        if !self.is_encoded {
            return self.value.clone();
        }
        let text = match self.value.splitn(3, |&b| b == b'\'').nth(2) {
            Some(text) if is_first => text,
            _ => &self.value,
        };
        let (mut out, mut rest) = (Vec::new(), text);
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            let digits = rest.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
            match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(octet) => {
                    out.push(octet);
                    rest = &rest[2..];
                }
                None => out.push(first),
            }
        }
        out
    }
}

/// The rest of a field.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn byte(&mut self, wanted: u8) -> bool {
        match self.0.split_first() {
            Some((&first, rest)) if first == wanted => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Skips blanks and comments.
    fn skip(&mut self) {
        loop {
            self.0 = self.0.trim_ascii_start();
            if !self.byte(b'(') {
                return;
            }
            self.rest_of_comment();
        }
    }

    fn rest_of_comment(&mut self) {
        let mut depth = 1_usize;
        while let Some((&first, rest)) = self.0.split_first() {
            self.0 = rest;
            match first {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'\\' => self.0 = rest.get(1..).unwrap_or_default(),
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Takes everything up to one of the octets in `ends`.
    fn until(&mut self, ends: &[u8]) -> Vec<u8> {
        let end = self.0.iter().position(|b| ends.contains(b)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word.to_vec()
    }

    /// A word, in lower case, with what comes before it skipped.
    fn token(&mut self) -> String {
        self.skip();
        String::from_utf8_lossy(&self.until(b" \t\n\r/;=(\"")).to_ascii_lowercase()
    }

    /// A quoted or unquoted value.
    fn value(&mut self) -> Vec<u8> {
        if !self.byte(b'"') {
            return self.until(b"; \t\n\r");
        }
        let mut value = Vec::new();
        while let Some((&first, rest)) = self.0.split_first() {
            self.0 = rest;
            match first {
                b'"' => break,
                b'\\' => {
                    if let Some((&quoted, rest)) = rest.split_first() {
                        value.push(quoted);
                        self.0 = rest;
                    }
                }
                b'\n' | b'\r' => {}
                _ => value.push(first),
            }
        }
        value
    }

    /// Goes to the next semicolon, and takes it. Returns false if there is none.
    fn next_parameter(&mut self) -> bool {
        loop {
            match self.0.first() {
                None => return false,
                Some(b';') => return self.byte(b';'),
                Some(b'"') => drop(self.value()),
                Some(b'(') => self.skip(),
                Some(_) => self.0 = &self.0[1..],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_and_the_boundary_are_found() {
        for (body, kind, boundary) in [
            (" text/plain\n", "text/plain", None),
            (" Multipart/Mixed; boundary=a\n", "multipart/mixed", Some("a")),
            (" multipart/mixed;\n\tBOUNDARY=\"a b\\\"c \"\n", "multipart/mixed", Some("a b\"c")),
            (
                " (x(y\\)) ) multipart (z) / mixed (;boundary=no) ; boundary (c) = (d) a/b=c (e); x=y\n",
                "multipart/mixed",
                Some("a/b=c"),
            ),
            (" multipart/mixed; name=\"; boundary=no\"; boundary=yes", "multipart/mixed", Some("yes")),
            (" multipart/mixed; xboundary=no; boundary =\n yes", "multipart/mixed", Some("yes")),
            (" multipart/mixed boundary=no", "multipart/mixed", None),
            (" multipart/mixed; boundary*1=b; boundary*0=a; boundary*3=no", "multipart/mixed", Some("ab")),
            (" multipart/mixed; boundary*=us-ascii'en'a%2Fb%", "multipart/mixed", Some("a/b%")),
            (" multipart/mixed; boundary*0*=''a%3d; boundary*1=%41", "multipart/mixed", Some("a=%41")),
            (" multipart/mixed; boundary*0=no; boundary=yes", "multipart/mixed", Some("yes")),
            (" multipart/mixed; boundary*x=no; boundary*99999999999=no", "multipart/mixed", None),
            (" multipart/mixed; boundary=\"\"", "multipart/mixed", None),
            (" multipart/mixed; boundary*=''a%0Db", "multipart/mixed", None),
            (" multipart/mixed; boundary*=''a%0Ab", "multipart/mixed", None),
            (" multipart/mixed; boundary*=''a%00b", "multipart/mixed", None),
            (" multipart/mixed; boundary*=''a%FCb", "multipart/mixed", None),
            (" multipart/mixed; boundary=\"a\\\rb\"", "multipart/mixed", None),
            (" multipart/mixed; boundary=a\0b", "multipart/mixed", None),
            (" multipart/mixed; boundary=\"a\n b\"", "multipart/mixed", Some("a b")),
            (" multipart/mixed; boundary=\"open", "multipart/mixed", Some("open")),
            (" multipart/mixed; boundary=\"", "multipart/mixed", None),
        ] {
            let found = ContentType::parse(body.as_bytes()).expect(body);
            assert_eq!(format!("{}/{}", found.main, found.sub), kind, "{body}");
            assert_eq!(found.boundary.as_deref(), boundary.map(str::as_bytes), "{body}");
        }
        for body in ["", " ", " text", " text/", " /plain", " (", ";boundary=a"] {
            assert_eq!(ContentType::parse(body.as_bytes()), None, "{body}");
        }
        let long = format!(" multipart/mixed; boundary={}", "x".repeat(MAX_BOUNDARY + 1));
        assert_eq!(ContentType::parse(long.as_bytes()).expect("a type").boundary, None);
    }

    #[test]
    fn a_word_stands_without_comments() {
        for (body, want) in [(" 8BIT\n", "8bit"), (" (a) Base64 (b)\n", "base64"), ("\n", ""), (" x-y z", "x-y")] {
            assert_eq!(word(body.as_bytes()), want);
        }
    }
}
