//! `penfoldctl tlsa`: the TLSA records to publish for certificates and keys.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Call, Command, Flag};
use crate::address::parse_domain;
use crate::exit::{self, Exit, print};
use crate::json::{Format, Object};
use crate::tls::{KeyDigest, first_certificate, shown_for, tlsa_name};

pub(super) const COMMAND: Command = Command {
    name: "tlsa",
    arguments: "[file ...]",
    about: "print the DNS records for certificates or keys (DANE)",
    flags: &[
        Flag { long: "host", hint: "name", about: "the name of the mail exchanger, by default hostname", ..Flag::NONE },
        Flag::JSON,
    ],
    run,
    ..Command::NONE
};

/// The maximum length of a file, in octets.
const MAX_LENGTH: u64 = 1 << 20;

fn run(call: &Call) -> Result<(), Exit> {
    let config = if call.words.is_empty() { call.start.load()? } else { call.start.load_partially() };
    let host = match call.options.opt_str("host") {
        Some(host) => parse_domain(&host).map_err(|_| call.usage("--host needs the name of a host"))?.into(),
        None => config.hostname.clone(),
    };
    let mut found = if call.words.is_empty() {
        let mut all = Vec::new();
        for pair in &config.tls {
            let path = &pair.certificate;
            let found = first_certificate(&read(path)?);
            all.push((path.clone(), found.ok_or_else(|| wrong(path, "expected a certificate in PEM; there is none"))?));
        }
        if all.is_empty() {
            let text = "there is no certificate in the configuration; name a file with a certificate or a key";
            return Err(Exit { code: exit::UNAVAILABLE, text: vec![text.into()] });
        }
        shown_for(all, &host)
    } else {
        let digest = |word: &String| {
            let path = PathBuf::from(word);
            let digest = KeyDigest::of_pem(&read(&path)?).map_err(|why| wrong(&path, why))?;
            Ok((path, digest))
        };
        call.words.iter().map(digest).collect::<Result<Vec<_>, Exit>>()?
    };
    found.sort_by_key(|(_, digest)| *digest);
    found.dedup_by_key(|(_, digest)| *digest);
    let name = tlsa_name(&host);
    let lines = found.iter().map(|(path, digest)| match call.format() {
        Format::Text => format!("{name}. IN TLSA {}\n", digest.data()),
        Format::Json => {
            let mut object = Object::new();
            object.text("name", &name).text("data", &digest.data()).text("file", &path.to_string_lossy());
            format!("{object}\n")
        }
    });
    print(lines.collect::<String>())
}

fn wrong(path: &Path, why: &str) -> Exit {
    Exit { code: exit::DATAERR, text: vec![format!("{}: {why}", path.display())] }
}

fn read(path: &Path) -> Result<Vec<u8>, Exit> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LENGTH).read_to_end(&mut text));
    read.map_err(|e| Exit { code: exit::IOERR, text: vec![format!("{}: {e}", path.display())] })?;
    Ok(text)
}
