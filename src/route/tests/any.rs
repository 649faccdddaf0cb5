//! Tests users whose names only the mail store knows.

use super::*;

#[test]
fn every_name_is_that_of_a_user_of_the_store() {
    let site = Site::new("any");
    let store = "lmtp:/run/store";
    let mut config = site.config();
    config.local.users = UsersSource::Any;
    config.local.mailbox = MailboxTemplate::Store(crate::config::Store::parse(store).expect(store).expect(store));
    site.write("aliases", "info: mary\nboss: jon@x.org\n");
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    for (given, finals, asked) in [
        ("jon@razorback", "jon@razorback", Some("jon@razorback")),
        ("Jon+News@second", "Jon+News@second", Some("Jon+News@second")),
        ("info@razorback", "mary@razorback", Some("mary@razorback")),
        // An alias without the detail says more than a store that may have any name.
        ("info+x@razorback", "mary@razorback", Some("mary@razorback")),
        ("boss@razorback", "jon@x.org", None),
        // The postmaster exists whatever the store says, and root is the postmaster.
        ("postmaster@second", "postmaster@second", None),
        ("root@razorback", "unknown", None),
        ("jon@x.org", "jon@x.org", None),
        ("jon@backup.example", "jon@backup.example", None),
    ] {
        let expansion = router.resolve(&address(given));
        let Expansion::Finals(list) = expansion else {
            assert_eq!(finals, "unknown", "{given}");
            continue;
        };
        assert_eq!(list.iter().map(|to| to.address.to_string()).collect::<Vec<_>>().join(" "), finals, "{given}");
        let to_be_asked = router.to_be_asked(&list).map(|(to, target)| (to.to_string(), target.to_string()));
        assert_eq!(to_be_asked, asked.map(|to| (to.to_owned(), store.to_owned())), "{given}");
    }
    assert_eq!(route(&router, "postmaster@second"), "/spool/postmaster");
    // So does a route without the detail.
    site.write("routes", "jon@razorback moved.host\n");
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    for given in ["jon@razorback", "Jon+News@razorback"] {
        assert_eq!(route(&router, given), "host:moved.host:25");
        assert_eq!(router.trace(&address(given)).visits[0].found, Found::Routed);
    }
    assert_eq!(route(&router, "mary+news@razorback"), store);
    // With known users, nobody is asked.
    let mut config = site.config();
    config.local.mailbox = MailboxTemplate::Store(crate::config::Store::parse(store).expect(store).expect(store));
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    let Expansion::Finals(list) = router.resolve(&address("jon@razorback")) else { panic!("unknown") };
    assert!(router.to_be_asked(&list).is_none());
}

#[test]
fn recipients_in_relay_domains_are_asked_about_if_they_are_relayed() {
    let site = Site::new("asked");
    let mut config = site.config();
    config.relay.verify = true;
    config.relay.domains.extend(["routed.example".into(), "refused.example".into()]);
    site.write("routes", "routed.example lmtp:/run/x\nrefused.example error:5.1.2 gone\n");
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    for (given, asked) in [
        ("jon@backup.example", Some("mx:backup.example")),
        ("jon@routed.example", Some("lmtp:/run/x")),
        ("jon@refused.example", None),
        ("jon@razorback", None),
        ("jon@elsewhere.example", None),
    ] {
        let finals = match router.resolve(&address(given)) {
            Expansion::Finals(finals) => finals,
            _ => Vec::new(),
        };
        let target = router.to_be_asked(&finals).map(|(_, target)| target.to_string());
        assert_eq!(target.as_deref(), asked, "{given}");
        let two = [finals.clone(), finals].concat();
        assert!(router.to_be_asked(&two).is_none(), "{given} twice");
    }
}
