use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;

/// A Maildir in a scratch directory, which is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("penfold-quota-{}-{number}", process::id()));
        let _ = fs::remove_dir_all(&path);
        At(&path).make().expect("a Maildir");
        Self(path)
    }

    fn limited(&self, limit: u64) -> Limited<'_> {
        Limited { maildir: &self.0, limit, patience: PATIENCE }
    }

    /// Adds a message of `size` bytes.
    fn add(&self, name: &str, size: usize) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, vec![b'x'; size]).expect("a message");
    }

    fn text(&self) -> String {
        fs::read_to_string(self.0.join(NAME)).expect("the file")
    }

    fn write(&self, text: &str) {
        fs::write(self.0.join(NAME), text).expect("the file");
    }

    /// Makes the file look as if it was last changed this long ago.
    fn age(&self, age: Duration) {
        let file = OpenOptions::new().write(true).open(self.0.join(NAME)).expect("the file");
        file.set_modified(SystemTime::now() - age).expect("the time");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a crash has left in `tmp/` is removed, but not what another process is writing now.
#[test]
fn a_recount_removes_old_files_of_earlier_ones() {
    let mailbox = Scratch::new();
    for (name, age) in [("1.P1Q0.maildirsize", 3600), ("2.P2Q0.maildirsize", 0), ("3.letter", 3600)] {
        mailbox.add(&format!("tmp/{name}"), 1);
        let file = OpenOptions::new().write(true).open(mailbox.0.join("tmp").join(name)).expect("the file");
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("the time");
    }
    assert!(matches!(mailbox.limited(1000).reserve(300).expect("good"), Reserved::Yes(_)));
    let mut left: Vec<_> = fs::read_dir(mailbox.0.join("tmp")).expect("tmp").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["2.P2Q0.maildirsize", "3.letter"]);
}

fn full(size: u64, messages: u64) -> Reserved {
    Reserved::Full(Contents { size, messages })
}

#[test]
fn a_delivery_appends_a_line_and_a_failed_one_takes_it_back() {
    let mailbox = Scratch::new();
    let limited = mailbox.limited(1000);
    assert!(matches!(limited.reserve(300).expect("good"), Reserved::Yes(_)));
    assert_eq!(mailbox.text(), "1000S\n0 0\n300 1\n");
    let Reserved::Yes(Some(inode)) = limited.reserve(700).expect("good") else { panic!("it fits") };
    limited.release(700, inode);
    assert_eq!(mailbox.text(), "1000S\n0 0\n300 1\n700 1\n-700 -1\n");
    assert_eq!(limited.contents(1, true).expect("good"), Some(Contents { size: 300, messages: 1 }));
}

#[test]
fn messages_in_all_folders_count_by_the_size_in_their_name_or_that_of_the_file() {
    let mailbox = Scratch::new();
    mailbox.add("new/1.a.host,S=1000", 1);
    mailbox.add("cur/2.b.host,S=200:2,ST", 1);
    mailbox.add("cur/3.c.host,S=30,W=31:2,", 1);
    mailbox.add("cur/4.d.host:2,S", 4);
    mailbox.add("cur/5.e.host,S=x:2,S", 5);
    mailbox.add("new/6.f.host,S=99999999999999999999999", 6);
    mailbox.add(".Trash/cur/7.g.host,S=5000:2,", 1);
    mailbox.add(".Lists.rust/new/8.h.host,S=60000", 1);
    // Not messages, or not in the mailbox.
    mailbox.add("tmp/9.i.host,S=1000000", 1);
    mailbox.add("new/.10.j.host,S=1000000", 1);
    mailbox.add("..odd/cur/11.k.host,S=1000000", 1);
    mailbox.add("plain/cur/12.l.host,S=1000000", 1);
    fs::create_dir(mailbox.0.join("cur/directory")).expect("a directory");
    let other = Scratch::new();
    other.add("cur/13.m.host,S=1000000", 1);
    symlink(&other.0, mailbox.0.join(".link")).expect("a link");
    symlink(other.0.join("cur/13.m.host,S=1000000"), mailbox.0.join("cur/14.n.host")).expect("a link");
    assert!(matches!(mailbox.limited(1 << 20).reserve(1).expect("good"), Reserved::Yes(_)));
    assert_eq!(mailbox.text(), format!("{}S\n66245 8\n1 1\n", 1 << 20));
}

