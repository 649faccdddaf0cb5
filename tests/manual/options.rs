//! Lists of the manual pages, compared with the programs: options of sendmail(8), mailq(1) and
//! newaliases(1), log keys, diagnostics, exit statuses, references, extensions and limits.
//!
//! The options of penfoldd(8) and penfoldctl(8) are tested in tests/manual/samples.rs, and the keys
//! of penfold.conf(5) in tests/manual/config.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::client::Client;
use common::{Site, pages};
use penfold::cli::sendmail::Options;

// Options

/// Options without their dash, and whether each takes a value.
type OptionTable = BTreeMap<String, Value>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Always,
    AtOnce,
    Never,
}

/// Parses the options of a line, such as `f , r Ar sender`, `q Ns Op Ar time`, `i , oi , O Cm
/// IgnoreDots` or `bd | bD`. The value after the last option belongs to all options of the line.
fn options_of(line: &str) -> OptionTable {
    let value = match line {
        _ if line.contains(" Ns Op ") => Value::AtOnce,
        _ if line.contains(" Ar ") => Value::Always,
        _ => Value::Never,
    };
    let (names, _) = line.split_once(" Ns Op ").unwrap_or((line, ""));
    let options = names.split([',', '|']).filter_map(|option| option.split_whitespace().next());
    let options = options.filter(|option| option.len() < 3 && !option.ends_with('-'));
    options.map(|option| (option.to_owned(), value)).collect()
}

/// The items of a page's option lists. Each item has all spellings of an option.
fn items(page: &str) -> Vec<OptionTable> {
    pages::section(page, "DESCRIPTION")
        .lines()
        .filter_map(|line| line.strip_prefix(".It Fl "))
        .map(options_of)
        .collect()
}

/// The options of a page's synopsis, in which flags may be combined.
fn synopsis(page: &str) -> OptionTable {
    let mut options = OptionTable::new();
    for line in pages::section(page, "SYNOPSIS").lines() {
        if let Some(flags) = line.strip_prefix(".Op Fl ").filter(|line| !line.contains(' ')) {
            options.extend(flags.chars().map(|flag| (flag.to_string(), Value::Never)));
        } else if let Some(words) = line.strip_prefix(".Op Fl ").or(line.strip_prefix(".Fl ")) {
            options.extend(options_of(words));
        }
    }
    options
}

/// The options that sendmail(8) lists as having no effect.
fn without_effect() -> OptionTable {
    let text = pages::section("sendmail.8", "DESCRIPTION");
    let (_, text) = text.split_once("\nThese options of other systems").expect("the list");
    let (mut options, mut named) = (OptionTable::new(), Vec::new());
    for line in text.lines() {
        let value = match line {
            "which take a value;" => Value::Always,
            "which take one only if it follows directly; and" => Value::AtOnce,
            "which take none." => Value::Never,
            _ => {
                named.extend(line.strip_prefix(".Fl ").map(options_of).unwrap_or_default().into_keys());
                continue;
            }
        };
        options.extend(named.drain(..).map(|option| (option, value)));
    }
    assert!(named.is_empty(), "{named:?}");
    options
}

fn parse(words: &[&str]) -> Result<Options, String> {
    Options::parse("sendmail", words)
}

/// The options that the program knows: single letters, and the modes after `-b`.
fn known() -> OptionTable {
    let mut known = OptionTable::new();
    for letter in (b'!'..=b'~').map(char::from).filter(|letter| *letter != '-' && *letter != 'b') {
        let option = format!("-{letter}");
        let value = match parse(&[&option]) {
            Err(why) if why == format!("option {option} needs a value") => Value::Always,
            Err(_) => continue,
            // The letter is accepted. If a colon after it is accepted, too, the rest of the word is
            // a value; otherwise the rest is more options.
            Ok(_) => match parse(&[&format!("{option}:")]) {
                Ok(_) => Value::AtOnce,
                Err(_) => Value::Never,
            },
        };
        known.insert(letter.to_string(), value);
    }
    let modes = (b'!'..=b'~').map(char::from).filter(|mode| parse(&[&format!("-b{mode}")]).is_ok());
    known.extend(modes.map(|mode| (format!("b{mode}"), Value::Never)));
    known
}

