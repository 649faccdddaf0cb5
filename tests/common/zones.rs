//! Zones of the DNS, signed or not, as files for a name server.
//!
//! Needs the programs of ldnsutils. Each signed zone has one key, which signs everything in it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use super::programs;

/// The address of the name server of all zones.
pub const SERVER: &str = "192.0.2.53";

/// Changes the text of a signed zone: each line is one record, with all fields.
type Edit = dyn Fn(&str) -> String + Send + Sync;

/// A zone. Its apex gets a SOA record and an NS record by itself, and so do delegations.
pub struct Zone {
    name: String,
    text: String,
    seal: Seal,
    /// Options of ldns-signzone.
    options: &'static [&'static str],
    edit: Option<Box<Edit>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seal {
    None,
    Valid,
    Expired,
}

impl Zone {
    /// A signed zone with these records, in the form of a zone file. Names without a final dot are
    /// relative to the zone.
    pub fn signed(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), seal: Seal::Valid, options: &[], edit: None }
    }

    /// A signed zone that denies names by NSEC3, which leaves out insecure delegations (opt-out) or
    /// does not.
    pub fn hashed(name: &str, text: &str, opts_out: bool) -> Self {
        Self { options: if opts_out { &["-n", "-p"] } else { &["-n"] }, ..Self::signed(name, text) }
    }

    /// A zone without signatures, whose delegation says that it has none.
    pub fn insecure(name: &str, text: &str) -> Self {
        Self { seal: Seal::None, ..Self::signed(name, text) }
    }

    /// A zone whose signatures are valid no longer.
    pub fn expired(name: &str, text: &str) -> Self {
        Self { seal: Seal::Expired, ..Self::signed(name, text) }
    }

    /// Changes the zone after it was signed, so that some signatures are wrong or missing.
    #[must_use]
    pub fn then(self, edit: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self { edit: Some(Box::new(edit)), ..self }
    }

    /// Adds records.
    pub fn add(&mut self, records: &str) {
        writeln!(self.text, "{records}").expect("memory");
    }

    fn apex(&self) -> String {
        format!("{}.", self.name)
    }

    /// Whether a zone belongs below this one.
    fn is_above(&self, other: &Self) -> bool {
        self.name.is_empty() || other.name.ends_with(&format!(".{}", self.name))
    }
}

/// The path of the file of a zone in a directory.
fn path(dir: &Path, zone: &str) -> PathBuf {
    dir.join(format!("zone.{zone}"))
}

/// Makes the zones, and the root above them, in a directory. Writes `zones.conf`, which names their
/// files for NSD, and `root.ds`, the trust anchor.
///
/// # Panics
/// If a zone cannot be made.
pub fn make(dir: &Path, zones: Vec<Zone>) {
    let mut zones = zones;
    zones.push(Zone::signed("", &format!("ns.root. A {SERVER}")));
    let anchors: HashMap<String, String> = thread::scope(|scope| {
        let signed = zones.iter().filter(|zone| zone.seal != Seal::None).map(|zone| &zone.name);
        let keys: Vec<_> = signed.map(|name| scope.spawn(|| (name.clone(), key(dir, name)))).collect();
        keys.into_iter().map(|key| key.join().expect("a key")).collect()
    });
    fs::write(dir.join("root.ds"), &anchors[""]).expect("a file");
    for zone in &zones {
        fs::write(path(dir, &zone.name), text(zone, &zones, &anchors)).expect("a file");
    }
    thread::scope(|scope| zones.iter().for_each(|zone| drop(scope.spawn(|| sign(dir, zone)))));
    let listed = zones.iter().map(|zone| {
        format!("zone:\n  name: \"{}\"\n  zonefile: \"{}\"\n", zone.apex(), path(dir, &zone.name).display())
    });
    fs::write(dir.join("zones.conf"), listed.collect::<String>()).expect("a file");
}

/// Makes the key of a zone, and returns its DS record.
fn key(dir: &Path, zone: &str) -> String {
    let mut keygen = Command::new("ldns-keygen");
    keygen.args(["-a", "ECDSAP256SHA256", "-k", "-r", "/dev/urandom", &format!("{zone}.")]).current_dir(dir);
    let output = keygen.stdin(Stdio::null()).output().expect("ldns-keygen");
    let (code, said) = programs::code_and_text(&output);
    assert_eq!(code, 0, "ldns-keygen {zone}: {said}");
    let base = dir.join(said.trim());
    for end in ["private", "key", "ds"] {
        let from = base.with_added_extension(end);
        fs::rename(from, dir.join(format!("key.{zone}.{end}"))).expect("a file of the key");
    }
    fs::read_to_string(dir.join(format!("key.{zone}.ds"))).expect("a DS record")
}

/// The text of a zone, with its delegations.
fn text(zone: &Zone, zones: &[Zone], anchors: &HashMap<String, String>) -> String {
    let mut text = format!(
        "$ORIGIN {}\n$TTL 60\n@ SOA ns.root. hostmaster.root. 1 3600 600 86400 60\n@ NS ns.root.\n",
        zone.apex()
    );
    writeln!(text, "{}", zone.text).expect("memory");
    for below in zones.iter().filter(|below| below.name != zone.name && zone.is_above(below)) {
        let between = zones.iter().any(|other| {
            other.name != zone.name && other.name != below.name && zone.is_above(other) && other.is_above(below)
        });
        if !between {
            writeln!(text, "{} NS ns.root.", below.apex()).expect("memory");
            text.push_str(anchors.get(&below.name).map_or("", String::as_str));
        }
    }
    text
}

fn sign(dir: &Path, zone: &Zone) {
    let file = path(dir, &zone.name);
    if zone.seal != Seal::None {
        let mut sign = Command::new("ldns-signzone");
        sign.args(zone.options);
        if zone.seal == Seal::Expired {
            sign.args(["-i", "20200101000000", "-e", "20200201000000"]);
        }
        let signed = file.with_added_extension("signed");
        sign.arg("-f").arg(&signed).arg("-o").arg(zone.apex()).arg(&file).arg(format!("key.{}", zone.name));
        let (code, said) =
            programs::code_and_text(&sign.current_dir(dir).stdin(Stdio::null()).output().expect("ldns-signzone"));
        assert_eq!(code, 0, "ldns-signzone {}: {said}", zone.name);
        // NSD does not read the empty data as ldns writes them.
        let text = fs::read_to_string(signed).expect("a zone");
        fs::write(&file, text.replace("\tTLSA\t3 1 1\n", "\tTLSA\t\\# 3 030101\n")).expect("a file");
    }
    if let Some(edit) = &zone.edit {
        let text = fs::read_to_string(&file).expect("a zone");
        let edited = edit(&text);
        assert_ne!(text, edited, "nothing of the zone {} was changed", zone.name);
        fs::write(file, edited).expect("a file");
    }
}