#[test]
fn what_does_not_fit_is_refused_and_what_fits_is_not() {
    let mailbox = Scratch::new();
    let limited = mailbox.limited(1000);
    mailbox.add("cur/1.a,S=990:2,S", 1);
    assert_eq!(limited.reserve(11).expect("good"), full(990, 1));
    assert!(matches!(limited.reserve(10).expect("good"), Reserved::Yes(_)));
    // The reserved message is not there, so it was not delivered, and the count shows that.
    assert!(matches!(limited.reserve(1).expect("good"), Reserved::Yes(_)));
    mailbox.add("cur/2.b,S=10:2,S", 1);
    assert_eq!(limited.reserve(10).expect("good"), full(1000, 2));
    assert_eq!(limited.reserve(0).expect("good"), full(1000, 2));
    assert_eq!(mailbox.text(), "1000S\n1000 2\n");
}

/// A full mailbox is believed for a quarter of an hour, unless something was counted since.
#[test]
fn a_full_mailbox_is_counted_again_only_after_a_while() {
    let mailbox = Scratch::new();
    let limited = mailbox.limited(1000);
    mailbox.write("1000S\n1000 5\n");
    assert_eq!(limited.reserve(100).expect("good"), full(1000, 5));
    mailbox.age(MAX_AGE - Duration::from_secs(5));
    assert_eq!(limited.contents(1, true).expect("good"), Some(Contents { size: 1000, messages: 5 }));
    for age in [MAX_AGE, Duration::from_secs(86_400)] {
        mailbox.write("1000S\n1000 5\n");
        mailbox.age(age);
        assert!(matches!(limited.reserve(100).expect("good"), Reserved::Yes(_)));
        assert_eq!(mailbox.text(), "1000S\n0 0\n100 1\n");
    }
    // The clock was set back.
    mailbox.write("1000S\n1000 5\n");
    let file = OpenOptions::new().write(true).open(mailbox.0.join(NAME)).expect("the file");
    file.set_modified(SystemTime::now() + Duration::from_secs(600)).expect("the time");
    assert!(matches!(limited.reserve(100).expect("good"), Reserved::Yes(_)));
    mailbox.write("1000S\n900 5\n100 1\n");
    assert!(matches!(limited.reserve(100).expect("good"), Reserved::Yes(_)));
    assert_eq!(mailbox.text(), "1000S\n0 0\n100 1\n");
    // Where counting takes too long, the result is unknown.
    mailbox.write("1000S\n900 5\n100 1\n");
    let hasty = Limited { patience: Duration::ZERO, ..limited };
    assert_eq!(hasty.reserve(100).expect("good"), Reserved::Unknown);
    assert_eq!(hasty.contents(100, true).expect("good"), None);
}

#[test]
fn a_file_that_is_malformed_or_has_another_limit_is_replaced() {
    let long = format!("1000S\n{}", "1 1\n".repeat(2000));
    for text in [
        "",
        "1000S",
        "1000S\n",
        "900S\n0 0\n",
        "NOQUOTA\n0 0\n",
        "1000S\n5\n",
        "1000S\n1 1 1\n",
        "1000S\nx y\n",
        "1000S\n-5 1\n",
        "1000S\n5 -1\n",
        "1000S\n5 1\n7 1",
        "1000S\n5 1\0\n",
        "1000S\n9223372036854775807 1\n1 1\n",
        "\u{fffd}\n",
        "1000C\n0 0\n",
        &long,
    ] {
        let mailbox = Scratch::new();
        mailbox.add("cur/1.a,S=100:2,S", 1);
        mailbox.write(text);
        assert!(matches!(mailbox.limited(1000).reserve(300).expect("good"), Reserved::Yes(_)), "{text:?}");
        assert_eq!(mailbox.text(), "1000S\n100 1\n300 1\n", "{text:?}");
        let left = fs::read_dir(mailbox.0.join("tmp")).expect("a directory").count();
        assert_eq!(left, 0, "{text:?}");
    }
}

/// Lines of other programs: Courier fills them up with spaces, and the first line may have a second
/// limit.
#[test]
fn the_lines_of_other_programs_are_understood() {
    let mailbox = Scratch::new();
    mailbox.write("1000S,50C\n  100      1\n-50        -1\n");
    assert!(matches!(mailbox.limited(1000).reserve(300).expect("good"), Reserved::Yes(_)));
    assert_eq!(mailbox.text(), "1000S,50C\n  100      1\n-50        -1\n300 1\n");
    assert!(matches!(mailbox.limited(1000).reserve(900).expect("good"), Reserved::Yes(_)));
    assert_eq!(mailbox.text(), "1000S,50C\n0 0\n900 1\n");
}

