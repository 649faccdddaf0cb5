//! Reads the manual pages (sections, examples, options, exit codes) and the samples in etc/.

use std::fs;

use super::built;

/// The names of all pages, such as `mailq.1`.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(built::source("man")).expect("pages");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut pages: Vec<String> = names.filter(|name| name.ends_with(|c: char| c.is_ascii_digit())).collect();
    pages.sort();
    pages
}

/// The source text of a page.
pub fn page(name: &str) -> String {
    fs::read_to_string(built::source("man").join(name)).expect(name)
}

/// The text of a section of a page, up to the next section. Empty if there is no such section.
pub fn section(name: &str, title: &str) -> String {
    let page = page(name);
    let parts = page.split("\n.Sh ").filter_map(|part| part.strip_prefix(title)?.strip_prefix('\n'));
    parts.map(|part| format!("{part}\n")).collect()
}

/// The literal displays, such as examples, in a part of a page, as a reader sees them.
pub fn literals(text: &str) -> Vec<String> {
    let blocks = text.split(".Bd -literal -offset indent\n").skip(1);
    let read = |block: &str| {
        let (block, _) = block.split_once(".Ed\n").expect("an end");
        let plain = block.replace("\\e", "\\");
        assert_eq!(block.matches('\\').count(), plain.matches('\\').count(), "an escape that is not known: {block}");
        plain
    };
    blocks.map(read).collect()
}

/// The exit statuses that a page lists, each with its name in sysexits.h.
pub fn exit_codes(name: &str) -> Vec<(u8, String)> {
    let section = section(name, "EXIT STATUS");
    let items = section.split("\n.It ").skip(1);
    let read = |item: &str| {
        let code = item.lines().next()?.parse().ok()?;
        let (_, word) = item.split_once(".Pq Dv EX_").unwrap_or_default();
        Some((code, word.split([' ', '\n']).next().unwrap_or_default().to_owned()))
    };
    items.filter_map(read).collect()
}

/// A sample of etc/, filled in with the default directories of `make install`. That `make install`
/// writes the same text is verified in tests/programs/install.rs.
pub fn sample(path: &str) -> String {
    let path = built::source("etc").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let values = [
        ("sbindir", "/usr/local/sbin"),
        ("libexecdir", "/usr/local/libexec"),
        ("docdir", "/usr/local/share/doc/penfold"),
        ("sysconfdir", "/etc"),
        ("localstatedir", "/var"),
        ("runstatedir", "/run"),
        ("config_option", ""),
        ("comment_spool", "#"),
        ("comment_socket", "#"),
    ];
    values.iter().fold(text, |text, (name, value)| text.replace(&format!("@{name}@"), value))
}
