//! Accepts connections to the control socket and answers their requests, as a part of the daemon.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::actions::Control;
use super::change::{Change, NotChanged};
use super::connections::Connections;
use super::request::{self, MAX_REQUEST};
use super::show::Part;
use super::status;
use super::{BUSY, FORBIDDEN, Listing, NOT_UNDERSTOOD, stats, trace};
use crate::explain::Query;
use crate::json::{Format, Object};
use crate::message::trace::LocalUser;
use crate::privsep::Rights;
use crate::queue::Selector;
use crate::spool::{EntryName, QueueId};
use crate::sys;

/// The stack of a thread that answers a client, in bytes.
const STACK: usize = 512 << 10;
/// The lock that is held while the queue is listed for an unprivileged user.
static LISTING: Mutex<()> = Mutex::new(());
/// The uids of the unprivileged users for whom the queue is being listed, or who wait for that.
/// Each uid occurs only once.
static LISTED_FOR: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// How long a client may take to send its request, and to accept each part of the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates the socket, and replaces one that an earlier daemon left. The caller holds the spool's
/// lock, so no other daemon listens on the old socket.
///
/// # Errors
/// The errors of removing the old socket, of bind(2) and of chmod(2).
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Every user may connect. What a client may do depends on its uid.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Makes [`serve`] accept no more clients at a shared socket. The server is closed already. If the
/// connection fails, the next client is refused instead.
pub fn leave(path: &Path) {
    let _ = UnixStream::connect(path);
}

/// Answers clients, each in its own thread, so that no client delays the others. At a socket that is
/// not shared, it does so until the process ends.
pub fn serve(listener: &UnixListener, control: Control) {
    let (control, connections) = (Arc::new(control), Arc::new(Connections::new(is_privileged)));
    for stream in listener.incoming() {
        // Other waiting clients are left to the next process.
        if control.is_shared && control.server.is_closed() {
            return;
        }
        let result = stream.and_then(|stream| start(stream, &control, &connections));
        if let Err(e) = result {
            ::log::debug!("control: {e}");
            // Errors such as a lack of descriptors may persist. The pause keeps this loop from
            // using the whole CPU.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Whether a user may make all requests: root and the server's own user may. In a user namespace,
/// all users from outside have the overflow uid. So the overflow uid is never privileged there,
/// even if the server itself has it.
fn is_privileged(uid: u32) -> bool {
    static IS_OVERFLOW: LazyLock<bool> = LazyLock::new(|| {
        let is_all = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|uid| uid.trim().parse().ok());
        overflow.unwrap_or(65_534) == nix::unistd::geteuid().as_raw()
            && !fs::read_to_string("/proc/self/uid_map").is_ok_and(is_all)
    });
    uid == 0 || uid == nix::unistd::geteuid().as_raw() && !*IS_OVERFLOW
}

/// Starts a thread that answers a client, unless a limit on connections is reached.
fn start(mut stream: UnixStream, control: &Arc<Control>, connections: &Arc<Connections>) -> io::Result<()> {
    let uid = sys::peer_uid(&stream)?;
    let Some(admission) = connections.admit(uid) else {
        stream.set_nonblocking(true)?;
        // The client may have disconnected already.
        let _ = stream.write_all(format!("{BUSY}\n").as_bytes());
        return Ok(());
    };
    let (control, mut spare) = (Arc::clone(control), stream.try_clone()?);
    let run = move || {
        // The guard moves into the thread, so that the connection is counted until the thread ends.
        let admission = admission;
        match answer(stream, &control, admission.uid) {
            // A client may stop reading, as with `penfoldctl show id | head`.
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            Err(e) => ::log::debug!("control: {e}"),
            Ok(()) => {}
        }
    };
    let started = thread::Builder::new().name("control".into()).stack_size(STACK).spawn(run);
    if started.is_err() {
        spare.set_nonblocking(true)?;
        spare.write_all(b"the system has no thread for another client\n")?;
    }
    started.map(drop)
}

/// Reads a request and answers it.
fn answer(mut stream: UnixStream, control: &Control, uid: u32) -> io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let line = read_line(&mut stream)?;
    let Some(words) = line.as_deref().and_then(request::read) else { return not_understood(stream) };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["submit", program @ ..] if program.len() < 2 => {
            let user = local_user(&control.site.rights, uid, program.first().copied().unwrap_or_default());
            stream.write_all(b"ok\n")?;
            control.submit(stream, user);
            Ok(())
        }
        // sendmail has kept a message in the drop directory.
        ["dropped"] => {
            control.dropped.iter().for_each(super::Waker::wake);
            stream.write_all(b"ok\n")
        }
        ["verify", address] => {
            let (is_deliverable, text) = control.verify(address, !is_privileged(uid));
            stream.write_all(format!("ok\n{}\n{text}", if is_deliverable { "yes" } else { "no" }).as_bytes())
        }
        ["queue", words @ ..] => match Listing::read(words) {
            // The ids are for a command that changes messages.
            Some(listing) if listing.is_of_ids && !is_privileged(uid) => {
                stream.write_all(format!("{FORBIDDEN}\n").as_bytes())
            }
            Some(listing) if is_privileged(uid) => list(stream, control, &listing, None),
            Some(listing) => list_for(stream, control, &listing, uid),
            None => not_understood(stream),
        },
        ["show", part, id] => show(stream, control, (part, id), uid),
        ["trace", words @ ..] if !is_privileged(uid) => trace_for(stream, control, words, uid),
        _ if !is_privileged(uid) => stream.write_all(format!("{FORBIDDEN}\n").as_bytes()),
        words => command(stream, words, control, uid),
    }
}

