//! Messages that go into a folder of the recipient's Maildir, such as `.Junk`.
//!
//! A reader of Maildirs finds the folder and the message. The mark is lost neither on the way
//! through an alias nor through a `.forward`, and never prevents a delivery.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::client::{Client, TEXT};
use common::homes::{FIRST, Homes};
use common::programs::python;
use common::{Daemon, Site};
use penfold::address::Address;
use penfold::envelope::{Action, Envelope, Folder, MailOptions, Origin, Recipient};
use penfold::spool::{NewEntry, Spool};

/// Stores a message for a folder in the spool, as a session does.
fn store(site: &Site, to: &[(&str, Action)], folder: &str, subject: &str) {
    let address = |text: &str| Address::parse(text).expect("an address");
    let recipient = |(to, action): &(&str, Action)| Recipient { action: action.clone(), ..Recipient::new(address(to)) };
    let envelope = Envelope {
        sender: Some(address("spammer@far.test")),
        recipients: to.iter().map(recipient).collect(),
        options: MailOptions::default(),
        origin: Origin::Client,
    };
    let folder = Folder::parse(folder).expect("a folder");
    let spool = Spool::open(&site.path("spool")).expect("a spool");
    let mut draft = spool.begin().expect("a draft");
    write!(draft, "Subject: {subject}\n\nbuy this\n").expect("memory");
    let entry = NewEntry { folder: Some(&folder), ..NewEntry::direct(&envelope, "Received: from a test\n") };
    draft.commit(&entry).expect("a commit");
    site.hand_over();
}

fn deliver(site: &Site, to: &[&str], subject: &str) {
    let to: Vec<_> = to.iter().map(|to| (*to, Action::Deliver)).collect();
    store(site, &to, ".Junk", subject);
}

fn finish(daemon: Daemon, site: &Site) {
    assert!(daemon.settles(site), "{}", daemon.log());
    assert!(daemon.terminate().success());
}

/// What Python's reader of Maildirs finds: lines of a folder's name and the subject of a message.
fn read(maildir: &Path) -> Option<String> {
    let output = python("delivery/read_folders.py", maildir.as_os_str().as_bytes())?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asserts that everything below a Maildir belongs to this user and is private.
fn check_private(path: &Path, uid: u32) {
    let metadata = fs::symlink_metadata(path).expect("there");
    let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (uid, mode), "{}", path.display());
    if metadata.is_dir() {
        fs::read_dir(path).expect("a directory").for_each(|file| check_private(&file.expect("a file").path(), uid));
    }
}

#[test]
fn a_reader_of_maildirs_finds_the_folder() {
    let mut site = Site::new();
    site.write("users", "jon::\nmary::\nroot::\n");
    site.set("local", "mailbox", &format!("\"{}/mail/{{user}}\"", site.path("").display()));
    deliver(&site, &["jon@razorback"], "first");
    deliver(&site, &["jon@razorback", "mary@razorback"], "second");
    store(&site, &[("mary@razorback", Action::Direct)], ".Lists.penfold", "third");
    finish(site.start(), &site);
    let owner = fs::metadata(site.path("spool/new")).expect("a spool").uid();
    for (user, expected) in [("jon", ["Junk first", "Junk second"]), ("mary", ["Junk second", "Lists.penfold third"])] {
        check_private(&site.mailbox(user), owner);
        assert!(site.mailbox(user).join(".Junk/maildirfolder").is_file());
        assert!(["cur", "new", "tmp"].iter().all(|sub| site.mailbox(user).join(sub).is_dir()));
        let Some(found) = read(&site.mailbox(user)) else { return };
        let mut found: Vec<&str> = found.lines().collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{user}");
    }
}

#[test]
fn the_folder_belongs_to_the_user() {
    let Some(homes) = Homes::new("") else { return };
    homes.write("mary", ".forward", "\\mary, elvis\n", 0o600);
    homes.site.write("aliases", "both: jon, mary\nstaff: :include:/nonexistent\n");
    deliver(&homes.site, &["jon@razorback"], "first");
    deliver(&homes.site, &["mary@razorback"], "second");
    finish(homes.start(), &homes.site);
    for (user, subject, uid) in [("jon", "first", FIRST), ("mary", "second", FIRST + 1), ("elvis", "second", FIRST + 2)]
    {
        check_private(&homes.home(user).join("Maildir"), uid);
        assert!(homes.mail(user).is_empty(), "{user}");
        let Some(found) = read(&homes.home(user).join("Maildir")) else { return };
        assert_eq!(found, format!("Junk {subject}\n"));
    }
}

