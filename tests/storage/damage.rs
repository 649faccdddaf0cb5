//! Spool entries that are truncated, emptied or overwritten, at rest and while the daemon uses
//! them.
//!
//! A damaged entry is moved to `bad/` and logged. No part of it is delivered as if it were
//! complete, and the other entries are delivered. The same holds for files that are planted in the
//! place of an entry; such files do not mislead root either when it lists the spool.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::client::TEXT;
use common::dialog::Wire;
use common::programs::{code_and_text, command};
use common::remote::{Conduct, Remote, Sink};
use common::{Site, own};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

const LATER: &str = "queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"";

/// A function that damages the file at a path.
type Damage = fn(&Path);

/// Each kind of damage, with the reason that the log gives.
const DAMAGES: [(Damage, &str); 7] = [
    (|path| cut(path, 1), "its size differs from the one in its name"),
    (|path| cut(path, u64::MAX), "its size differs from the one in its name"),
    (|path| overwrite(path, 0, b"\x7fELF/1 "), "it does not begin with a head"),
    (|path| overwrite(path, 128, b"q 00000000"), "a recipient's state is malformed"),
    (|path| overwrite(path, 130, &[0; 48]), "a recipient's state is malformed"),
    (|path| link(path), "it is a link"),
    (|path| fs::remove_file(path).map(|()| fifo(path)).expect("an entry"), "it is not a regular file"),
];

fn cut(path: &Path, by: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("an entry");
    file.set_len(file.metadata().expect("a file").len().saturating_sub(by)).expect("a cut");
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.write_all_at(bytes, at)).expect("an entry");
}

fn entry(site: &Site, id: &str) -> PathBuf {
    let found = site.spooled().into_iter().find(|path| path.to_string_lossy().contains(id));
    found.expect("an entry")
}

/// Moves an entry out of the spool, and leaves a link to it.
fn link(path: &Path) {
    let (spool, name) = (path.parent().and_then(Path::parent).expect("a spool"), path.file_name().expect("a name"));
    let away = spool.with_file_name(name);
    fs::rename(path, &away).and_then(|()| symlink(&away, path)).expect("an entry");
}

fn fifo(path: &Path) {
    mkfifo(path, Mode::from_bits_truncate(0o666)).expect("a FIFO");
    own(path);
}

#[test]
fn damaged_entries_are_set_aside_and_the_others_arrive() {
    let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
    let site = Site::with(LATER);
    site.add("routes", &format!("far.test {}", remote.host_port()));
    for at_work in [false, true] {
        let mut daemon = site.start();
        let ids: Vec<String> = (0..=DAMAGES.len()).map(|_| daemon.submit(&["a@far.test"])).collect();
        for id in &ids {
            daemon.wait_words(&[id, " deferred "]);
        }
        if !at_work {
            assert!(daemon.terminate().success());
            DAMAGES.iter().zip(&ids).for_each(|((damage, _), id)| damage(&entry(&site, id)));
            daemon = site.start();
        } else {
            DAMAGES.iter().zip(&ids).for_each(|((damage, _), id)| damage(&entry(&site, id)));
        }
        remote.behave(Conduct::Sink(Sink::default()));
        assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
        for ((_, why), id) in DAMAGES.iter().zip(&ids) {
            daemon.wait_words(&[id, why, "it is now in bad/"]);
        }
        daemon.wait_words(&[ids.last().expect("a sound one"), " done"]);
        remote.behave(Conduct::Sink(Sink::default().reply("RCPT", "451 4.7.1 not now")));
        assert!(daemon.terminate().success());
    }
    assert_eq!(remote.messages(2).len(), 2);
    assert_eq!(fs::read_dir(site.path("spool/bad")).expect("a spool").count(), 2 * DAMAGES.len());
}

