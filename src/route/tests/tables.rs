//! Tests changes of the tables' files: a good change takes effect at once, and after a bad one the
//! old table is kept.

use super::*;

#[test]
fn tables_follow_their_files_and_survive_a_bad_edit() {
    let site = Site::new("again");
    let router = site.open();
    check(&router, &[("list@razorback", "unknown"), ("new@second", "unknown")]);
    site.write("aliases", "list: jon, x@x.org\n").write("virtual", "new@second mary\n");
    check(&router, &[("list@razorback", "jon@razorback x@x.org"), ("new@second", "mary@razorback")]);
    site.write("aliases", "list: jon jon\n").write("virtual", "new@second\n").write("users", "nonsense\n");
    site.write("routes", "x.org lmtp:run/x\n");
    check(&router, &[("list@razorback", "jon@razorback x@x.org"), ("new@second", "mary@razorback")]);
    assert_eq!(route(&router, "jon@razorback"), "/mail/jon@razorback");
    assert_eq!(route(&router, "a@x.org"), "mx:x.org");
    site.write("users", "elvis::/graceland\n").write("routes", "x.org mail\n");
    check(&router, &[("jon@razorback", "unknown"), ("elvis@razorback", "elvis@razorback")]);
    assert_eq!(route(&router, "a@x.org"), "host:mail:25");
}

#[test]
fn all_errors_of_all_tables_are_reported() {
    let site = Site::new("errors");
    site.write("aliases", "a: b\nb: a\n").write("users", "jon\n");
    site.write("virtual", "jon mary\na@second b\nA@second c\n@b..c x\na@second\n");
    site.write(
        "routes",
        "x.org\nx..org mail\na.org  lmtp:run/x\nb.org mail:0\nc.org mail:+25\nd.org error:2.0.0 ok\ne.org error:x\n\
         f.org [mail]:25\ng.org mail\nG.org mail\nh.org mail other\ni.org mx:a..b\n\
         j.org mx:[192.0.2.1]\nk.org error:5.1.2 na\u{ef}ve\n",
    );
    let errors = Router::open(&site.config(), &Rights::Alone).expect_err("bad tables");
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let places: Vec<String> = errors.iter().map(|e| format!("{}:{}:{}", name(&e.file), e.line, e.column)).collect();
    let mut expected: Vec<&str> = vec!["aliases:1:1", "virtual:1:1", "virtual:3:1", "virtual:4:1"];
    expected.extend(["virtual:5:1", "virtual:5:1", "users:1:1", "routes:1:6", "routes:2:1", "routes:3:8"]);
    expected.extend(["routes:4:7", "routes:5:7", "routes:6:7", "routes:7:7", "routes:8:7", "routes:10:1"]);
    expected.extend(["routes:11:7", "routes:12:7", "routes:13:7", "routes:14:7"]);
    assert_eq!(places, expected, "{errors:#?}");
}

/// While the server runs, a bad line is only logged. So after a restart, a bad line must not stop
/// all mail either.
#[test]
fn a_start_uses_the_readable_parts_of_the_tables() {
    let site = Site::new("tolerant");
    site.write("aliases", "a: b\nb: a\njon: x y\nlist: mary, x@x.org\nlist: elvis\nboss mary\nvia: jon\n");
    site.write("users", "jon::\nmary::\nann@second\nbob::m\n").write("virtual", "v@second |cat\nw@second mary\n");
    site.write("routes", "x.org lmtp:run/x\n.y.org error:9 no\nz.org mail\nz.org other\n");
    let (router, errors) = Router::begin(&site.config(), &Rights::Alone);
    let router = router.expect("tables with errors");
    assert_eq!(errors.len(), 10, "{errors:#?}");
    for (given, wanted) in [
        ("mary@razorback", "mary@razorback"),
        ("list@razorback", "mary@razorback x@x.org"),
        ("w@second", "mary@razorback"),
        ("elvis@razorback", "unknown"),
        ("ann@razorback", "unknown"),
        ("postmaster@razorback", "postmaster@razorback"),
        ("a@razorback", "unsure: alias loop: a@razorback -> b@razorback -> a@razorback"),
        ("jon@razorback", "aliases:3:6: there is text after the address"),
        ("via@razorback", "aliases:3:6: there is text after the address"),
        ("boss@razorback", "aliases:6:1: expected a name, a colon and addresses"),
        ("ann@second", "users:3:1: expected name:secret:mailbox"),
        ("bob@second", "users:4:6: expected the path"),
        ("v@second", "virtual:1:1: expected addresses"),
    ] {
        let found = expand(&router, given);
        assert!(found == wanted || (found.starts_with("unsure: /") && found.contains(wanted)), "{given}: {found}");
    }
    for (given, wanted) in [
        ("a@x.org", "unsure: "),
        ("a@b.y.org", "unsure: "),
        ("a@z.org", "host:mail:25"),
        ("a@w.org", "mx:w.org"),
        ("bob@second", "unsure: "),
        ("mary@second", "/mail/mary@second"),
    ] {
        assert!(route(&router, given).starts_with(wanted), "{given}: {}", route(&router, given));
    }
    site.write("aliases", "jon: x y\nlist: jon\n");
    check(&router, &[("a@razorback", "unknown")]);
    assert!(expand(&router, "list").starts_with("unsure: "), "it follows its file as far as that can be read");
    site.write("aliases", "list: mary\n");
    check(&router, &[("list", "mary@razorback"), ("boss@razorback", "unknown")]);
    site.write("aliases", "list: mary mary\n");
    check(&router, &[("list", "mary@razorback")]);
}

