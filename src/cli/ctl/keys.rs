//! `penfoldctl dkim` and `penfoldctl passwd`: make and check keys and lines for tables.

#[cfg(feature = "mailauth")]
use std::path::PathBuf;

use super::{Call, Command, Complete, Flag};
#[cfg(feature = "mailauth")]
use crate::cli::dkim;
use crate::cli::{failed, passwd};
use crate::exit::{Exit, print};

pub(super) const DKIM: Command = Command {
    name: "dkim",
    arguments: "new domain | check [domain]",
    about: "make keys that sign mail, or compare them with the DNS",
    flags: &[
        Flag { long: "directory", hint: "path", about: "make the files of dkim new there", ..Flag::NONE },
        Flag { long: "selector", hint: "name", about: "begin the selectors of dkim new with this", ..Flag::NONE },
    ],
    complete: Complete::Words(&["new", "check"]),
    run: dkim,
};
pub(super) const PASSWD: Command =
    Command { name: "passwd", arguments: "name", about: "make a line for a users file", run: passwd, ..Command::NONE };

/// Runs `dkim new` or `dkim check`.
#[cfg(feature = "mailauth")]
fn dkim(call: &Call) -> Result<(), Exit> {
    let (selector, directory) =
        (call.options.opt_str("selector"), call.options.opt_str("directory").map(PathBuf::from));
    let words: Vec<&str> = call.words.iter().map(String::as_str).collect();
    if let Some(option) = ["directory", "selector"].into_iter().find(|name| call.options.opt_present(name))
        && words.first() != Some(&"new")
    {
        return Err(call.usage(&format!("--{option} is for dkim new")));
    }
    match words.as_slice() {
        ["new", domain] => {
            dkim::new(&dkim::New { domain, selector: selector.as_deref(), directory: directory.as_deref() })
        }
        ["new", ..] => Err(call.usage("dkim new needs one domain")),
        ["check"] => dkim::check(call.start, None),
        ["check", domain] => dkim::check(call.start, Some(domain)),
        _ => Err(call.usage("expected dkim new or dkim check")),
    }
}

#[cfg(not(feature = "mailauth"))]
fn dkim(_: &Call) -> Result<(), Exit> {
    Err(crate::cli::usage(vec!["this penfold has been built without the feature mailauth".into()]))
}

fn passwd(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    match call.words.first().filter(|name| !name.is_empty()) {
        Some(name) => make_line(name),
        None => Err(call.usage("passwd needs a name")),
    }
}

/// Reads a password, and prints a line of a users file for the user `name`.
fn make_line(name: &str) -> Result<(), Exit> {
    print(passwd::line(name).map_err(|e| failed("make a line for a users file", &e))?)
}
