//! Plays every file of tests/session/dialog against the real daemon.
//!
//! The name of a file is a promise, its text the proof: a conversation with penfoldd on a scratch
//! site, see `common::Site`, where jon and root have mailboxes at razorback and razorback.test
//! and loopback may relay. Each file has a daemon of its own. Files with little client text are
//! played a second time with every byte in a write of its own, since the way in which TCP
//! splits a conversation must not matter. `PENFOLD_DIALOG=word cargo test --test session dialog`
//! plays only the files with that word in their names.
//!
//! A line of a file, by its beginning:
//!
//! ```text
//! # text                 a comment
//! @ section.key = value  a setting of penfold.conf; the value as in TOML
//! @ table: line          a line for a table: users, aliases, virtual, routes, senders, access ...
//! C: text                the client sends text and CR LF; "C:" is an empty line
//! C! text                the client sends text without CR LF; \r \n \0 \\ \xNN are bytes
//! C*9 text, C!*9 text    the client sends it nine times, in one write
//! C$                     the client closes the connection
//! C^                     the client resets the connection
//! S: pattern             the server sends one line; * is any text, ? any one character
//! S*9 pattern            nine such lines
//! S~ pattern             the server sends any lines, and then a line like this
//! S$                     the server closes the connection without another line
//! S~$                    the server sends any lines and closes the connection
//! ===                    another client connects; the first keeps its connection
//! M: jon 1               when the spool is empty, jon has this many messages
//! M: jon contains text   one of them contains text, with \r \n \0 \\ \xNN as bytes
//! M: jon lacks text      none of them contains it
//! W: text                a line of the log contains text, now or soon
//! ```
//!
//! A line of the server that is late, unexpected or without CR LF is a failure. Where a `Remote`
//! plays a dialogue, C and S change places, and the client's lines are patterns.

use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, thread};

use common::dialog::{Check, Dialog, Side, Stage};
use common::{Daemon, Site};

/// If a dialogue has at most this many bytes of client text, it is also played byte by byte.
const LITTLE: usize = 8 * 1024;

#[test]
fn every_dialogue_goes_as_written() {
    let files = Mutex::new(files().into_iter());
    let failures = Mutex::new(Vec::new());
    let next = || files.lock().unwrap_or_else(PoisonError::into_inner).next();
    let play = || {
        while let Some(file) = next() {
            let result = catch_unwind(AssertUnwindSafe(|| play(&file)));
            let result = result.unwrap_or_else(|_| Err(format!("{}: panicked, see above\n", file.display())));
            failures.lock().unwrap_or_else(PoisonError::into_inner).extend(result.err());
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(play))));
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{} dialogues went otherwise:\n\n{}", failures.len(), failures.join("\n"));
}

fn files() -> Vec<PathBuf> {
    let word = env::var("PENFOLD_DIALOG").unwrap_or_default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/session/dialog");
    let files = fs::read_dir(dir).expect("tests/session/dialog").map(|entry| entry.expect("an entry").path());
    let wanted =
        |file: &PathBuf| file.extension().is_some_and(|e| e == "txt") && file.to_string_lossy().contains(&word);
    let mut files: Vec<_> = files.filter(wanted).collect();
    files.sort();
    assert!(!files.is_empty(), "no dialogues with {word:?}");
    files
}

fn play(file: &Path) -> Result<(), String> {
    let dialog = Dialog::load(file)?;
    play_once(&dialog, false)?;
    if dialog.size(Side::Client) > LITTLE {
        return Ok(());
    }
    play_once(&dialog, true).map_err(|report| format!("byte by byte: {report}"))
}

fn play_once(dialog: &Dialog, in_bytes: bool) -> Result<(), String> {
    let site = Site::with(&dialog.settings);
    dialog.tables.iter().for_each(|(table, line)| site.add(table, line));
    let daemon = site.start();
    let mut connect = || TcpStream::connect(daemon.address());
    let mut check = |check: &Check| verify(check, &site, &daemon);
    let mut stage = Stage { connect: &mut connect, check: &mut check, in_bytes };
    dialog.play(Side::Client, &mut stage).map_err(|report| format!("{report}    -- log --\n{}\n", daemon.log()))
}

fn verify(check: &Check, site: &Site, daemon: &Daemon) -> Result<(), String> {
    let contain = |text: &[u8], user: &str| {
        site.mail(user).iter().any(|message| message.windows(text.len()).any(|window| window == text))
    };
    if let Check::Log(text) = check {
        let seen = daemon.becomes_true(|| daemon.log().contains(text));
        return if seen { Ok(()) } else { Err(format!("not in the log: {text}")) };
    }
    if !daemon.settles(site) {
        return Err(format!("the spool does not become empty: {:?}", site.spooled()));
    }
    let (user, good) = match check {
        Check::Count(user, count) => (user, site.mail(user).len() == *count),
        Check::Contains(user, text) => (user, contain(text, user)),
        Check::Lacks(user, text) => (user, !contain(text, user)),
        Check::Log(_) => return Ok(()),
    };
    let mail = || site.mail(user).iter().map(|m| String::from_utf8_lossy(m).into_owned()).collect::<Vec<_>>();
    if good { Ok(()) } else { Err(format!("{check:?} does not hold: {:#?}", mail())) }
}
