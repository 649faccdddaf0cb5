//! Compares keys with their records in the DNS, for `penfoldctl dkim check` and `penfoldd -n`.

use std::fmt;

use super::Named;
use crate::dns::lookup::Lookup;
use crate::mailauth::dkim::{Reason, Record, SigningKey};
use crate::outcome::NoAnswer;

/// What the DNS says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// There is one record, and it has this key.
    Good,
    /// There is one record, and it has this key and the flag `t=y`, which says that the domain is
    /// only testing.
    Testing,
    /// There is no record.
    Missing,
    /// There are this many records. A verifier may take any one of them.
    Several(usize),
    /// The record has another key of the same algorithm.
    OtherKey,
    /// The record has a key of another algorithm.
    OtherKind,
    /// The record cannot be used.
    Bad(Reason),
    /// The look-up failed.
    Unknown(NoAnswer),
}

impl Published {
    /// Looks up the record of a key.
    pub fn of(lookup: &dyn Lookup, named: &Named) -> Self {
        match lookup.txt(&named.dns_name()) {
            Ok(records) => Self::compare(&records, &named.current()),
            Err(NoAnswer::NxDomain | NoAnswer::NoData) => Self::Missing,
            Err(why) => Self::Unknown(why),
        }
    }

    fn compare(records: &[Vec<u8>], key: &SigningKey) -> Self {
        let record = match records {
            [] => return Self::Missing,
            [record] => record,
            several => return Self::Several(several.len()),
        };
        match Record::parse(record) {
            Err(reason) => Self::Bad(reason),
            Ok(record) if !record.fits(key.algorithm()) => Self::OtherKind,
            Ok(record) if !record.publishes(key) => Self::OtherKey,
            Ok(record) if record.is_testing => Self::Testing,
            Ok(_) => Self::Good,
        }
    }

    /// Returns whether every verifier finds this key.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good | Self::Testing)
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Testing => f.write_str("good, but t=y says that the domain is only testing"),
            Self::Missing => f.write_str("there is no TXT record"),
            Self::Several(count) => write!(f, "there are {count} TXT records; expected one"),
            Self::OtherKey => f.write_str("the record has another key"),
            Self::OtherKind => f.write_str("the record has a key of another kind (k=)"),
            Self::Bad(reason) => write!(f, "the record cannot be used: {reason}"),
            Self::Unknown(why) => write!(f, "{why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailauth::keys::make;

    #[test]
    fn a_record_is_compared_with_the_key() {
        let key = |pem: String| SigningKey::from_pem(pem.as_bytes()).expect("a key");
        let (rsa, other) = (key(make::rsa().expect("a key")), key(make::rsa().expect("a key")));
        let ed25519 = key(make::ed25519().expect("a key"));
        let (record, flagged) = (rsa.record(), |flags: &str| rsa.record().replace("; p=", &format!("; {flags}; p=")));
        let spaced = record.replace("; p=MIIB", " ;p=MI IB\t");
        let malformed = record.replace("p=MIIB", "p=MIIC");
        for (records, want) in [
            (vec![], Published::Missing),
            (vec![record.clone()], Published::Good),
            (vec![spaced], Published::Good),
            (vec![record.replace("v=DKIM1; k=rsa; ", "")], Published::Good),
            (vec![flagged("t=s")], Published::Good),
            (vec![flagged("t=s:y")], Published::Testing),
            (vec![record.clone(), record.clone()], Published::Several(2)),
            (vec![other.record()], Published::OtherKey),
            (vec![ed25519.record()], Published::OtherKind),
            (vec!["v=DKIM1; k=rsa; p=".to_owned()], Published::Bad(Reason::Revoked)),
            (vec![flagged("h=sha1")], Published::Bad(Reason::KeyHash)),
            (vec![flagged("s=tlsrpt")], Published::Bad(Reason::KeyService)),
            (vec![record.replace("k=rsa", "k=dsa")], Published::Bad(Reason::KeyType)),
            (vec![malformed], Published::Bad(Reason::Record("p="))),
            (vec!["v=spf1 -all".to_owned()], Published::Bad(Reason::Record("v="))),
        ] {
            let octets: Vec<Vec<u8>> = records.iter().map(|record| record.clone().into_bytes()).collect();
            assert_eq!(Published::compare(&octets, &rsa), want, "{records:?}");
        }
    }
}
