//! penfoldctl hold, release and remove: by queue id, with a running daemon, and without a restart.
//!
//! A held message is listed with the reason and is not tried until it is released. A message that
//! is being delivered is not touched. Nothing is delivered twice, and whatever is removed is in the
//! log.

use std::fs;
use std::io::Write;
use std::time::Duration;

use common::books::{Answer, Letter, offer};
use common::homes::Homes;
use common::programs::{code_and_text, command, feed, stranger};
use common::remote::{Conduct, Remote, Sink, Then};
use common::{Daemon, Site};
use penfold::address::Address;
use penfold::envelope::{Envelope, MailOptions, Origin, Recipient};
use penfold::spool::{EntryName, NewEntry, Place, Spool};

/// The message is tried once, and then not again by itself.
const LATER: &str = "queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"";

fn ctl(site: &Site, arguments: &[&str]) -> (i32, String) {
    code_and_text(&feed(&mut command(site, "penfoldctl", arguments), b""))
}

fn deferring() -> Sink {
    Sink::default().reply("RCPT", "451 4.7.1 not now")
}

/// A site with a message to another host.
fn sent_to(sink: Sink) -> (Remote, Site, Daemon, String) {
    let remote = Remote::with(sink);
    let site = Site::with(LATER);
    site.add("routes", &format!("example.test {}", remote.host_port()));
    let daemon = site.start();
    let id = daemon.submit(&["elvis@example.test"]);
    (remote, site, daemon, id)
}

/// A site with a message to another host, which defers it.
fn waiting() -> (Remote, Site, Daemon, String) {
    let (remote, site, daemon, id) = sent_to(deferring());
    daemon.wait_words(&[&id, " deferred to=<elvis@"]);
    daemon.wait_until("it is in cur/", || is_in(&site, "cur"));
    (remote, site, daemon, id)
}

/// A site with a message that is being delivered: the other host takes some seconds to answer MAIL.
fn at_mail(sink: Sink, seconds: u64) -> (Remote, Site, Daemon, String) {
    let (remote, site, daemon, id) = sent_to(sink.when("MAIL", Then::Pause(Duration::from_secs(seconds)), 1));
    remote.wait("MAIL", |seen| seen.commands.iter().any(|command| command.line.starts_with("MAIL")));
    (remote, site, daemon, id)
}

/// Whether the only entry of the spool is in this directory.
fn is_in(site: &Site, place: &str) -> bool {
    matches!(site.spooled().as_slice(), [only] if only.starts_with(site.path("spool").join(place)))
}

/// Commits a message as a session does that holds it.
fn quarantine(site: &Site, to: &[&str], reason: &str) -> EntryName {
    let address = |text: &str| Address::parse(text).expect("an address");
    let envelope = Envelope {
        sender: Some(address("ret@razorback.test")),
        recipients: to.iter().map(|to| Recipient::new(address(to))).collect(),
        options: MailOptions::default(),
        origin: Origin::Client,
    };
    let spool = Spool::open(&site.path("spool")).expect("a spool");
    let mut draft = spool.begin().expect("a draft");
    draft.write_all(Letter::new("held").text().as_bytes()).expect("memory");
    let name = draft.commit(&NewEntry { hold: Some(reason), ..NewEntry::direct(&envelope, "") }).expect("a commit");
    assert_eq!(name.place, Place::Hold);
    site.hand_over();
    name
}

