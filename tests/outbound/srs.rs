//! Senders that are rewritten when a message leaves again (SRS), and bounces that come back to them.
//!
//! The next host sees a sender of this host, every other copy keeps the original one, and reports
//! of this host go to the original sender. Strangers can use a rewritten address for nothing but a
//! bounce to the original sender.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use common::client::{Client, TEXT};
use common::homes::Homes;
use common::programs::sendmail;
use common::remote::{Received, Remote, Sink};
use common::{Daemon, Site, own};

/// Only the clients at 127.0.0.1 may relay.
const SETTINGS: &str = "relay.networks = [\"127.0.0.1/32\"]\nqueue.retry_min = \"1h\"";

fn site(remote: &Remote) -> Site {
    let site = Site::with(SETTINGS);
    site.write("aliases", "out: elvis@far.test\nboth: jon, elvis@far.test, ann@far.test\n");
    site.write("virtual", "info@razorback.test elvis@far.test\n@razorback.test jon@razorback.test\n");
    site.write("routes", &format!("far.test {0}\norigin.test {0}\n", remote.host_port()));
    site
}

/// The path after `MAIL FROM:` of a message that the other host has got.
fn sender(message: &Received) -> String {
    let path = message.sender.split(' ').next().unwrap_or_default();
    path.trim_start_matches('<').trim_end_matches('>').to_owned()
}

fn stranger(daemon: &Daemon) -> Client {
    Client::new(daemon.connect_from(Ipv4Addr::new(127, 0, 0, 9)))
}

/// Sends a bounce to an address, as any host may.
fn bounce(daemon: &Daemon, to: &str) {
    stranger(daemon).send("", &[to], TEXT);
}

/// The rewritten sender of a message from ann@origin.test to an alias.
fn rewritten(daemon: &Daemon, remote: &Remote) -> String {
    let before = remote.look(|seen| seen.messages.len());
    daemon.submit_from("Ann.X@origin.test", &["out@razorback.test"]);
    let text = sender(&remote.messages(before + 1)[before]);
    assert!(text.starts_with("SRS0=") && text.ends_with("=origin.test=Ann.X@razorback.test"), "{text}");
    text
}

#[test]
fn only_mail_that_leaves_again_is_rewritten() {
    let remote = Remote::sink();
    let site = site(&remote);
    let daemon = site.start();
    let is_rewritten = |from: &str| from.starts_with("SRS0=") && from.ends_with("=origin.test=ann@razorback.test");
    for (from, to, expected) in [
        ("ann@origin.test", "out@razorback.test", true),
        ("ann@origin.test", "info@razorback.test", true),
        ("ann@origin.test", "elvis@far.test", false),
        ("jon@razorback.test", "out@razorback.test", false),
        ("", "out@razorback.test", false),
    ] {
        daemon.submit_from(from, &[to]);
        let got = remote.messages(1);
        assert_eq!(got[0].recipients, ["<elvis@far.test>"]);
        let seen = sender(&got[0]);
        assert!(if expected { is_rewritten(&seen) } else { seen == from }, "{from} to {to}: {seen}");
        remote.take();
    }
    // One message goes to both kinds of recipients at the same host, and to a mailbox.
    daemon.submit_from("ann@origin.test", &["both@razorback.test", "bob@far.test", "zoe@far.test"]);
    let mut got: Vec<_> = remote.messages(2).iter().map(|got| (sender(got), got.recipients.clone())).collect();
    got.sort_by_key(|(sender, _)| !is_rewritten(sender));
    let [(forwarded, aliases), (direct, others)] = got.as_slice() else { panic!("{got:?}") };
    assert!(is_rewritten(forwarded), "{forwarded}");
    assert_eq!(
        (aliases.as_slice(), direct.as_str()),
        (&["<elvis@far.test>", "<ann@far.test>"].map(String::from)[..], "ann@origin.test")
    );
    assert_eq!(others, &["<bob@far.test>", "<zoe@far.test>"]);
    let mail = String::from_utf8(daemon.wait_mail(&site, "jon", 1).remove(0)).expect("text");
    assert!(mail.starts_with("Return-Path: <ann@origin.test>\n"), "{mail}");
    assert!(daemon.settles(&site));
}

