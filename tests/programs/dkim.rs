//! Keys that sign mail: `penfoldctl dkim new` and `dkim check`, and keys that a daemon uses and
//! reads again. OpenSSL and dkimpy read the keys.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use common::Site;
use common::dns::Dns;
use common::keys::{self, Key};
use common::programs::{code_and_text, stranger};
use common::remote::{Remote, Sink, Then};
use nix::unistd::geteuid;

/// A directory that belongs to the user that runs the test, and that no other user can write to.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penfold-dkim-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a directory of ours");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The exit code and the output of penfoldctl with the configuration of a site.
fn check(site: &Site, domain: &[&str]) -> (i32, String) {
    site.configure();
    let mut command = Command::new(common::built::program("penfoldctl"));
    command.arg("-f").arg(site.path("penfold.conf")).args(["dkim", "check"]).args(domain);
    code_and_text(&command.output().expect("it runs"))
}

/// The public key of a private key, as OpenSSL reads it, in the form of `p=` in a record.
fn public_key(key: &Key) -> String {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).arg("-in").arg(&key.path).output().expect("openssl");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let der = openssl(&["pkey", "-pubout", "-outform", "DER"]);
    let is_rsa = key.selector.ends_with("-rsa");
    if is_rsa {
        assert!(String::from_utf8_lossy(&openssl(&["pkey", "-check", "-noout"])).contains("Key is valid"));
        assert!(String::from_utf8_lossy(&openssl(&["pkey", "-text", "-noout"])).contains("(2048 bit, 2 primes)"));
    }
    // The SubjectPublicKeyInfo of an Ed25519 key ends with the 32 octets that the record has.
    data_encoding::BASE64.encode(if is_rsa { &der } else { &der[der.len() - 32..] })
}

fn has_openssl() -> bool {
    let has = Command::new("openssl").arg("version").output().is_ok();
    if !has {
        common::skipped("openssl is not installed");
    }
    has
}

#[test]
fn new_keys_belong_to_their_maker_and_their_records_are_those_of_openssl() {
    let directory = Directory::new("new");
    let (inside, uid) = (directory.0.join("keys"), geteuid().as_raw());
    let output = keys::new("Example.ORG", &inside, &[]).output().expect("it runs");
    let (code, text) = code_and_text(&output);
    assert_eq!(code, 0, "{text}");
    let made = keys::read(&text);
    assert_eq!(fs::metadata(&inside).expect("a directory").mode() & 0o7777, 0o755);
    let kinds: Vec<_> = made.iter().map(|key| key.selector.split_once('-').expect("a kind")).collect();
    assert!(matches!(kinds.as_slice(), [(a, "rsa"), (b, "ed25519")] if a == b && a.len() == 6), "{kinds:?}");
    for key in &made {
        let file = fs::metadata(&key.path).expect("a key");
        assert_eq!((file.uid(), file.mode() & 0o7777), (uid, 0o600), "{key:?}");
        assert_eq!(key.domain, "example.org");
        assert!(key.path.ends_with(format!("example.org.{}.pem", key.selector)), "{key:?}");
    }
    // Not even a second call in the same month changes a file.
    let texts = || made.iter().map(|key| fs::read(&key.path).expect("a key")).collect::<Vec<_>>();
    let before = texts();
    let (code, text) = code_and_text(&keys::new("example.org", &inside, &[]).output().expect("it runs"));
    assert!(code == 73 && text.contains("the file exists, and is not overwritten"), "{code} {text}");
    // If one of the two exists, the other is not made.
    fs::remove_file(&made[0].path).expect("a key");
    let (code, _) = code_and_text(&keys::new("example.org", &inside, &[]).output().expect("it runs"));
    assert!(code == 73 && !made[0].path.exists());
    fs::write(&made[0].path, &before[0]).expect("a file");
    assert_eq!(before, texts());
    assert_eq!(keys::make("example.org", &inside, "Second").len(), 2);
    assert_eq!(fs::read_dir(&inside).expect("a directory").count(), 4);
    if has_openssl() {
        for key in &made {
            let (_, public) = key.record.split_once("; p=").expect("a key");
            assert_eq!(public, public_key(key), "{key:?}");
        }
    }
}

