//! Compresses reports into the gzip format (RFC 1951, RFC 1952).
//!
//! A report has many repetitions. So one pass that finds repetitions, and the fixed
//! Huffman code of the format, make a report about ten times smaller. A library would make it
//! smaller by another third, but would need more packages.

/// The maximum distance between a text and its repetition, in octets.
const WINDOW: usize = 32 << 10;
/// The lengths of the shortest and of the longest repetition that is used, in octets.
const LENGTHS: (usize, usize) = (4, 258);
/// The number of bits of a key. A key is a hash of four octets, and helps to find repetitions.
const KEY_BITS: u32 = 15;

/// The first length of each length code from 257 on, and its number of extra bits.
const LENGTH_CODES: [(usize, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
/// The first distance of each distance code, and its number of extra bits.
const DISTANCE_CODES: [(usize, u32); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];

/// Returns a gzip file with this content. The content must be shorter than 4 GiB.
pub fn compress(content: &[u8]) -> Vec<u8> {
    let mut bits = Bits { out: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], held: 0, count: 0 };
    // The only block of the file has the mark of the last block and the type of the fixed code.
    bits.push(0b011, 3);
    deflate(content, &mut bits);
    bits.symbol(256);
    let mut out = bits.finish();
    out.extend_from_slice(&crc32(content).to_le_bytes());
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out
}

fn deflate(content: &[u8], bits: &mut Bits) {
    // For each key, the last place at which it has occurred, plus one; 0 if it has not occurred.
    let mut places = vec![0_usize; 1 << KEY_BITS];
    let mut at = 0;
    while let Some(&octet) = content.get(at) {
        let length = match key(content, at) {
            Some(key) => {
                let place = std::mem::replace(&mut places[key], at + 1);
                repetition(content, place, at)
            }
            None => None,
        };
        let Some((length, distance)) = length else {
            bits.symbol(usize::from(octet));
            at += 1;
            continue;
        };
        let (code, extra, bit_count) = code(&LENGTH_CODES, length);
        bits.symbol(257 + code);
        bits.push(extra, bit_count);
        let (code, extra, bit_count) = self::code(&DISTANCE_CODES, distance);
        bits.push_reversed(code as u32, 5);
        bits.push(extra, bit_count);
        for inside in at + 1..at + length {
            if let Some(key) = key(content, inside) {
                places[key] = inside + 1;
            }
        }
        at += length;
    }
}

/// Returns the key of the four octets at a place. Returns `None` if fewer than four octets are
/// left.
fn key(content: &[u8], at: usize) -> Option<usize> {
    let (four, _) = content.get(at..)?.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*four).wrapping_mul(0x9e37_79b1) >> (32 - KEY_BITS)) as usize)
}

/// Returns the length and the distance of the repetition, if the text at `at` repeats the text at
/// `place - 1`. Returns `None` if it does not.
fn repetition(content: &[u8], place: usize, at: usize) -> Option<(usize, usize)> {
    let start = place.checked_sub(1).filter(|start| at - start <= WINDOW)?;
    let pairs = content.get(start..)?.iter().zip(content.get(at..)?).take(LENGTHS.1);
    let length = pairs.take_while(|(one, other)| one == other).count();
    (length >= LENGTHS.0).then_some((length, at - start))
}

/// Returns the code for a value, its extra bits, and the number of these bits.
fn code(codes: &[(usize, u32)], value: usize) -> (usize, u32, u32) {
    let code = codes.partition_point(|(first, _)| *first <= value).saturating_sub(1);
    let (first, bit_count) = codes.get(code).copied().unwrap_or_default();
    (code, (value - first) as u32, bit_count)
}

/// Writes bits, the lowest bit of an octet first.
struct Bits {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    fn push(&mut self, bits: u32, count: u32) {
        self.held |= u64::from(bits) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// Writes a Huffman code. Its highest bit comes first.
    fn push_reversed(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }

    /// Writes a symbol with the fixed code.
    fn symbol(&mut self, symbol: usize) {
        let symbol = symbol as u32;
        match symbol {
            0..144 => self.push_reversed(0x30 + symbol, 8),
            144..256 => self.push_reversed(0x190 + symbol - 144, 9),
            256..280 => self.push_reversed(symbol - 256, 7),
            _ => self.push_reversed(0xc0 + symbol - 280, 8),
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.push(0, 7);
        self.out
    }
}

/// Returns the CRC-32 checksum of the content.
fn crc32(content: &[u8]) -> u32 {
    let mut table = [0_u32; 256];
    for (octet, entry) in (0..).zip(&mut table) {
        *entry = (0..8).fold(octet, |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1)));
    }
    let step = |sum: u32, octet: &u8| (sum >> 8) ^ table[usize::from(sum as u8 ^ octet)];
    !content.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decompresses a file that [`compress`] has written: one block in the fixed code.
    fn decompress(file: &[u8]) -> Vec<u8> {
        assert_eq!(&file[..4], [0x1f, 0x8b, 8, 0]);
        let mut at = 80;
        let mut bit = || {
            let bit = u32::from(file[at / 8] >> (at % 8) & 1);
            at += 1;
            bit
        };
        let mut low_first = |count: u32| (0..count).fold(0, |value, n| value | bit() << n);
        assert_eq!(low_first(3), 0b011);
        let mut out: Vec<u8> = Vec::new();
        loop {
            let mut code = (0..7).fold(0, |code, _| code << 1 | low_first(1));
            let symbol = if code < 24 {
                256 + code
            } else {
                code = code << 1 | low_first(1);
                match code {
                    0x30..0xc0 => code - 0x30,
                    0xc0..0xc8 => 280 + code - 0xc0,
                    _ => 144 + (code << 1 | low_first(1)) - 0x190,
                }
            };
            match symbol {
                0..256 => out.push(symbol as u8),
                256 => break,
                _ => {
                    let (first, count) = LENGTH_CODES[symbol as usize - 257];
                    let length = first + low_first(count) as usize;
                    let code = (0..5).fold(0, |code, _| code << 1 | low_first(1));
                    let (first, count) = DISTANCE_CODES[code as usize];
                    let distance = first + low_first(count) as usize;
                    for _ in 0..length {
                        out.push(out[out.len() - distance]);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn what_is_compressed_can_be_read_again() {
        let mut noise = 12345_u32;
        let mut random = |max: u32| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 8) % max
        };
        let mut texts: Vec<Vec<u8>> = vec![Vec::new(), b"a".to_vec(), b"abcd".repeat(100_000), (0..=255).collect()];
        for letters in [2, 4, 200, 256] {
            texts.push((0..100_000).map(|_| random(letters) as u8).collect());
        }
        let rows: String =
            (0..2000).map(|n| format!("<row><ip>192.0.2.{}</ip><count>{n}</count></row>", n % 256)).collect();
        texts.push(rows.into_bytes());
        for text in texts {
            let file = compress(&text);
            assert!(decompress(&file) == text, "{} octets", text.len());
            assert_eq!(file[file.len() - 4..], (text.len() as u32).to_le_bytes());
        }
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let row = "<record><row><source_ip>192.0.2.1</source_ip><count>1</count></row></record>\n".repeat(100);
        assert!(compress(row.as_bytes()).len() < row.len() / 20);
    }
}