#[test]
fn a_bounce_comes_back_to_the_sender_from_any_client() {
    let remote = Remote::sink();
    let site = site(&remote);
    let daemon = site.start();
    let address = rewritten(&daemon, &remote);
    remote.take();
    for (to, back) in [
        (address.clone(), "<Ann.X@origin.test>"),
        (address.to_lowercase(), "<ann.x@origin.test>"),
        (address.replace("@razorback.test", "@razorback"), "<Ann.X@origin.test>"),
    ] {
        bounce(&daemon, &to);
        let got = remote.messages(1);
        assert_eq!((sender(&got[0]), got[0].recipients.as_slice()), (String::new(), &[back.to_owned()][..]));
        remote.take();
    }
    // After a restart as well: the key is in the spool.
    drop(daemon);
    let mode = fs::metadata(site.path("spool/key")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let daemon = site.start();
    bounce(&daemon, &address);
    assert_eq!(remote.messages(1)[0].recipients, ["<Ann.X@origin.test>"]);
    daemon.wait_words(&[&format!(" sent to=<Ann.X@origin.test> orig=<{address}> ")]);
}

#[test]
fn a_stranger_cannot_use_a_rewritten_address_for_anything_else() {
    let remote = Remote::sink();
    let site = site(&remote);
    let daemon = site.start();
    let address = rewritten(&daemon, &remote);
    let (hash, rest) = address.strip_prefix("SRS0=").and_then(|text| text.split_once('=')).expect("a hash");
    let other = if hash.starts_with('A') { "B" } else { "A" };
    let mut client = stranger(&daemon);
    client.ask("MAIL FROM:<>", "250 ");
    for forged in [
        format!("SRS0={other}{}={rest}", &hash[1..]),
        format!("SRS0={hash}={}", rest.replace("Ann.X", "bob")),
        format!("SRS0={hash}={}", rest.replace("origin.test", "far.test")),
        format!("SRS0={hash}={}", rest.replace("origin.test=", "origin.tes=t")),
        format!("SRS0=={rest}"),
        format!("SRS0={}", rest),
        format!("SRS1={hash}=far.test=={rest}"),
        "SRS0@razorback.test".to_owned() + "x",
        "SRS0=a@razorback.test".to_owned(),
        "srs1=a=b@razorback.test".to_owned(),
    ] {
        // The virtual table takes all other names of the domain.
        client.ask(&format!("RCPT TO:<{forged}>"), "550 5.");
    }
    client.ask("RCPT TO:<any@razorback.test>", "250 ");
    client.ask(&format!("RCPT TO:<{}>", address.replace("@razorback.test", "@far.test")), "550 5.7.1 ");
    client.ask("RSET", "250 ");
    // Not even a client that may relay sends other mail to it.
    let mut client = daemon.client();
    client.ask("MAIL FROM:<spammer@far.test>", "250 ");
    let reply = client.ask(&format!("RCPT TO:<{address}>"), "550 5.7.1 ");
    assert!(reply.ends_with("> This address is for bounces only"), "{reply}");
    assert_eq!(remote.look(|seen| seen.messages.len()), 1);
}

#[test]
fn a_failure_is_reported_to_the_original_sender_and_ends_there() {
    let remote = Remote::with(Sink::default().reply("RCPT TO:<elvis", "550 5.1.1 no such user"));
    let site = site(&remote);
    site.add("aliases", "root: jon\n");
    let daemon = site.start();
    let id = daemon.submit_from("ann@origin.test", &["out@razorback.test"]);
    let report = remote.messages(1).remove(0);
    assert_eq!((sender(&report), report.recipients.as_slice()), (String::new(), &["<ann@origin.test>".to_owned()][..]));
    let text = String::from_utf8_lossy(&report.data).into_owned();
    assert!(text.contains("out@razorback.test") && !text.contains("SRS0"), "{text}");
    daemon.wait_words(&[&id, " bounced ", " to=<ann@origin.test>"]);
    assert!(daemon.settles(&site));

    // If the sender does not exist either, the postmaster gets one report, and that is the end.
    remote.behave(common::remote::Conduct::Sink(Sink::default()));
    let address = rewritten(&daemon, &remote);
    remote.behave(common::remote::Conduct::Sink(Sink::default().reply("RCPT", "550 5.1.1 no such user")));
    bounce(&daemon, &address);
    let mail = daemon.wait_mail(&site, "jon", 1);
    assert!(String::from_utf8_lossy(&mail[0]).contains("Ann.X@origin.test"));
    assert!(daemon.settles(&site));
    assert_eq!(site.mail("jon").len(), 1);
}

#[test]
fn a_forward_file_rewrites_the_sender_too() {
    let Some(homes) = Homes::new(SETTINGS) else { return };
    let remote = Remote::sink();
    homes.site.write("routes", &format!("far.test {0}\norigin.test {0}\n", remote.host_port()));
    homes.write("jon", ".forward", "\\jon, elvis@far.test, mary\n", 0o600);
    let daemon = homes.start();
    daemon.submit_from("ann@origin.test", &["jon@razorback.test"]);
    let address = sender(&remote.messages(1)[0]);
    assert!(address.starts_with("SRS0=") && address.ends_with("=origin.test=ann@razorback.test"), "{address}");
    assert!(daemon.settles(&homes.site));
    for user in ["jon", "mary"] {
        assert!(homes.mail(user)[0].starts_with("Return-Path: <ann@origin.test>\n"), "{user}");
    }
    bounce(&daemon, &address);
    assert_eq!(remote.messages(2)[1].recipients, ["<ann@origin.test>"]);
}

#[test]
fn the_sender_of_an_own_user_is_kept() {
    let remote = Remote::sink();
    let mut site = site(&remote);
    site.write("rewrite", "@razorback.test anna@origin.test\n");
    site.set("submission", "rewrite", &format!("{:?}", site.path("rewrite")));
    let daemon = site.start();
    let sent = sendmail(&site, &["-f", "anna@origin.test", "out@razorback.test"], b"Subject: x\n\nhello\n");
    assert!(sent.status.success());
    assert_eq!(sender(&remote.messages(1)[0]), "anna@origin.test");
    // The rewrite table has made this sender of a local one.
    let sent = sendmail(&site, &["-f", "jon@razorback.test", "info@razorback.test"], b"Subject: x\n\nhello\n");
    assert!(sent.status.success());
    assert_eq!(sender(&remote.messages(2)[1]), "anna@origin.test");
    assert!(daemon.settles(&site));
    let Some(homes) = Homes::new(SETTINGS) else { return };
    homes.site.write("routes", &format!("far.test {0}\n", remote.host_port()));
    homes.write("jon", ".forward", "elvis@far.test\n", 0o600);
    let daemon = homes.start();
    let sent = sendmail(&homes.site, &["-f", "anna@origin.test", "jon"], b"Subject: x\n\nhello\n");
    assert!(sent.status.success());
    assert_eq!(sender(&remote.messages(3)[2]), "anna@origin.test");
    assert!(daemon.settles(&homes.site));
}

#[test]
fn two_forwarders_in_a_row_bring_a_bounce_back() {
    let remote = Remote::sink();
    let (mut first, mut second) = (Site::with(SETTINGS), Site::with(SETTINGS));
    first.set("local", "domains", "[\"one.test\"]");
    second.set("local", "domains", "[\"two.test\"]");
    first.write("aliases", "list: list@two.test\n");
    second.write("aliases", "list: elvis@far.test\n");
    // Both hosts have fixed ports, because each sends mail to the other.
    let ports = [common::free_port(), common::free_port()];
    for (site, port) in [&mut first, &mut second].into_iter().zip(ports) {
        site.set("listen", "address", &format!("\"127.0.0.1:{port}\""));
    }
    first.write("routes", &format!("two.test 127.0.0.1:{}\norigin.test {}\n", ports[1], remote.host_port()));
    second.write("routes", &format!("one.test 127.0.0.1:{}\nfar.test {}\n", ports[0], remote.host_port()));
    for site in [&first, &second] {
        // Only a host that does not listen on the same address is another host.
        site.configure();
    }
    let (one, two) = (first.start(), second.start());
    one.submit_from("ann@origin.test", &["list@one.test"]);
    let address = sender(&remote.messages(1)[0]);
    assert!(address.starts_with("SRS1=") && address.contains("=one.test=="), "{address}");
    assert!(address.ends_with("=origin.test=ann@two.test"), "{address}");
    bounce(&two, &address);
    let got = remote.messages(2);
    assert_eq!((sender(&got[1]), got[1].recipients.as_slice()), (String::new(), &["<ann@origin.test>".to_owned()][..]));
    assert!(one.settles(&first) && two.settles(&second));
}

#[test]
fn hosts_with_one_secret_take_bounces_for_each_other() {
    let remote = Remote::sink();
    let secret = |site: &mut Site, text: &str, mode: u32| {
        let path = site.path("srs");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        own(&path);
        site.set("remote", "srs_secret", &format!("{path:?}"));
    };
    let (mut first, mut second) = (site(&remote), site(&remote));
    secret(&mut first, "# made by hand\nthe new secret of all hosts\n", 0o600);
    secret(&mut second, "another secret, made later\nthe new secret of all hosts\n", 0o600);
    let (one, two) = (first.start(), second.start());
    let address = rewritten(&one, &remote);
    bounce(&two, &address);
    assert_eq!(remote.messages(2)[1].recipients, ["<Ann.X@origin.test>"]);
    let address = rewritten(&two, &remote);
    let mut client = stranger(&one);
    client.ask("MAIL FROM:<>", "250 ");
    client.ask(&format!("RCPT TO:<{address}>"), "550 5.1.1 ");
    // The file is read again when it changes.
    secret(&mut first, "another secret, made later\n", 0o600);
    one.wait_until("the new secret", || {
        client.ask("RSET", "250 ");
        client.ask("MAIL FROM:<>", "250 ");
        client.ask(&format!("RCPT TO:<{address}>"), "").starts_with("250 ")
    });
    for (text, mode, wanted) in [
        ("too short\n", 0o600, "srs:1:1: expected a secret of at least 16 characters\n"),
        ("the new secret of all hosts\n", 0o644, "srs: has mode 644; expected 600: group and others must not use it\n"),
    ] {
        secret(&mut second, text, mode);
        let output = second.penfoldd(&["-n"]).output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(78) && printed.contains(wanted), "{printed}");
    }
}

#[test]
fn without_srs_nothing_is_rewritten() {
    let remote = Remote::sink();
    for (key, value) in [("remote.srs", "false"), ("local.domains", "[\"razorback\", \"[192.0.2.1]\"]")] {
        let mut site = site(&remote);
        let daemon = site.start();
        let address = rewritten(&daemon, &remote);
        let (section, name) = key.split_once('.').expect("a key");
        site.set(section, name, value);
        site.configure();
        daemon.hup();
        daemon.wait_log(|line| line.contains("configuration and tables read again"));
        let before = remote.take().len();
        assert!(before > 0);
        daemon.submit_from("ann@origin.test", &["out@razorback"]);
        assert_eq!(sender(&remote.messages(1)[0]), "ann@origin.test");
        let mut client = stranger(&daemon);
        client.ask("MAIL FROM:<>", "250 ");
        let expected = if key == "remote.srs" { "250 " } else { "550 5.7.1 " };
        // The virtual table takes it, or the domain is no longer local.
        client.ask(&format!("RCPT TO:<{address}>"), expected);
        remote.take();
    }
}
