//! Tests routes of single addresses, of senders, and those that discard or hold mail.

use super::*;
use crate::config::Scheme;
use crate::destination::SenderKey;
use crate::envelope::{Envelope, MailOptions, Origin};
use crate::policy::Source;

#[test]
fn a_line_with_the_address_takes_precedence_over_its_domain() {
    let site = Site::new("addresses");
    site.write(
        "routes",
        "x.org mail.x.net\nAnn@X.org old.x.net, new.x.net:26 # two\nbob@[192.0.2.9] mx:y.org\n.x.org mx:y.org\n\
         jon@razorback old.razorback\nmoved@razorback error:5.1.6 moved\nlist@razorback lmtp:/run/lists\nself@razorback b.host\ngone@razorback c.host\n\
         ann+lists@razorback a.host\n* any.host\n",
    );
    site.write("aliases", "mary: ann@x.org\nboth: jon, nobody\nlist: mary\ngone: jon\nself: self, mary\n");
    let router = site.open();
    for (given, routed) in [
        ("jon@x.org", "host:mail.x.net:25"),
        ("ann@x.org", "host:old.x.net:25,new.x.net:26"),
        ("ANN@x.org", "host:old.x.net:25,new.x.net:26"),
        ("ann@b.x.org", "mx:y.org"),
        ("bob@[192.0.2.9]", "mx:y.org"),
        ("bob@[192.0.2.8]", "host:any.host:25"),
        // A line with the address applies to a local domain, and no other line does.
        ("jon@razorback", "host:old.razorback:25"),
        ("Jon+detail@razorback", "host:old.razorback:25"),
        ("jon", "host:old.razorback:25"),
        ("jon@second", "/mail/jon@second"),
        ("mary@razorback", "/mail/mary@razorback"),
        ("ann+lists@razorback", "host:a.host:25"),
        ("moved@razorback", "refused 5.1.6 moved"),
        ("nobody@razorback", "unknown"),
    ] {
        assert_eq!(route(&router, given), routed, "{given}");
    }
    check(
        &router,
        &[
            // The address exists, although it is no user here.
            ("jon@razorback", "jon@razorback"),
            ("jon+detail@razorback", "jon+detail@razorback"),
            ("moved@razorback", "refused 5.1.6 moved"),
            ("nobody@razorback", "unknown"),
            // The aliases and the virtual table are asked before.
            ("mary@razorback", "ann@x.org"),
            ("list@razorback", "ann@x.org"),
            ("gone@razorback", "jon@razorback"),
            ("gone+detail@razorback", "jon@razorback"),
            ("self@razorback", "self@razorback ann@x.org"),
            ("both@razorback", "jon@razorback nobody@razorback"),
        ],
    );
}

/// The names of users may contain the separator.
#[test]
fn the_route_of_a_user_is_not_that_of_a_user_with_a_longer_name() {
    let site = Site::new("longer");
    site.write("users", "mary::\nmary-ann::\njoe-x::\nsam-a::\n");
    site.write(
        "routes",
        "mary@razorback mary.host\njoe@razorback error:5.1.6 moved\nsam@razorback hold: wait\nsam-b@razorback b.host\n",
    );
    site.write("aliases", "mary-ann: mary-ann, bob@x.org\nmary-bob: mary-bob, bob@x.org\n");
    let mut config = site.config();
    config.local.subaddress = Some('-');
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    let held = |to: &str| {
        let (options, origin, recipients) = (MailOptions::default(), Origin::Client, vec![Recipient::new(address(to))]);
        router.hold_reason(&Envelope { sender: None, recipients, options, origin })
    };
    for (given, routed, line) in [
        ("mary-ann@razorback", "/mail/mary-ann@razorback", None),
        ("Mary-Ann@razorback", "/mail/mary-ann@razorback", None),
        ("mary-x@razorback", "host:mary.host:25", Some(1)),
        ("joe-x@razorback", "/mail/joe-x@razorback", None),
        ("joe-y@razorback", "refused 5.1.6 moved", Some(2)),
        ("sam-a@razorback", "/mail/sam-a@razorback", None),
        ("sam-b@razorback", "host:b.host:25", Some(4)),
        ("sam-c@razorback", "hold: wait", Some(3)),
    ] {
        let (recipient, mail) = (Recipient::new(address(given)), RoutedMail::default());
        assert!(route(&router, given).starts_with(routed), "{given}: {}", route(&router, given));
        let source = router.route_source(&recipient, &mail).map(|source| match source {
            Source::Line(line) => line.number,
            other => panic!("{other:?}"),
        });
        assert_eq!(source, line, "{given}");
        assert_eq!(router.is_routed_address(&recipient.address, &mail), line.is_some(), "{given}");
        assert_eq!(held(given).is_some(), given == "sam-c@razorback", "{given}");
    }
    check(
        &router,
        &[
            ("joe-x@razorback", "joe-x@razorback"),
            ("joe-y@razorback", "refused 5.1.6 moved"),
            ("mary-ann@razorback", "mary-ann@razorback bob@x.org"),
        ],
    );
    let found = |text: &str| router.trace(&address(text)).visits.iter().map(|visit| visit.found).collect::<Vec<_>>();
    // The alias names itself, and leads to the user or to the route.
    assert_eq!(found("mary-ann@razorback"), [Found::Alias, Found::Direct, Found::Elsewhere]);
    assert_eq!(found("mary-bob@razorback"), [Found::Alias, Found::Routed, Found::Elsewhere]);
}

