use std::fs;
use std::path::PathBuf;

use super::*;
use crate::config;

/// A scratch directory, which is removed when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penfold-keys-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Replaces a file in one step, so that no reader sees a part of it.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).expect("a scratch file");
        fs::rename(self.path("new"), self.path(name)).expect("a rename");
    }

    /// Writes a new key. Returns its record.
    fn key(&self, name: &str) -> String {
        let text = make::ed25519().expect("random numbers");
        self.write(name, &text);
        SigningKey::from_pem(text.as_bytes()).expect("a key").record()
    }

    fn configured(&self, dkim: Vec<Dkim>) -> Config {
        Config { dkim, ..config::default() }
    }

    fn one(&self, domain: &str, selector: &str, key: &str) -> Dkim {
        Dkim::Key(DkimKey { domain: domain.into(), selector: selector.into(), key: self.path(key) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn records(signing: &[Signing]) -> Vec<(&str, &str, String)> {
    signing.iter().map(|(domain, selector, key)| (domain.as_str(), selector.as_str(), key.record())).collect()
}

#[test]
fn all_keys_of_a_domain_sign_and_none_of_its_parent() {
    let scratch = Scratch::new("all");
    let [a, b, c] = ["a", "b", "c"].map(|name| scratch.key(name));
    let line =
        |domain: &str, selector: &str, key: &str| format!("{domain} {selector} {}\n", scratch.path(key).display());
    scratch.write("table", &format!("# x\n{}{}", line("x.test", "b", "b"), line("x.test", "a", "c")));
    let config = scratch.configured(vec![
        scratch.one("x.test", "a", "a"),
        scratch.one("sub.x.test", "c", "c"),
        Dkim::Table(scratch.path("table")),
    ]);
    let (keys, faults) = Keys::open(&config, &Rights::Alone).expect("good");
    assert_eq!(faults, []);
    let two = [("x.test", "a", a), ("x.test", "b", b)];
    assert_eq!(records(&keys.for_domain("X.test")), two);
    assert_eq!(records(&keys.for_author(b"Jon <jon@x.test>, mary@sub.x.test")), two);
    assert_eq!(records(&keys.for_author(b"mary@sub.x.test")), [("sub.x.test", "c", c)]);
    for from in [&b"jon@other.x.test"[..], b"jon@test", b"jon", b"<jon@x.test", b"", b"jon@[192.0.2.1]"] {
        assert!(keys.for_author(from).is_empty(), "{from:?}");
    }
    let names: Vec<String> = keys.all().iter().map(Named::dns_name).collect();
    assert_eq!(names, ["a._domainkey.x.test", "c._domainkey.sub.x.test", "b._domainkey.x.test"]);
}

#[test]
fn a_report_is_signed_by_the_nearest_domain() {
    let scratch = Scratch::new("reports");
    scratch.key("a");
    let config = scratch.configured(vec![scratch.one("x.test", "a", "a"), scratch.one("mx.y.x.test", "b", "a")]);
    let (keys, _) = Keys::open(&config, &Rights::Alone).expect("good");
    for (host, domain) in [("x.test", "x.test"), ("mx.x.test", "x.test"), ("mx.y.x.test", "mx.y.x.test")] {
        let fields = keys.sign_report(host, format!("From: MAILER-DAEMON@{host}\n\nhello\n").as_bytes(), 1);
        assert!(
            fields.contains(&format!(" d={domain};")) && fields.matches("DKIM-Signature:").count() == 1,
            "{fields}"
        );
    }
    for host in ["mxx.test", "test", "other.test"] {
        assert_eq!(keys.sign_report(host, b"From: x\n\n", 1), "", "{host}");
    }
}

#[test]
fn a_domain_that_is_not_ascii_is_found_in_every_spelling() {
    let scratch = Scratch::new("idn");
    scratch.key("a");
    scratch.write("table", &format!("B\u{fc}cher.test a {}\n", scratch.path("a").display()));
    let (keys, faults) =
        Keys::open(&scratch.configured(vec![Dkim::Table(scratch.path("table"))]), &Rights::Alone).expect("good");
    assert_eq!(faults, []);
    for domain in ["b\u{fc}cher.test", "xn--bcher-kva.test", "XN--BCHER-KVA.TEST"] {
        assert_eq!(keys.for_domain(domain).len(), 1, "{domain}");
    }
}

#[test]
fn a_changed_file_is_read_again_and_a_bad_one_changes_nothing() {
    let scratch = Scratch::new("changed");
    let first = scratch.key("a");
    let config = scratch.configured(vec![scratch.one("x.test", "a", "a")]);
    let (keys, _) = Keys::open(&config, &Rights::Alone).expect("good");
    let current = || keys.for_domain("x.test").first().map(|(.., key)| key.record());
    assert_eq!(current(), Some(first));
    let second = scratch.key("a");
    assert_eq!(current(), Some(second.clone()));
    scratch.write("a", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert_eq!(current(), Some(second.clone()));
    fs::remove_file(scratch.path("a")).expect("it was there");
    assert_eq!(current(), Some(second));
    let third = scratch.key("a");
    assert_eq!(current(), Some(third));
}

#[test]
fn a_line_with_an_error_costs_that_line_at_the_start_and_nothing_later() {
    let scratch = Scratch::new("lines");
    let (a, b) = (scratch.key("a"), scratch.key("b"));
    let line = |selector: &str, key: &str| format!("x.test {selector} {}\n", scratch.path(key).display());
    scratch.write("table", &format!("{}{}{}", line("a", "a"), line("b", "absent"), line("a", "b")));
    let config = scratch.configured(vec![Dkim::Table(scratch.path("table"))]);
    let (keys, faults) = Keys::open(&config, &Rights::Alone).expect("a table");
    assert_eq!(faults.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 3], "{faults:?}");
    let current = || records(&keys.for_domain("x.test")).into_iter().map(|(.., key)| key).collect::<Vec<_>>();
    assert_eq!(current(), vec![a.clone()]);
    scratch.write("table", &format!("{}{}", line("b", "b"), line("a", "a")));
    assert_eq!(current(), [b.clone(), a.clone()]);
    scratch.write("table", &format!("{}nonsense\n", line("b", "b")));
    assert_eq!(current(), [b, a]);
}

#[test]
fn errors_in_keys_name_their_files_and_show_nothing_of_them() {
    let scratch = Scratch::new("errors");
    scratch.write("a", "hush");
    scratch.write("b", "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n");
    let all = ["a", "b", "absent"].map(|name| scratch.one(&format!("{name}.test"), "s", name));
    let errors = Keys::open(&scratch.configured(all.into()), &Rights::Alone).expect_err("no keys");
    assert_eq!(
        errors.iter().map(|error| error.file.clone()).collect::<Vec<_>>(),
        ["a", "b", "absent"].map(|n| scratch.path(n))
    );
    assert!(!format!("{errors:?}").contains("hush"), "{errors:?}");
}
