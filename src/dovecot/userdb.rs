//! Looks up users at Dovecot's auth-userdb socket.
//!
//! Dovecot answers from whatever its configuration names: LDAP, SQL, PAM, files. A look-up takes at
//! most [`TIMEOUT`]. Each has a connection of its own, because a process of Dovecot that is to end, as
//! after a change of its configuration, goes on while it has connections. There are at most
//! [`AT_ONCE`] of them. After a look-up without an answer in time, Dovecot is left alone for
//! [`SILENCE`], and all look-ups fail at once. A look-up that had to wait for a connection does not
//! have this effect, as long as Dovecot answers others: then Dovecot is only busy. Answers are remembered for a short time, failures are
//! not. What Dovecot says is bounded, and a malformed answer is a failure: whether the user exists is
//! then not known.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Link, malformed, unescape};

/// How long a look-up may take, from the wait for a free connection to the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The part of [`TIMEOUT`] that must be left after the wait for a free connection.
const ENOUGH: Duration = Duration::from_millis(500);
/// The maximum number of connections at a time.
const AT_ONCE: usize = 8;
/// How long Dovecot is not asked after it has not answered in time.
const SILENCE: Duration = Duration::from_secs(5);
/// How long it is remembered that a user exists.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long it is remembered that a user does not exist.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// The maximum number of names whose answers are remembered.
const MAX_REMEMBERED: usize = 10_000;
/// The maximum number of lines that are read while waiting for one.
const MAX_LINES: usize = 100;
/// The maximum length of a home directory, in octets.
const MAX_HOME: usize = 1024;
/// The maximum length of the reason for a failure, in octets.
const MAX_REASON: usize = 255;

/// The user database of a Dovecot.
#[derive(Debug)]
pub struct Userdb {
    path: PathBuf,
    state: Mutex<State>,
    /// Notified when fewer than [`AT_ONCE`] connections are busy.
    is_free: Condvar,
}

/// What Dovecot says about a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The id of the system user as whom Dovecot opens the mailbox, if the answer has one.
    pub uid: Option<u32>,
    /// The home directory, if the answer has one. It may be any text without control characters.
    pub home: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of connections.
    busy: usize,
    /// The answers by name, with the time until which they are remembered.
    remembered: HashMap<String, (Instant, Option<Found>)>,
    /// The time of the last answer.
    answered_at: Option<Instant>,
    /// The time until which Dovecot is not asked.
    silent_until: Option<Instant>,
}

/// A line of Dovecot after its handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// USER: the user exists.
    User(Found),
    /// NOTFOUND: there is no such user.
    Unknown,
    /// FAIL: Dovecot cannot tell now, and may say why.
    Failed(Option<String>),
    /// A line about something else.
    Other,
}

/// The right to use a connection, until it is dropped.
struct Permit<'a> {
    userdb: &'a Userdb,
    /// Whether the look-up has waited for it, so that less than [`TIMEOUT`] was left.
    has_waited: bool,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.userdb.lock().busy -= 1;
        self.userdb.is_free.notify_one();
    }
}