/// Answers `show`.
fn show(mut stream: UnixStream, control: &Control, (part, id): (&str, &str), uid: u32) -> io::Result<()> {
    let (Some(part), Some(id)) = (Part::parse(part), QueueId::parse(id)) else { return not_understood(stream) };
    let submitted_by = Some(uid).filter(|uid| !is_privileged(*uid));
    control.show(id, submitted_by, |shown| {
        let opened = if submitted_by.is_none() {
            shown.open()
        } else {
            // To find a message, all names in the spool must be read. So one user is served at a time.
            let Some(permit) = ListPermit::new(uid) else { return stream.write_all(format!("{BUSY}\n").as_bytes()) };
            let turn = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
            let opened = shown.open();
            drop((turn, permit));
            opened
        };
        match opened {
            Ok(entry) => {
                let mut out = io::BufWriter::new(stream);
                out.write_all(b"ok\n")?;
                shown.write(&entry, part, &mut out)?;
                out.flush()
            }
            Err(why) => stream.write_all(format!("{}\n", why.answer()).as_bytes()),
        }
    })
}

/// An unprivileged user's permit to have the queue listed. A user has at most one at a time.
struct ListPermit(u32);

impl ListPermit {
    /// Returns a permit for this user; `None` if the user has one already, so that other users come
    /// first.
    fn new(uid: u32) -> Option<Self> {
        let mut users = LISTED_FOR.lock().unwrap_or_else(PoisonError::into_inner);
        let has_one = users.contains(&uid);
        (!has_one).then(|| {
            users.push(uid);
            Self(uid)
        })
    }
}

impl Drop for ListPermit {
    fn drop(&mut self) {
        LISTED_FOR.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid| *uid != self.0);
    }
}

/// Answers `queue` for an unprivileged user. To find the messages of one user, all messages must be
/// read. So only one unprivileged user is served at a time.
fn list_for(mut stream: UnixStream, control: &Control, listing: &Listing, uid: u32) -> io::Result<()> {
    let Some(permit) = ListPermit::new(uid) else { return stream.write_all(format!("{BUSY}\n").as_bytes()) };
    let turn = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    // The listing is collected before it is sent, so that other users do not wait for a slow
    // client.
    let mut listed = Bounded(Vec::new());
    list(&mut listed, control, listing, Some(uid))?;
    drop((turn, permit));
    stream.write_all(&listed.0)
}

/// Answers `trace` for an unprivileged user, who sees only messages that this user has submitted.
fn trace_for(mut stream: UnixStream, control: &Control, words: &[&str], uid: u32) -> io::Result<()> {
    let (format, words) = format(words);
    let Some(query) = trace::Query::parse(words, format, &crate::log::local_time()) else {
        return not_understood(stream);
    };
    let Some(query) = query.of_user(uid) else { return answer_refusal(stream, FORBIDDEN) };
    // The whole history must be read. So one user is served at a time.
    let Some(permit) = ListPermit::new(uid) else { return answer_refusal(stream, BUSY) };
    let turn = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut told = Bounded(b"ok\n".to_vec());
    control.trace(&query, &mut told)?;
    drop((turn, permit));
    stream.write_all(&told.0)
}

