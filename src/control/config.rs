//! Writes the configuration in force, as a file in the form of penfold.conf(5), or as JSON.

use std::io::{self, Write};

use crate::config::{self, Config, Printed};
use crate::json::{Format, Object};
use crate::log;

/// Writes the keys of a configuration with their values and places. `since` is the time at which it
/// was put into force, in seconds since 1970; `None` if it is only a file that was read. `wanted` is
/// a key such as `queue.workers` or a table such as `queue`, to which the output is limited. With
/// `is_brief`, only the keys in the file are written.
///
/// Returns whether a key was written.
///
/// # Errors
/// The errors of `out`.
pub fn config(
    config: &Config,
    since: Option<u64>,
    (wanted, is_brief): (Option<&str>, bool),
    format: Format,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let file = config.places.file().display().to_string();
    let keys: Vec<Printed> = config::print(config)
        .into_iter()
        .filter(|printed| wanted.is_none_or(|wanted| wanted == printed.name() || wanted == printed.table))
        .filter(|printed| !is_brief || printed.line.is_some())
        .collect();
    match format {
        Format::Json => keys.iter().try_for_each(|printed| writeln!(out, "{}", json(printed, &file)))?,
        Format::Text => {
            let since =
                since.map(|since| format!(", in force since {}", log::local_timestamp(since))).unwrap_or_default();
            if wanted.is_none() || !keys.is_empty() {
                writeln!(out, "# {file}{since}")?;
            }
            if keys.iter().any(|printed| printed.line.is_none()) {
                writeln!(out, "# A key after \"#\" is not in the file, and has its default.")?;
            }
            text(&keys, out)?;
        }
    }
    Ok(!keys.is_empty())
}

/// One key as JSON: its name, the number of its table among those of that name, its value in TOML,
/// and where the value comes from.
fn json(printed: &Printed, file: &str) -> Object {
    let mut object = Object::new();
    object.text("key", &printed.name());
    if printed.is_repeated {
        object.number("table", printed.number + 1);
    }
    object.text("value", &printed.value);
    match printed.line {
        Some(line) => object.text("from", "file").text("file", file).number("line", line),
        None => object.text("from", "default"),
    };
    object
}

/// Writes keys below the headers of their tables.
fn text(keys: &[Printed], out: &mut dyn Write) -> io::Result<()> {
    let mut table = None;
    for printed in keys {
        let own = (printed.table, printed.number);
        if !printed.table.is_empty() && table != Some(own) {
            let in_table = keys.iter().filter(|other| (other.table, other.number) == own);
            let comment =
                if printed.is_repeated && in_table.clone().all(|other| other.line.is_none()) { "#" } else { "" };
            let (open, close) = if printed.is_repeated { ("[[", "]]") } else { ("[", "]") };
            writeln!(out, "\n{comment}{open}{}{close}", printed.table)?;
        }
        table = Some(own);
        let assignment = format!("{} = {}", printed.key, printed.value);
        match printed.line {
            Some(line) => writeln!(out, "{assignment:<48} # line {line}")?,
            None => writeln!(out, "#{assignment}")?,
        }
    }
    Ok(())
}