impl Userdb {
    /// The user database that is behind the socket at `path`. The function makes no connection.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), state: Mutex::default(), is_free: Condvar::new() }
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks up the user with this name, from memory or at Dovecot; `None` if there is none.
    ///
    /// # Errors
    /// Those of connect(2), read(2) and write(2); `TimedOut`; `InvalidData` if an answer is
    /// malformed; `Other` with Dovecot's reason if Dovecot cannot tell now.
    pub fn find(&self, name: &str) -> io::Result<Option<Found>> {
        let now = Instant::now();
        let state = self.lock();
        if let Some((_, found)) = state.remembered.get(name).filter(|(until, _)| now < *until) {
            return Ok(found.clone());
        }
        if state.silent_until.is_some_and(|until| now < until) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it has not answered in time a moment ago"));
        }
        drop(state);
        let answer = self.ask(name, now + TIMEOUT);
        let mut state = self.lock();
        if answer.is_ok() {
            state.answered_at = Some(Instant::now());
        }
        match answer {
            Ok(Answer::User(found)) => Ok(state.remember(name, Some(found), KNOWN_FOR)),
            Ok(Answer::Unknown) => Ok(state.remember(name, None, UNKNOWN_FOR)),
            Ok(Answer::Failed(Some(why))) => Err(io::Error::other(why)),
            Ok(Answer::Failed(None) | Answer::Other) => Err(io::Error::other(NO_REASON)),
            Err(error) => {
                if error.kind() == io::ErrorKind::TimedOut {
                    state.silent_until = Some(Instant::now() + SILENCE);
                }
                Err(error)
            }
        }
    }

    /// Returns what is remembered about the user with this name, `None` in it if there is none. Returns
    /// `None` if nothing is remembered.
    pub fn remembered(&self, name: &str) -> Option<Option<Found>> {
        let state = self.lock();
        state.remembered.get(name).filter(|(until, _)| Instant::now() < *until).map(|(_, found)| found.clone())
    }

    /// Whether Dovecot answers at the socket. Asks for no user.
    ///
    /// # Errors
    /// Those of [`Userdb::find`].
    pub fn probe(&self) -> io::Result<()> {
        self.open(Instant::now() + TIMEOUT).map(drop)
    }

    fn ask(&self, name: &str, deadline: Instant) -> io::Result<Answer> {
        let permit = self.permit(deadline)?;
        let answer = self.open(deadline).and_then(|mut link| exchange(&mut link, name));
        let is_late = answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        if is_late && permit.has_waited && self.lock().is_answering() { Err(too_many()) } else { answer }
    }

    /// Waits until a connection may be used, as long as [`ENOUGH`] is left until the deadline.
    fn permit(&self, deadline: Instant) -> io::Result<Permit<'_>> {
        let left = deadline.saturating_duration_since(Instant::now() + ENOUGH);
        let is_full = |state: &mut State| state.busy >= AT_ONCE;
        let mut state = self.lock();
        let has_waited = is_full(&mut state);
        let (mut state, waited) =
            self.is_free.wait_timeout_while(state, left, is_full).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(too_many());
        }
        state.busy += 1;
        Ok(Permit { userdb: self, has_waited })
    }

    /// Opens a connection, and reads Dovecot's part of the handshake.
    fn open(&self, deadline: Instant) -> io::Result<Link> {
        let mut link = Link::open(&self.path, deadline)?;
        link.send("VERSION\t1\t1\n")?;
        let mut is_version_1 = false;
        for _ in 0..MAX_LINES {
            let line = link.line()?;
            match line.split(|byte| *byte == b'\t').next() {
                Some(b"SPID") if is_version_1 => return Ok(link),
                Some(b"VERSION") => is_version_1 = line.starts_with(b"VERSION\t1\t"),
                Some(b"MECH" | b"CUID" | b"COOKIE" | b"DONE") => {
                    return Err(malformed("this is a socket of the kind auth-client, not auth-userdb"));
                }
                _ => {}
            }
        }
        Err(malformed("it does not use version 1 of the protocol"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether Dovecot has answered a look-up within the limit.
    fn is_answering(&self) -> bool {
        self.answered_at.is_some_and(|at| at.elapsed() < TIMEOUT)
    }

    fn remember(&mut self, name: &str, found: Option<Found>, time: Duration) -> Option<Found> {
        let now = Instant::now();
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.retain(|_, (until, _)| now < *until);
        }
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(name.to_owned(), (now + time, found.clone()));
        found
    }
}

fn too_many() -> io::Error {
    io::Error::other("too many look-ups wait for its answers")
}

/// The text if Dovecot reports a failure without a reason.
const NO_REASON: &str = "it reports a temporary failure: its log says why";

/// The id of a look-up. It is always the same, since each look-up has a connection of its own.
const ID: &str = "1";

fn exchange(link: &mut Link, name: &str) -> io::Result<Answer> {
    // These are the characters that the protocol would have to escape, and users' names lack them.
    if name.contains(['\u{1}', '\t', '\r', '\n', '\0']) {
        return Ok(Answer::Unknown);
    }
    // Settings of Dovecot may depend on the service. Its own LMTP server asks like this.
    link.send(&format!("USER\t{ID}\t{name}\tservice=lmtp\n"))?;
    for _ in 0..MAX_LINES {
        match answer(&link.line()?) {
            Some(Answer::Other) => {}
            Some(answer) => return Ok(answer),
            None => break,
        }
    }
    Err(malformed("its answer is malformed"))
}

/// Parses a line of Dovecot, without its LF; `None` if the line is malformed.
pub fn answer(line: &[u8]) -> Option<Answer> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split('\t');
    let verb = fields.next()?;
    if !matches!(verb, "USER" | "NOTFOUND" | "FAIL") || fields.next() != Some(ID) {
        return Some(Answer::Other);
    }
    match verb {
        "USER" => {
            fields.next().filter(|user| !user.is_empty())?;
            found(fields).map(Answer::User)
        }
        "NOTFOUND" => Some(Answer::Unknown),
        _ => {
            let reason = fields.find_map(|field| field.strip_prefix("reason="));
            Some(Answer::Failed(reason.and_then(|text| unescape(text, MAX_REASON)).filter(|text| !text.is_empty())))
        }
    }
}

