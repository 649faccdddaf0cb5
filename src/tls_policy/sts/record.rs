//! Reads the MTA-STS record of a domain (RFC 8461 3.1), a TXT record at `_mta-sts.DOMAIN`.
//!
//! The record says that the domain has a policy, and gives the policy's id. The id changes when the
//! policy changes.

/// The maximum length of an id, in octets.
pub const MAX_ID: usize = 32;
/// The maximum length of a field's name, in octets.
const MAX_NAME: usize = 32;

/// Returns the id from the TXT records of `_mta-sts.DOMAIN`. Records of other kinds are ignored.
/// Returns `None` if the domain has no MTA-STS record, has several, or has a malformed one: then the
/// domain has no policy.
pub fn id(records: &[Vec<u8>]) -> Option<Box<str>> {
    let mut ours = records.iter().filter_map(|record| fields(record));
    let fields = ours.next()?;
    if ours.next().is_some() { None } else { parse(fields) }
}

/// The fields after the version, if the record is an MTA-STS record. The version must come first.
fn fields(record: &[u8]) -> Option<&[u8]> {
    blank(record.strip_prefix(b"v=STSv1")?).strip_prefix(b";")
}

/// Returns the id. Unknown fields are ignored, but must be well-formed. If there are several ids, the
/// first one counts.
fn parse(fields: &[u8]) -> Option<Box<str>> {
    let mut id = None;
    let mut rest = fields.split(|&b| b == b';').map(<[u8]>::trim_ascii).peekable();
    while let Some(field) = rest.next() {
        // The last field may end in a semicolon.
        if field.is_empty() && rest.peek().is_none() {
            break;
        }
        let equals = field.iter().position(|&b| b == b'=')?;
        let (name, value) = (field[..equals].trim_ascii_end(), field[equals + 1..].trim_ascii_start());
        let is_valid = match name {
            b"id" => value.len() <= MAX_ID && value.iter().all(u8::is_ascii_alphanumeric),
            _ => is_name(name) && value.iter().all(|&b| b.is_ascii_graphic() && b != b'='),
        };
        if !is_valid || value.is_empty() {
            return None;
        }
        if name == b"id" && id.is_none() {
            id = std::str::from_utf8(value).ok().map(Into::into);
        }
    }
    id
}

/// Whether a text can be the name of a field, in a record or in a policy.
pub fn is_name(name: &[u8]) -> bool {
    let is_inner = |b: &u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
    name.len() <= MAX_NAME && name.first().is_some_and(u8::is_ascii_alphanumeric) && name.iter().all(is_inner)
}

fn blank(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|b| !b" \t".contains(b)).unwrap_or(text.len());
    &text[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(records: &[&str]) -> Option<String> {
        id(&records.iter().map(|r| r.as_bytes().to_vec()).collect::<Vec<_>>()).map(Into::into)
    }

    #[test]
    fn the_id_is_that_of_the_only_record() {
        let long = format!("v=STSv1; id={}", "a".repeat(MAX_ID));
        for (record, want) in [
            ("v=STSv1; id=20260101T000000;", "20260101T000000"),
            ("v=STSv1;id=1", "1"),
            ("v=STSv1 \t;\tid = A9 ; ", "A9"),
            ("v=STSv1; x-new.field_1=a/b:c; id=7; other=~", "7"),
            ("v=STSv1; id=first; id=second", "first"),
            (&long, &long[12..]),
        ] {
            assert_eq!(id_of(&[record]).as_deref(), Some(want), "{record}");
            assert_eq!(id_of(&["v=spf1 -all", record, "", "v=STSv2; id=2", "V=STSv1; id=3"]).as_deref(), Some(want));
        }
    }

    #[test]
    fn a_domain_with_a_malformed_record_or_with_several_has_no_policy() {
        let long = format!("v=STSv1; id={}", "a".repeat(MAX_ID + 1));
        let name = format!("v=STSv1; id=1; {}=x", "n".repeat(MAX_NAME + 1));
        for record in [
            "",
            "v=STSv1",
            "v=STSv1;",
            "v=STSv10; id=1",
            "v=STSv1 id=1",
            " v=STSv1; id=1",
            "v=stsv1; id=1",
            "id=1; v=STSv1",
            "v=STSv1; id=",
            "v=STSv1; id",
            "v=STSv1; id=a-b",
            "v=STSv1; id=a b",
            "v=STSv1; ID=1",
            "v=STSv1;; id=1",
            "v=STSv1; id=1;;",
            "v=STSv1; id=1; =x",
            "v=STSv1; id=1; x=",
            "v=STSv1; id=1; x=a b",
            "v=STSv1; id=1; x=a=b",
            "v=STSv1; id=1; -x=a",
            "v=STSv1; id=1; x=\u{fc}",
            &long,
            &name,
        ] {
            assert_eq!(id_of(&[record]), None, "{record}");
        }
        assert_eq!(id_of(&[]), None);
        assert_eq!(id_of(&["v=STSv1; id=1", "v=STSv1; id=1"]), None);
        // A malformed record is a record all the same.
        assert_eq!(id_of(&["v=STSv1; id=1", "v=STSv1; nothing"]), None);
    }
}
