use std::fs;

use super::*;
use crate::config::{Local, Relay, TableFile, Users as UsersSource};

/// Tables in a scratch directory that goes when the test ends.
struct Site(PathBuf);

const USERS: &str = "jon::\nmary::\nann+lists::\nbob@second::\n";

impl Site {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("penfold-route-{}-{name}", std::process::id()));
        fs::create_dir(&directory).expect("scratch directory");
        let site = Self(directory);
        site.write("users", USERS);
        site
    }

    fn write(&self, table: &str, text: &str) -> &Self {
        fs::write(self.0.join(table), text).expect("write");
        self
    }

    fn config(&self) -> Config {
        let table = |name: &str| TableFile { path: self.0.join(name), required: false };
        let mut config = crate::config::parse(Path::new("penfold.conf"), "hostname = \"razorback\"").expect("good");
        config.spool = "/spool".into();
        config.local = Local {
            domains: vec!["razorback".into(), "second".into(), "[192.0.2.1]".into()],
            users: UsersSource::File(self.0.join("users")),
            mailbox: "/mail/{user}@{domain}".into(),
            aliases: table("aliases"),
            virtual_table: table("virtual"),
            subaddress: Some('+'),
            postmaster: "root".into(),
        };
        config.relay = Relay { networks: Vec::new(), domains: vec!["backup.example".into()] };
        config.remote.routes = table("routes");
        config
    }

    fn open(&self) -> Router {
        Router::open(&self.config()).expect("good tables")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect(text)
}

/// An expansion as text: the finals, or a word.
fn expand(router: &Router, text: &str) -> String {
    match router.expand(&address(text)) {
        Expansion::Finals(finals) => finals.iter().map(|to| to.address.to_string()).collect::<Vec<_>>().join(" "),
        Expansion::Unknown => "unknown".into(),
        Expansion::Refused(status, why) => format!("refused {status} {why}"),
        Expansion::Unsure(why) => format!("unsure: {why}"),
    }
}

fn route(router: &Router, text: &str) -> String {
    match router.route(&address(text)) {
        Route::Mailbox(mailbox) => mailbox.path.display().to_string(),
        Route::Unknown | Route::Command(..) | Route::List => "unknown".into(),
        Route::Refused(status, why) => format!("refused {status} {why}"),
        Route::Unsure(why) => format!("unsure: {why}"),
        route @ (Route::Mx { .. } | Route::Hosts(_)) => route.destination().expect("it is elsewhere"),
    }
}

fn check(router: &Router, cases: &[(&str, &str)]) {
    for (given, finals) in cases {
        assert_eq!(expand(router, given), *finals, "{given}");
    }
}

#[test]
fn users_and_who_is_none() {
    let site = Site::new("users");
    let router = site.open();
    for (given, finals, routed) in [
        ("jon@razorback", "jon@razorback", "/mail/jon@razorback"),
        ("JON@RazorBack", "JON@razorback", "/mail/jon@razorback"),
        ("jon", "jon@razorback", "/mail/jon@razorback"),
        ("jon@second", "jon@second", "/mail/jon@second"),
        ("jon@[192.0.2.1]", "jon@[192.0.2.1]", "/mail/jon@[192.0.2.1]"),
        ("\"jon\"@razorback", "jon@razorback", "/mail/jon@razorback"),
        ("bob@second", "bob@second", "/mail/bob@second"),
        ("bob@razorback", "unknown", "unknown"),
        ("elvis@razorback", "unknown", "unknown"),
        ("jon+Lists@razorback", "jon+Lists@razorback", "/mail/jon@razorback"),
        ("jon+a+b@razorback", "jon+a+b@razorback", "/mail/jon@razorback"),
        ("ann+lists@razorback", "ann+lists@razorback", "/mail/ann+lists@razorback"),
        ("ann@razorback", "unknown", "unknown"),
        ("+jon@razorback", "unknown", "unknown"),
        ("elvis+jon@razorback", "unknown", "unknown"),
        ("\"jon@second\"@razorback", "unknown", "unknown"),
        ("\"jon@x.org\"@razorback", "unknown", "unknown"),
        ("jon%x.org@razorback", "unknown", "unknown"),
        ("x.org!jon@razorback", "unknown", "unknown"),
        ("\"../jon\"@razorback", "unknown", "unknown"),
        ("\" jon\"@razorback", "unknown", "unknown"),
    ] {
        assert_eq!((expand(&router, given).as_str(), route(&router, given).as_str()), (finals, routed), "{given}");
    }
}

