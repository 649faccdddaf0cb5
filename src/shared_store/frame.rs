//! Finds the end of a reply in the protocol of Redis (RESP 2), before the reply is parsed.
//!
//! The parser of the package redis takes any number of values at any depth, and reserves memory for
//! them. So it gets a reply only if the reply is complete, small and shallow.

/// The maximum size of a reply, in octets.
pub const MAX_REPLY: usize = 64 << 10;
/// The maximum length of the first line of a value, in octets. An error is such a line.
const MAX_LINE: usize = 1024;
/// The maximum number of values in an array. An array contains no arrays.
const MAX_VALUES: usize = 8;

/// Returns the length of the reply at the front of `octets`; `None` if the reply is not complete.
///
/// # Errors
/// If these octets cannot be the beginning of a reply that penfold expects, the reason.
pub fn length(octets: &[u8]) -> Result<Option<usize>, &'static str> {
    let Some((mark, number, mut end)) = first_line(octets)? else { return Ok(None) };
    if mark != b'*' {
        return value(mark, number, end, octets.len());
    }
    let count = usize::try_from(number.unwrap_or(-1)).ok().filter(|count| *count <= MAX_VALUES);
    for _ in 0..count.ok_or("an array of an unexpected length")? {
        let rest = octets.get(end..).unwrap_or_default();
        let Some((mark, number, line)) = first_line(rest)? else { return Ok(None) };
        match value(mark, number, line, rest.len())? {
            None => return Ok(None),
            Some(length) => end += length,
        }
    }
    Ok(Some(end))
}

/// Returns the length of a value that is not an array.
fn value(mark: u8, number: Option<i64>, line: usize, available: usize) -> Result<Option<usize>, &'static str> {
    let length = match (mark, number) {
        (b'+' | b'-', _) | (b':', Some(_)) | (b'$', Some(-1)) => line,
        (b'$', Some(length)) => {
            let length = usize::try_from(length).ok().filter(|length| *length < MAX_REPLY);
            line + length.ok_or("a reply that is too long")? + 2
        }
        _ => return Err("not the protocol of Redis"),
    };
    Ok((length <= available).then_some(length))
}

/// The first line of a value: its mark, the number after it, and the length with the line end.
type FirstLine = (u8, Option<i64>, usize);

fn first_line(octets: &[u8]) -> Result<Option<FirstLine>, &'static str> {
    let Some(mark) = octets.first() else { return Ok(None) };
    if !b"+-:$*".contains(mark) {
        return Err("not the protocol of Redis");
    }
    let head = octets.get(..MAX_LINE).unwrap_or(octets);
    let Some(end) = memchr::memchr(b'\n', head) else {
        return if octets.len() < MAX_LINE { Ok(None) } else { Err("a line that is too long") };
    };
    let line = head.get(1..end).and_then(|line| line.strip_suffix(b"\r")).ok_or("a line without CR")?;
    let number = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
    Ok(Some((*mark, number, end + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_where_its_last_value_ends() {
        for reply in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":-7\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "$3\r\na\r\n\r\n",
            "*0\r\n",
            "*2\r\n:1\r\n$1\r\nx\r\n",
        ] {
            let octets = reply.as_bytes();
            for end in 0..octets.len() {
                assert_eq!(length(&octets[..end]), Ok(None), "{reply:?} to {end}");
            }
            let more = [octets, b"+more\r\n"].concat();
            assert_eq!((length(octets), length(&more)), (Ok(Some(octets.len())), Ok(Some(octets.len()))), "{reply:?}");
            assert!(redis::parse_redis_value(octets).is_ok(), "{reply:?}");
        }
    }

    #[test]
    fn large_deep_and_foreign_replies_are_refused_at_once() {
        let long = format!("+{}", "x".repeat(MAX_LINE));
        for reply in [
            "$2147483648\r\n",
            "$65536\r\n",
            "$-2\r\n",
            "$x\r\n",
            "*9\r\n",
            "*-1\r\n",
            "*4294967295\r\n",
            "*1\r\n*1\r\n",
            ":one\r\n",
            "+OK\n",
            "%1\r\n",
            ">2\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "\0",
            &long,
        ] {
            assert!(length(reply.as_bytes()).is_err(), "{reply:?}");
        }
    }

    /// Whatever the frame lets through, the parser neither panics nor fails to end.
    #[test]
    fn random_replies_are_harmless() {
        let mut seed = 1_u64;
        let mut next = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        const PARTS: [&str; 16] =
            ["*", "$", ":", "+", "-", "\r\n", "\n", "0", "1", "2", "-1", "99", "x", "ERR ", "\u{fc}", "*2\r\n:1\r\n"];
        let mut complete = 0;
        for _ in 0..200_000 {
            let text: String = (0..next(12)).map(|_| PARTS[next(16) as usize]).collect();
            if let Ok(Some(end)) = length(text.as_bytes()) {
                complete += 1;
                let _ = redis::parse_redis_value(&text.as_bytes()[..end]);
            }
        }
        assert!(complete > 1000, "{complete}");
    }
}