#[test]
fn what_is_no_plain_file_is_replaced_and_links_are_not_followed() {
    let mailbox = Scratch::new();
    let elsewhere = Scratch::new();
    let target = elsewhere.0.join("target");
    fs::write(&target, "1000S\n0 0\n").expect("a file");
    symlink(&target, mailbox.0.join(NAME)).expect("a link");
    assert!(matches!(mailbox.limited(1000).reserve(300).expect("good"), Reserved::Yes(_)));
    assert_eq!(mailbox.text(), "1000S\n0 0\n300 1\n");
    assert_eq!(fs::read_to_string(&target).expect("a file"), "1000S\n0 0\n");
    fs::remove_file(mailbox.0.join(NAME)).expect("removed");
    nix::unistd::mkfifo(&mailbox.0.join(NAME), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert_eq!(mailbox.limited(1000).contents(1, false).expect("good"), Some(Contents::default()));
    assert!(matches!(mailbox.limited(1000).reserve(300).expect("good"), Reserved::Yes(_)));
    assert_eq!(mailbox.text(), "1000S\n0 0\n300 1\n");
    // A directory cannot be replaced: an error, which delays no mail.
    fs::remove_file(mailbox.0.join(NAME)).expect("removed");
    fs::create_dir(mailbox.0.join(NAME)).expect("a directory");
    assert!(mailbox.limited(1000).reserve(300).is_err());
}

#[test]
fn a_look_at_a_missing_maildir_makes_nothing_and_a_delivery_makes_it() {
    let mailbox = Scratch::new();
    let path = mailbox.0.join("jon");
    let limited = Limited { maildir: &path, ..mailbox.limited(1000) };
    assert_eq!(limited.contents(1, true).expect("good"), Some(Contents::default()));
    assert!(!path.exists());
    assert!(matches!(limited.reserve(1).expect("good"), Reserved::Yes(_)));
    assert_eq!(fs::read_to_string(path.join(NAME)).expect("the file"), "1000S\n0 0\n1 1\n");
}

/// Deliveries at the same time get the room that there is. Those that are under way during a count may
/// exceed the limit, but then the mailbox is full.
#[test]
fn deliveries_at_the_same_time_fill_the_mailbox() {
    let mailbox = Scratch::new();
    let limited = mailbox.limited(10_000);
    // The messages that are delivered appear at once, so that a new count finds them.
    let deliver = |number: usize| {
        let mut done = 0;
        for count in 0..20 {
            if let Reserved::Yes(inode) = limited.reserve(100).expect("good") {
                mailbox.add(&format!("new/{number}.{count},S=100"), 1);
                inode.into_iter().for_each(|inode| limited.confirm(100, inode));
                done += 1;
            }
        }
        done
    };
    let deliver = &deliver;
    let delivered: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|number| scope.spawn(move || deliver(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert!(delivered >= 100, "{delivered}");
    fs::remove_file(mailbox.0.join(NAME)).expect("removed");
    assert_eq!(limited.reserve(1).expect("good"), full(100 * delivered, delivered));
}

/// The files are counted between the line of a message and its appearance.
#[test]
fn a_message_that_a_count_has_missed_is_counted_again() {
    let mailbox = Scratch::new();
    let limited = mailbox.limited(1000);
    let Reserved::Yes(Some(inode)) = limited.reserve(100).expect("good") else { panic!("it fits") };
    limited.confirm(100, inode);
    assert_eq!(mailbox.text(), "1000S\n0 0\n100 1\n");
    assert_eq!(limited.contents(950, true).expect("good"), Some(Contents::default()));
    assert_eq!(mailbox.text(), "1000S\n0 0\n");
    limited.confirm(100, inode);
    assert_eq!(mailbox.text(), "1000S\n0 0\n100 1\n");
}

/// The new file has the messages that are there, and not the one that is under way.
#[test]
fn a_failed_delivery_takes_nothing_from_a_count_that_was_made_meanwhile() {
    let mailbox = Scratch::new();
    let limited = mailbox.limited(100_000);
    mailbox.add("cur/1.a,S=60000:2,S", 1);
    let Reserved::Yes(Some(inode)) = limited.reserve(30_000).expect("good") else { panic!("it fits") };
    assert_eq!(limited.reserve(50_000).expect("good"), full(60_000, 1));
    limited.release(30_000, inode);
    assert_eq!(mailbox.text(), "100000S\n60000 1\n");
    assert_eq!(limited.reserve(50_000).expect("good"), full(60_000, 1));
}

/// About six hundred deliveries fill the file. It is then made anew.
#[test]
fn a_long_file_is_replaced_by_a_short_one() {
    let mailbox = Scratch::new();
    let limited = mailbox.limited(1 << 30);
    for number in 0..2000 {
        assert!(matches!(limited.reserve(1000).expect("good"), Reserved::Yes(_)));
        mailbox.add(&format!("new/{number},S=1000"), 1);
        assert!(mailbox.text().len() < MAX_SIZE as usize + 16);
    }
    assert_eq!(limited.contents(1, false).expect("good"), Some(Contents { size: 2_000_000, messages: 2000 }));
}