#[test]
fn a_detail_is_nothing_special_where_none_is_configured() {
    let site = Site::new("no-detail");
    let mut config = site.config();
    config.local.subaddress = None;
    let router = Router::open(&config).expect("good tables");
    check(&router, &[("jon+x@razorback", "unknown"), ("ann+lists@razorback", "ann+lists@razorback")]);
}

#[test]
fn the_more_exact_table_wins() {
    let site = Site::new("order");
    site.write(
        "aliases",
        "jon: from-alias@x.org\ninfo: mary\nann: ann@x.org\nsales+eu: eu@x.org\nsales: sales@x.org\n",
    );
    site.write(
        "virtual",
        "Jon@second  from-virtual@x.org\ninfo@SECOND a@x.org,\n  b@x.org # two\n@second  catch@x.org\n\
         bob+x@second detail@x.org\n@nowhere.example  a@x.org\n",
    );
    check(
        &site.open(),
        &[
            ("jon@razorback", "from-alias@x.org"),
            ("Jon@Second", "from-virtual@x.org"),
            ("jon+x@second", "from-virtual@x.org"),
            ("info@razorback", "mary@razorback"),
            ("info@second", "a@x.org b@x.org"),
            ("info+x@second", "a@x.org b@x.org"),
            ("mary@second", "mary@second"),
            ("mary+x@second", "mary+x@second"),
            ("bob+x@second", "detail@x.org"),
            ("bob+y@second", "bob+y@second"),
            // The whole name is asked for everywhere before its part is.
            ("ann+lists@razorback", "ann+lists@razorback"),
            ("ann+other@razorback", "ann@x.org"),
            ("SALES+EU@razorback", "eu@x.org"),
            ("sales+us@razorback", "sales@x.org"),
            ("elvis@second", "catch@x.org"),
            ("postmaster@second", "catch@x.org"),
            ("elvis@razorback", "unknown"),
            // A key that is not local has no effect.
            ("jon@nowhere.example", "jon@nowhere.example"),
        ],
    );
}

#[test]
fn an_alias_that_comes_back_to_a_user_is_that_user() {
    let site = Site::new("self");
    site.write(
        "aliases",
        "jon: Jon, jon@x.org\nmary: list\nlist: mary, jon@y.org\nbackslash: \\jon, \\nosuch, \\elvis@x.org\n\
         elvis: elvis\nhalf: half, jon@x.org\nboth: jon@Razorback, \\jon\nv: w\nw: p, mary2\np: w, q@x.org\nmary2: p\n",
    );
    site.write("users", &format!("{USERS}mary2::\n"));
    site.write("virtual", "self@second self@second, jon@x.org\nbob@second bob@second\n@second nosuch@second\n");
    check(
        &site.open(),
        &[
            ("jon@razorback", "Jon@razorback jon@x.org"),
            ("jon+x@razorback", "jon@x.org Jon@razorback"),
            ("mary@razorback", "mary@razorback jon@y.org"),
            ("list@razorback", "mary@razorback jon@y.org"),
            ("both@razorback", "jon@razorback jon@x.org"),
            ("backslash@razorback", "jon@razorback nosuch@razorback elvis@x.org"),
            // In the ring only by a way that the walk takes second.
            ("v@razorback", "mary2@razorback q@x.org"),
            ("elvis@razorback", "unknown"),
            ("half@razorback", "half@razorback jon@x.org"),
            ("self@second", "self@second jon@x.org"),
            ("bob@second", "bob@second"),
            ("someone@second", "unknown"),
        ],
    );
}

