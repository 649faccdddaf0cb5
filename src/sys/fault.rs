//! Causes faults on demand, for tests; only a debug build contains this module.
//!
//! The environment variable `PENFOLD_FAULT` contains rules, separated by `;`. Without the variable
//! there are no rules: every call is made as usual, and none aborts the process or panics. Each rule
//! has four words: `CALL PATH WHEN ACTION`.
//!
//! | word | is |
//! | --- | --- |
//! | `CALL` | `open`, `write`, `fsync`, `link`, `rename`, `unlink`, `mkdir`, `truncate`, `chmod`, `chown`, `utime`, or `*` |
//! | `PATH` | a text that the path contains (for a rename, `FROM TO` is the path); with a `$` after the text, the path must end in it; or `*` |
//! | `WHEN` | the number of the matching call, counted from 1: `3`, `3-5`, `3-`, or `*` |
//! | `ACTION` | `before` or `after`: the process aborts before or after the call; `panic`: the thread that makes the call panics; `skip`: the call does nothing and reports success; or the name of an error, such as `EIO`: the call does nothing and returns it |
//!
//! The history and the statistics are written at times that no test can foresee, so a rule matches their
//! files only if `PATH` contains `history` or `stats`. The first rule that matches a call applies. Each fault is reported on standard error. A
//! malformed rule aborts the process, so that no test passes just because its rule has no effect.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

/// The file or name that a call changes.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// An open file.
    Open(&'a File),
    /// A path.
    Path(&'a Path),
    /// The old and the new path of a rename.
    Paths(&'a Path, &'a Path),
}

impl Subject<'_> {
    fn text(self) -> String {
        use std::os::fd::AsRawFd;
        match self {
            Self::Open(file) => fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
                .map_or_else(|_| String::new(), |path| path.display().to_string()),
            Self::Path(path) => path.display().to_string(),
            Self::Paths(from, to) => format!("{} {}", from.display(), to.display()),
        }
    }
}

#[derive(Clone, Copy)]
enum Action {
    Before,
    After,
    Panic,
    Skip,
    Fail(Errno),
}

struct Rule {
    call: String,
    path: String,
    first: u64,
    last: u64,
    action: Action,
    seen: AtomicU64,
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let text = std::env::var("PENFOLD_FAULT").unwrap_or_default();
    let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty());
    let rules: Option<Vec<Rule>> = rules.map(parse).collect();
    rules.unwrap_or_else(|| {
        eprintln!("PENFOLD_FAULT: cannot be read: {text}");
        process::abort()
    })
});

fn parse(rule: &str) -> Option<Rule> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let &[call, path, when, action] = words.as_slice() else { return None };
    let (first, last) = match (when, when.split_once('-')) {
        ("*", _) => (1, u64::MAX),
        (_, Some((first, ""))) => (first.parse().ok()?, u64::MAX),
        (_, Some((first, last))) => (first.parse().ok()?, last.parse().ok()?),
        _ => (when.parse().ok()?, when.parse().ok()?),
    };
    let action = match action {
        "before" => Action::Before,
        "after" => Action::After,
        "panic" => Action::Panic,
        "skip" => Action::Skip,
        name => Action::Fail(errno(name)?),
    };
    Some(Rule { call: call.to_owned(), path: path.to_owned(), first, last, action, seen: AtomicU64::new(0) })
}

fn errno(name: &str) -> Option<Errno> {
    let known = [Errno::EIO, Errno::ENOSPC, Errno::EDQUOT, Errno::EROFS, Errno::EMFILE, Errno::EACCES, Errno::EXDEV];
    let other = [Errno::EOPNOTSUPP, Errno::EINVAL, Errno::ENOMEM, Errno::EPERM, Errno::ESRCH];
    known.into_iter().chain(other).find(|errno| format!("{errno:?}") == name)
}

/// Makes a call, or does what the first matching rule requires instead.
pub fn step(call: &str, subject: Subject<'_>, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if RULES.is_empty() {
        return run();
    }
    let text = subject.text();
    let matches = |rule: &&Rule| {
        let is_match = (rule.call == "*" || rule.call == call) && is_in(&rule.path, &text);
        is_match && (rule.first..=rule.last).contains(&(rule.seen.fetch_add(1, Ordering::SeqCst) + 1))
    };
    let Some(rule) = RULES.iter().find(matches) else { return run() };
    match rule.action {
        Action::Before => stop("before", call, &text),
        Action::After => {
            let _ = run();
            stop("after", call, &text)
        }
        Action::Panic => panic!("fault: {call} {text}"),
        Action::Skip => {
            eprintln!("fault: skip {call} {text}");
            Ok(())
        }
        Action::Fail(errno) => {
            eprintln!("fault: {errno:?} {call} {text}");
            Err(errno.into())
        }
    }
}

fn is_in(part: &str, path: &str) -> bool {
    for (file, word) in [("/state/history-", "history"), ("/state/stats", "stats")] {
        if path.contains(file) && !part.contains(word) {
            return false;
        }
    }
    match part.strip_suffix('$') {
        Some(end) => path.ends_with(end),
        None => part == "*" || path.contains(part),
    }
}

fn stop(when: &str, call: &str, text: &str) -> ! {
    eprintln!("fault: abort {when} {call} {text}");
    process::abort()
}
