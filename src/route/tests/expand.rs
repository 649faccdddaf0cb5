//! Tests the expansion of addresses in local domains to their final recipients.

use super::*;

#[test]
fn users_and_names_that_are_no_users() {
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
fn without_a_separator_there_are_no_details() {
    let site = Site::new("no-detail");
    let mut config = site.config();
    config.local.subaddress = None;
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    check(&router, &[("jon+x@razorback", "unknown"), ("ann+lists@razorback", "ann+lists@razorback")]);
}

#[test]
fn the_most_specific_table_wins() {
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
            // Every table is searched for the whole name before any is searched for the name
            // without its detail.
            ("ann+lists@razorback", "ann+lists@razorback"),
            ("ann+other@razorback", "ann@x.org"),
            ("SALES+EU@razorback", "eu@x.org"),
            ("sales+us@razorback", "sales@x.org"),
            ("elvis@second", "catch@x.org"),
            ("postmaster@second", "catch@x.org"),
            ("elvis@razorback", "unknown"),
            // A key in a domain that is not local has no effect.
            ("jon@nowhere.example", "jon@nowhere.example"),
        ],
    );
}

#[test]
fn an_alias_that_leads_back_to_a_user_is_that_user() {
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
            // The cycle is reached only by the second path of the walk.
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
fn cycles_through_several_tables_end_and_are_described() {
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
fn a_recipient_named_twice_gets_one_copy() {
    let site = Site::new("twice");
    site.write(
        "aliases",
        "list: jon, sub, JON@razorback, Jon@X.org, jon@x.org, jon@X.ORG\nsub: jon, mary, sub2\nsub2: sub, list, mary\n",
    );
    check(&site.open(), &[("list@razorback", "jon@razorback Jon@x.org jon@x.org mary@razorback")]);
}

#[test]
fn unknown_members_fail_later_if_another_member_exists() {
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

/// Returns the final recipients of an expansion, each with its action, as text.
fn actions(expansion: Expansion) -> Vec<String> {
    let Expansion::Finals(finals) = expansion else { return vec![format!("{expansion:?}")] };
    let user = |user: Option<Box<str>>| user.map(|user| format!(" as {user}")).unwrap_or_default();
    let written = |to: Recipient| match to.action {
        Action::Deliver => to.address.to_string(),
        Action::Direct => format!("\\{}", to.address),
        Action::Expand => format!("list {}", to.address),
        Action::Replaced => format!("nothing for {}", to.address),
        Action::Run { command, user: owner } => format!("{} |{command}{}", to.address, user(owner)),
        Action::Append { file, user: owner } => format!("{} {file}{}", to.address, user(owner)),
    };
    finals.into_iter().map(written).collect()
}

#[test]
fn an_alias_may_have_commands_files_and_lists() {
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
    let list = router.list(&address("G+x@second")).expect("good").expect("a list");
    assert_eq!((list.members.len(), list.owner), (2, Some(address("owner-g@second"))));
    assert_eq!(router.list(&address("nosuch@razorback")), Ok(None));
    for (given, routed) in [("a", "Command"), ("c", "Mailbox"), ("d", "List")] {
        let Expansion::Finals(finals) = router.expand(&address(given)) else { panic!("{given}") };
        let routes: Vec<String> =
            finals.iter().map(|to| format!("{:?}", router.route_of(to, &RoutedMail::default()))).collect();
        assert!(routes.iter().any(|route| route.starts_with(routed)), "{routes:?}");
    }
}

#[test]
fn commands_and_files_of_a_forward_need_the_users_rights() {
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
    let errors = Router::open(&site.config(), &Rights::Alone).expect_err("a command");
    assert!(errors[0].to_string().contains("virtual:1:1: expected addresses"), "{errors:?}");
}

#[test]
fn long_chains_need_no_stack_and_expansions_are_bounded() {
    let site = Site::new("bounds");
    let chain: String = (0..1000).map(|n| format!("n{n}: n{}\n", n + 1)).collect();
    let many = |n: usize| (0..n).map(|n| format!("u{n}@x.org")).collect::<Vec<_>>().join(",\n ");
    site.write("aliases", &format!("{chain}n1000: jon\nmost: {}\nmore: {}\n", many(9_999), many(10_000)));
    let router = site.open();
    check(&router, &[("n0@razorback", "jon@razorback")]);
    assert!(matches!(router.expand(&address("most")), Expansion::Finals(finals) if finals.len() == 9_999));
    check(&router, &[("more", "unsure: more@razorback stands for more than 10000 addresses")]);
}

/// An alias must look up only a few users, because a look-up can need another process, and a client
/// can name a large alias repeatedly.
#[test]
fn a_large_alias_looks_up_few_users() {
    use crate::users::tests::LOOKED_UP;
    let site = Site::new("large");
    let list = |member: &dyn Fn(usize) -> String| (0..5000).map(member).collect::<Vec<_>>().join(", ");
    let ring: String = (0..5000).map(|n| format!("r{n}: r{}, r0, r{n}\n", (n + 1) % 5000)).collect();
    site.write(
        "aliases",
        &format!(
            "details: {}\ndirect: {}\nnames: {}\nnobody: {}\nagain: {}\n{ring}",
            list(&|n| format!("jon+{n}")),
            list(&|n| format!("\\jon+{n}")),
            list(&|n| if n == 0 { "jon".into() } else { format!("x{n}") }),
            list(&|n| format!("x{n}")),
            list(&|n| if n % 2 == 0 { "details".into() } else { format!("jon+{n}") }),
        ),
    );
    let router = site.open();
    for (name, count, max_look_ups) in [
        ("details", 5000, 2),
        ("direct", 5000, 2),
        ("names", 5000, 2),
        ("nobody", 0, 10_000),
        ("again", 5000, 4),
        ("r7", 0, 10_010),
    ] {
        let before = LOOKED_UP.get();
        let found = match router.expand(&address(name)) {
            Expansion::Finals(finals) => finals.len(),
            _ => 0,
        };
        let asked = LOOKED_UP.get() - before;
        assert!(found == count && asked <= max_look_ups, "{name}: {found} recipients, {asked} users looked up");
    }
}

/// An expansion that took long also serves for other details, unless a table or the users have the whole
/// address.
#[test]
fn a_slow_expansion_is_cached_for_all_details_that_no_table_has() {
    let site = Site::new("cached");
    site.write("users", "jon::\nlist+user::\n").write("virtual", "list+virtual@razorback mary\n");
    site.write("aliases", "list: jon\nlist+alias: mary\n").write("routes", "list+route@razorback a.host\n");
    let router = site.open();
    // Whether an address is expanded, and not found in the cache.
    let is_expanded = |cache: &ExpansionCache, text: &str, is_slow: bool| {
        let mut is_called = false;
        cache.get(&router, &address(text), || {
            is_called = true;
            std::thread::sleep(std::time::Duration::from_millis(if is_slow { 20 } else { 0 }));
            (Expansion::Unknown, Vec::new())
        });
        is_called
    };
    let cache = ExpansionCache::default();
    for name in ["list+user", "list+virtual", "list+alias", "list+route"] {
        assert!(is_expanded(&cache, &format!("{name}@razorback"), true), "{name}");
    }
    assert!(is_expanded(&cache, "list+x@razorback", true), "the whole addresses say nothing about it");
    assert!(!is_expanded(&cache, "list+y@razorback", false));
    let cache = ExpansionCache::default();
    assert!(is_expanded(&cache, "list+x@razorback", true));
    for name in ["list+user", "list+virtual", "list+alias", "list+route"] {
        assert!(is_expanded(&cache, &format!("{name}@razorback"), false), "{name}");
    }
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
        // A cycle within one table is an error, but a cycle across domains is not.
        site.write("aliases", &aliases.replace("root: postmaster", "root: postmaster@second"));
        let mut config = site.config();
        config.local.postmaster = named.into();
        let router = Router::open(&config, &Rights::Alone).expect("good tables");
        check(&router, &[("Postmaster@second", finals)]);
        assert_eq!(route(&router, finals), routed, "{aliases} / {named}");
    }
}

#[test]
fn an_alias_with_the_postmaster_reaches_the_postmaster() {
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
