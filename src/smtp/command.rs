//! Parses the commands of a client, for the server.
//!
//! Verbs are accepted in upper and lower case, and blanks are accepted also where the grammar has
//! none, as in `mail from: jon@host`. Most arguments stay bytes. The parameters of MAIL and RCPT
//! are split at blanks (RFC 5321 4.1.2). The session decides whether a command is offered and valid
//! in its state.

use super::chunk::Chunk;
use crate::address::{self, Address, AddressError};

/// One command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO with a name.
    Helo(&'a [u8]),
    /// EHLO with a name.
    Ehlo(&'a [u8]),
    /// LHLO with a name (RFC 2033).
    Lhlo(&'a [u8]),
    /// AUTH with a mechanism, and optionally a response.
    Auth(&'a [u8]),
    /// STARTTLS.
    StartTls,
    /// MAIL FROM: with a path.
    Mail(Result<Path<'a>, AddressError>),
    /// RCPT TO: with a path.
    Rcpt(Result<Path<'a>, AddressError>),
    /// DATA.
    Data,
    /// BDAT with a chunk; `None` if its argument is malformed.
    Bdat(Option<Chunk>),
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// HELP.
    Help,
    /// VRFY with a name or an address.
    Vrfy(&'a [u8]),
    /// ETRN with the mail that is asked for.
    Etrn(&'a [u8]),
    /// EXPN.
    Expn,
    /// XCLIENT with attributes.
    Xclient(&'a [u8]),
    /// XFORWARD with attributes.
    Xforward(&'a [u8]),
    /// A known verb with malformed arguments; the value is the correct form.
    Misused(&'static str),
    /// The first line of another protocol, such as HTTP.
    Foreign,
    /// An unknown verb.
    Unknown,
}

/// A reverse-path or forward-path with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct Path<'a> {
    /// The address; `None` for `<>`.
    pub address: Option<Address>,
    /// Whether the address was written in ASCII. If not, it needs SMTPUTF8 even if only its domain
    /// is outside ASCII, and is now in ASCII (RFC 6531 3.3).
    pub is_ascii: bool,
    parameters: &'a [u8],
}

impl<'a> Path<'a> {
    /// The parameters, `KEYWORD=value`; a missing value is empty.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        // A word that is not UTF-8 becomes `?`, and is refused like any unknown parameter.
        let words = self.parameters.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
        words.map(|w| std::str::from_utf8(w).unwrap_or("?")).map(|w| w.split_once('=').unwrap_or((w, "")))
    }
}

impl<'a> Command<'a> {
    /// Whether the command leads to no message. A session may have only a limited number of such
    /// commands.
    pub fn leads_to_no_mail(&self) -> bool {
        matches!(
            self,
            Self::Helo(_)
                | Self::Ehlo(_)
                | Self::Lhlo(_)
                | Self::Rset
                | Self::Noop
                | Self::Help
                | Self::Vrfy(_)
                | Self::Etrn(_)
                | Self::Xforward(_)
        )
    }

    /// Parses a line without its CR LF.
    pub fn parse(line: &'a [u8]) -> Self {
        let line = line.trim_ascii();
        let end = line.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(line.len());
        let (verb, rest) = line.split_at(end);
        let argument = rest.trim_ascii();
        let without_argument = |command, usage| if argument.is_empty() { command } else { Self::Misused(usage) };
        match verb.to_ascii_uppercase().as_slice() {
            // Octets follow even if the size cannot be read.
            b"BDAT" if rest.first().is_some_and(|b| !b.is_ascii_whitespace()) => Self::Bdat(None),
            _ if rest.first().is_some_and(|b| !b.is_ascii_whitespace()) => Self::Unknown,
            b"HELO" => Self::Helo(argument),
            b"EHLO" => Self::Ehlo(argument),
            b"LHLO" => Self::Lhlo(argument),
            b"AUTH" => Self::Auth(argument),
            b"STARTTLS" => without_argument(Self::StartTls, "STARTTLS, and nothing else on the line"),
            b"MAIL" => path(argument, b"FROM").map_or(Self::Misused("MAIL FROM:<address>"), Self::Mail),
            b"RCPT" => path(argument, b"TO").map_or(Self::Misused("RCPT TO:<address>"), Self::Rcpt),
            b"DATA" => without_argument(Self::Data, "DATA, and nothing else on the line"),
            b"BDAT" => Self::Bdat(Chunk::parse(argument)),
            b"RSET" => without_argument(Self::Rset, "RSET, and nothing else on the line"),
            b"QUIT" => without_argument(Self::Quit, "QUIT, and nothing else on the line"),
            b"NOOP" => Self::Noop,
            b"HELP" => Self::Help,
            b"VRFY" => Self::Vrfy(argument),
            b"ETRN" => Self::Etrn(argument),
            b"EXPN" => Self::Expn,
            b"XCLIENT" => Self::Xclient(argument),
            b"XFORWARD" => Self::Xforward(argument),
            b"GET" | b"POST" | b"HEAD" | b"PUT" | b"OPTIONS" | b"CONNECT" => Self::Foreign,
            _ => Self::Unknown,
        }
    }
}

/// Parses `FROM:<path> parameters`; `None` if the word or its colon is missing.
fn path<'a>(argument: &'a [u8], word: &[u8]) -> Option<Result<Path<'a>, AddressError>> {
    let (verb, rest) = argument.split_at_checked(word.len())?;
    let text = rest.trim_ascii_start().strip_prefix(b":")?;
    // `RCPT TO: Jon <jon@host>` is malformed: the path would be `Jon`, but `<jon@host>` is not a
    // parameter.
    let is_bare = !text.trim_ascii_start().starts_with(b"<");
    if is_bare && text.trim_ascii().split(|&b| b == b' ').skip(1).any(|w| !w.is_empty() && !w.contains(&b'=')) {
        return None;
    }
    verb.eq_ignore_ascii_case(word).then(|| {
        let (address, parameters) = address::parse_path(text)?;
        let is_ascii = text.strip_suffix(parameters).is_some_and(<[u8]>::is_ascii);
        if parameters.first().is_some_and(|b| !b.is_ascii_whitespace()) {
            return Err(AddressError::Trailing);
        }
        Ok(Path { address, is_ascii, parameters })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        match Command::parse(line.as_bytes()) {
            Command::Mail(Ok(path)) => {
                let parameters: Vec<_> = path.parameters().map(|(k, v)| format!("{k}~{v}")).collect();
                format!("mail {} {}", address::path(path.address.as_ref()), parameters.join(" "))
            }
            Command::Rcpt(Ok(path)) if !path.is_ascii => format!("rcpt-utf8 {}", address::path(path.address.as_ref())),
            Command::Rcpt(Ok(path)) => format!("rcpt {}", address::path(path.address.as_ref())),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn commands_are_parsed_in_any_case_and_with_blanks() {
        for (line, want) in [
            ("MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME X", "mail <a@b> SIZE~10 BODY~8BITMIME X~"),
            ("mail from: jon@host", "mail <jon@host> "),
            ("Mail From : <jon@host>", "mail <jon@host> "),
            ("MAIL FROM:<>", "mail <> "),
            ("rcpt to:jon@razorback", "rcpt <jon@razorback>"),
            ("RCPT TO:<Postmaster>", "rcpt <Postmaster>"),
            ("RCPT TO:<@a,@b:c@d>", "rcpt <c@d>"),
            ("RCPT TO:<j\u{f6}n@x>", "rcpt-utf8 <j\u{f6}n@x>"),
            ("RCPT TO:<jon@b\u{fc}cher.example>", "rcpt-utf8 <jon@xn--bcher-kva.example>"),
            ("RCPT TO:<@\u{fc}:jon@x>", "rcpt-utf8 <jon@x>"),
            ("RCPT TO:<jon@x> ORCPT=utf-8;j\u{f6}n@x", "rcpt <jon@x>"),
            ("data  ", "Data"),
            ("noop what ever", "Noop"),
            ("bdat 9 last", "Bdat(Some(Chunk { size: 9, is_last: true }))"),
            ("BDAT", "Bdat(None)"),
            ("BDAT=9", "Bdat(None)"),
            ("BDATA 9", "Unknown"),
            ("GET / HTTP/1.1", "Foreign"),
            ("DATA now", "Misused(\"DATA, and nothing else on the line\")"),
            ("rcpt to: Jon <jon@host>", "Misused(\"RCPT TO:<address>\")"),
            (" quit", "Quit"),
            ("MAIL <a@b>", "Misused(\"MAIL FROM:<address>\")"),
            ("MAIL TO:<a@b>", "Misused(\"MAIL FROM:<address>\")"),
            ("RCPT TO:<a@b>x", "Rcpt(Err(Trailing))"),
            ("RCPT TO:", "Rcpt(Err(Empty))"),
            ("DATA\0", "Unknown"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 4321 25", "Unknown"),
            ("MAILFROM:<a@b>", "Unknown"),
            ("", "Unknown"),
            ("\u{fc}", "Unknown"),
        ] {
            assert_eq!(shown(line), want, "{line}");
        }
    }
}