#[test]
fn rings_through_several_tables_end_and_are_said() {
    let site = Site::new("rings");
    site.write("aliases", "a: b@second\nb: a@razorback\nd: d+x\nc: a, jon\n");
    site.write("virtual", "e@second f@second\nf@second e@second\n");
    check(
        &site.open(),
        &[
            ("a@razorback", "unsure: alias loop: a@razorback -> b@second -> a@razorback"),
            ("e@second", "unsure: alias loop: e@second -> f@second -> e@second"),
            ("d@razorback", "unknown"),
            ("c@razorback", "jon@razorback"),
        ],
    );
}

#[test]
fn what_is_named_twice_is_delivered_once() {
    let site = Site::new("twice");
    site.write(
        "aliases",
        "list: jon, sub, JON@razorback, Jon@X.org, jon@x.org, jon@X.ORG\nsub: jon, mary, sub2\nsub2: sub, list, mary\n",
    );
    check(&site.open(), &[("list@razorback", "jon@razorback Jon@x.org jon@x.org mary@razorback")]);
}

#[test]
fn unknown_members_fail_later_unless_there_is_nobody_else() {
    let site = Site::new("unknown");
    site.write("aliases", "some: nosuch, jon\nnone: nosuch, nobody@second\nfar: nosuch, x@x.org\n");
    check(
        &site.open(),
        &[
            ("some@razorback", "nosuch@razorback jon@razorback"),
            ("far@razorback", "nosuch@razorback x@x.org"),
            ("none@razorback", "unknown"),
        ],
    );
}

/// An expansion with what is done for each.
fn actions(expansion: Expansion) -> Vec<String> {
    let Expansion::Finals(finals) = expansion else { return vec![format!("{expansion:?}")] };
    let user = |user: Option<Box<str>>| user.map(|user| format!(" as {user}")).unwrap_or_default();
    let written = |to: Recipient| match to.action {
        Action::Deliver => to.address.to_string(),
        Action::Direct => format!("\\{}", to.address),
        Action::Expand => format!("list {}", to.address),
        Action::Run { command, user: owner } => format!("{} |{command}{}", to.address, user(owner)),
        Action::Append { file, user: owner } => format!("{} {file}{}", to.address, user(owner)),
    };
    finals.into_iter().map(written).collect()
}

#[test]
fn an_alias_may_stand_for_more_than_addresses() {
    let site = Site::new("actions");
    site.write(
        "aliases",
        "a: jon, \"|cat -n\"\nb: a, \"|cat -n\"\nc: /dev/null, /x/, /x/\nd: :include:/x\ne: \\jon, JON\n\
         f: d, mary\ng: jon, mary\nowner-g: ann@x.org\nowner-owner-g: h\nh: g+x\n",
    );
    let router = site.open();
    for (given, finals) in [
        ("a", vec!["jon@razorback", "a@razorback |cat -n"]),
        ("b", vec!["b@razorback |cat -n", "jon@razorback", "a@razorback |cat -n"]),
        ("c+y", vec!["c+y@razorback /dev/null", "c+y@razorback /x/"]),
        ("d", vec!["list d@razorback"]),
        ("e", vec!["jon@razorback"]),
        ("f", vec!["mary@razorback", "list d@razorback"]),
        ("g", vec!["list g@razorback"]),
        ("h", vec!["list g+x@razorback"]),
        ("owner-g", vec!["list owner-g@razorback"]),
    ] {
        let mut found = actions(router.expand(&address(given)));
        let mut finals: Vec<String> = finals.into_iter().map(str::to_owned).collect();
        found.sort();
        finals.sort();
        assert_eq!(found, finals, "{given}");
    }
    let list = router.list(&address("G+x@second")).expect("a list");
    assert_eq!((list.members.len(), list.owner), (2, Some(address("owner-g@second"))));
    assert_eq!(router.list(&address("nosuch@razorback")), None);
    for (given, routed) in [("a", "Command"), ("c", "Mailbox"), ("d", "List")] {
        let Expansion::Finals(finals) = router.expand(&address(given)) else { panic!("{given}") };
        let routes: Vec<String> = finals.iter().map(|to| format!("{:?}", router.route_of(to))).collect();
        assert!(routes.iter().any(|route| route.starts_with(routed)), "{routes:?}");
    }
}

