//! Decides after EHLO how a message is sent to a host: as it is, or converted to a form that the
//! host takes; and which recipients cannot be sent to it.

use crate::address::Address;
use crate::envelope::{Body, MailOptions};
use crate::message::mime::{Conversion, Unconvertible};
use crate::outcome::Outcome;
use crate::reply::Status;
use crate::smtp::extensions::Extensions;
use crate::spool::Measure;

use super::Stage;

/// How a message is sent to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    AsItIs,
    /// Converted.
    Converted(Conversion),
}

/// Decides how a message with these options and this content is sent to a host with these
/// extensions.
pub fn fit(extensions: &Extensions, options: &MailOptions, measure: Measure) -> Fit {
    // SMTPUTF8 includes 8BITMIME, and a host that forgets to say so takes the message (RFC 6531 3.1).
    let keeps_eight_bit = extensions.eight_bit || options.utf8 && extensions.smtp_utf8;
    if options.body == Body::Binary {
        let takes_binary = extensions.chunking && extensions.binary_mime;
        return if takes_binary {
            Fit::AsItIs
        } else {
            Fit::Converted(Conversion { is_binary: true, keeps_eight_bit })
        };
    }
    if measure.has_long_lines || !measure.is_ascii && !keeps_eight_bit {
        return Fit::Converted(Conversion { is_binary: false, keeps_eight_bit });
    }
    Fit::AsItIs
}

/// Whether a message that cannot be converted is sent as it is: a header line is too long, and
/// nothing but long lines is a reason to convert it. Most hosts take such lines, and a host that
/// does not can refuse the message.
pub fn is_sent_unconverted(conversion: Conversion, measure: Measure, why: Unconvertible) -> bool {
    why == Unconvertible::HeaderLine && !conversion.is_binary && (conversion.keeps_eight_bit || measure.is_ascii)
}

/// The outcome for a message that cannot be converted, and its stage. A host with more extensions
/// may take the message, so if this host lacks 8BITMIME, the stage is one after which the next host
/// is tried.
pub fn not_converted(conversion: Conversion, why: Unconvertible) -> (Stage, Outcome) {
    let stage = if conversion.keeps_eight_bit { Stage::MailFrom } else { Stage::Hello };
    let reason = match (conversion.is_binary, conversion.keeps_eight_bit) {
        (true, _) => "the host does not take binary messages",
        (false, false) => "the host takes only 7-bit messages whose lines are not too long",
        (false, true) => "lines are too long for SMTP",
    };
    (stage, Outcome::failed(Status(5, 6, 3), format!("{reason}, and the message cannot be converted: {why}")))
}

/// The outcome of a recipient at a host without SMTPUTF8; `None` if the recipient does not need it.
pub fn without_utf8(sender: Option<&Address>, recipient: &Address, is_header_ascii: bool) -> Option<Outcome> {
    const ADDRESS: Status = Status(5, 6, 7);
    const HEADER: Status = Status(5, 6, 9);
    let (status, what) = if !recipient.is_ascii() {
        (ADDRESS, "the recipient's address")
    } else if sender.is_some_and(|sender| !sender.is_ascii()) {
        (ADDRESS, "the sender's address")
    } else if !is_header_ascii {
        (HEADER, "the header of the message")
    } else {
        return None;
    };
    Some(Outcome::failed(status, format!("{what} is not in ASCII, and the host does not offer SMTPUTF8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_lacks_decides_about_the_conversion() {
        let converted = |is_binary, keeps_eight_bit| Fit::Converted(Conversion { is_binary, keeps_eight_bit });
        for (words, body, is_ascii, has_long_lines, want) in [
            ("", Body::SevenBit, true, false, Fit::AsItIs),
            ("", Body::EightBit, true, false, Fit::AsItIs),
            ("", Body::SevenBit, false, false, converted(false, false)),
            ("", Body::SevenBit, true, true, converted(false, false)),
            ("8", Body::SevenBit, false, false, Fit::AsItIs),
            ("8", Body::EightBit, false, true, converted(false, true)),
            ("8", Body::SevenBit, true, true, converted(false, true)),
            ("", Body::Binary, true, false, converted(true, false)),
            ("8", Body::Binary, false, true, converted(true, true)),
            ("8c", Body::Binary, false, true, converted(true, true)),
            ("8cb", Body::Binary, false, true, Fit::AsItIs),
            ("8cb", Body::EightBit, false, true, converted(false, true)),
            // The message has SMTPUTF8 if the host offers it.
            ("u", Body::SevenBit, false, false, Fit::AsItIs),
            ("u", Body::EightBit, false, true, converted(false, true)),
            ("u", Body::Binary, false, false, converted(true, true)),
        ] {
            let has = |word| words.contains(word);
            let extensions = Extensions {
                eight_bit: has('8'),
                chunking: has('c'),
                binary_mime: has('b'),
                smtp_utf8: has('u'),
                ..Extensions::default()
            };
            let options = MailOptions { body, utf8: has('u'), ..MailOptions::default() };
            let measure = Measure { size: 9, is_ascii, has_long_lines };
            assert_eq!(fit(&extensions, &options, measure), want, "{words} {body:?} {is_ascii} {has_long_lines}");
        }
    }

    #[test]
    fn what_needs_smtputf8_is_refused() {
        let address = |text: &str| Address::parse(text).expect("an address");
        for (sender, recipient, is_header_ascii, want) in [
            ("ann@x.test", "jon@y.test", true, None),
            ("ann@b\u{fc}cher.example", "jon@b\u{fc}cher.example", true, None),
            ("", "jon@y.test", true, None),
            ("", "j\u{f6}n@y.test", true, Some("5.6.7 the recipient's address")),
            ("\u{e4}nn@x.test", "jon@y.test", true, Some("5.6.7 the sender's address")),
            ("\u{e4}nn@x.test", "j\u{f6}n@y.test", false, Some("5.6.7 the recipient's address")),
            ("ann@x.test", "jon@y.test", false, Some("5.6.9 the header of the message")),
        ] {
            let sender = (!sender.is_empty()).then(|| address(sender));
            let outcome = without_utf8(sender.as_ref(), &address(recipient), is_header_ascii);
            let shown = outcome.map(|outcome| format!("{} {}", outcome.status, outcome.why));
            let end = " is not in ASCII, and the host does not offer SMTPUTF8";
            assert_eq!(shown, want.map(|want| format!("{want}{end}")), "{recipient}");
        }
    }
}
