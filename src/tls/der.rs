//! Reads the parts of a certificate (RFC 5280 4.1) that rustls does not expose.
//!
//! A certificate of another host is untrusted: a part that is cut off or has an unexpected tag makes
//! the whole certificate unreadable. Versions 1 and 3 are read alike; extensions are not read.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const VERSION: u8 = 0xa0;

/// The parts of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// The content of `issuer`.
    pub(super) issuer: &'a [u8],
    /// `subjectPublicKeyInfo`, with its tag and its length.
    pub(super) key: &'a [u8],
    /// The content of `validity`.
    validity: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Reads a certificate in DER. `None` if it is malformed.
    pub(super) fn of(certificate: &'a [u8]) -> Option<Self> {
        let certificate = element(certificate, SEQUENCE)?.0;
        let mut rest = element(certificate, SEQUENCE)?.0;
        if rest.first() == Some(&VERSION) {
            rest = element(rest, VERSION)?.1;
        }
        // Skips serialNumber and signature.
        for tag in [INTEGER, SEQUENCE] {
            rest = element(rest, tag)?.1;
        }
        let (issuer, rest) = element(rest, SEQUENCE)?;
        let (validity, rest) = element(rest, SEQUENCE)?;
        // Skips subject.
        let rest = element(rest, SEQUENCE)?.1;
        let after = element(rest, SEQUENCE)?.1;
        Some(Self { issuer, key: rest.get(..rest.len() - after.len())?, validity })
    }

    /// Returns the start and the expiry, in seconds since 1970.
    pub(super) fn validity(&self) -> Option<(i64, i64)> {
        let (start_tag, start, after) = any(self.validity)?;
        let (end_tag, end, _) = any(after)?;
        Some((time(start_tag, std::str::from_utf8(start).ok()?)?, time(end_tag, std::str::from_utf8(end).ok()?)?))
    }

    /// Returns the content of a `subjectPublicKeyInfo` with nothing behind it. `None` if it is
    /// malformed.
    pub(super) fn of_key(key: &'a [u8]) -> Option<&'a [u8]> {
        let (inside, after) = element(key, SEQUENCE)?;
        let rest = element(inside, SEQUENCE)?.1;
        element(rest, BIT_STRING).filter(|_| after.is_empty()).map(|_| inside)
    }

    /// Returns the content of the key's `algorithm`, and the bytes of the key itself.
    pub(super) fn raw_key(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (algorithm, rest) = element(Self::of_key(self.key)?, SEQUENCE)?;
        // The first byte of a bit string is the number of unused bits.
        let (0, key) = element(rest, BIT_STRING)?.0.split_first()? else { return None };
        Some((algorithm, key))
    }
}

/// Returns the content of the first DER element, and the bytes after the element. `None` if the
/// element is cut off or has another tag.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any(der).filter(|(found, ..)| *found == tag).map(|(_, inside, after)| (inside, after))
}

/// Returns the tag and the content of the first DER element, and the bytes after the element.
/// `None` if the element is cut off.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = der.split_first_chunk()?;
    let (length, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
        let add = |sum: usize, &digit: &u8| sum.checked_mul(256)?.checked_add(usize::from(digit));
        (digits.iter().try_fold(0, add)?, rest)
    };
    let (inside, after) = rest.split_at_checked(length)?;
    Some((tag, inside, after))
}

/// Converts a time in a certificate to seconds since 1970. The tag says whether the text is a
/// UTCTime `yymmddhhmmssZ` of 1950 to 2049, or a GeneralizedTime, whose year has four digits.
fn time(tag: u8, text: &str) -> Option<i64> {
    let full = match tag {
        0x17 if text.as_bytes().first()? >= &b'5' => format!("19{text}"),
        0x17 => format!("20{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let moment = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", full).ok()?;
    Some(moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn a_certificate_cut_off_anywhere_is_unreadable() {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["mx.example".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let der: &[u8] = certificate.der();
        let parts = Parts::of(der).expect("well-formed");
        assert_eq!(parts.key, key.subject_public_key_info());
        assert_eq!(parts.raw_key().expect("a key").1, key.der_bytes());
        assert!(parts.validity().is_some_and(|(start, end)| start < end));
        for length in 0..der.len() {
            assert_eq!(Parts::of(&der[..length]), None, "{length}");
        }
        // A length of 2^64 - 1 must not overflow.
        assert_eq!(Parts::of(&[&[SEQUENCE, 0x88][..], &[0xff; 8]].concat()), None);
        assert_eq!(Parts::of(&[&[SEQUENCE, 0xff][..], &[0xff; 127]].concat()), None);
    }
}
