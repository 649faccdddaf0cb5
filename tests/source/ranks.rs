//! Checks the rules of the source that the compiler does not check: which module may import which,
//! what only some files may name, and how long a file or a function may be.
//!
//! The ranks of modules are read from the table in src/lib.rs, so that there is only one table. The
//! test reads the text as rustfmt lays it out: it does not see a path that a macro builds, or that
//! leads through a re-export. Unit tests may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 500;
const MAX_LINES_OF_A_FUNCTION: usize = 60;

/// Functions that may be longer because they are one table. Each needs a reason.
const TABLES: &[&str] = &[];

/// Texts that may occur only in the files beside them.
const FENCES: &[(&str, &[&str])] = &[
    ("tokio::", &["dns/"]),
    ("trust_dns_resolver", &["dns/"]),
    // Only these files change a spool or a mailbox, so that tests can make every step fail.
    ("fs::rename(", &["sys/disk.rs"]),
    (".sync_all(", &["sys/disk.rs"]),
    (".sync_data(", &["sys/disk.rs"]),
    ("remove_file(", &["sys/disk.rs", "control/server.rs", "listen/socket.rs"]),
];

/// Imports that are forbidden although the ranks allow them: the module, and what it must not
/// import.
const FORBIDDEN: &[(&str, &[&str])] = &[("session", &["queue", "deliver", "report"])];

struct Source {
    /// The path of the file below src/.
    path: PathBuf,
    /// The lines of the file, without its unit tests.
    lines: Vec<String>,
}

impl Source {
    /// The top-level module to which the file belongs.
    fn module(&self) -> String {
        let first = self.path.iter().next().expect("a path").to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    }

    /// The lines without comments, each with its number.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.lines.iter().enumerate();
        numbered.map(|(at, line)| (at + 1, line.as_str())).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("src") {
            let path = entry.expect("an entry").path();
            // Unit tests are left out, since the rules do not apply to them.
            if path.ends_with("tests") {
                continue;
            } else if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
                let lines = text[..end].lines().map(str::to_owned).collect();
                sources.push(Source { path: path.strip_prefix(&root).expect("below").to_owned(), lines });
            }
        }
    }
    assert!(sources.len() > 20);
    sources
}

/// The rank of each module, from the table of src/lib.rs: lines `//! | rank | names | may use |`.
fn ranks() -> BTreeMap<String, usize> {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("src/lib.rs");
    let mut ranks = BTreeMap::new();
    for row in map.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = row.split('|').map(str::trim);
        let (rank, names) = (cells.next().expect("a cell"), cells.next().expect("a cell"));
        let Ok(rank) = rank.parse() else { continue };
        // "and the programs" in the table is prose, and not a module.
        for name in names.split(',').map(str::trim).filter(|name| !name.contains(' ')) {
            assert!(ranks.insert(name.to_owned(), rank).is_none(), "{name} has two ranks");
        }
    }
    ranks
}

/// The top-level modules that a line imports, as `crate::name` or in `use crate::{one,
/// two::Three}`.
fn imports(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let after = &line[at + "crate::".len()..];
        let list = after.strip_prefix('{').and_then(|l| l.split_once('}'));
        for item in list.map_or(vec![after], |(list, _)| list.split(", ").collect()) {
            let name: String = item.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            names.push(name);
        }
    }
    names
}

/// Whether `super::` in a line leads out of the top-level module's folder. Such a path does not
/// show the rank of its target.
fn leads_out(path: &Path, line: &str) -> bool {
    let depth = path.iter().count() - usize::from(path.ends_with("mod.rs"));
    line.contains(&"super::".repeat(depth))
}

fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_table_of_ranks_has_every_module_and_no_other() {
    let modules: BTreeSet<String> = sources().iter().map(Source::module).collect();
    let programs = ["lib", "main", "bin"].map(str::to_owned);
    let ranked: BTreeSet<String> = ranks().into_keys().chain(programs).collect();
    assert_eq!(modules, ranked);
}