#[test]
fn an_mbox_and_a_command_get_the_message_as_usual() {
    let mut site = Site::new();
    site.set("local", "mailbox", &format!("\"mbox:{}/mail/{{user}}.mbox\"", site.path("").display()));
    let (file, maildir) = (site.path("mail/archive.mbox"), site.path("mail/archive/"));
    let append = |file: &Path| Action::Append { file: file.display().to_string().into(), user: None };
    let run = Action::Run { command: format!("cat >{}", site.path("mail/piped").display()).into(), user: None };
    let archive = [("a@razorback", append(&file)), ("b@razorback", append(&maildir)), ("c@razorback", run)];
    deliver(&site, &["jon@razorback"], "first");
    store(&site, &archive, ".Junk", "second");
    finish(site.start(), &site);
    for (file, subject) in [("jon.mbox", "first"), ("archive.mbox", "second"), ("piped", "second")] {
        let text = fs::read_to_string(site.path("mail").join(file)).expect(file);
        assert!(text.contains(&format!("Subject: {subject}\n")), "{file}: {text}");
    }
    assert_eq!(fs::read_dir(site.path("mail/archive/.Junk/new")).expect("a folder").count(), 1);
}

#[test]
fn a_message_of_a_stranger_goes_where_the_configuration_says() {
    for (quarantine, is_held) in [(".Junk", false), ("hold", true)] {
        let mut site = Site::with("relay.networks = [\"127.0.0.1/32\"]\npolicy.sender_domain = \"accept\"");
        site.write("access", "sender spammer@far.test quarantine\n");
        site.set("policy", "access", &format!("{:?}", site.path("access")));
        site.set("policy", "quarantine", &format!("{quarantine:?}"));
        let daemon = site.start();
        let mut client = Client::new(daemon.connect_from(Ipv4Addr::new(127, 0, 0, 9)));
        let id = client.send("spammer@far.test", &["jon@razorback"], TEXT);
        client.send("friend@far.test", &["jon@razorback"], TEXT);
        let listed = || site.penfoldctl(&["queue"]);
        if is_held {
            daemon.wait_words(&[&id, " held reason="]);
            assert!(listed().contains("<spammer@far.test>  held: "), "{}", listed());
            daemon.wait_mail(&site, "jon", 1);
            site.penfoldctl(&["release", &id]);
            assert!(daemon.settles(&site));
            assert_eq!(site.mail("jon").len(), 2);
        } else {
            assert!(daemon.settles(&site), "{}", daemon.log());
            assert_eq!(site.mail("jon").len(), 1);
            let junk = fs::read_dir(site.mailbox("jon").join(".Junk/new")).expect("a folder");
            let texts: Vec<_> =
                junk.map(|file| fs::read_to_string(file.expect("a file").path()).expect("text")).collect();
            assert!(texts.len() == 1 && texts[0].contains("\nX-Quarantine: "), "{texts:?}");
        }
        assert!(daemon.terminate().success());
    }
}

#[test]
fn a_folder_that_is_no_directory_defers_the_message() {
    let site = Site::new();
    let daemon = site.start();
    for sub in ["cur", "new", "tmp"] {
        fs::create_dir_all(site.mailbox("jon").join(sub)).expect("a mailbox");
    }
    fs::write(site.mailbox("jon").join(".Junk"), "").expect("a file");
    site.hand_over();
    drop(daemon);
    deliver(&site, &["jon@razorback"], "first");
    let daemon = site.start();
    daemon.wait_log(|line| line.contains(" deferred ") && line.contains(".Junk"));
    fs::remove_file(site.mailbox("jon").join(".Junk")).expect("it is ours");
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(fs::read_dir(site.mailbox("jon").join(".Junk/new")).expect("a folder").count(), 1);
}

#[test]
fn a_maildir_that_another_user_has_made_gets_no_folder() {
    let Some(mut homes) = Homes::new("") else { return };
    let mail = homes.site.path("mail");
    fs::set_permissions(&mail, fs::Permissions::from_mode(0o1777)).expect("a mode");
    homes.site.set("local", "mailbox", &format!("\"{}/{{user}}\"", mail.display()));
    // Mary makes a Maildir for jon, with a folder, in a directory where everybody may write.
    for sub in ["cur", "new", "tmp"] {
        fs::create_dir_all(mail.join("jon/.Junk").join(sub)).expect("a folder");
        homes.give("mary", &mail.join("jon/.Junk").join(sub));
    }
    for path in [mail.join("jon"), mail.join("jon/.Junk")] {
        homes.give("mary", &path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("a mode");
    }
    fs::set_permissions(mail.join("jon/.Junk/new"), fs::Permissions::from_mode(0o777)).expect("a mode");
    symlink(homes.home("mary"), mail.join("elvis")).expect("a link");
    deliver(&homes.site, &["jon@razorback"], "first");
    deliver(&homes.site, &["elvis@razorback"], "second");
    let daemon = homes.start();
    for to in ["jon@razorback", "elvis@razorback"] {
        daemon.wait_log(|line| line.contains(" deferred ") && line.contains(to));
    }
    assert_eq!(fs::read_dir(mail.join("jon/.Junk/new")).expect("a folder").count(), 0);
    assert!(!homes.home("mary").join(".Junk").exists());
}