/// If a table cannot be read, the mail that needs this table for its routing waits.
#[test]
fn mail_waits_for_an_unreadable_table() {
    for table in ["aliases", "users", "virtual", "routes"] {
        let site = Site::new(&format!("lost-{table}"));
        let _ = fs::remove_file(site.0.join(table));
        fs::create_dir(site.0.join(table)).expect("a directory");
        let (router, errors) = Router::begin(&site.config(), &Rights::Alone);
        let router = router.expect("a table that cannot be read");
        assert_eq!(errors.len(), 1, "{errors:?}");
        for (local, depends_on_routes) in [("jon@razorback", false), ("nosuch@second", true), ("postmaster", false)] {
            let is_unsure = expand(&router, local).starts_with("unsure: ");
            assert_eq!(is_unsure, table != "routes" || depends_on_routes, "{table}: {local}");
        }
        assert_eq!(route(&router, "jon@razorback").starts_with("unsure: "), table == "users", "{table}");
        let is_unsure = route(&router, "nosuch@second").starts_with("unsure: ");
        assert_eq!(is_unsure, matches!(table, "users" | "routes"), "{table}");
        assert_eq!(route(&router, "a@x.org").starts_with("unsure: "), table == "routes", "{table}");
    }
}

/// A user may have moved to another host by a line of the routes table. So as long as that table cannot
/// be read, the mail of no such user is refused or goes to whoever gets the mail for unknown names.
#[test]
fn mail_for_unknown_names_waits_for_the_routes_table() {
    for by_key in [false, true] {
        let site = Site::new(&format!("lost-moved-{by_key}"));
        fs::create_dir(site.0.join("routes")).expect("a directory");
        site.write("aliases", "both: jon, moved\ngone: moved\n");
        let mut config = site.config();
        match by_key {
            true => config.local.catch_all = Some("mary@razorback".into()),
            false => drop(site.write("virtual", "@razorback mary@razorback\n")),
        }
        let (router, _) = Router::begin(&config, &Rights::Alone);
        let router = router.expect("a table that cannot be read");
        for unsure in ["moved@razorback", "moved+detail@razorback", "gone@razorback", "nosuch@second"] {
            assert!(expand(&router, unsure).starts_with("unsure: "), "{unsure}: {}", expand(&router, unsure));
        }
        assert!(route(&router, "moved@razorback").starts_with("unsure: "));
        check(&router, &[("jon@razorback", "jon@razorback"), ("jon+x@razorback", "jon+x@razorback")]);
        // Once the file can be read, its lines apply, and so does the catch-all.
        fs::remove_dir(site.0.join("routes")).expect("a directory");
        site.write("routes", "moved@razorback mail.host\n");
        check(&router, &[("moved@razorback", "moved@razorback"), ("nosuch@razorback", "mary@razorback")]);
        assert_eq!(route(&router, "moved@razorback"), "host:mail.host:25");
    }
}

#[test]
fn one_router_serves_all_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Router>();
}