/// Writes the answer to `queue`.
fn list(to: impl Write, control: &Control, listing: &Listing, submitter: Option<u32>) -> io::Result<()> {
    let mut out = io::BufWriter::new(to);
    out.write_all(b"ok\n")?;
    if let Err(e) = control.list(listing, submitter, &mut out) {
        match listing.format {
            Format::Text => writeln!(out, "-- the list ends here: {e}")?,
            Format::Json => writeln!(out, "{}", Object::new().text("error", &e.to_string()))?,
        }
    }
    out.flush()
}

/// A buffer that ignores all text beyond [`MAX_LISTING`].
struct Bounded(Vec<u8>);

/// The longest listing for an unprivileged user, in bytes.
const MAX_LISTING: usize = 4 << 20;

impl Write for Bounded {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let room = MAX_LISTING.saturating_sub(self.0.len()).min(text.len());
        self.0.extend_from_slice(text.get(..room).unwrap_or_default());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Looks up the user of a client. A uid without a user name is accepted, too.
pub(super) fn local_user(rights: &Rights, uid: u32, program: &str) -> LocalUser {
    let user = rights.user_numbered(uid).ok().flatten();
    LocalUser::new(uid, user.map(|user| user.name).as_deref().unwrap_or_default(), program)
}

/// Answers the requests that only privileged users may make.
fn command(stream: UnixStream, words: &[&str], control: &Control, uid: u32) -> io::Result<()> {
    match words {
        ["flush", rest @ ..] if rest.len() < 2 => {
            answer_text(stream, &control.flush(rest.first().copied(), &user_name(&control.site.rights, uid)))
        }
        ["etrn", node] => answer_text(stream, &control.flush_for_client(Selector::parse(node))),
        ["hosts", rest @ ..] => {
            let (format, rest) = format(rest);
            if rest.len() > 1 {
                return not_understood(stream);
            }
            answer_list(stream, |out| control.hosts(rest.first().copied(), format, out))
        }
        ["recipients", rest @ ..] => {
            let (format, rest) = format(rest);
            if rest.len() > 1 {
                return not_understood(stream);
            }
            answer_list(stream, |out| control.recipients(rest.first().copied(), format, out))
        }
        ["forget", wanted] => answer_text(stream, &control.forget(wanted)),
        ["stats", words @ ..] => match stats::Query::parse(words, &crate::log::local_time()) {
            Some(query) if !query.is_in_order() => answer_refusal(stream, stats::WRONG_ORDER),
            Some(query) => answer_list(stream, |out| out.write_all(control.stats(&query).as_bytes())),
            None => not_understood(stream),
        },
        ["config", which @ ("all" | "given"), rest @ ..] => {
            let (format, rest) = format(rest);
            if rest.len() > 1 {
                return not_understood(stream);
            }
            answer_list(stream, |out| control.config((rest.first().copied(), *which == "given"), format, out))
        }
        ["explain", words @ ..] => explain(stream, words, control),
        ["trace", rest @ ..] => {
            let (format, rest) = format(rest);
            match trace::Query::parse(rest, format, &crate::log::local_time()) {
                Some(query) => answer_list(stream, |out| control.trace(&query, out)),
                None => not_understood(stream),
            }
        }
        ["reload"] => reload(stream, control),
        ["change", words @ ..] => change(stream, words, control, uid),
        // penfoldctl of an earlier version sends this.
        ["hold" | "release" | "remove", _] => change(stream, words, control, uid),
        ["status"] => {
            answer_list(stream, |out| out.write_all(status::write(&control.status(), Format::Text).as_bytes()))
        }
        ["status", "json"] => {
            answer_list(stream, |out| out.write_all(status::write(&control.status(), Format::Json).as_bytes()))
        }
        ["wake", name] => wake(stream, name, control),
        _ => not_understood(stream),
    }
}

/// Takes the word `json` from the front of the words of a request.
fn format<'w, 'a>(words: &'w [&'a str]) -> (Format, &'w [&'a str]) {
    match words {
        ["json", rest @ ..] => (Format::Json, rest),
        _ => (Format::Text, words),
    }
}

/// Answers with one line.
fn answer_text(mut stream: UnixStream, text: &dyn fmt::Display) -> io::Result<()> {
    stream.write_all(format!("ok\n{text}\n").as_bytes())
}

