//! Parses the parameters of MAIL and RCPT for the server, and prints them for the client.
//!
//! Only the syntax of a parameter is checked. The caller decides whether a message may have the
//! declared size, and which extensions are offered.

use std::fmt;

use super::extensions::Extensions;
use super::xtext;
use crate::envelope::{Body, MailOptions};

/// The maximum number of characters of an unknown keyword in a reply.
const MAX_KEYWORD: usize = 32;

/// The parameters of MAIL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE, in octets on the wire (RFC 1870).
    pub size: Option<u64>,
    /// The options that stay with the message.
    pub options: MailOptions,
}

/// The parameters of RCPT: none is offered or sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RcptParameters {}

/// Why parameters are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterError {
    /// A keyword that is not offered, made printable.
    Unknown(String),
    /// A keyword that is given twice, made printable.
    Repeated(String),
    /// The value of this keyword is malformed.
    Malformed(&'static str),
}

impl MailParameters {
    /// Parses keywords with their values; a missing value is empty.
    ///
    /// # Errors
    /// The first error, from left to right.
    pub fn parse<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, ParameterError> {
        let mut parsed = Self::default();
        each(parameters, |keyword, value| {
            match keyword {
                "SIZE" => parsed.size = Some(size(value)?),
                "BODY" => parsed.options.body = body(value)?,
                // The parameter AUTH is accepted, because some clients send it although AUTH is not
                // offered. Its value gives no rights, and is not used.
                "AUTH" if xtext::is_valid(value) => {}
                "AUTH" => return Err(ParameterError::Malformed("AUTH")),
                _ => return Err(ParameterError::Unknown(printable(keyword))),
            }
            Ok(())
        })?;
        Ok(parsed)
    }

    /// The parameters for a host with these extensions. Parameters that the host does not support
    /// are left out. `size` and `is_ascii` describe the content.
    pub fn for_host(extensions: &Extensions, options: MailOptions, size: u64, is_ascii: bool) -> Self {
        let is_eight_bit = extensions.eight_bit && (options.body == Body::EightBit || !is_ascii);
        let body = if is_eight_bit { Body::EightBit } else { Body::SevenBit };
        Self { size: extensions.size.map(|_| size), options: MailOptions { body } }
    }
}

impl RcptParameters {
    /// Parses keywords with their values; a missing value is empty.
    ///
    /// # Errors
    /// The first error, from left to right.
    pub fn parse<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, ParameterError> {
        each(parameters, |keyword, _| Err(ParameterError::Unknown(printable(keyword))))?;
        Ok(Self {})
    }
}

/// Prints each parameter with a blank before it. Defaults are left out.
impl fmt::Display for MailParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        match self.options.body {
            Body::SevenBit => Ok(()),
            Body::EightBit => f.write_str(" BODY=8BITMIME"),
        }
    }
}

/// Prints each parameter with a blank before it.
impl fmt::Display for RcptParameters {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Calls `take` for each parameter, with the keyword in upper case, and rejects a repeated keyword.
fn each<'a>(
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
    mut take: impl FnMut(&str, &str) -> Result<(), ParameterError>,
) -> Result<(), ParameterError> {
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in parameters {
        let keyword = name.to_ascii_uppercase();
        if seen.contains(&keyword) {
            return Err(ParameterError::Repeated(printable(name)));
        }
        take(&keyword, value).map_err(|error| match error {
            ParameterError::Unknown(_) => ParameterError::Unknown(printable(name)),
            error => error,
        })?;
        seen.push(keyword);
    }
    Ok(())
}

/// Parses the value of SIZE, a decimal number (RFC 1870 4). A number beyond 64 bits becomes the
/// largest number.
fn size(value: &str) -> Result<u64, ParameterError> {
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| value.parse().unwrap_or(u64::MAX)).ok_or(ParameterError::Malformed("SIZE"))
}

fn body(value: &str) -> Result<Body, ParameterError> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBit),
        _ => Err(ParameterError::Malformed("BODY")),
    }
}

/// A keyword that is safe to repeat to the client.
fn printable(name: &str) -> String {
    name.chars().take(MAX_KEYWORD).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
        text.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")))
    }

    #[test]
    fn mail_parameters_are_parsed_and_printed() {
        let error = |error: ParameterError| Err(error);
        let malformed = |keyword| error(ParameterError::Malformed(keyword));
        for (text, want) in [
            ("", Ok("")),
            ("SIZE=0", Ok(" SIZE=0")),
            ("size=10 Body=8bitmime", Ok(" SIZE=10 BODY=8BITMIME")),
            ("BODY=7BIT SIZE=18446744073709551616", Ok(" SIZE=18446744073709551615")),
            ("AUTH=<>", Ok("")),
            ("AUTH=e+3Dmc2@example.com SIZE=1", Ok(" SIZE=1")),
            ("AUTH", malformed("AUTH")),
            ("AUTH=a+3d", malformed("AUTH")),
            ("SIZE", malformed("SIZE")),
            ("SIZE=-1", malformed("SIZE")),
            ("SIZE=1k", malformed("SIZE")),
            ("BODY=BINARYMIME", malformed("BODY")),
            ("SIZE=1 size=x", error(ParameterError::Repeated("size".into()))),
            ("RET=hdrs", error(ParameterError::Unknown("RET".into()))),
            ("r\u{1b}t", error(ParameterError::Unknown("r?t".into()))),
        ] {
            let parsed = MailParameters::parse(words(text));
            assert_eq!(parsed.map(|p| p.to_string()), want.map(str::to_owned), "{text}");
        }
        let long = "x".repeat(99);
        let error = MailParameters::parse(words(&long));
        assert_eq!(error, Err(ParameterError::Unknown("x".repeat(MAX_KEYWORD))));
    }

    #[test]
    fn a_host_gets_the_parameters_that_it_supports() {
        let (none, eight_bit) = (Extensions::default(), Extensions { eight_bit: true, ..Extensions::default() });
        let size = Extensions { size: Some(0), ..eight_bit.clone() };
        for (extensions, body, is_ascii, want) in [
            (&none, Body::EightBit, false, ""),
            (&eight_bit, Body::SevenBit, true, ""),
            (&eight_bit, Body::EightBit, true, " BODY=8BITMIME"),
            (&eight_bit, Body::SevenBit, false, " BODY=8BITMIME"),
            (&size, Body::SevenBit, true, " SIZE=7"),
            (&size, Body::SevenBit, false, " SIZE=7 BODY=8BITMIME"),
        ] {
            let parameters = MailParameters::for_host(extensions, MailOptions { body }, 7, is_ascii);
            assert_eq!(parameters.to_string(), want, "{extensions:?} {body:?} {is_ascii}");
        }
    }

    #[test]
    fn no_parameter_of_rcpt_is_known() {
        assert_eq!(RcptParameters::parse(words("")).map(|p| p.to_string()), Ok(String::new()));
        let error = RcptParameters::parse(words("Notify=never"));
        assert_eq!(error, Err(ParameterError::Unknown("Notify".into())));
    }
}
