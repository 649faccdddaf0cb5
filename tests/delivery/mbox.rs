//! Delivery to mbox files: locks, and paths that are not mbox files. Each row is a promise of
//! penfold-aliases(5); the format is tested in tests/delivery/aliases.rs.

use std::fs::{self, File, OpenOptions};
use std::time::{Duration, Instant, SystemTime};

use common::Site;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_WRLCK, SEEK_SET, flock};
use nix::sys::stat::Mode;

const WHOLE: flock = flock { l_type: F_WRLCK as i16, l_whence: SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };

/// A site where each of these names is an alias for a file of that name.
fn site(names: &[&str]) -> Site {
    let site = Site::new();
    let line = |name: &&str| format!("{name}: {}\n", site.path("mail").join(name).display());
    site.write("aliases", &names.iter().map(line).collect::<String>());
    site
}

#[test]
fn a_message_is_deferred_after_waiting_20_seconds_for_a_lock() {
    let site = site(&["beside", "inside", "recent", "stale"]);
    for name in ["beside", "recent", "stale"] {
        site.write(&format!("mail/{name}.lock"), "");
    }
    let ago = |minutes: u64| SystemTime::now() - Duration::from_secs(60 * minutes);
    for (name, minutes) in [("recent", 9), ("stale", 11)] {
        let lock = File::options().write(true).open(site.path("mail").join(format!("{name}.lock"))).expect("a lock");
        lock.set_modified(ago(minutes)).expect("a time");
    }
    site.write("mail/inside", "");
    let inside = OpenOptions::new().write(true).open(site.path("mail/inside")).expect("a file");
    fcntl(&inside, FcntlArg::F_OFD_SETLK(&WHOLE)).expect("a lock");
    let daemon = site.start();
    let started = Instant::now();
    ["beside", "inside", "recent", "stale"].iter().for_each(|name| drop(daemon.submit(&[name])));
    // A lock file that is more than ten minutes old counts as left by a crash, and is ignored.
    daemon.wait_words(&[" sent to=<stale@razorback>"]);
    assert!(started.elapsed() < Duration::from_secs(15) && !site.path("mail/stale.lock").exists());
    let words = ["beside", "inside", "recent"].map(|name| format!(" deferred to=<{name}@razorback> via=mbox"));
    let all = || words.iter().all(|words| daemon.log().contains(words));
    assert!(daemon.becomes_true(all) || daemon.becomes_true(all), "{}", daemon.log());
    assert!(started.elapsed() >= Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(daemon.log().matches("dsn=4.3.0 reason=\"lock ").count(), 3, "{}", daemon.log());
    assert_eq!(daemon.log().matches("another program has locked it").count(), 3);
    // The locks of other programs are still there, and nothing was written to the files.
    assert!(site.path("mail/beside.lock").exists() && site.path("mail/recent.lock").exists());
    assert!(!site.path("mail/inside.lock").exists() && !site.path("mail/beside").exists());
    assert_eq!(fs::metadata(site.path("mail/inside")).expect("there").len(), 0);
    drop(inside);
    for name in ["beside", "recent"] {
        fs::remove_file(site.path("mail").join(format!("{name}.lock"))).expect("a lock");
    }
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    for name in ["beside", "inside", "recent", "stale"] {
        let text = fs::read_to_string(site.path("mail").join(name)).expect(name);
        assert_eq!(text.matches("From jon@razorback.test ").count(), 1, "{name}: {text}");
    }
}

#[test]
fn only_a_plain_file_with_one_name_is_written_to() {
    let names = ["link", "second", "fifo", "directory"];
    let site = site(&names);
    let path = |name: &str| site.path("mail").join(name);
    site.write("mail/first", "");
    std::os::unix::fs::symlink(path("first"), path("link")).expect("a link");
    fs::hard_link(path("first"), path("second")).expect("a name");
    nix::unistd::mkfifo(&path("fifo"), Mode::from_bits_truncate(0o666)).expect("a FIFO");
    fs::create_dir(path("directory")).expect("a directory");
    ["fifo", "directory"].iter().for_each(|name| common::own(&path(name)));
    let daemon = site.start();
    for name in names {
        daemon.submit(&[name]);
        daemon.wait_words(&[&format!(" deferred to=<{name}@razorback> via=mbox"), "dsn=4."]);
        assert!(!path(&format!("{name}.lock")).exists(), "{name}");
    }
    assert_eq!(fs::metadata(path("first")).expect("there").len(), 0);
    // Once the path is a plain file, the message arrives.
    for name in ["link", "second", "fifo"] {
        fs::remove_file(path(name)).expect("it is there");
    }
    fs::remove_dir(path("directory")).expect("it is there");
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert!(names.iter().all(|name| fs::metadata(path(name)).is_ok_and(|file| file.len() > 100)));
}

/// A separator line (`From ` and a date) is not a header field. If a client's message begins with
/// such a line, it must not end the header for a reader of the mbox file.
#[test]
fn a_message_that_begins_with_a_separator_line_keeps_its_header() {
    let site = site(&["box"]);
    let daemon = site.start();
    let date = "Sat Nov 21 10:00:00 2026";
    for (text, is_kept) in [
        // A separator line with a date is not part of a message, and is removed when the message
        // arrives.
        (format!("From x@y.test {date}\r\nSubject: one\r\n\r\nFrom here\r\n"), false),
        (format!(">From x@y.test {date}\r\nSubject: two\r\n\r\n>From here\r\n"), false),
        (format!("Subject: three\r\nFrom x@y.test {date}\r\n\r\n\r\nFrom\r\n"), true),
        (format!("\r\nFrom x@y.test {date}\r\n"), true),
    ] {
        let before = std::fs::read_to_string(site.path("mail/box")).unwrap_or_default();
        daemon.client().send("jon@razorback", &["box"], &text);
        assert!(daemon.settles(&site));
        let file = fs::read_to_string(site.path("mail/box")).expect("a file");
        let message = file.strip_prefix(&before).expect("it grows");
        assert_eq!(message.contains(&format!("\n>From x@y.test {date}\n")), is_kept, "{message}");
        assert_eq!(message.matches("\nFrom ").count(), 0, "{message}");
        let header = message.split_once("\n\n").expect("a header").0;
        let subjects =
            header.lines().skip(1).take_while(|line| line.starts_with([' ', '\t']) || !line.starts_with('>'));
        assert_eq!(subjects.filter(|line| line.starts_with("Subject: ")).count(), text.matches("Subject").count());
        // Lines of the body that begin with `From ` are quoted with `>`, which a reader can
        // reverse.
        assert_eq!(message.contains("\n>From here\n"), text.contains("\r\nFrom here"), "{message}");
        assert_eq!(message.contains("\n>>From here\n"), text.contains("\r\n>From here"), "{message}");
    }
}