#[test]
fn sendmail_has_exactly_the_documented_options() {
    let (items, silent) = (items("sendmail.8"), without_effect());
    let mut options: OptionTable = items.iter().flatten().map(|(option, value)| (option.clone(), *value)).collect();
    assert_eq!(options.remove("oi"), Some(Value::Never));
    // The list of options without an effect has the values of `-o` and `-O` in full, so `-oi` and
    // `-O` are removed from this one.
    options.remove("O");
    options.extend(silent.clone());
    assert_eq!(options, known());
    // Each option is in the synopsis in one of its spellings, except for the default mode and for -O.
    let synopsis = synopsis("sendmail.8");
    let is_shown = |item: &&OptionTable| !item.contains_key("bm") && item.keys().any(|option| option != "O");
    for item in items.iter().filter(is_shown) {
        assert!(item.keys().any(|option| synopsis.contains_key(option)), "{item:?}: {synopsis:?}");
    }
    for (option, value) in &synopsis {
        assert_eq!(options.get(option), Some(value), "-{option}");
    }
}

#[test]
fn an_option_has_an_effect_or_is_documented_to_have_none() {
    let plain = parse(&[]);
    let changes = |option: &str, value| {
        let option = format!("-{option}");
        let words = [option.as_str(), "x"];
        parse(if value == Value::Always { &words } else { &words[..1] }) != plain
    };
    for (option, value) in items("sendmail.8").into_iter().flatten().filter(|(option, _)| option != "O") {
        assert_eq!(changes(&option, value), !["bm", "ba"].contains(&option.as_str()), "-{option}");
    }
    for (option, value) in without_effect() {
        assert!(!changes(&option, value), "-{option}");
    }
    // After -o, only the letter i has an effect. After -O, only the names that the page lists have
    // one.
    for letter in (b'!'..=b'~').map(char::from) {
        assert_eq!(changes(&format!("o{letter}"), Value::Never), letter == 'i', "-o{letter}");
    }
    let text = pages::section("sendmail.8", "DESCRIPTION");
    for name in [
        "IgnoreDots",
        "requiretls=yes",
        "requiretls=no",
        "DeliveryMode",
        "ErrorMode",
        "QueueDirectory",
        "RunAsUser",
        "TrustedUser",
        "MaxHopCount",
    ] {
        assert_eq!(changes(&format!("O{name}"), Value::Never), text.contains(&format!("O Cm {name}\n")), "-O{name}");
    }
}

#[test]
fn mailq_and_newaliases_have_options_of_sendmail() {
    let sendmail: OptionTable = items("sendmail.8").into_iter().flatten().collect();
    for page in ["mailq.1", "newaliases.1"] {
        let options: OptionTable = items(page).into_iter().flatten().collect();
        assert_eq!(options, synopsis(page), "{page}");
        assert!(
            !options.is_empty() && options.iter().all(|(option, value)| sendmail.get(option) == Some(value)),
            "{page}"
        );
    }
}

// Words that are macros

#[test]
fn no_word_of_a_heading_or_an_item_is_a_macro() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).expect("pages").flatten() {
        let page = fs::read_to_string(entry.path()).expect("a page");
        for line in page.lines().filter(|line| line.starts_with('.') && !line.starts_with(".\\\"")) {
            // In quotes a word is text, even if it is the name of a macro.
            let outside: String = line.split('"').step_by(2).collect();
            let word =
                outside.split(' ').skip(1).find(|word| ["Ad", "An", "At", "Do", "Es", "In", "So"].contains(word));
            assert_eq!(word, None, "{}: {line}: a word that \\& must stand before", entry.path().display());
        }
    }
}

