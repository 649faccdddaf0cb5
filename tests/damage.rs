//! Entries that somebody cuts, empties or writes into, at rest and at work.
//!
//! Such an entry goes to `bad/` and is said to; nothing of it goes to anyone as if it
//! were whole, and the others arrive.

mod common;

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::Site;
use common::client::TEXT;
use common::dialog::Wire;
use common::remote::{Conduct, Remote, Sink};

const LATER: &str = "queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"";

/// What is done to a file.
type Damage = fn(&Path);

/// With what the log then says of it.
const DAMAGES: [(Damage, &str); 5] = [
    (|path| cut(path, 1), "its size is not the one in its name"),
    (|path| cut(path, u64::MAX), "its size is not the one in its name"),
    (|path| overwrite(path, 0, b"\x7fELF/1 "), "it is not of this version of the spool"),
    (|path| overwrite(path, 128, b"Q 00000000"), "a recipient's state makes no sense"),
    (|path| overwrite(path, 130, &[0; 48]), "a recipient's state makes no sense"),
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

#[test]
fn damaged_entries_are_put_aside_and_the_others_arrive() {
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
fn what_is_cut_while_it_is_sent_is_not_sent_as_if_it_were_whole() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut site = Site::with(LATER);
    site.set("queue", "workers", "1");
    site.add("routes", &format!("far.test {}", listener.local_addr().expect("an address")));
    let daemon = site.start();
    // More than a connection holds by itself.
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

/// Another host, which does something once so many lines of a message have come; what
/// it heard after that.
fn host(listener: &TcpListener, lines: usize, then: impl Fn()) -> Vec<String> {
    let (stream, _) = listener.accept().expect("a client");
    let mut wire = Wire::new(stream, false);
    wire.say(b"220 far.test\r\n").expect("a greeting");
    while wire.hear().expect("a command").is_some_and(|line| line != "DATA") {
        wire.say(b"250 ok\r\n").expect("a reply");
    }
    if lines == 0 {
        then();
    }
    wire.say(b"354 go ahead\r\n").expect("a reply");
    for _ in 0..lines {
        wire.hear().expect("a line");
    }
    if lines > 0 {
        then();
    }
    std::iter::from_fn(|| wire.hear().ok().flatten()).collect()
}