/// Reads the fields about a user; `None` if one of them is malformed or comes twice.
fn found<'a>(fields: impl Iterator<Item = &'a str>) -> Option<Found> {
    let mut found = Found::default();
    for field in fields {
        if let Some(uid) = field.strip_prefix("uid=") {
            let is_number = !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_digit());
            let first = found.uid.replace(uid.parse().ok().filter(|_| is_number)?);
            first.is_none().then_some(())?;
        } else if let Some(home) = field.strip_prefix("home=") {
            let first = found.home.replace(unescape(home, MAX_HOME)?.into());
            first.is_none().then_some(())?;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;

    /// A Dovecot that takes this time for each answer. Returns the number of look-ups that it gets.
    fn slow(path: &Path, time: Duration) -> Arc<AtomicUsize> {
        let _ = std::fs::remove_file(path);
        let (listener, asked) = (UnixListener::bind(path).expect("a socket"), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    let _ = stream.write_all(b"VERSION\t1\t2\nSPID\t77\n");
                    let lines = BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
                    for _ in lines.filter(|line| line.starts_with("USER")) {
                        count.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(time);
                        let _ = stream.write_all(b"USER\t1\tjon\n");
                    }
                });
            }
        });
        asked
    }

    /// Some look-ups get a connection with a second left or less. With 950 ms for each answer, the
    /// sixth of a row would begin after 4.75 s. With 1.1 s, the fifth would end after 5.5 s. The look-ups
    /// begin together: one that began late would have time for one more.
    #[test]
    fn a_dovecot_that_is_busy_is_not_left_alone() {
        let busy = |milliseconds| {
            let path = std::env::temp_dir().join(format!("penfold-userdb-{}-{milliseconds}", std::process::id()));
            let (asked, userdb) = (slow(&path, Duration::from_millis(milliseconds)), Userdb::at(&path));
            let find = |number: usize| userdb.find(&format!("jon{number}"));
            let start = Barrier::new(7 * AT_ONCE);
            let at_once = |number: usize| {
                start.wait();
                find(number)
            };
            let answers: Vec<_> = thread::scope(|scope| {
                let all: Vec<_> = (0..7 * AT_ONCE).map(|number| scope.spawn(move || at_once(number))).collect();
                all.into_iter().map(|one| one.join().expect("no panic")).collect()
            });
            assert!(asked.load(Ordering::SeqCst) <= 5 * AT_ONCE, "{asked:?}");
            let errors: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
            assert!((2 * AT_ONCE..7 * AT_ONCE).contains(&errors.len()), "{errors:?}");
            assert!(errors.iter().all(|error| error.to_string().starts_with("too many look-ups")), "{errors:?}");
            assert!(find(1000).expect("an answer").is_some());
            let _ = std::fs::remove_file(&path);
        };
        thread::scope(|scope| [950, 1100].into_iter().for_each(|time| _ = scope.spawn(move || busy(time))));
    }

    #[test]
    fn answers_about_users_are_read() {
        let user = |uid, home: Option<&str>| Some(Answer::User(Found { uid, home: home.map(PathBuf::from) }));
        for (line, wanted) in [
            ("USER\t1\tjon", user(None, None)),
            (
                "USER\t1\tjon\tuid=5000\tgid=5000\thome=/srv/jon\tquota_rule=*:storage=1G",
                user(Some(5000), Some("/srv/jon")),
            ),
            ("USER\t1\tjon\tlocal_name=x\t\thome=/srv/a b", user(None, Some("/srv/a b"))),
            ("USER\t1\tjon\thome=", user(None, Some(""))),
            ("USER\t1\tjon\tuid=", None),
            ("USER\t1\tjon\tuid=+1", None),
            ("USER\t1\tjon\tuid=4294967296", None),
            ("USER\t1\tjon\tuid=1\tuid=1", None),
            ("USER\t1\tjon\thome=/a\thome=/b", None),
            ("USER\t1\tjon\thome=/a\u{1}nb", None),
            ("USER\t1\tjon\thome=/a\u{1}x", None),
            ("USER\t1\t", None),
            ("USER\t1", None),
            ("USER\t2\tjon", Some(Answer::Other)),
            ("NOTFOUND\t1", Some(Answer::Unknown)),
            ("NOTFOUND\t1\tuser=x", Some(Answer::Unknown)),
            ("NOTFOUND\t11", Some(Answer::Other)),
            ("NOTFOUND", Some(Answer::Other)),
            ("FAIL\t1", Some(Answer::Failed(None))),
            ("FAIL\t1\treason=", Some(Answer::Failed(None))),
            ("FAIL\t1\treason=a\u{1}nb", Some(Answer::Failed(None))),
            ("FAIL\t1\ttemp\treason=no LDAP", Some(Answer::Failed(Some("no LDAP".to_owned())))),
            ("PASS\t1\tuser=jon", Some(Answer::Other)),
            ("", Some(Answer::Other)),
        ] {
            assert_eq!(answer(line.as_bytes()), wanted, "{line:?}");
        }
        assert_eq!(answer(b"USER\t1\t\xff"), None);
        let long = format!("USER\t1\tjon\thome=/{}", "x".repeat(MAX_HOME));
        assert_eq!(answer(long.as_bytes()), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut state = State::default();
        for number in 0..3 * MAX_REMEMBERED {
            state.remember(&number.to_string(), None, UNKNOWN_FOR);
            assert!(state.remembered.len() <= MAX_REMEMBERED);
        }
        assert!(state.remembered.contains_key(&(3 * MAX_REMEMBERED - 1).to_string()));
    }
}