#[test]
fn source_files_named_by_a_page_exist() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for name in pages::names() {
        let page = pages::page(&name);
        let paths = page.lines().filter_map(|line| line.strip_prefix(".Pa ")?.split(' ').next());
        for path in paths.filter(|path| path.starts_with("src/") || path.starts_with("tests/")) {
            assert!(source.join(path).exists(), "{name}: {path}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

// Keys of the log

#[test]
fn the_log_has_exactly_the_documented_keys() {
    let source = source(&[
        "src/log/admin.rs",
        "src/log/asked.rs",
        "src/log/events.rs",
        "src/log/reports.rs",
        "src/log/filters.rs",
    ]);
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    // The source writes keys as ` key={value}` or ` key=none` in a format, or as `push(&mut line,
    // "key", value)` or `("key", value)` in a call.
    let in_formats =
        source.split('=').zip(source.split('=').skip(1)).filter(|(_, value)| value.starts_with(['{', 'n']));
    let in_formats = in_formats.filter_map(|(before, _)| before.rsplit(' ').next());
    let in_calls = source.split("\", ").filter_map(|before| before.rsplit_once('"'));
    let in_calls = in_calls.filter_map(|(call, key)| call.ends_with(['(', ' ']).then_some(key));
    let mut used: BTreeSet<&str> = in_formats.chain(in_calls).filter(|key| is_key(key)).collect();
    // These keys come from the session, which names the limit that was reached, or the mark of a
    // message.
    used.extend(["messages", "recipients", "unknown_recipients", "as", "tag"]);
    // These come from what a filter has done.
    used.extend(["added", "body", "cut", "header", "quarantine", "removed", "result", "sender", "warns"]);
    let page = pages::section("penfold-log.5", "KEYS");
    let items = page.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    let documented: BTreeSet<&str> = items.flat_map(|item| item.split(" , ")).collect();
    assert_eq!(documented, used);
}

// Texts of warnings and errors

/// Words of a diagnostic in the manual that stand for a value, such as a path.
const VARIABLES: [&str; 27] = [
    "path",
    "text",
    "number",
    "name",
    "address",
    "id",
    "file",
    "line",
    "column",
    "key",
    "user",
    "domain",
    "host",
    "mode",
    "sign",
    "network",
    "length",
    "why",
    "destination",
    "certificate",
    "signal",
    "code",
    "limit",
    "new",
    "and",
    "more",
    "may",
];

// These diagnostics are texts of the system, or are composed of several strings.
const NOT_IN_SOURCE: [&str; 2] = ["accept: Too many open files", "write path: No space left on device"];

#[test]
fn the_diagnostics_of_the_pages_are_in_the_source() {
    // A backslash at the end of a source line continues a string, without the indentation of the
    // next line. The lines are joined.
    let source = source(&["src"]);
    let mut pieces = source.split("\\\n");
    let first = pieces.next().unwrap_or_default().to_owned();
    let source = pieces.fold(first, |text, piece| text + piece.trim_start());
    let pages = ["penfold-log.5", "sendmail.8", "penfoldctl.8"].map(pages::page).concat();
    let items = pages.lines().filter_map(|line| line.strip_prefix(".It \"")?.strip_suffix('"'));
    let items: Vec<&str> = items.filter(|item| !NOT_IN_SOURCE.contains(item)).collect();
    assert!(items.len() > 120, "{items:?}");
    let missing = items.into_iter().filter_map(|item| {
        // The longest part of a diagnostic without variables and punctuation must be in the source.
        let mut parts = vec![String::new()];
        for word in item.split(' ') {
            let bare = word.trim_end_matches([':', ';', ',', '.']);
            let is_variable = VARIABLES.contains(&bare.trim_matches('\''));
            let is_fixed = bare.chars().all(|c| c.is_alphabetic() || c == '\'') && !is_variable;
            if is_fixed && !bare.is_empty() {
                let part = parts.last_mut().expect("never empty");
                *part += if part.is_empty() { "" } else { " " };
                *part += bare;
            }
            if !is_fixed || bare != word {
                parts.push(String::new());
            }
        }
        let longest = parts.into_iter().max_by_key(String::len).unwrap_or_default();
        (!source.contains(&longest)).then(|| format!("{item}: no {longest:?}"))
    });
    let missing: Vec<String> = missing.collect();
    assert!(missing.is_empty(), "the source does not contain\n{}", missing.join("\n"));
}

/// The words of a text, which consist of letters and apostrophes, with a blank between them.
fn letters(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphabetic() && c != '\'').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_warnings_and_errors_of_the_source_are_documented() {
    let page = letters(&pages::page("penfold-log.5").replace("\\(dq", " "));
    let (source, mut missing, mut count) = (source(&["src"]), Vec::new(), 0);
    for call in ["log::warn!(", "log::error!("].into_iter().flat_map(|call| source.split(call).skip(1)) {
        // A call without a literal logs a text that was made elsewhere, and is not tested.
        let Some(literal) = call.trim_start().strip_prefix('"') else { continue };
        let (literal, _) = literal
            .replace("\\\"", "\u{1}")
            .split_once('"')
            .map_or_else(Default::default, |(text, _)| (text.to_owned(), ()));
        let longest = literal.split(['{', '}']).step_by(2).map(letters).max_by_key(String::len).unwrap_or_default();
        count += 1;
        if longest.len() > 3 && !page.contains(&longest) {
            missing.push(literal);
        }
    }
    assert!(count > 40, "{count}");
    assert!(missing.is_empty(), "the page does not have\n{}", missing.join("\n"));
}

// Exit statuses

/// The source of several files or folders, without unit tests.
fn source(paths: &[&str]) -> String {
    let mut files: Vec<PathBuf> = paths.iter().map(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).collect();
    let mut text = String::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else {
            let source = fs::read_to_string(&path).expect("a file");
            text += source.split("#[cfg(test)]").next().unwrap_or_default();
        }
    }
    text
}

/// The exit codes that a source defines, by the name of the constant.
fn defined(source: &str) -> BTreeMap<String, u8> {
    let lines = source
        .lines()
        .filter_map(|line| line.trim_start_matches("pub(super) ").trim_start_matches("pub ").strip_prefix("const "));
    let read = |line: &str| {
        let (name, value) = line.split_once(": u8 = ")?;
        Some((name.to_owned(), value.trim_end_matches(';').parse().ok()?))
    };
    lines.filter_map(read).collect()
}

/// The exit codes that a source uses. `codes` has the value of each name.
fn used(source: &str, codes: &BTreeMap<String, u8>) -> BTreeSet<u8> {
    let lines: Vec<&str> = source.lines().filter(|line| !line.contains(": u8 = ")).collect();
    let words: BTreeSet<&str> =
        lines.iter().flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    codes.iter().filter(|(name, _)| words.contains(name.as_str())).map(|(_, code)| *code).collect()
}

#[test]
fn a_program_exits_with_the_documented_codes() {
    let exit = source(&["src/exit.rs"]);
    let codes = defined(&exit);
    assert!(codes.len() > 8, "{codes:?}");
    let (of_reply, rest) =
        exit.split_once("pub fn of_reply").and_then(|(_, f)| f.split_once("\n}\n")).expect("of_reply");
    let (of_reply, of_any) = (used(of_reply, &codes), used(rest, &codes));
    let with = |sources: &[&str], more: &BTreeSet<u8>| used(&source(sources), &codes).union(more).copied().collect();
    let config = BTreeSet::from([codes["CONFIG"]]);
    let queue: BTreeSet<u8> =
        with(&["src/cli/mod.rs", "src/cli/ctl/mod.rs", "src/cli/ctl/queue.rs", "src/cli/ctl/flush.rs"], &config);
    let as_sendmail = with(&["src/cli/sendmail"], &of_reply.union(&queue).copied().collect());
    let penfoldctl = with(&["src/cli/check", "src/cli/dkim", "src/cli/ctl"], &queue);
    for (page, used) in [
        ("penfoldd.8", with(&["src/main.rs", "src/daemon"], &of_any)),
        ("penfoldctl.8", penfoldctl),
        ("sendmail.8", as_sendmail),
    ] {
        let documented = pages::exit_codes(page);
        let numbers: BTreeSet<u8> = documented.iter().map(|(code, _)| *code).filter(|code| *code > 0).collect();
        assert_eq!(numbers, used, "{page}");
        assert_eq!(documented.first().map(|(code, _)| *code), Some(0), "{page}");
        for (code, name) in documented.iter().skip(1) {
            assert_eq!(codes.get(name), Some(code), "{page}: EX_{name}");
        }
    }
}

// References

/// The headings of a page.
fn headings(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(".Sh ").or(line.strip_prefix(".Ss ")));
    lines.map(|line| line.replace("\\&", "").replace('"', "")).collect()
}

#[test]
fn references_lead_to_existing_pages_and_sections() {
    let names = pages::names();
    for name in &names {
        let page = pages::page(name);
        let mut lines = page.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(reference) = line.strip_prefix(".Xr ").filter(|reference| reference.starts_with("penfold")) {
                let target = reference.split(' ').take(2).collect::<Vec<_>>().join(".");
                assert!(names.contains(&target), "{name}: {line}");
            }
            let Some(title) = line.strip_prefix(".Sx ") else { continue };
            let title = title.trim_end_matches([' ', '.', ',', ';', ')']).replace('"', "");
            // `.Sx TITLE` may be followed by `in` and `.Xr page 5`. Then the section is in that
            // page.
            let other = lines.next_if_eq(&"in").and_then(|_| lines.peek()?.strip_prefix(".Xr "));
            let target = other.map(|reference| reference.split(' ').take(2).collect::<Vec<_>>().join("."));
            let target = target.unwrap_or_else(|| name.clone());
            assert!(headings(&pages::page(&target)).contains(&title), "{name}: {title} is no section of {target}");
        }
    }
}