#[test]
fn no_module_imports_from_its_own_rank_or_a_higher_one() {
    let ranks = ranks();
    let mut complaints = Vec::new();
    for source in sources() {
        let module = source.module();
        // lib.rs and the programs have no rank; they import by the name of the crate.
        let Some(&rank) = ranks.get(&module) else { continue };
        for (number, line) in source.code() {
            let place = format!("src/{}:{number}", source.path.display());
            if leads_out(&source.path, line) {
                complaints.push(format!("{place}: a path out of the folder begins with crate::"));
            }
            for name in imports(line).into_iter().filter(|name| *name != module) {
                match ranks.get(&name) {
                    None => complaints.push(format!("{place}: crate::{name} has no rank")),
                    Some(&other) if other >= rank => {
                        complaints.push(format!("{place}: {module} ({rank}) imports {name} ({other})"));
                    }
                    Some(_) => {}
                }
                let forbidden = FORBIDDEN.iter().any(|(who, whom)| *who == module && whom.contains(&&*name));
                if forbidden {
                    complaints.push(format!("{place}: {module} may not import {name}"));
                }
            }
        }
    }
    report(&complaints);
}

#[test]
fn fenced_texts_occur_in_their_files_and_in_no_others() {
    let mut complaints = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources() {
        for (number, line) in source.code() {
            for (text, places) in FENCES {
                let is_inside = places.iter().any(|place| source.path.starts_with(place.trim_end_matches('/')));
                if line.contains(text) && is_inside {
                    used.insert(text);
                } else if line.contains(text) {
                    complaints.push(format!("src/{}:{number}: {text}", source.path.display()));
                }
            }
        }
    }
    let unused = FENCES.iter().filter(|(text, _)| !used.contains(text));
    complaints.extend(unused.map(|(text, _)| format!("no file needs {text}")));
    report(&complaints);
}

#[test]
fn every_file_has_a_head_and_is_not_too_long() {
    let mut complaints = Vec::new();
    for source in sources() {
        let path = source.path.display();
        let head = source.lines.iter().take_while(|line| line.starts_with("//!")).count();
        if head == 0 {
            complaints.push(format!("src/{path}: no head"));
        }
        let whole = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&source.path));
        let lines = whole.expect("it was there").lines().count();
        if lines > MAX_LINES {
            complaints.push(format!("src/{path}: {lines} lines"));
        }
    }
    report(&complaints);
}

#[test]
fn no_function_is_too_long() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (name, number, length) in functions(&source) {
            if length > MAX_LINES_OF_A_FUNCTION && !TABLES.contains(&&*name) {
                complaints.push(format!("src/{}:{number}: {name} has {length} lines", source.path.display()));
            }
        }
    }
    report(&complaints);
}

/// The name, the line and the length of every function. A function ends at the brace in the column
/// where it begins, as rustfmt formats it.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (number, line) in source.code() {
        let indent = line.len() - line.trim_start().len();
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let is_item =
            before.split_whitespace().all(|w| matches!(w, "pub" | "const" | "unsafe") || w.starts_with("pub("));
        if !is_item || line.trim_end().ends_with([';', '}']) {
            continue;
        }
        let name = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let end = format!("{}}}", " ".repeat(indent));
        let rest = source.lines[number..].iter().position(|l| *l == end);
        found.push((name, number, rest.unwrap_or_else(|| panic!("src/{}:{number}", source.path.display())) + 2));
    }
    found
}

#[test]
fn the_source_is_parsed() {
    assert_eq!(imports("use crate::address::{self, Address};"), ["address"]);
    assert_eq!(imports("use crate::{log, spool::Entry};"), ["log", "spool"]);
    assert_eq!(imports("    fn f(a: crate::net::Stream) -> crate::reply::Reply {"), ["net", "reply"]);
    for (path, line, out) in [
        ("queue.rs", "use super::log;", true),
        ("deliver/remote.rs", "use super::client::Stage;", false),
        ("deliver/mod.rs", "use super::log;", true),
        ("deliver/client/mod.rs", "use super::super::log;", true),
    ] {
        assert_eq!(leads_out(Path::new(path), line), out, "{path}");
    }
    let text = "fn one() {\n}\n\npub(super) fn two(\n    a: u8,\n) {\n    if a {\n    }\n}\n";
    let source = Source { path: "x.rs".into(), lines: text.lines().map(str::to_owned).collect() };
    let found: Vec<_> =
        functions(&source).into_iter().map(|(name, line, length)| format!("{name} {line} {length}")).collect();
    assert_eq!(found, ["one 1 2", "two 4 6"]);
    assert!(ranks().len() > 20 && ranks()["characters"] == 0);
}
