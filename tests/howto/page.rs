//! The displays of a page: sessions, files and zones.

/// A display, with its text as a reader sees it.
#[derive(Debug, PartialEq, Eq)]
pub enum Display {
    /// Commands, and what they print.
    Session(Vec<Step>),
    /// A file to be written. Its first line is a comment with the path; if it is a script, its
    /// second line.
    File { path: String, text: String },
    /// A zone of the DNS, without its first line.
    Zone { name: String, text: String },
}

/// A command of a session.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Step {
    /// The number of its line in the source of the page.
    pub line: usize,
    /// The name of another computer, if it is typed there.
    pub other: Option<String>,
    pub root: bool,
    /// The command, with the lines of here documents.
    pub command: String,
    /// The lines that it prints.
    pub output: Vec<String>,
}

/// The displays of the text of a page, each with the number of its first line. If one is none of
/// the three, the error begins with the number of its line.
pub fn displays(text: &str) -> Result<Vec<(usize, Display)>, String> {
    let mut displays = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if !line.starts_with(".Bd -literal") {
            continue;
        }
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != ".Ed");
        let inside: Vec<String> = inside.map(plain).collect();
        // Lines are counted from 1, and the first one is after .Bd.
        let first = number + 2;
        let display = display(first, &inside).ok_or_else(|| {
            format!("{first}: a display is a session, or a file or a zone that the first line names: {inside:?}")
        })?;
        displays.push((first, display));
    }
    Ok(displays)
}

/// A line without what mdoc needs.
fn plain(line: &str) -> String {
    let plain = line.replace("\\&", "").replace("\\(aq", "'").replace("\\(dq", "\"");
    assert_eq!(plain.matches('\\').count(), plain.matches("\\e").count(), "an escape that is not known: {line}");
    plain.replace("\\e", "\\")
}

fn display(first: usize, lines: &[String]) -> Option<Display> {
    let text = || lines.iter().fold(String::new(), |text, line| text + line + "\n");
    let head = lines.first()?;
    if let Some(name) = head.strip_prefix("; the zone ") {
        return Some(Display::Zone { name: name.trim_end_matches('.').to_owned(), text: text() });
    }
    let named = if head.starts_with("#!") { lines.get(1)? } else { head };
    if let Some(path) = path(named) {
        return Some(Display::File { path: path.to_owned(), text: text() });
    }
    steps(first, lines).map(Display::Session)
}

/// The path, if a line is a comment that is nothing else.
fn path(line: &str) -> Option<&str> {
    let comments = ["# ", "; ", "// ", "! ", "-- ", "\" "];
    let path = comments.iter().find_map(|mark| line.strip_prefix(mark))?;
    (path.starts_with('/') && !path.contains(' ')).then_some(path)
}

/// The place before a command: the other computer, whether root types it, and the command.
fn prompt(line: &str) -> Option<(Option<&str>, bool, &str)> {
    let (place, command) = line.split_once(' ')?;
    let root = place.ends_with('#');
    let host = place.strip_suffix(['#', '$'])?;
    let letters = host.chars().all(|c| c.is_ascii_alphanumeric());
    letters.then_some(((!host.is_empty()).then_some(host), root, command))
}

fn steps(first: usize, lines: &[String]) -> Option<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = lines.iter().zip(first..).peekable();
    while let Some((line, number)) = lines.next() {
        let Some((other, root, command)) = prompt(line) else {
            steps.last_mut()?.output.push(line.clone());
            continue;
        };
        let mut command = command.to_owned();
        while command.ends_with('\\') {
            command = command + "\n" + lines.next()?.0;
        }
        if let Some(end) = here(&command) {
            loop {
                let (line, _) = lines.next()?;
                command = command + "\n" + line;
                if *line == end {
                    break;
                }
            }
        }
        steps.push(Step { line: number, other: other.map(str::to_owned), root, command, output: Vec::new() });
    }
    (!steps.is_empty()).then_some(steps)
}

/// The line that ends the here document of a command, if it has one.
fn here(command: &str) -> Option<String> {
    let (_, word) = command.split_once("<<")?;
    let word: String = word.trim_start().chars().take_while(|c| !c.is_whitespace()).collect();
    (!word.starts_with('<')).then(|| word.trim_matches(['\'', '"']).to_owned())
}

#[test]
fn displays_are_read() {
    let text = ".Bd -literal -offset indent\n# cat >> /etc/a << 'E'\n\\&.x \\e\nE\n$ id \\e\n  -u\n...\n1000\nlaptop$ true\n.Ed\n\
                .Bd -literal -offset indent\n# /etc/b\nb\n.Ed\n.Bd -literal -offset indent\n#!/bin/sh\n# /etc/c\n.Ed\n\
                .Bd -literal -offset indent\n; the zone example.org\n@ IN MX 10 mail\n.Ed\n";
    let read = displays(text).expect("a page");
    let step = |line, other: Option<&str>, root, command: &str, output: &[&str]| Step {
        line,
        other: other.map(str::to_owned),
        root,
        command: command.to_owned(),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
    };
    let session = vec![
        step(2, None, true, "cat >> /etc/a << 'E'\n.x \\\nE", &[]),
        step(5, None, false, "id \\\n  -u", &["...", "1000"]),
        step(9, Some("laptop"), false, "true", &[]),
    ];
    let file = |path: &str, text: &str| Display::File { path: path.to_owned(), text: text.to_owned() };
    let zone = "; the zone example.org\n@ IN MX 10 mail\n".to_owned();
    let expected = [
        (2, Display::Session(session)),
        (12, file("/etc/b", "# /etc/b\nb\n")),
        (16, file("/etc/c", "#!/bin/sh\n# /etc/c\n")),
        (20, Display::Zone { name: "example.org".to_owned(), text: zone }),
    ];
    assert_eq!(read, expected);
    let neither = ".Bd -literal -offset indent\n[local]\n.Ed\n";
    assert!(displays(neither).is_err_and(|e| e.starts_with("2: ")));
}