// Tables

#[test]
fn the_last_column_of_a_table_has_the_rest_of_the_line() {
    // With a width of its own, groff wraps its text at a few characters.
    let mut wrong = Vec::new();
    for name in pages::names() {
        let mut widths = Vec::new();
        for line in pages::page(&name).lines() {
            if let Some(table) = line.strip_prefix(".Bl -column ") {
                widths = table.split('"').skip(1).step_by(2).map(str::len).collect();
            } else if let Some(row) = line.strip_prefix(".It ").filter(|_| !widths.is_empty()) {
                let cells: Vec<&str> = row.split("Ta ").collect();
                let is_text = |word: &&str| word.len() != 2 || !word.starts_with(char::is_uppercase);
                let words: Vec<&str> = cells[cells.len() - 1].split_whitespace().filter(is_text).collect();
                if cells.len() == widths.len() && words.join(" ").len() > widths[cells.len() - 1] + 2 {
                    wrong.push(format!("{name}: {row}"));
                }
            } else if line == ".El" {
                widths.clear();
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// Extensions and limits

#[test]
fn every_extension_that_is_offered_has_a_row() {
    let page = pages::section("penfold-smtp.7", "EXTENSIONS");
    let rows: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix(".It ")).flat_map(|row| row.split(" , ")).collect();
    let site = Site::with("listen.auth = \"always\"\nlisten.xclient = [\"127.0.0.1\"]\nrelay.etrn = [\"x.example\"]");
    let daemon = site.start();
    let mut client = Client::before_banner(daemon.connect());
    client.expect("220 ");
    client.send_text("EHLO client.test\r\n");
    for line in std::iter::from_fn(|| client.read_line()).skip(1) {
        let keyword = line.get(4..).and_then(|text| text.split(' ').next()).unwrap_or_default();
        assert!(rows.contains(keyword), "{line}");
        if line.starts_with("250 ") {
            break;
        }
    }
}

#[test]
fn the_table_of_sizes_has_the_limits_of_the_program() {
    let page = pages::section("penfold-smtp.7", "EXTENSIONS");
    let limits = penfold::config::default().limits;
    for row in [
        format!("limits.message_size, {} MiB", limits.message_size >> 20),
        format!("limits.recipients, {} ", limits.recipients),
        format!("final recipients Ta {} ", penfold::smtp::MAX_FINAL_RECIPIENTS),
        format!("command line Ta {} octets", penfold::smtp::MAX_COMMAND_LINE),
        format!("AUTH response Ta {} octets", penfold::smtp::MAX_AUTH_LINE - 2),
        format!("address Ta {} octets", penfold::address::MAX_ADDRESS),
        format!("any length Ta {} octets", penfold::message::mime::MAX_LINE),
        format!("ENVID Ta {} characters", penfold::envelope::MAX_ENVID),
        format!("ORCPT Ta {} characters", penfold::envelope::MAX_ORCPT),
        format!("keeps {}", penfold::reply::MAX_LINE),
    ] {
        assert!(page.contains(&row), "{row}");
    }
}
