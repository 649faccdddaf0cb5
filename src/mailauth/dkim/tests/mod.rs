//! Tests DKIM: the examples of the RFCs, each result, the canonical forms, and signing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::body::Hasher;
use super::header::{Header, append_own};
use super::*;
use crate::dns::lookup::Lookup;

mod forms;
mod keys;
mod results;
mod sign;
mod vectors;

/// TXT records by name, in memory.
#[derive(Default)]
pub(in crate::mailauth) struct Zone(pub(in crate::mailauth) HashMap<String, Result<Vec<Vec<u8>>, NoAnswer>>);

impl Zone {
    /// Returns a zone with one record for each name.
    pub(in crate::mailauth) fn of(records: &[(&str, &str)]) -> Self {
        let record = |(name, text): &(&str, &str)| ((*name).to_owned(), Ok(vec![text.as_bytes().to_vec()]));
        Self(records.iter().map(record).collect())
    }
}

impl Lookup for Zone {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        self.0.get(name).cloned().unwrap_or(Err(NoAnswer::NxDomain))
    }

    fn ipv4(&self, _: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        Err(NoAnswer::NoData)
    }

    fn ipv6(&self, _: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        Err(NoAnswer::NoData)
    }

    fn mx(&self, _: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        Err(NoAnswer::NoData)
    }

    fn names(&self, _: IpAddr) -> Result<Vec<String>, NoAnswer> {
        Err(NoAnswer::NoData)
    }
}

/// The time at which the tests take place, in seconds since 1970.
pub(in crate::mailauth) const NOW: u64 = 1_800_000_000;

pub(in crate::mailauth) const MESSAGE: &str = "From: Jon <jon@example.org>\nTo: ann@example.net\nSubject: Tea  time\n\
    Message-ID: <1@example.org>\n\nHello  Ann,\n\ntea is ready. \n\n\n";

pub(in crate::mailauth) fn rsa() -> SigningKey {
    SigningKey::from_pem(include_bytes!("rsa.pem")).expect("a key")
}

pub(in crate::mailauth) fn ed25519() -> SigningKey {
    SigningKey::from_pem(include_bytes!("ed25519.pem")).expect("a key")
}

/// Returns a zone with the keys of example.org under the selectors `r` (RSA) and `e` (Ed25519).
pub(in crate::mailauth) fn zone() -> Zone {
    let (rsa, ed25519) = (rsa().record(), ed25519().record());
    Zone::of(&[("r._domainkey.example.org", &rsa), ("e._domainkey.example.org", &ed25519)])
}

/// Verifies a message. The verifier gets it in pieces of `size` octets.
fn verify_in(size: usize, message: &[u8], zone: &Zone) -> Vec<Checked> {
    let mut verifier = Verifier::new();
    message.chunks(size).for_each(|piece| verifier.feed(piece));
    verifier.finish().verify(zone, NOW)
}

/// Verifies a message, and checks that the result does not depend on how the text is split.
fn verify(message: &str, zone: &Zone) -> Vec<Checked> {
    let checked = verify_in(message.len().max(1), message.as_bytes(), zone);
    for size in [1, 7] {
        assert_eq!(verify_in(size, message.as_bytes(), zone), checked, "pieces of {size}");
    }
    checked
}

/// Returns the results and reasons for the signatures of a message.
fn results(message: &str, zone: &Zone) -> Vec<(Status, Option<Reason>)> {
    verify(message, zone).into_iter().map(|checked| (checked.status, checked.reason)).collect()
}

/// Puts a signature field before a message. `tags` has all tags but `bh=` and `b=`. The function
/// computes these two, according to the forms and the length in the other tags.
fn signed(tags: &str, message: &str, key: &SigningKey) -> String {
    let list = tags::Tags::parse(tags.as_bytes()).expect("tags");
    let (header, body) = message.split_once("\n\n").expect("a body");
    let forms = list.get("c").unwrap_or("simple");
    let (header_form, body_form) = forms.split_once('/').unwrap_or((forms, "simple"));
    let [header_form, body_form] = [header_form, body_form].map(|form| canon::Canon::parse(form).expect("a form"));
    let length = list.get("l").map(|number| number.parse().expect("a number"));
    let mut hasher = Hasher::new([(body_form, length)]);
    hasher.feed(body.as_bytes());
    let hashes = hasher.finish();
    let (hash, _) = hashes.get(body_form, length).expect("the hash");
    let field = format!("DKIM-Signature: {tags}; bh={};\n b=", data_encoding::BASE64.encode(hash));
    let names: Vec<String> =
        list.get("h").unwrap_or_default().split(':').map(|name| name.trim().to_ascii_lowercase()).collect();
    let header = format!("{field}\n{header}\n");
    let header = Header::new(header.as_bytes());
    let mut text = header.signed(&names, header_form, Some(0));
    let own = header.at(0).expect("the field");
    append_own(&own, own.body.len()..own.body.len(), header_form, &mut text);
    let signature = data_encoding::BASE64.encode(&key.sign(&text).expect("random numbers"));
    format!("{field}{signature}\n{message}")
}