#[test]
fn an_entry_truncated_while_it_is_sent_is_not_completed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut site = Site::with(LATER);
    site.set("queue", "workers", "1");
    site.add("routes", &format!("far.test {}", listener.local_addr().expect("an address")));
    let daemon = site.start();
    // The message is longer than the buffers of a connection, so the daemon is still reading it
    // when it is cut.
    let large = format!("Subject: x\r\n\r\n{}", "0123456789abcde\r\n".repeat(1 << 20));
    for (text, lines, by) in [(TEXT, 0, 1), (TEXT, 0, u64::MAX), (&*large, 100, 1)] {
        let id = daemon.client().send("jon@razorback.test", &["a@far.test"], text);
        let seen = host(&listener, lines, || cut(&entry(&site, &id), by));
        assert!(!seen.iter().any(|line| line == "."), "half a message with an end");
        daemon.wait_words(&[&id, " deferred ", "reading the message"]);
        assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
        daemon.wait_words(&[&id, "it is now in bad/"]);
    }
}

/// Plays a remote host that calls `then` after this many lines of a message. Returns the lines that
/// follow.
fn host(listener: &TcpListener, lines: usize, then: impl Fn()) -> Vec<String> {
    let (stream, _) = listener.accept().expect("a client");
    let mut wire = Wire::new(stream, false);
    wire.send(b"220 far.test\r\n").expect("a greeting");
    while wire.read_line().expect("a command").is_some_and(|line| line != "DATA") {
        wire.send(b"250 ok\r\n").expect("a reply");
    }
    if lines == 0 {
        then();
    }
    wire.send(b"354 go ahead\r\n").expect("a reply");
    for _ in 0..lines {
        wire.read_line().expect("a line");
    }
    if lines > 0 {
        then();
    }
    std::iter::from_fn(|| wire.read_line().ok().flatten()).collect()
}

#[test]
fn listing_a_spool_without_a_daemon_follows_no_links() {
    let site = Site::with(LATER);
    let daemon = site.start();
    let ids: Vec<String> = (0..6).map(|_| daemon.submit(&["a@far.test"])).collect();
    for id in &ids {
        daemon.wait_words(&[id, " deferred "]);
    }
    assert!(daemon.terminate().success());
    let [linked, waiting, locked, read_only, noted, held] = ids.as_slice() else { panic!("six") };
    link(&entry(&site, linked));
    let path = entry(&site, waiting);
    fs::remove_file(&path).expect("an entry");
    fifo(&path);
    fs::set_permissions(entry(&site, read_only), fs::Permissions::from_mode(0o400)).expect("a mode");
    let note = |id: &String| site.path("spool/note").join(id);
    let secret = site.path("secret");
    fs::write(&secret, "0 <a@far.test> a secret of root\n").expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("a mode");
    [noted, held].into_iter().try_for_each(|id| fs::remove_file(note(id))).expect("notes");
    symlink(&secret, note(noted)).expect("a link");
    fifo(&note(held));
    // This copy belongs to root, and the server's user cannot read it. `penfoldctl`, run by root,
    // must not list it either.
    let path = entry(&site, locked);
    fs::copy(&path, site.path("spool/own")).expect("a copy");
    fs::set_permissions(site.path("spool/own"), fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::rename(site.path("spool/own"), &path).expect("a rename");
    let ctl = command(&site, "penfoldctl", &["queue"]);
    let mut limited = Command::new("timeout");
    limited.arg("20").arg(ctl.get_program()).args(ctl.get_args()).env("PENFOLD_CONFIG", site.path("penfold.conf"));
    let (code, text) = code_and_text(&limited.output().expect("it runs"));
    assert_eq!(code, 0, "{text}");
    let is_listed = |id: &String| text.contains(&format!("{id}  ")) && !text.contains(&format!("{id}  P"));
    assert!([read_only, noted, held].into_iter().all(is_listed), "{text}");
    assert!(!text.contains(linked) && !text.contains(waiting) && !text.contains("a secret of root"), "{text}");
    if geteuid().is_root() {
        assert!(text.contains(&format!("{locked}  Permission denied")), "{text}");
    }
    assert_eq!(fs::read_dir(site.path("spool/bad")).expect("a spool").count(), 0, "nothing is changed");
}
