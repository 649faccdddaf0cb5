//! Reads and writes public RSA keys in DER: RSAPublicKey and SubjectPublicKeyInfo (RFC 8017 A.1.1,
//! RFC 5280 4.1.2.7).

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// The content of the AlgorithmIdentifier of RSA keys: the object identifier rsaEncryption, and
/// NULL.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// Finds the RSAPublicKey in `octets`, which are the key itself or its SubjectPublicKeyInfo.
/// Returns the key and the number of bits of its modulus. Returns `None` if `octets` are malformed.
pub fn rsa_public_key(octets: &[u8]) -> Option<(&[u8], usize)> {
    let (content, rest) = element(SEQUENCE, octets)?;
    if !rest.is_empty() {
        return None;
    }
    let key = match element(SEQUENCE, content) {
        Some((algorithm, rest)) => {
            // Some programs leave out the NULL, which is two octets.
            if algorithm != RSA && Some(algorithm) != RSA.get(..RSA.len() - 2) {
                return None;
            }
            let (bits, rest) = element(BIT_STRING, rest)?;
            if rest.is_empty() { bits.strip_prefix(&[0])? } else { return None }
        }
        None => octets,
    };
    let (content, rest) = element(SEQUENCE, key)?;
    let (modulus, after) = element(INTEGER, content)?;
    let (_, after) = element(INTEGER, after)?;
    if !rest.is_empty() || !after.is_empty() {
        return None;
    }
    let zeros = modulus.iter().take_while(|&&octet| octet == 0).count();
    let first = modulus.get(zeros)?;
    Some((key, (modulus.len() - zeros) * 8 - first.leading_zeros() as usize))
}

/// Wraps an RSAPublicKey in a SubjectPublicKeyInfo.
pub fn subject_public_key_info(key: &[u8]) -> Vec<u8> {
    let bits = [&[0], key].concat();
    let content = [wrap(SEQUENCE, RSA), wrap(BIT_STRING, &bits)].concat();
    wrap(SEQUENCE, &content)
}

/// Splits the first element off `octets`. Returns its content and the rest. Returns `None` if the
/// element is malformed or has another tag.
fn element(tag: u8, octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = octets.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(&octet, rest)| (usize::from(octet), rest))?,
        0x82 => rest.split_first_chunk().map(|(&octets, rest)| (usize::from(u16::from_be_bytes(octets)), rest))?,
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Makes an element with this tag and content.
pub(in crate::mailauth) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut octets = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => octets.push(short),
        _ => {
            let length = length.to_be_bytes();
            let digits: Vec<u8> = length.into_iter().skip_while(|octet| *octet == 0).collect();
            octets.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            octets.extend(digits);
        }
    }
    octets.extend_from_slice(content);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_all_forms_are_written_and_read() {
        for length in [0, 1, 127, 128, 255, 256, 65535] {
            let content = vec![7; length];
            let octets = wrap(SEQUENCE, &content);
            assert_eq!(element(SEQUENCE, &octets), Some((&content[..], &b""[..])), "{length}");
            assert_eq!(element(SEQUENCE, &octets[..octets.len() - 1]), None, "{length}");
        }
    }

    #[test]
    fn the_bits_of_a_modulus_are_counted() {
        for (modulus, bits) in [(&[0x80, 1][..], 16), (&[0, 0x80, 1], 16), (&[1, 0], 9), (&[0x7f, 0xff, 0xff], 23)] {
            let key = wrap(SEQUENCE, &[wrap(INTEGER, modulus), wrap(INTEGER, &[3])].concat());
            assert_eq!(rsa_public_key(&key), Some((&key[..], bits)));
            let info = subject_public_key_info(&key);
            assert_eq!(rsa_public_key(&info), Some((&key[..], bits)));
            for end in 0..info.len() {
                assert_eq!(rsa_public_key(&info[..end]), None, "{end}");
            }
            assert_eq!(rsa_public_key(&[&info[..], &[0]].concat()), None);
        }
        assert_eq!(rsa_public_key(&wrap(SEQUENCE, &[wrap(INTEGER, &[0]), wrap(INTEGER, &[3])].concat())), None);
    }
}
