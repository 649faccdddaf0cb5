//! Compares the lists of files in the heads of folders with the tree, in both directions.
//!
//! The first file of a folder (lib.rs, mod.rs, or main.rs of a test program) lists the files and
//! folders beside it, one line each: "//! - `name`: contents". Unit tests, named `tests`, are not
//! listed. The folders of tests/ are also listed in tests/README.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The lines of the comment at the head of a file, without their `//!`.
fn head(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("UTF-8");
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()).collect()
}

/// The names that a head lists, in order.
fn listed(head: &[String]) -> Vec<String> {
    let names = head.iter().filter_map(|line| line.strip_prefix("- `")?.split_once("`: "));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The modules in a folder, without the file that lists them.
fn present(folder: &Path) -> BTreeSet<String> {
    let mut present = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_module =
            if path.is_dir() { path.join("mod.rs").exists() } else { path.extension().is_some_and(|e| e == "rs") };
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if is_module && !["lib", "main", "mod", "tests"].contains(&name.as_str()) {
            present.insert(name);
        }
    }
    present
}

/// The files that list their folders, below src/ and tests/.
fn lists() -> Vec<PathBuf> {
    let mut lists = Vec::new();
    let mut folders = ["src", "tests"].map(|top| Path::new(env!("CARGO_MANIFEST_DIR")).join(top)).to_vec();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        folders.extend(entries.filter(|path| path.is_dir() && !(path.ends_with("tests"))));
        // In src, lib.rs lists the folder; main.rs there is a program.
        let firsts = ["lib.rs", "mod.rs", "main.rs"].map(|name| folder.join(name));
        lists.extend(firsts.into_iter().find(|file| file.exists()));
    }
    assert!(lists.len() > 30);
    lists
}

#[test]
fn the_head_of_a_folder_lists_its_files() {
    let mut complaints = Vec::new();
    for file in lists() {
        let (listed, present) = (listed(&head(&file)), present(file.parent().expect("a folder")));
        let place = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below").display();
        let absent = listed.iter().filter(|name| !present.contains(*name));
        complaints.extend(absent.map(|name| format!("{place}: there is no `{name}`")));
        for name in &present {
            match listed.iter().filter(|listed| *listed == name).count() {
                1 => {}
                0 => complaints.push(format!("{place}: `{name}` is not listed")),
                _ => complaints.push(format!("{place}: `{name}` is listed twice")),
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// A module has one place: if there is a folder `name/`, there is no file `name.rs`.
#[test]
fn a_module_with_files_of_its_own_is_a_folder_with_a_mod_rs() {
    for file in lists() {
        let folder = file.parent().expect("a folder");
        for name in present(folder).iter().filter(|name| folder.join(name).with_extension("rs").exists()) {
            let is_folder = folder.join(name).is_dir() && !present(&folder.join(name)).is_empty();
            assert!(!is_folder, "{name}.rs beside {name}/ in {}", folder.display());
        }
    }
}

#[test]
fn the_table_of_contents_of_the_tests_names_every_folder_and_file() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let contents = fs::read_to_string(top.join("README")).expect("tests/README");
    let named = contents.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_once("  "));
    let named: BTreeSet<String> = named.map(|(name, _)| name.to_owned()).collect();
    let present = fs::read_dir(&top).expect("tests").map(|entry| entry.expect("an entry").path());
    let present: BTreeSet<String> = present
        .map(|path| {
            path.file_name().expect("a name").to_string_lossy().into_owned() + if path.is_dir() { "/" } else { "" }
        })
        .filter(|name| name != "README")
        .collect();
    assert_eq!(named, present);
}

/// The path and the text of each text file below these paths of the source.
fn texts(tops: &[&str]) -> Vec<(PathBuf, String)> {
    let mut todo: Vec<PathBuf> = tops.iter().map(|top| Path::new(env!("CARGO_MANIFEST_DIR")).join(top)).collect();
    let mut texts = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            texts.push((path, text));
        }
    }
    texts
}

/// The paths below src/ and tests/ that a text mentions.
fn named_paths(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let words = text.split(|c: char| !is_part(c)).map(|word| word.trim_end_matches(['.', '/', '-']));
    words.filter(|word| word.starts_with("src/") || word.starts_with("tests/")).collect()
}

#[test]
fn paths_that_a_text_names_exist() {
    let mut complaints = Vec::new();
    for (file, text) in texts(&["src", "tests", "man", "Makefile", "README", ".ci/run"]) {
        for path in named_paths(&text) {
            if !Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists() {
                complaints.push(format!("{}: there is no {path}", file.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// In tests/LEDGER, a word with three hyphens or more is the name of a dialogue, which must exist.
#[test]
fn dialogues_that_the_ledger_names_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let ledger = fs::read_to_string(top.join("LEDGER")).expect("the ledger");
    let words = ledger.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-');
    for name in
        words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()) && word.matches('-').count() >= 3)
    {
        assert!(top.join("session/dialog").join(name).with_extension("txt").exists(), "{name}");
    }
}

#[test]
fn lists_are_parsed() {
    let head = ["Text with `code`:", "- `one`: the first", "  `not`: this", "- `two`: the second", "- prose"]
        .map(str::to_owned);
    assert_eq!(listed(&head), ["one", "two"]);
}