#[test]
fn what_a_users_own_file_names_is_done_as_that_user() {
    let site = Site::new("own");
    site.write("aliases", "friends: jon, mary\nlog: /x\n");
    let router = site.open();
    for (text, finals) in [
        ("|cat", vec!["jon@razorback |cat as jon"]),
        ("/box, log", vec!["jon@razorback /box as jon", "log@razorback /x"]),
        ("jon", vec!["jon@razorback"]),
        ("\\jon, mary", vec!["jon@razorback", "mary@razorback"]),
        ("friends", vec!["\\jon@razorback", "mary@razorback"]),
        ("nosuch, mary", vec!["nosuch@razorback", "mary@razorback"]),
        ("nosuch", vec!["Unknown"]),
    ] {
        let (members, errors) = crate::aliases::list(text);
        assert!(errors.is_empty(), "{text}");
        assert_eq!(actions(router.expand_members(&address("jon"), &members, Some("jon"))), finals, "{text}");
    }
}

#[test]
fn the_virtual_table_has_addresses_only() {
    let site = Site::new("virtual-only");
    site.write("virtual", "a@second |cat\n");
    let errors = Router::open(&site.config()).expect_err("a command");
    assert!(errors[0].to_string().contains("virtual:1:1: expected addresses"), "{errors:?}");
}

#[test]
fn long_chains_need_no_stack_and_everything_is_bounded() {
    let site = Site::new("bounds");
    let chain: String = (0..1000).map(|n| format!("n{n}: n{}\n", n + 1)).collect();
    let many = |n: usize| (0..n).map(|n| format!("u{n}@x.org")).collect::<Vec<_>>().join(",\n ");
    site.write("aliases", &format!("{chain}n1000: jon\nmost: {}\nmore: {}\n", many(9_999), many(10_000)));
    let router = site.open();
    check(&router, &[("n0@razorback", "jon@razorback")]);
    assert!(matches!(router.expand(&address("most")), Expansion::Finals(finals) if finals.len() == 9_999));
    check(&router, &[("more", "unsure: more@razorback stands for more than 10000 addresses")]);
}

#[test]
fn the_postmaster_always_exists() {
    const KEPT: &str = "/spool/postmaster";
    for (at, (aliases, named, finals, routed)) in [
        ("", "root", "Postmaster@second", KEPT),
        ("root: jon", "root", "jon@razorback", "/mail/jon@razorback"),
        ("", "jon", "jon@razorback", "/mail/jon@razorback"),
        ("", "jon@x.org", "jon@x.org", "mx:x.org"),
        ("postmaster: mary", "jon", "mary@razorback", "/mail/mary@razorback"),
        ("", "postmaster", "postmaster@razorback", KEPT),
        ("", "postmaster@second", "Postmaster@second", KEPT),
        ("root: postmaster", "root", "Postmaster@second", KEPT),
        ("root: nosuch", "root", "Postmaster@second", KEPT),
        ("postmaster: nosuch", "jon", "Postmaster@second", KEPT),
        ("postmaster: postmaster", "jon", "postmaster@razorback", KEPT),
        ("postmaster: root@second\nroot: postmaster", "jon", "Postmaster@second", KEPT),
    ]
    .into_iter()
    .enumerate()
    {
        let site = Site::new(&format!("postmaster-{at}"));
        // One ring is an error of the file; through a domain it is not.
        site.write("aliases", &aliases.replace("root: postmaster", "root: postmaster@second"));
        let mut config = site.config();
        config.local.postmaster = named.into();
        let router = Router::open(&config).expect("good tables");
        check(&router, &[("Postmaster@second", finals)]);
        assert_eq!(route(&router, finals), routed, "{aliases} / {named}");
    }
}

