//! Local domains with users and tables of their own.

use super::*;
use crate::config::parse;

/// Two groups of domains beside `[local]`: one with users and aliases of its own, and one that differs
/// from `[local]` only in its subaddresses and its catch-all.
fn site(name: &str) -> (Site, Router) {
    let site = Site::new(name);
    site.write("aliases", "root: jon\ninfo: mary\nanna: jon\n");
    site.write("virtual", "sales@shop.test  mary\nsales@second  anna\n@shop.test  jon\n");
    site.write("shop-users", "jon::\nanna@shop.test::\nanna@store.test::/elsewhere/anna\n");
    site.write("shop-aliases", "info: jon, mary@razorback\nowner-list: jon\nlist: jon\n");
    let text = format!(
        "hostname = \"razorback\"
         spool = \"/spool\"
         [local]
         domains = [\"razorback\", \"second\"]
         users = \"file:{0}/users\"
         mailbox = \"/mail/{{user}}@{{domain}}\"
         aliases = \"{0}/aliases\"
         virtual = \"{0}/virtual\"
         [[domain]]
         names = [\"shop.test\", \"store.test\"]
         users = \"file:{0}/shop-users\"
         mailbox = \"/shop/{{domain}}/{{user}}\"
         aliases = \"{0}/shop-aliases\"
         [[domain]]
         names = [\"other.test\"]
         subaddress = \"-\"
         catch_all = \"jon\"
         [[domain]]
         names = [\"own.test\"]
         users = \"file:{0}/shop-users\"
         postmaster = \"jon\"
         catch_all = \"nobody\"\n",
        site.0.display()
    );
    let config = parse(Path::new("penfold.conf"), &text).expect("good");
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    (site, router)
}

#[test]
fn each_domain_has_its_own_users_and_tables() {
    let (_site, router) = site("realms");
    check(
        &router,
        &[
            ("jon@razorback", "jon@razorback"),
            ("jon@shop.test", "jon@shop.test"),
            ("jon", "jon@razorback"),
            // Users of the one are not users of the other.
            ("mary@razorback", "mary@razorback"),
            ("anna@store.test", "anna@store.test"),
            ("ann@store.test", "unknown"),
            ("mary@store.test", "unknown"),
            // Names in aliases belong to the first domain of the table.
            ("info@second", "mary@razorback"),
            ("info@store.test", "jon@shop.test mary@razorback"),
            ("anna@second", "jon@razorback"),
            ("anna@shop.test", "anna@shop.test"),
            // The virtual table is that of [local], and so are names in it.
            ("sales@shop.test", "mary@razorback"),
            ("sales@second", "jon@razorback"),
            ("nobody@shop.test", "jon@razorback"),
            ("nobody@store.test", "unknown"),
            // What a table does not say is as in [local], but the subaddresses are its own.
            ("mary@other.test", "mary@other.test"),
            ("mary-x@other.test", "mary-x@other.test"),
            ("info-x@other.test", "mary@razorback"),
            ("mary+x@second", "mary+x@second"),
            ("mary-x@second", "unknown"),
            ("mary+x@other.test", "jon@other.test"),
            ("nobody@other.test", "jon@other.test"),
            // A catch-all that does not exist.
            ("elvis@own.test", "unknown"),
            // The aliases of [local] are not for other users.
            ("info@own.test", "unknown"),
        ],
    );
    assert_eq!(route(&router, "jon@store.test"), "/shop/store.test/jon");
    assert_eq!(route(&router, "anna@store.test"), "/elsewhere/anna");
    assert_eq!(route(&router, "mary-x@other.test"), "/mail/mary@other.test");
    assert_eq!(route(&router, "jon@own.test"), "/mail/jon@own.test");
    assert_eq!(router.base(&address("mary-x@other.test")), "mary");
    assert_eq!(router.extension(&address("mary-x@other.test")), Some(('-', "x".into())));
    assert_eq!(router.extension(&address("mary-x@razorback")), None);
    let mut roots = router.mailbox_roots();
    roots.sort();
    assert_eq!(roots, ["/elsewhere", "/mail", "/shop"].map(PathBuf::from));
}

#[test]
fn every_domain_has_a_postmaster() {
    let (_site, router) = site("postmasters");
    check(
        &router,
        &[
            // By default that of [local], also where nobody has that name.
            ("postmaster@razorback", "jon@razorback"),
            ("postmaster@store.test", "jon@razorback"),
            ("postmaster@other.test", "jon@razorback"),
            ("postmaster@own.test", "jon@own.test"),
        ],
    );
}

/// Catch-alls that lead to each other are nobody.
#[test]
fn a_ring_of_catch_alls_is_unknown() {
    let site = Site::new("ring");
    let users = site.0.join("users").display().to_string();
    let table = |name: &str, to: &str| {
        format!("[[domain]]\nnames = [\"{name}\"]\nusers = \"file:{users}\"\ncatch_all = \"{to}\"\n")
    };
    let text = format!(
        "spool = \"/spool\"\n{}{}{}",
        table("a.test", "x@b.test"),
        table("b.test", "x@a.test"),
        table("c.test", "Nobody@c.test")
    );
    let config = parse(Path::new("penfold.conf"), &text).expect("good");
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    check(&router, &[("y@a.test", "unknown"), ("y@c.test", "unknown"), ("jon@a.test", "jon@a.test")]);
}

/// A list is that of the domain, and its owner is in the domain.
#[test]
fn lists_belong_to_their_domain() {
    let (_site, router) = site("lists");
    assert_eq!(router.list(&address("list@razorback")), Ok(None));
    let list = router.list(&address("list@store.test")).expect("good").expect("a list");
    assert_eq!(list.owner, Some(address("owner-list@store.test")));
    assert_eq!(router.list_name(&address("list@own.test")), None);
    let members = [Member::Address(address("jon")), Member::Direct(address("anna"))];
    let Expansion::Finals(finals) = router.expand_members(&address("list@store.test"), &members, None) else {
        panic!("members")
    };
    let finals: Vec<String> = finals.iter().map(|to| to.address.to_string()).collect();
    assert_eq!(finals, ["jon@shop.test", "anna@shop.test"]);
}

/// A table that several domains share is read once, and its errors are reported once.
#[test]
fn a_shared_table_is_read_once() {
    let site = Site::new("shared");
    site.write("aliases", "jon mary\n").write("users", "jon:\n").write("virtual", "jon mary@razorback\n");
    let domains: String = (0..3).map(|n| format!("[[domain]]\nnames = [\"d{n}.test\"]\n")).collect();
    let path = site.0.display();
    let local = format!("users = \"file:{path}/users\"\naliases = \"{path}/aliases\"\nvirtual = \"{path}/virtual\"\n");
    let text = format!("[local]\ndomains = [\"razorback\"]\n{local}{domains}");
    let config = parse(Path::new("penfold.conf"), &text).expect("good");
    let (_, errors) = Router::begin(&config, &Rights::Alone);
    let mut files: Vec<_> = errors.iter().map(|error| error.file.clone()).collect();
    files.sort();
    files.dedup();
    assert_eq!((errors.len(), files.len()), (3, 3), "{errors:?}");
}