#[test]
fn a_user_other_than_root_makes_keys_for_himself() {
    let directory = Directory::new("user");
    let Some(mut command) = stranger(&keys::new("x.test", &directory.0, &[])) else { return };
    let (code, text) = code_and_text(&command.output().expect("it runs"));
    assert_eq!(code, 77, "a directory of root's: {text}");
    chown(&directory.0, Some(54321), Some(54321)).expect("root can");
    let (code, text) = code_and_text(&command.output().expect("it runs"));
    assert_eq!(code, 0, "{text}");
    for key in keys::read(&text) {
        let file = fs::metadata(&key.path).expect("a key");
        assert_eq!((file.uid(), file.mode() & 0o7777), (54321, 0o600), "{key:?}");
    }
    // Root makes no files where that user could change them.
    let (code, text) = code_and_text(&keys::new("y.test", &directory.0, &[]).output().expect("it runs"));
    assert!(code == 77 && text.contains("root makes no keys there"), "{code} {text}");
    assert_eq!(fs::read_dir(&directory.0).expect("a directory").count(), 2);
}

#[test]
fn names_that_the_dns_cannot_have_are_rejected() {
    let directory = Directory::new("names");
    let long = format!("{}test", "a.".repeat(120));
    for (domain, arguments) in [
        ("[192.0.2.1]", &[][..]),
        ("x..test", &[]),
        (long.as_str(), &[]),
        ("x.test", &["--selector", "a b"]),
        ("x.test", &["--selector", "../../x"]),
        ("x.test", &["--selector", ""]),
    ] {
        let (code, text) = code_and_text(&keys::new(domain, &directory.0, arguments).output().expect("it runs"));
        assert_eq!(code, 65, "{domain} {arguments:?}: {text}");
    }
    assert_eq!(fs::read_dir(&directory.0).expect("a directory").count(), 0);
}

/// The lines of `dkim check`, each with the domain in front.
fn results(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(": ")?;
            let (_, domain) = name.split_once("._domainkey.")?;
            Some((domain, rest.rsplit_once(" (/").map_or(rest, |(result, _)| result)))
        })
        .collect()
}

#[test]
fn check_compares_each_key_with_the_dns() {
    let mut site = Site::new();
    site.make_root_owned();
    let directory = site.path("dkim");
    let [rsa, ed25519] = keys::make("good.test", &directory, "s").try_into().expect("two keys");
    let other = keys::make("good.test", &directory, "t").remove(0);
    let revoked = "v=DKIM1; p=".to_owned();
    let testing = rsa.record.replace("; p=", "; t=y; p=");
    let mut zone = String::new();
    let mut table = String::new();
    let rows: [(&str, &[&str], &str); 10] = [
        ("bad.test", &["v=DKIM1; k=rsa; p=MIIB"], "the record cannot be used: malformed key record: p="),
        ("good.test", &[&rsa.record], "good"),
        ("hash.test", &["v=DKIM1; h=sha1; p=MIIB"], "the record cannot be used: key is for another hash algorithm"),
        ("kind.test", &[&ed25519.record], "the record has a key of another kind (k=)"),
        ("missing.test", &[], "there is no TXT record"),
        ("other.test", &[&other.record], "the record has another key"),
        ("revoked.test", &[&revoked], "the record cannot be used: key was revoked"),
        ("several.test", &[&rsa.record, &other.record], "there are 2 TXT records; expected one"),
        ("testing.test", &[&testing], "good, but t=y says that the domain is only testing"),
        ("trouble.test", &[], "the name server could not find out (SERVFAIL)"),
    ];
    for (domain, records, _) in rows {
        table += &format!("{domain} s-rsa {}\n", rsa.path.display());
        for record in records {
            zone += &format!("s-rsa._domainkey.{domain} TXT {record}\n");
        }
    }
    zone += "s-rsa._domainkey.trouble.test SERVFAIL\n";
    zone += &ed25519.zone_line();
    let dns = Dns::zone(&zone);
    site.set("dns", "nameservers", &dns.nameservers());
    assert_eq!(check(&site, &[]), (69, "penfoldctl: the configuration has no key\n".to_owned()));
    ed25519.add_to(&mut site);
    fs::write(site.path("table"), &table).expect("a table");
    site.set("dkim#table", "table", &format!("{:?}", site.path("table")));
    let (code, text) = check(&site, &[]);
    let found = results(&text);
    assert_eq!(code, 65, "{text}");
    assert_eq!(found[0], ("good.test", "good"), "{text}");
    let expected: Vec<_> = rows.iter().map(|(domain, _, result)| (*domain, *result)).collect();
    assert_eq!(found[1..], expected, "{text}");
    assert!(text.ends_with("penfoldctl: keys that receivers cannot use: 7\n"), "{text}");
    for (domain, want) in
        [("Good.TEST", 0), ("testing.test", 0), ("missing.test", 65), ("trouble.test", 75), ("x.test", 69)]
    {
        let (code, text) = check(&site, &[domain]);
        assert_eq!(code, want, "{domain}: {text}");
    }
    // A line with an error is one of the configuration.
    fs::write(site.path("table"), format!("{table}x.test s /nonexistent/key.pem\n")).expect("a table");
    let (code, text) = check(&site, &[]);
    assert!(code == 78 && text.contains("table:11:1: /nonexistent/key.pem: "), "{code} {text}");
}