/// If the route depends on a user whom only Dovecot knows, a plan leaves the question to a worker.
#[test]
fn a_plan_asks_nobody_about_a_name_with_a_route_for_its_base() {
    let site = Site::new("planned");
    site.write("routes", "mary@razorback mary.host\nmary+b@razorback b.host\n");
    let mut config = site.config();
    config.local.users = UsersSource::Dovecot(site.0.join("nothing"));
    config.local.mailbox = MailboxTemplate::Store(crate::config::Store::parse("lmtp:/run/x").expect("").expect(""));
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    let planned = RoutedMail { is_plan: true, ..RoutedMail::default() };
    for (given, routed, is_asked) in [
        ("mary+x@razorback", "unsure: Dovecot has not been asked yet", true),
        ("mary+b@razorback", "host:b.host:25", false),
        ("mary@razorback", "host:mary.host:25", false),
        ("jon+x@razorback", "lmtp:/run/x", true),
    ] {
        assert_eq!(shown(router.route_of(&Recipient::new(address(given)), &planned)), routed, "{given}");
        let found = route(&router, given);
        assert_eq!(found.starts_with("unsure: "), is_asked, "{given}: {found}");
    }
}

/// An alias with the name of the address precedes its route, and a command or a list has no route.
#[test]
fn an_alias_to_a_command_is_not_refused_by_the_route_of_its_name() {
    let site = Site::new("commands");
    site.write("routes", "moved@razorback error:5.1.6 moved\nlist@razorback error:5.1.6 moved\n");
    site.write("aliases", "moved: \"|/bin/true\"\nlist: :include:/lists/x\nboth: moved@x.org, moved\n");
    check(
        &site.open(),
        &[
            ("moved@razorback", "moved@razorback"),
            ("moved+x@razorback", "moved+x@razorback"),
            ("list@razorback", "list@razorback"),
            ("both@razorback", "moved@x.org moved@razorback"),
        ],
    );
}

#[test]
fn mail_is_discarded_or_held_by_its_route() {
    let site = Site::new("hold");
    site.write(
        "routes",
        "junk.example discard: # all\nslow.example hold: they move\nplain.example hold:\njon@slow.example mail.host\n\
         mary@razorback hold: asked for\n*  mx::26\n",
    );
    let (router, file) = (site.open(), site.0.join("routes"));
    let on = |line: usize| format!("the route on {}:{line}", file.display());
    for (given, routed) in [
        ("a@junk.example", format!("discard: {} discards it", on(1))),
        ("a@slow.example", format!("hold: they move ({} holds it)", on(2))),
        ("a@plain.example", format!("hold: {} holds it", on(3))),
        ("jon@slow.example", "host:mail.host:25".to_owned()),
        ("mary@razorback", format!("hold: asked for ({} holds it)", on(5))),
    ] {
        assert_eq!(route(&router, given), routed, "{given}");
        assert_eq!(expand(&router, given), given, "the recipient is accepted");
    }
    // A message that was held once goes where it would go without the line.
    let released = RoutedMail { is_released: true, ..RoutedMail::default() };
    for (given, routed) in [
        ("a@slow.example", "mx:slow.example:26"),
        ("mary@razorback", "/mail/mary@razorback"),
        ("jon@slow.example", "host:mail.host:25"),
    ] {
        assert_eq!(shown(router.route_of(&Recipient::new(address(given)), &released)), routed, "{given}");
    }
    // A new message is held as a whole only if each recipient is held.
    for (recipients, held) in [
        ("a@slow.example", true),
        ("a@slow.example b@plain.example mary@razorback", true),
        ("a@slow.example jon@razorback", false),
        ("jon@razorback", false),
        ("a@junk.example", false),
    ] {
        let recipients = recipients.split(' ').map(|to| Recipient::new(address(to))).collect();
        let (options, origin) = (MailOptions::default(), Origin::Client);
        let envelope = Envelope { sender: None, recipients, options, origin };
        assert_eq!(router.hold_reason(&envelope).is_some(), held, "{envelope:?}");
    }
}

