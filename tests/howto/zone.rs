//! The zones of a page, as the name server of the test answers them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::debian::{Debian, WORLD};
use common::dns::{self, Dns};

use crate::pattern;

/// A name server in the world of a machine. It knows nothing else than its zones.
pub struct Zones {
    /// The lines of each zone in the form of [`dns::Dns::zone`].
    zones: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Zones {
    /// Starts the server, with the lines of the world itself.
    pub fn start(machine: &Debian, world: &str) -> Self {
        let zones = Arc::new(Mutex::new(BTreeMap::from([(String::new(), world.to_owned())])));
        let asked = Arc::clone(&zones);
        machine.world(|| {
            Dns::listening((WORLD, 53).into(), move |asking| {
                let lines: Vec<String> = asked.lock().expect("no panic").values().cloned().collect();
                dns::answer(&lines.join("\n"), asking.name, asking.kind)
            })
        });
        Self { zones }
    }

    /// Replaces a zone. Its lines are in the form of a zone file; for a line with `...` one of the
    /// lines that were printed is taken.
    ///
    /// # Errors
    /// The line that is not understood, and why.
    pub fn set(&self, name: &str, text: &str, printed: &[String]) -> Result<(), String> {
        let lines = records(name, text, printed)?;
        self.zones.lock().expect("no panic").insert(name.to_owned(), lines);
        Ok(())
    }
}

/// The records of a zone, in the form of [`dns::Dns::zone`].
fn records(zone: &str, text: &str, printed: &[String]) -> Result<String, String> {
    let mut records = String::new();
    let mut open = String::new();
    for line in text.lines() {
        let line = match line.contains("...") {
            true => pattern::find(line, printed).ok_or_else(|| format!("{line}: no such line was printed"))?.clone(),
            false => line.split(';').next().filter(|_| !line.contains('"')).unwrap_or(line).to_owned(),
        };
        open = format!("{open} {line}");
        // A record with parentheses ends where they do.
        if open.matches('(').count() > open.matches(')').count() || open.trim().is_empty() {
            continue;
        }
        records += &record(zone, &open).ok_or_else(|| format!("{open}: a record is `name IN TYPE data`"))?;
        open.clear();
    }
    Ok(records)
}

fn record(zone: &str, line: &str) -> Option<String> {
    let full = |name: &str| match name.strip_suffix('.') {
        _ if name == "@" => zone.to_owned(),
        Some(name) => name.to_owned(),
        None => format!("{name}.{zone}"),
    };
    let (name, rest) = line.trim_start().split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (kind, data) = rest.strip_prefix("IN ").unwrap_or(rest).trim_start().split_once(char::is_whitespace)?;
    let data = match kind {
        "A" | "AAAA" => data.trim().to_owned(),
        "MX" => {
            let (preference, host) = data.trim().split_once(char::is_whitespace)?;
            format!("{preference} {}", full(host.trim()))
        }
        "PTR" | "CNAME" => full(data.trim()),
        // What is between each two quotes.
        "TXT" => data.split('"').skip(1).step_by(2).collect(),
        _ => return None,
    };
    Some(format!("{} {kind} {data}\n", full(name)))
}

#[test]
fn zones_are_read() {
    let printed = ["k.example.org. IN TXT ( \"v=DKIM1; p=AB".to_owned(), "\"CD\" )".to_owned()];
    let printed = [printed[0].clone() + "\"", printed[1].clone()];
    let zone = "; the zone example.org\n@  IN MX 10 mail\nmail IN A 192.0.2.25 ; here\n* IN CNAME www.example.net.\n\
                @ IN TXT \"v=spf1 mx; -all\"\nk.example.org. IN TXT ( \"v=DKIM1; ...\n  \"...\" )\n";
    let expected = "example.org MX 10 mail.example.org\nmail.example.org A 192.0.2.25\n\
                    *.example.org CNAME www.example.net\nexample.org TXT v=spf1 mx; -all\n\
                    k.example.org TXT v=DKIM1; p=ABCD\n";
    assert_eq!(records("example.org", zone, &printed).as_deref(), Ok(expected));
    assert!(records("example.org", "k IN TXT \"a...\"\n", &[]).is_err());
    assert!(records("example.org", "k IN SOA \"a\"\n", &[]).is_err());
}