#[test]
fn a_key_that_the_caller_cannot_read_is_an_error() {
    let mut site = Site::new();
    site.make_root_owned();
    let made = keys::make("x.test", &site.path("dkim"), "s");
    made[0].add_to(&mut site);
    let dns = Dns::zone(&made[0].zone_line());
    site.set("dns", "nameservers", &dns.nameservers());
    assert_eq!(check(&site, &[]).0, 0);
    let mut command = Command::new(common::built::program("penfoldctl"));
    command.arg("-f").arg(site.path("penfold.conf")).args(["dkim", "check"]);
    let Some(mut command) = stranger(&command) else { return };
    let (code, text) = code_and_text(&command.output().expect("it runs"));
    assert!(code == 78 && text.contains("dkim.key: ") && text.contains("Permission denied"), "{code} {text}");
}

/// A site whose reports are signed with a key that only root can read, if root runs the tests.
fn signing() -> (Site, Vec<Key>) {
    let mut site = Site::new();
    site.make_root_owned();
    let made = keys::make("razorback.test", &site.path("dkim"), "a");
    made.iter().for_each(|key| key.add_to(&mut site));
    (site, made)
}

/// Sends a message that another host rejects, and returns the report to jon, who has this many
/// messages then.
fn report(site: &Site, daemon: &common::Daemon, number: usize) -> Vec<u8> {
    let rejecting = Sink::default().when("RCPT", Then::Reply("550 5.1.1 no such user".to_owned()), 1);
    let remote = Remote::with(rejecting);
    site.write("routes", &format!("gone.test {}\n", remote.host_port()));
    let before = site.mail("jon");
    daemon.client().send("jon@razorback.test", &["nobody@gone.test"], common::client::TEXT);
    let mut after = daemon.wait_mail(site, "jon", number);
    after.retain(|mail| !before.contains(mail));
    after.remove(0)
}

#[test]
fn reports_are_signed_with_keys_that_only_root_can_read() {
    let (site, made) = signing();
    let daemon = site.start();
    let mail = report(&site, &daemon, 1);
    let Some(verified) = keys::verify(&mail, &made) else { return };
    assert_eq!(
        verified,
        ["a-rsa razorback.test True", "a-ed25519 razorback.test True"],
        "{}",
        String::from_utf8_lossy(&mail)
    );
}

#[test]
fn a_key_is_replaced_without_a_signal_and_a_bad_edit_changes_nothing() {
    let (site, made) = signing();
    let daemon = site.start();
    let replace = |text: &[u8]| {
        let new = site.path("dkim/new");
        fs::write(&new, text).expect("a file");
        fs::set_permissions(&new, Permissions::from_mode(0o600)).expect("ours");
        fs::rename(&new, &made[0].path).expect("a rename");
    };
    let next = keys::make("razorback.test", &site.path("dkim"), "b").remove(0);
    replace(&fs::read(&next.path).expect("a key"));
    let records = [Key { record: next.record.clone(), ..made[0].clone() }, made[1].clone()];
    let verify = |number| keys::verify(&report(&site, &daemon, number), &records);
    let Some(verified) = verify(1) else { return };
    assert_eq!(verified, ["a-rsa razorback.test True", "a-ed25519 razorback.test True"]);
    replace(b"-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n");
    assert_eq!(verify(2), Some(verified));
    let file = made[0].path.display().to_string();
    let log = daemon.wait_log(|line| line.contains(&file) && line.contains("the old table stays in force"));
    assert!(!log.contains("hush"), "{log}");
}