#[test]
fn the_sender_decides_by_which_hosts_mail_leaves() {
    let site = Site::new("senders");
    site.write("routes", "inside.example mail.inside\n");
    site.write(
        "senders",
        "Jon@razorback smtps://one.host, smtp+starttls://two.host\n@razorback three.host:26 # all\n@direct.example mx:\n<> null.host\n",
    );
    let mut config = site.config();
    config.remote.smarthosts = vec![HostPort { host: "smart.host".into(), port: 25, scheme: Scheme::Smtp }];
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    for (sender, recipient, routed) in [
        ("jon@razorback", "a@x.org", "host:smtps://one.host:465,smtp+starttls://two.host:587"),
        ("JON@razorback", "a@x.org", "host:smtps://one.host:465,smtp+starttls://two.host:587"),
        ("mary@razorback", "a@x.org", "host:three.host:26"),
        ("jon@sub.razorback", "a@x.org", "host:smart.host:25"),
        ("a@direct.example", "a@x.org", "mx:x.org"),
        ("", "a@x.org", "host:null.host:25"),
        ("a@y.org", "a@x.org", "host:smart.host:25"),
        // The routes table takes precedence, and local mail stays here.
        ("jon@razorback", "a@inside.example", "host:mail.inside:25"),
        ("jon@razorback", "mary@razorback", "/mail/mary@razorback"),
    ] {
        assert_eq!(route_from(&router, sender, recipient), routed, "{sender} to {recipient}");
    }
    assert_eq!(route(&router, "a@x.org"), "host:smart.host:25", "the sender is not known");
    for (sender, recipient, line) in [
        ("jon@razorback", "a@x.org", "senders:1"),
        ("mary@razorback", "a@x.org", "senders:2"),
        ("jon@razorback", "a@inside.example", "routes:1"),
        ("a@y.org", "a@x.org", "remote.smarthosts"),
    ] {
        let (sender, recipient) = (address(sender), Recipient::new(address(recipient)));
        let source = router.route_source(&recipient, &RoutedMail::from_sender(Some(&sender)));
        let named = match source.expect("a source") {
            Source::Key(key) => key.to_owned(),
            Source::Line(line) => line.to_string(),
            other => format!("{other:?}"),
        };
        assert!(named.ends_with(line), "{sender}: {named}");
    }
    // Mail from the sender on a line with an error waits; other mail does not.
    site.write("senders", "@razorback nowhere//\n@direct.example mx:\nbad\n");
    let (router, errors) = Router::begin(&config, &Rights::Alone);
    let (router, lines) = (router.expect("a router"), errors.iter().map(|error| error.line).collect::<Vec<_>>());
    assert_eq!(lines, [1, 3]);
    assert!(route_from(&router, "jon@razorback", "a@x.org").starts_with("unsure: "));
    assert_eq!(route_from(&router, "a@direct.example", "a@x.org"), "mx:x.org");
}

#[test]
fn the_sender_that_the_next_host_gets_decides() {
    let site = Site::new("rewritten");
    site.write("senders", "@home.example ours.host\n@far.example theirs.host\n");
    site.write("aliases", "out: a@x.org\n");
    let mut config = site.config();
    config.local.domains.insert(0, "home.example".into());
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    router.set_srs_key(b"a key");
    let sender = address("bob@far.example");
    let forwarded = Recipient { original: Some(address("out@home.example")), ..Recipient::new(address("a@x.org")) };
    let client = RoutedMail::from_sender(Some(&sender));
    assert_eq!(shown(router.route_of(&forwarded, &client)), "host:ours.host:25", "the sender is rewritten");
    assert_eq!(shown(router.route_of(&Recipient::new(address("a@x.org")), &client)), "host:theirs.host:25");
    // A report is not rewritten.
    let report = RoutedMail { origin: Origin::Report, ..RoutedMail::from_sender(None) };
    assert_eq!(shown(router.route_of(&forwarded, &report)), "mx:x.org");
}