#[test]
fn who_writes_to_the_postmaster_too_reaches_him() {
    let site = Site::new("abuse");
    site.write("aliases", "abuse: jon, postmaster\nhostmaster: postmaster\n");
    check(
        &site.open(),
        &[
            ("abuse@second", "jon@razorback postmaster@razorback"),
            ("hostmaster@second", "postmaster@razorback"),
            ("postmaster", "postmaster@razorback"),
            ("postmaster@x.org", "postmaster@x.org"),
        ],
    );
    site.write("users", "postmaster::\n");
    assert_eq!(route(&site.open(), "postmaster@second"), "/mail/postmaster@second");
}

#[test]
fn routes_exact_then_longest_then_all() {
    let site = Site::new("routes");
    site.write(
        "routes",
        "# where to\nx.org\tmail.x.net:2525\nX.NET  [2001:DB8::1]:26 # six\n[192.0.2.9] [192.0.2.10]\n.x.org mx:y.org\n\
         .b.x.org  Host\nmx.example mx::2525\nport.example mx:y.org:26\nown.example mx:\n.mx.example mx::2525\n\
         dead.example  error:5.1.2 gone for good\nlater.example error:4.2.1 moving # house\nbare.example error:5.1.2\n",
    );
    let router = site.open();
    for (given, routed) in [
        ("a@x.org", "host:mail.x.net:2525"),
        ("a@x.net", "host:[2001:db8::1]:26"),
        ("a@[192.0.2.9]", "host:192.0.2.10:25"),
        ("a@a.x.org", "mx:y.org"),
        ("a@a.b.x.org", "host:host:25"),
        ("a@b.x.org", "mx:y.org"),
        ("a@mx.example", "mx:mx.example:2525"),
        ("a@sub.mx.example", "mx:sub.mx.example:2525"),
        ("a@port.example", "mx:y.org:26"),
        ("a@own.example", "mx:own.example"),
        ("a@dead.example", "refused 5.1.2 gone for good"),
        ("a@bare.example", "refused 5.1.2 no mail goes to this domain"),
        ("a@later.example", "unsure: moving # house"),
        ("a@else.example", "mx:else.example"),
        ("a@xx.org", "mx:xx.org"),
        ("a@[192.0.2.2]", "host:192.0.2.2:25"),
        ("a@[IPv6:2001:db8::2]", "host:[2001:db8::2]:25"),
    ] {
        assert_eq!(route(&router, given), routed, "{given}");
    }
    site.write("routes", "* mx::26\nx.org mail\nrazorback mail\n");
    for (given, routed) in [
        ("a@x.org", "host:mail:25"),
        ("a@y.org", "mx:y.org:26"),
        ("a@[192.0.2.2]", "host:192.0.2.2:26"),
        ("jon@razorback", "/mail/jon@razorback"),
    ] {
        assert_eq!(route(&router, given), routed, "{given}");
    }
}

#[test]
fn smart_hosts_take_what_no_route_takes() {
    let site = Site::new("smart");
    site.write("routes", "x.org mx:\n");
    let mut config = site.config();
    let host = |name: &str| HostPort { host: name.into(), port: 587, scheme: Default::default() };
    config.remote.smarthosts = vec![host("a.example"), host("2001:db8::3")];
    let router = Router::open(&config).expect("good tables");
    let smart = "host:a.example:587,[2001:db8::3]:587";
    for (given, routed) in [("a@y.org", smart), ("a@[192.0.2.2]", smart), ("a@x.org", "mx:x.org")] {
        assert_eq!(route(&router, given), routed, "{given}");
    }
}