#[test]
fn a_table_of_keys_that_only_root_can_read() {
    let mut site = Site::new();
    site.make_root_owned();
    let made = keys::make("razorback.test", &site.path("dkim"), "a");
    let table = site.path("dkim/table");
    let write = |keys: &[Key]| {
        let (text, new): (String, _) = (keys.iter().map(Key::table_line).collect(), table.with_extension("new"));
        fs::write(&new, text).expect("a file");
        fs::rename(&new, &table).expect("a rename");
    };
    write(&made[..1]);
    site.set("dkim#table", "table", &format!("{table:?}"));
    let daemon = site.start();
    let Some(verified) = keys::verify(&report(&site, &daemon, 1), &made) else { return };
    assert_eq!(verified, ["a-rsa razorback.test True"]);
    // A key that a changed table names is opened, too.
    write(&made);
    let verified = keys::verify(&report(&site, &daemon, 2), &made);
    assert_eq!(
        verified,
        Some(["a-rsa razorback.test True", "a-ed25519 razorback.test True"].map(str::to_owned).to_vec())
    );
}

/// A key outside the paths that only root can change is not opened as root.
#[test]
fn root_does_not_open_a_key_for_a_table_that_others_can_change() {
    if !geteuid().is_root() {
        return common::skipped("only root has keys that only root can read");
    }
    let mut site = Site::new();
    site.make_root_owned();
    let made = keys::make("razorback.test", &site.path("dkim"), "a");
    site.write("var/table", &made[0].table_line());
    site.set("dkim#table", "table", &format!("{:?}", site.path("var/table")));
    let output = site.penfoldd(&["-n"]).output().expect("it runs");
    let (code, text) = code_and_text(&output);
    assert!(code == 78 && text.contains("var/table:1:1: ") && text.contains("Permission denied"), "{code} {text}");
}

#[test]
fn keys_that_openssl_has_made() {
    if !has_openssl() {
        return;
    }
    let mut site = Site::new();
    site.make_root_owned();
    let openssl = |arguments: &str, file: &str| {
        let path = site.path(file);
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split(' ')).arg("-out").arg(&path).output().expect("openssl");
        assert!(output.status.success(), "{output:?}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
    };
    openssl("genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048", "pkcs8.pem");
    openssl("genpkey -quiet -algorithm ED25519", "ed25519.pem");
    openssl("genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256", "ec.pem");
    openssl("genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:1024", "weak.pem");
    openssl(&format!("pkey -traditional -in {}", site.path("pkcs8.pem").display()), "pkcs1.pem");
    openssl(&format!("pkey -aes256 -passout pass:hush -in {}", site.path("pkcs8.pem").display()), "locked.pem");
    let mut table = String::new();
    for name in ["pkcs8", "ed25519", "ec", "weak", "pkcs1", "locked"] {
        table += &format!("{name}.test s {}\n", site.path(&format!("{name}.pem")).display());
    }
    fs::write(site.path("table"), table).expect("a table");
    site.set("dkim#table", "table", &format!("{:?}", site.path("table")));
    let (code, text) = code_and_text(&site.penfoldd(&["-n"]).output().expect("it runs"));
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("/table:")).collect();
    let expected = [
        ("table:3:1: ", "ec.pem: "),
        ("table:4:1: ", "weak.pem: the key was rejected (TooSmall); expected RSA with 2048 to 4096 bits, or Ed25519"),
        ("table:6:1: ", "locked.pem: no private key without a password"),
    ];
    assert_eq!((code, lines.len()), (78, expected.len()), "{text}");
    for (line, (place, what)) in lines.iter().zip(expected) {
        assert!(line.contains(place) && line.contains(what), "{line}");
    }
}

#[test]
fn a_key_in_a_directory_of_roots_alone_is_not_opened_for_each_message() {
    if !geteuid().is_root() {
        return common::skipped("only root has directories that only root can search");
    }
    let (site, made) = signing();
    fs::set_permissions(site.path("dkim"), Permissions::from_mode(0o700)).expect("ours");
    let daemon = site.start();
    let send = |number| {
        daemon.client().send("jon@razorback.test", &["root"], "From: jon@razorback.test\r\n\r\nHow are you?\r\n");
        daemon.wait_mail(&site, "root", number);
    };
    send(1);
    let next = keys::make("razorback.test", &site.path("dkim"), "b").remove(0);
    fs::rename(&next.path, &made[0].path).expect("a rename");
    send(2);
    // The old key is used for some seconds, or until a reload.
    let old = |mail: &Vec<u8>| keys::verify(mail, &made).is_none_or(|all| all.iter().all(|one| one.ends_with(" True")));
    assert!(site.mail("root").iter().all(old));
    daemon.hup();
    daemon.wait_log(|line| line.contains("read again"));
    send(3);
    assert!(!site.mail("root").iter().all(old) || keys::verify(b"", &made).is_none());
}