/// Answers that a request is refused, and why.
fn answer_refusal(mut stream: UnixStream, why: &str) -> io::Result<()> {
    stream.write_all(format!("{why}\n").as_bytes())
}

/// Answers a request to explain what happens to mail.
fn explain(mut stream: UnixStream, words: &[&str], control: &Control) -> io::Result<()> {
    let Some(query) = Query::read(words) else { return not_understood(stream) };
    let answer = match super::explain::explain(control, &query) {
        Ok(text) => format!("ok\n{text}"),
        Err(e) => format!("{e}\n"),
    };
    stream.write_all(answer.as_bytes())
}

/// Answers with the lines that `list` writes.
fn answer_list(stream: UnixStream, list: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::BufWriter::new(stream);
    out.write_all(b"ok\n")?;
    list(&mut out)?;
    out.flush()
}

fn reload(stream: UnixStream, control: &Control) -> io::Result<()> {
    let (head, lines) = match control.reload() {
        Some(Ok(warnings)) => ("in force", warnings),
        Some(Err(errors)) => ("errors", errors),
        None => ("errors", vec!["the daemon has not ended the reload in time".to_owned()]),
    };
    answer_text(stream, &[head.to_owned()].into_iter().chain(lines).collect::<Vec<_>>().join("\n"))
}

/// Changes messages. The answer has a line for each of the ids, in the same order.
fn change(mut stream: UnixStream, words: &[&str], control: &Control, uid: u32) -> io::Result<()> {
    let Some((change, words)) = Change::read(words) else { return not_understood(stream) };
    let ids: Vec<Option<QueueId>> = words.iter().map(|id| QueueId::parse(&id.to_ascii_uppercase())).collect();
    let known: Vec<QueueId> = ids.iter().flatten().copied().collect();
    let mut results = control.change(&change, &known, &user_name(&control.site.rights, uid)).into_iter();
    let lines = ids.iter().map(|id| match id.and_then(|_| results.next()) {
        None => "that is not a queue id\n".to_owned(),
        Some(Ok(())) => "done\n".to_owned(),
        Some(Err(NotChanged { is_temporary: true, why })) => format!("later: {why}\n"),
        Some(Err(NotChanged { is_temporary: false, why })) => format!("{why}\n"),
    });
    let lines: String = lines.collect();
    stream.write_all(format!("ok\n{lines}").as_bytes())
}

/// The name of a client's user, for the log.
fn user_name(rights: &Rights, uid: u32) -> String {
    match local_user(rights, uid, "").login {
        login if login.is_empty() => format!("uid {uid}"),
        login => login,
    }
}

/// Notifies the queue of a message that another process has stored.
fn wake(mut stream: UnixStream, name: &str, control: &Control) -> io::Result<()> {
    match EntryName::parse_new(name) {
        Some(name) => {
            control.notify(name);
            stream.write_all(b"ok\n")
        }
        None => stream.write_all(b"malformed queue id\n"),
    }
}

/// Answers a malformed or unknown request.
fn not_understood(mut stream: UnixStream) -> io::Result<()> {
    stream.write_all(format!("{NOT_UNDERSTOOD}\n").as_bytes())
}

/// Reads a line, and returns it without its end; `None` if it is too long. The whole line must
/// arrive within [`CLIENT_TIMEOUT`].
fn read_line(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + CLIENT_TIMEOUT;
    let mut line = Vec::new();
    let mut piece = [0; 256];
    while line.len() < MAX_REQUEST && !line.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            count => line.extend_from_slice(&piece[..count]),
        }
    }
    let end = line.iter().position(|&b| b == b'\n');
    if end.is_some() || line.len() < MAX_REQUEST {
        line.truncate(end.unwrap_or(line.len()));
        return Ok(Some(line));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_permit_and_a_panic_releases_it() {
        let jon = ListPermit::new(1000);
        assert!(jon.is_some() && ListPermit::new(1000).is_none() && ListPermit::new(1001).is_some());
        drop(jon);
        let bug = thread::spawn(|| {
            let _permit = ListPermit::new(1000).expect("a permit");
            let _turn = LISTING.lock();
            panic!("a bug");
        });
        assert!(bug.join().is_err() && LISTING.is_poisoned());
        assert!(ListPermit::new(1000).is_some());
    }
}
