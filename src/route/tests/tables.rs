//! The files behind it: followed when they change, kept when they are bad, for all threads.

use super::*;

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