#[test]
fn a_held_message_waits_and_a_released_one_is_tried_at_once() {
    let (remote, site, daemon, id) = waiting();
    assert_eq!(ctl(&site, &["hold", &id.to_lowercase()]), (0, "1 message held\n".to_owned()));
    assert!(is_in(&site, "hold"));
    daemon.wait_words(&[&id, " held reason=\"by "]);
    let listed = site.penfoldctl(&["queue"]);
    assert!(listed.contains("  held: by ") && listed.contains("<elvis@example.test>  deferred, "), "{listed}");
    assert!(!listed.contains("next "), "{listed}");
    // To hold it again changes nothing.
    assert_eq!(ctl(&site, &["hold", &id]), (0, "1 message held\n".to_owned()));

    // Neither a flush nor a restart tries it.
    remote.behave(Conduct::Sink(Sink::default()));
    assert_eq!(ctl(&site, &["flush", &id]).0, 69);
    site.penfoldctl(&["flush"]);
    assert!(daemon.terminate().success());
    let daemon = site.start();
    site.penfoldctl(&["flush"]);
    assert!(is_in(&site, "hold") && remote.look(|seen| seen.messages.is_empty()));
    assert!(site.penfoldctl(&["queue"]).contains("  held: by "));

    assert_eq!(ctl(&site, &["release", &id]), (0, "1 message released\n".to_owned()));
    daemon.wait_words(&[&id, " released user="]);
    assert_eq!(ctl(&site, &["flush", &id]), (0, String::new()));
    assert_eq!(remote.messages(1)[0].recipients, ["<elvis@example.test>"]);
    assert!(daemon.settles(&site));
    assert_eq!(ctl(&site, &["release", &id]), (69, format!("penfoldctl: {id}: there is no such message\n")));
    assert!(fs::read_dir(site.path("spool/note")).expect("a spool").next().is_none());
}

#[test]
fn a_message_in_quarantine_is_listed_with_its_reason_and_delivered_when_it_is_released() {
    let site = Site::new();
    site.write("users", "ada::\nbob::\n");
    let name = quarantine(&site, &["ada@razorback.test", "bob@razorback.test"], "dmarc example.org\x07 asks for it");
    let (daemon, id) = (site.start(), name.id.to_string());
    let listed = site.penfoldctl(&["queue"]);
    assert!(listed.contains(&format!("{id}  ")), "{listed}");
    assert!(listed.contains("  <ret@razorback.test>  held: dmarc example.org asks for it\n"), "{listed}");
    assert!(listed.contains("    <ada@razorback.test>  not tried yet\n"), "{listed}");
    assert_eq!(ctl(&site, &["release", &id]), (0, "1 message released\n".to_owned()));
    assert!(daemon.settles(&site), "{}", daemon.log());
    for user in ["ada", "bob"] {
        assert_eq!(site.mail(user).len(), 1, "{user}");
    }
}

#[test]
fn a_removed_message_is_logged_and_gone() {
    let (remote, site, daemon, id) = waiting();
    site.add("aliases", "both: jon, elvis@example.test, ann@example.test\n");
    let other = daemon.submit(&["both@razorback"]);
    daemon.wait_words(&[&other, " deferred to=<ann@"]);
    daemon.wait_words(&[&other, " sent to=<jon@"]);
    assert_eq!(ctl(&site, &["hold", &id]), (0, "1 message held\n".to_owned()));
    let unknown = "1K0TVZ6PH81DZ9JHPQF";
    let expected = format!(
        "2 messages removed\npenfoldctl: {unknown}: there is no such message\npenfoldctl: x y: that is not a queue id\n"
    );
    assert_eq!(ctl(&site, &["remove", &id, unknown, "x y", &other]), (69, expected));
    for (id, to, orig) in
        [(&id, "elvis", ""), (&other, "elvis", " orig=<both@razorback>"), (&other, "ann", " orig=<both@razorback>")]
    {
        daemon.wait_words(&[&format!("{id} removed to=<{to}@example.test>{orig} from=<"), " user="]);
    }
    assert!(!daemon.log().contains(" removed to=<jon@"), "{}", daemon.log());
    assert!(site.spooled().is_empty());
    assert!(fs::read_dir(site.path("spool/note")).expect("a spool").next().is_none());
    remote.behave(Conduct::Sink(Sink::default()));
    site.penfoldctl(&["flush"]);
    drop(daemon);
    let daemon = site.start();
    daemon.submit(&["last@example.test"]);
    assert_eq!(remote.messages(1)[0].recipients, ["<last@example.test>"]);
}

