//! Converts a message for a host that cannot take it as it is, into a scratch file, and signs it
//! anew.
//!
//! A conversion breaks signatures. The signatures that this host has made when it received the
//! message are replaced by new ones with the same keys. Such a signature is above the topmost
//! Received field, where nobody but this host adds fields. A field further down may be forged, and
//! is never a reason to sign.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use crate::envelope::{Body, MailOptions};
use crate::message::mime::{self, Conversion, Unconvertible};
use crate::spool::{Content, Measure, Meter};

#[cfg(feature = "mailauth")]
use crate::mailauth::keys::Keys;

/// What a conversion needs.
#[derive(Clone, Copy)]
pub struct Converter<'a> {
    /// Makes an empty file without a name. It may have the given number of bytes.
    pub scratch: &'a dyn Fn(u64) -> io::Result<File>,
    /// Returns the lines that are put before the content because the message leaves; often none.
    pub front: &'a dyn Fn(Content<'_>) -> String,
    /// The keys of this host.
    #[cfg(feature = "mailauth")]
    pub keys: Option<&'a Keys>,
    /// The time of new signatures, in seconds since 1970.
    pub now: u64,
}

/// A converted message.
#[derive(Debug)]
pub struct Converted {
    file: File,
    size: u64,
    /// The lines before the content of the file.
    front: String,
    measure: Measure,
    /// The options of the message, with the new form of its body.
    pub options: MailOptions,
}

impl Converted {
    /// The content.
    pub fn content(&self) -> Content<'_> {
        Content::new(&self.file, 0, self.size).measured(Some(self.measure)).preceded_by(&self.front)
    }
}

impl Converter<'_> {
    /// Converts a message. `content` may be preceded by lines of [`Converter::front`],
    /// which are replaced. The inner error
    /// says why the message cannot be converted.
    ///
    /// # Errors
    /// Those of the content and of the scratch file.
    pub fn convert(
        &self,
        content: &Content<'_>,
        options: &MailOptions,
        conversion: Conversion,
    ) -> io::Result<Result<Converted, Unconvertible>> {
        let content = content.without_front();
        let own = self.own_signatures(&content)?;
        let drops = |field: &crate::message::field::Field<'_>| own.is_own(field.raw);
        // Quoted-printable has at most three octets for one.
        let file = (self.scratch)(content.left().saturating_mul(3))?;
        let mut out = Metered { out: BufWriter::new(&file), meter: Meter::default(), size: 0 };
        if let Err(why) = mime::convert(|| content.clone(), conversion, &drops, &mut out)? {
            return Ok(Err(why));
        }
        let (measure, size) = (out.meter.measure(b""), out.size);
        out.out.flush()?;
        drop(out);
        if measure.has_long_lines || !measure.is_ascii && !conversion.keeps_eight_bit {
            return Ok(Err(Unconvertible::Unfit));
        }
        let unsigned = Content::new(&file, 0, size);
        let signatures = own.sign(unsigned.clone(), self.now)?;
        let signed = unsigned.preceded_by(&signatures);
        let front = (self.front)(signed) + &signatures;
        let body = if measure.is_ascii { Body::SevenBit } else { Body::EightBit };
        let options = MailOptions { body, ..options.clone() };
        Ok(Ok(Converted { file, size, front, measure, options }))
    }

    #[cfg(feature = "mailauth")]
    fn own_signatures(&self, content: &Content<'_>) -> io::Result<signatures::Own> {
        self.keys
            .filter(|keys| !keys.is_empty())
            .map_or_else(|| Ok(signatures::Own::default()), |keys| signatures::Own::find(keys, content))
    }

    #[cfg(not(feature = "mailauth"))]
    fn own_signatures(&self, _: &Content<'_>) -> io::Result<signatures::Own> {
        Ok(signatures::Own)
    }
}

/// Measures what it writes.
struct Metered<W> {
    out: W,
    meter: Meter,
    size: u64,
}

impl<W: Write> Write for Metered<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.out.write_all(text)?;
        self.meter.take(text);
        self.size += text.len() as u64;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(feature = "mailauth")]
mod signatures {
    use std::io::{self, Read};

    use crate::mailauth::dkim::{MAX_HEADER, Signer, named_key};
    use crate::mailauth::keys::{Keys, Signing};
    use crate::message::field::fields;
    use crate::spool::Content;

    /// The signatures that this host has made.
    #[derive(Default)]
    pub struct Own {
        fields: Vec<Vec<u8>>,
        keys: Vec<Signing>,
    }

    impl Own {
        /// Finds the signatures in the header of a message.
        pub fn find(keys: &Keys, content: &Content<'_>) -> io::Result<Self> {
            let mut text = Vec::new();
            content.clone().take(MAX_HEADER as u64).read_to_end(&mut text)?;
            let mut own = Self::default();
            let Some(received) = fields(&text).position(|field| field.is("Received")) else { return Ok(own) };
            for field in fields(&text).take(received).filter(|field| field.is("DKIM-Signature")) {
                let Some((domain, selector)) = named_key(field.body) else { continue };
                let key = keys.for_domain(&domain).into_iter().find(|(_, other, _)| *other == selector);
                if let Some(key) = key {
                    own.fields.push(field.raw.to_vec());
                    own.keys.push(key);
                }
            }
            Ok(own)
        }

        /// Whether a field is one of the signatures.
        pub fn is_own(&self, field: &[u8]) -> bool {
            self.fields.iter().any(|own| own == field)
        }

        /// Signs the converted message with the same keys. Returns the new fields.
        pub fn sign(&self, mut content: Content<'_>, now: u64) -> io::Result<String> {
            if self.keys.is_empty() {
                return Ok(String::new());
            }
            let mut signer = Signer::new();
            io::copy(&mut content, &mut signer)?;
            let keys: Vec<_> =
                self.keys.iter().map(|(domain, selector, key)| (&**domain, &**selector, &**key)).collect();
            Ok(signer.finish(&keys, now).unwrap_or_else(|why| {
                log::debug!("a converted message is not signed: {why}");
                String::new()
            }))
        }
    }
}

#[cfg(not(feature = "mailauth"))]
mod signatures {
    use std::io;

    use crate::spool::Content;

    /// Without `mailauth` this host makes no signatures.
    pub struct Own;

    impl Own {
        pub fn is_own(&self, _: &[u8]) -> bool {
            false
        }

        pub fn sign(&self, _: Content<'_>, _: u64) -> io::Result<String> {
            Ok(String::new())
        }
    }
}