#[test]
fn the_account_of_a_sender_is_part_of_the_destination() {
    let site = Site::new("accounts");
    site.write("routes", "x.org mail.host\n");
    let router = site.open();
    let account_of = |hosts: &[HostPort], sender: &Address| -> Option<SenderKey> {
        (hosts[0].host == "mail.host" && sender.domain() == "razorback").then(|| format!("@{}", sender.domain()).into())
    };
    router.set_accounts(account_of, || true);
    for (sender, routed) in [
        ("jon@razorback", "host:mail.host:25,from=@razorback"),
        ("mary@razorback", "host:mail.host:25,from=@razorback"),
        ("jon@y.org", "host:mail.host:25"),
        ("", "host:mail.host:25"),
    ] {
        assert_eq!(route_from(&router, sender, "a@x.org"), routed, "{sender}");
    }
}

/// Strangers choose their sender at will. If they write to an address here that leads elsewhere, the lines
/// for a user that they name do not apply.
#[test]
fn the_sender_of_a_stranger_does_not_count() {
    let site = Site::new("strangers");
    site.write("routes", "x.org mail.host\nmoved@razorback mail.host\n").write("senders", "jon@razorback ours.host\n");
    let router = site.open();
    router.set_accounts(|_, sender| Some(sender.local().into()), || true);
    let jon = address("jon@razorback");
    let stranger = RoutedMail::from_sender(Some(&jon));
    let to = |text: &str| Recipient::new(address(text));
    let from_alias = |text: &str| Recipient { original: Some(address("out@razorback")), ..to(text) };
    let on = RoutedMail { is_passed_on: true, ..stranger };
    for (recipient, mail, routed, submitted) in [
        (from_alias("a@x.org"), stranger, "host:mail.host:25", "host:mail.host:25,from=jon"),
        (from_alias("a@y.org"), stranger, "mx:y.org", "host:ours.host:25,from=jon"),
        (to("a@y.org"), on, "mx:y.org", "host:ours.host:25,from=jon"),
        (to("a@backup.example"), stranger, "mx:backup.example", "host:ours.host:25,from=jon"),
        (to("moved@razorback"), stranger, "host:mail.host:25", "host:mail.host:25,from=jon"),
        // A stranger may not send there, so the message was submitted.
        (to("a@y.org"), stranger, "host:ours.host:25,from=jon", "host:ours.host:25,from=jon"),
    ] {
        assert_eq!(shown(router.route_of(&recipient, &mail)), routed, "{recipient:?}");
        for mail in [RoutedMail { origin: Origin::Own, ..mail }, RoutedMail { is_submitted: true, ..mail }] {
            assert_eq!(shown(router.route_of(&recipient, &mail)), submitted, "{recipient:?}");
        }
    }
}

#[test]
fn a_bad_line_names_the_wrong_part() {
    let site = Site::new("bad-routes");
    site.write(
        "routes",
        "a@ x\n@b y\nc@d a,b,,c\nd.example a, mx:b\ne.example a.host, A.host\nf.example discard:now\n\
         g.example hold: a\u{7}\nh.example a b\ni.example a,b,c,d,e,f,g,h,i,j,k\nj@d.example x\nJ@d.example y\n",
    );
    let (router, errors) = Router::begin(&site.config(), &Rights::Alone);
    let found: Vec<String> =
        errors.iter().map(|error| format!("{}:{} {}", error.line, error.column, error.text)).collect();
    let wanted = [
        "1:1 expected an address",
        "2:1 expected an address",
        "3:5 expected a host",
        "4:14 expected a host",
        "5:19 this host is in the line already",
        "6:11 expected host:port",
        "7:11 expected hold: and a text without control characters",
        "8:11 expected host:port",
        "9:11 expected at most 10 hosts",
        "11:1 J@d.example is already on line 10",
    ];
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    assert!(found.iter().zip(wanted).all(|(found, wanted)| found.starts_with(wanted)), "{found:#?}");
    // Mail for the key of a bad line waits.
    assert!(route(&router.expect("a router"), "c@d").starts_with("unsure: "));
}
