//! Tests who gets a copy of a message.

use super::*;

/// The addresses that get a copy of a message from `sender`, the null path if it is empty.
fn copies(router: &Router, sender: &str, recipients: &[&str]) -> String {
    let sender = (!sender.is_empty()).then(|| address(sender));
    let recipients: Vec<Address> = recipients.iter().map(|to| address(to)).collect();
    let found = router.copies_of(sender.as_ref(), recipients.iter()).expect("a table");
    found.iter().map(|copy| format!("{}:{}", copy.line.number, copy.address)).collect::<Vec<_>>().join(" ")
}

#[test]
fn all_lines_that_match_apply_and_nobody_gets_two() {
    let site = Site::new("copies");
    site.write(
        "copies",
        "# all\n* all@x.org, Jon@razorback\nfrom:Mary@razorback mary2@x.org,ALL@x.org\nfrom:@y.org y@x.org\nfrom:<> null@x.org\n\
         to:ann@razorback ann2@x.org\nto:@z.org z@x.org\n",
    );
    let router = site.open();
    assert!(router.makes_copies());
    for (sender, recipients, found) in [
        ("a@b.org", &["c@d.org"][..], "2:all@x.org 2:Jon@razorback"),
        // Whoever asks leaves out the copy to the sender.
        ("jon@razorback", &["c@d.org"], "2:all@x.org 2:Jon@razorback"),
        ("mary@razorback", &["c@d.org"], "2:all@x.org 2:Jon@razorback 3:mary2@x.org"),
        ("b@y.org", &["c@z.org", "d@z.org"], "2:all@x.org 2:Jon@razorback 4:y@x.org 7:z@x.org"),
        ("b@sub.y.org", &["c@sub.z.org"], "2:all@x.org 2:Jon@razorback"),
        ("", &["ANN+detail@razorback"], "2:all@x.org 2:Jon@razorback 5:null@x.org 6:ann2@x.org"),
    ] {
        assert_eq!(copies(&router, sender, recipients), found, "{sender} {recipients:?}");
    }
    let copy = router.copies_of(None, [].into_iter()).expect("a table").remove(1);
    let finals = router.recipients_of_copy(&copy).expect("a user");
    assert!(finals.iter().all(|to| !to.options.wants_failure() && !to.options.wants_delay()), "no report");
}

/// A stranger chooses the sender at will. So in a copy that leaves, the sender decides nothing, and it is
/// rewritten.
#[test]
fn the_sender_of_a_stranger_does_not_count_for_a_copy() {
    let site = Site::new("copies-of-strangers");
    site.write("copies", "* all@x.org, out@home.example, jon@razorback, a@backup.example\n");
    site.write("senders", "@home.example ours.host\n@far.example theirs.host\n").write("aliases", "out: b@x.org\n");
    let mut config = site.config();
    config.local.domains.insert(0, "home.example".into());
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    router.set_srs_key(b"a key");
    let (forged, strange) = (address("jon@home.example"), address("bob@far.example"));
    let client = |sender| RoutedMail::from_sender(Some(sender));
    let found = router.copies_of(None, [].into_iter()).expect("a table");
    let finals: Vec<_> = found.iter().flat_map(|copy| router.recipients_of_copy(copy).expect("good")).collect();
    for (recipient, by_forged, by_strange, is_forwarded) in [
        ("all@x.org", "mx:x.org", "host:ours.host:25", true),
        ("b@x.org", "mx:x.org", "host:ours.host:25", true),
        ("jon@razorback", "/mail/jon@razorback", "/mail/jon@razorback", false),
        ("a@backup.example", "mx:backup.example", "host:ours.host:25", true),
    ] {
        let to = finals.iter().find(|to| to.address == address(recipient)).expect(recipient);
        let counts = [&forged, &strange].map(|sender| router.sender_counts(&client(sender), to));
        assert_eq!(counts, [false, false], "{recipient}");
        assert_eq!(shown(router.route_of(to, &client(&forged))), by_forged, "{recipient}");
        assert_eq!(shown(router.route_of(to, &client(&strange))), by_strange, "{recipient}");
        let are_forwarded = [&forged, &strange].map(|sender| router.is_forwarded(&client(sender), to));
        assert_eq!(are_forwarded, [false, is_forwarded], "{recipient}");
        // The sender of submitted mail counts.
        let own = RoutedMail { origin: crate::envelope::Origin::Own, ..client(&strange) };
        assert!(router.sender_counts(&own, to) && !router.is_forwarded(&own, to), "{recipient}");
    }
}

#[test]
fn a_bad_line_copies_nothing_and_an_unreadable_table_stops_mail() {
    let site = Site::new("bad-copies");
    site.write(
        "copies",
        "all a@x.org\n* \nfrom:jon a@x.org\nto:@ a@x.org\n* a@x.org,,b@x.org\n* good@x.org\n* b@x.org\n",
    );
    let (router, errors) = Router::begin(&site.config(), &Rights::Alone);
    let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 7]);
    assert_eq!(copies(&router.expect("a router"), "a@b.org", &[]), "6:good@x.org");
    std::fs::remove_file(site.0.join("copies")).expect("a file");
    let mut config = site.config();
    config.policy.always_bcc.required = true;
    let (router, errors) = Router::begin(&config, &Rights::Alone);
    assert_eq!(errors.len(), 1);
    let router = router.expect("a router");
    assert!(router.makes_copies() && router.copies_of(None, [].into_iter()).is_err());
}
