//! Tests addresses in other domains: their routes and rejections.

use super::*;

#[test]
fn routes_exact_then_longest_then_all() {
    let site = Site::new("routes");
    site.write(
        "routes",
        "# where to\nx.org\tmail.x.net:2525\nX.NET  [2001:DB8::1]:26 # six\n[192.0.2.9] [192.0.2.10]\n.x.org mx:y.org\n\
         .b.x.org  Host\nmx.example mx::2525\nport.example mx:y.org:26\nown.example mx:\n.mx.example mx::2525\n\
         lists.example lmtp:/run/lists # all\nstore.example lmtp://Store:2424\n\
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
        ("a@lists.example", "lmtp:/run/lists"),
        ("a@store.example", "lmtp://store:2424"),
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
fn smart_hosts_get_mail_that_no_route_matches() {
    let site = Site::new("smart");
    site.write("routes", "x.org mx:\n");
    let mut config = site.config();
    let host = |name: &str| HostPort { host: name.into(), port: 587, scheme: Default::default() };
    config.remote.smarthosts = vec![host("a.example"), host("2001:db8::3")];
    let router = Router::open(&config, &Rights::Alone).expect("good tables");
    let smart = "host:a.example:587,[2001:db8::3]:587";
    for (given, routed) in [("a@y.org", smart), ("a@[192.0.2.2]", smart), ("a@x.org", "mx:x.org")] {
        assert_eq!(route(&router, given), routed, "{given}");
    }
}

#[test]
fn mail_that_the_routes_reject_is_rejected_at_rcpt() {
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
fn every_domain_has_a_class() {
    let site = Site::new("places");
    let router = site.open();
    for (domain, place) in [
        ("razorback", DomainClass::Local),
        ("[192.0.2.1]", DomainClass::Local),
        ("", DomainClass::Local),
        ("[192.0.2.2]", DomainClass::Elsewhere),
        ("[127.0.0.1]", DomainClass::Elsewhere),
        ("sub.razorback", DomainClass::Elsewhere),
        ("backup.example", DomainClass::Relay),
        ("sub.backup.example", DomainClass::Elsewhere),
        ("x.org", DomainClass::Elsewhere),
    ] {
        assert_eq!(router.class_of(domain), place, "{domain}");
    }
}