#[test]
fn a_message_that_is_being_delivered_is_waited_for() {
    for (reply, command, answer) in [
        ("250 2.0.0 taken", "hold", (69, "there is no such message")),
        ("250 2.0.0 taken", "remove", (69, "there is no such message")),
        ("451 4.3.0 not now", "hold", (0, "")),
        ("451 4.3.0 not now", "remove", (0, "")),
        ("451 4.3.0 not now", "release", (69, "it is not held")),
        ("550 5.7.1 never", "remove", (69, "there is no such message")),
    ] {
        let (_remote, site, daemon, id) = at_mail(Sink::default().reply("RCPT", reply), 2);
        let (code, text) = ctl(&site, &[command, &id]);
        assert_eq!((code, text.contains(answer.1)), (answer.0, true), "{command} {reply}: {text}");
        let expected = match (command, answer.0) {
            ("hold", 0) => "hold",
            ("release", _) => "cur",
            _ => "",
        };
        daemon.wait_until("the end", || {
            // The report of the failure goes to a mailbox.
            if expected.is_empty() { site.spooled().is_empty() } else { is_in(&site, expected) }
        });
        assert!(!daemon.log().contains("bug"), "{}", daemon.log());
    }
}

#[test]
fn a_job_that_takes_too_long_is_left_alone() {
    let (remote, site, daemon, id) = at_mail(Sink::default(), 26);
    // Whichever of two requests comes first waits, and the other is refused at once.
    let mut answers = std::thread::scope(|scope| {
        let requests = ["remove", "hold"].map(|change| scope.spawn(|| ctl(&site, &[change, &id])));
        requests.map(|request| request.join().expect("no panic"))
    });
    answers.sort_by_key(|(_, text)| text.contains("another request for it is under way"));
    assert_eq!(answers[0], (75, format!("penfoldctl: {id}: it is being delivered now\n")));
    assert!(answers[1].1.contains("another request for it is under way"), "{answers:?}");
    assert_eq!(remote.messages(1)[0].recipients, ["<elvis@example.test>"]);
    assert!(daemon.settles(&site), "{}", daemon.log());
}

#[test]
fn only_the_administrator_may_hold_release_and_remove() {
    let (_remote, site, _daemon, id) = waiting();
    for change in ["hold", "release", "remove"] {
        let Some(mut stranger) = stranger(&command(&site, "penfoldctl", &[change, &id])) else { return };
        let (code, text) = code_and_text(&feed(&mut stranger, b""));
        assert!(code == 77 && text.contains(&format!("may {change} messages")), "{code} {text}");
        assert_eq!(ctl(&site, &[change]).0, 64);
    }
    assert!(is_in(&site, "cur"));
    let site = Site::new();
    site.configure();
    let (code, text) = ctl(&site, &["hold", &id]);
    assert!(code == 75 && text.contains("the mail system is not running"), "{code} {text}");
}

#[test]
fn a_message_for_a_system_user_can_be_held_before_its_file_is_handed_over() {
    let Some(homes) = Homes::new(LATER) else { return };
    // The agent cannot use jon's home, so the message waits for its handover.
    let aside = homes.site.path("aside");
    fs::rename(homes.home("jon"), &aside).expect("a rename");
    let daemon = homes.start();
    assert_eq!(offer(daemon.address(), &["jon"], Letter::new("late")), Answer::Taken);
    let log = daemon.wait_log(|line| line.contains(" deferred to=<jon@"));
    let id = log.split_whitespace().find(|word| word.len() == 19).expect("an id").to_owned();
    let (code, text) = ctl(&homes.site, &["hold", &id]);
    assert!(code == 0 || text.contains("an interrupted delivery must be completed first"), "{code} {text}");
    fs::rename(&aside, homes.home("jon")).expect("a rename");
    let _ = ctl(&homes.site, &["release", &id]);
    assert!(daemon.flush_until(&homes.site, || homes.mail("jon").len() == 1), "{}", daemon.log());
    assert!(daemon.settles(&homes.site));
}