#[test]
fn what_the_routes_refuse_is_refused_before_it_is_accepted() {
    let site = Site::new("refused");
    site.write("routes", "dead.example error:5.1.2 gone\nlater.example error:4.2.1 moving\n");
    site.write("aliases", "dead: a@dead.example\nmixed: a@dead.example, jon\n");
    check(
        &site.open(),
        &[
            ("a@dead.example", "refused 5.1.2 gone"),
            ("dead@razorback", "refused 5.1.2 gone"),
            ("mixed@razorback", "a@dead.example jon@razorback"),
            ("a@later.example", "a@later.example"),
        ],
    );
}

#[test]
fn places() {
    let site = Site::new("places");
    let router = site.open();
    for (domain, place) in [
        ("razorback", Place::Local),
        ("[192.0.2.1]", Place::Local),
        ("", Place::Local),
        ("[192.0.2.2]", Place::Elsewhere),
        ("[127.0.0.1]", Place::Elsewhere),
        ("sub.razorback", Place::Elsewhere),
        ("backup.example", Place::Relay),
        ("sub.backup.example", Place::Elsewhere),
        ("x.org", Place::Elsewhere),
    ] {
        assert_eq!(router.place(domain), place, "{domain}");
    }
}

#[test]
fn tables_follow_their_files_and_survive_a_bad_edit() {
    let site = Site::new("again");
    let router = site.open();
    check(&router, &[("list@razorback", "unknown"), ("new@second", "unknown")]);
    site.write("aliases", "list: jon, x@x.org\n").write("virtual", "new@second mary\n");
    check(&router, &[("list@razorback", "jon@razorback x@x.org"), ("new@second", "mary@razorback")]);
    site.write("aliases", "list: jon jon\n").write("virtual", "new@second\n").write("users", "nonsense\n");
    site.write("routes", "x.org lmtp:/run/x\n");
    check(&router, &[("list@razorback", "jon@razorback x@x.org"), ("new@second", "mary@razorback")]);
    assert_eq!(route(&router, "jon@razorback"), "/mail/jon@razorback");
    assert_eq!(route(&router, "a@x.org"), "mx:x.org");
    site.write("users", "elvis::/graceland\n").write("routes", "x.org mail\n");
    check(&router, &[("jon@razorback", "unknown"), ("elvis@razorback", "elvis@razorback")]);
    assert_eq!(route(&router, "a@x.org"), "host:mail:25");
}

#[test]
fn every_error_of_every_table_is_given() {
    let site = Site::new("errors");
    site.write("aliases", "a: b\nb: a\n").write("users", "jon\n");
    site.write("virtual", "jon mary\na@second b\nA@second c\n@b..c x\na@second\n");
    site.write(
        "routes",
        "x.org\nx..org mail\na.org  lmtp:/run/x\nb.org mail:0\nc.org mail:+25\nd.org error:2.0.0 ok\ne.org error:x\n\
         f.org [mail]:25\ng.org mail\nG.org mail\nh.org mail other\ni.org mx:a..b\n\
         j.org mx:[192.0.2.1]\nk.org error:5.1.2 na\u{ef}ve\n",
    );
    let errors = Router::open(&site.config()).expect_err("bad tables");
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let places: Vec<String> = errors.iter().map(|e| format!("{}:{}:{}", name(&e.file), e.line, e.column)).collect();
    let mut expected: Vec<&str> = vec!["aliases:1:1", "virtual:1:1", "virtual:3:1", "virtual:4:1"];
    expected.extend(["virtual:5:1", "virtual:5:1", "users:1:1", "routes:1:6", "routes:2:1", "routes:3:8"]);
    expected.extend(["routes:4:7", "routes:5:7", "routes:6:7", "routes:7:7", "routes:8:7", "routes:10:1"]);
    expected.extend(["routes:11:7", "routes:12:7", "routes:13:7", "routes:14:7"]);
    assert_eq!(places, expected, "{errors:#?}");
}

#[test]
fn one_router_serves_all_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Router>();
}
