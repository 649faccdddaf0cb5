//! What `penfoldctl tlsa` and `penfoldctl mta-sts` print for the DNS and for a web server. OpenSSL,
//! danetool and ldns-dane make the same TLSA records.

use std::fs;
use std::path::Path;
use std::process::Command;

use common::Site;
use common::dns::Dns;
use common::programs::{code_and_text, command};
use common::tls::Authority;

/// The exit code and the output of penfoldctl with the configuration of a site.
fn run(site: &Site, arguments: &[&str]) -> (i32, String) {
    site.configure();
    code_and_text(&command(site, "penfoldctl", arguments).output().expect("it runs"))
}

/// What another program prints. If it is absent, reports the test as skipped.
fn other(program: &str, arguments: &[&str], directory: &Path) -> Option<String> {
    let output = match Command::new(program).args(arguments).current_dir(directory).output() {
        Ok(output) => output,
        Err(e) => {
            common::skipped(format_args!("{program}: {e}"));
            return None;
        }
    };
    assert!(output.status.success(), "{program}: {output:?}");
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

/// The hexadecimal digits at the end of a TLSA record of the kind 3 1 1.
fn digits(record: &str) -> String {
    let (_, data) = record.to_lowercase().split_once("tlsa").map(|(a, b)| (a.to_owned(), b.to_owned())).expect(record);
    let words: Vec<&str> = data.split_whitespace().filter(|word| !matches!(*word, "(" | ")")).collect();
    let [usage, selector, kind, rest @ ..] = words.as_slice() else { panic!("{record}") };
    assert_eq!((usage.parse(), selector.parse(), kind.parse()), (Ok(3), Ok(1), Ok(1)), "{record}");
    rest.concat()
}

#[test]
fn the_tlsa_records_are_those_of_other_programs() {
    let mut site = Authority::new().site("hostname = \"razorback.test\"");
    let make = "req -x509 -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.pem -subj /CN=x -days 30 -addext subjectAltName=DNS:razorback.test";
    let directory = site.path("");
    if other("openssl", &make.split(' ').collect::<Vec<_>>(), &directory).is_none() {
        return;
    }
    other("openssl", &["pkey", "-in", "rsa.key", "-pubout", "-out", "rsa.pub"], &directory);
    // One table has both certificates of the host, and one that is for another name.
    Authority::new().give(&site, "other", "other.test", 300);
    let pair = |name: &str| {
        let path = |end: &str| site.path(&format!("{name}.{end}")).display().to_string();
        format!("{{ certificate = {:?}, key = {:?} }}", path("pem"), path("key"))
    };
    let tables = format!("tls = [{}, {}, {}]\n", pair("cert"), pair("rsa"), pair("other"));
    let conf = site.path("three.conf");
    fs::write(&conf, format!("hostname = \"razorback.test\"\n{tables}")).expect("a file");
    let with = |arguments: &[&str]| {
        let mut penfoldctl = command(&site, "penfoldctl", arguments);
        code_and_text(&penfoldctl.env("PENFOLD_CONFIG", &conf).output().expect("it runs"))
    };
    let (code, text) = with(&["tlsa"]);
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
    let mut wanted = Vec::new();
    for name in ["cert.pem", "rsa.pem"] {
        let public = other("openssl", &["x509", "-in", name, "-noout", "-pubkey"], &directory).expect("a key");
        site.write("public", &public);
        other("openssl", &["pkey", "-pubin", "-in", "public", "-outform", "DER", "-out", "der"], &directory);
        let digest = other("openssl", &["dgst", "-sha256", "-r", "der"], &directory).expect("a digest");
        let digest = digest.split(' ').next().expect("a digest").to_owned();
        let tools: [(&str, &[&str]); 2] = [
            ("danetool", &["--tlsa-rr", "--host", "razorback.test", "--port", "25", "--load-certificate", name]),
            ("ldns-dane", &["-c", name, "create", "razorback.test", "25", "3", "1", "1"]),
        ];
        for (tool, arguments) in tools {
            let Some(made) = other(tool, arguments, &directory) else { continue };
            assert_eq!(digits(&made), digest, "{tool}: {made}");
        }
        wanted.push(digest);
    }
    wanted.sort();
    let records = |all: &[String]| -> String {
        all.iter().map(|digest| format!("_25._tcp.razorback.test. IN TLSA 3 1 1 {digest}\n")).collect()
    };
    assert_eq!(text, records(&wanted));
    // A certificate, its key and its public key have one record, which names the host that is asked for.
    let files = ["rsa.key", "rsa.pem", "rsa.pub"].map(|file| site.path(file).display().to_string());
    let (code, text) = with(&["tlsa", "--host", "MX.example.org", &files[0], &files[1], &files[2]]);
    let rsa = text.trim_end().rsplit(' ').next().expect("digits").to_owned();
    assert_eq!(text, format!("_25._tcp.mx.example.org. IN TLSA 3 1 1 {rsa}\n"));
    assert!(code == 0 && wanted.contains(&rsa));
    let (code, json) = with(&["tlsa", "--json", &files[0]]);
    let object = format!("{{\"name\":\"_25._tcp.razorback.test\",\"data\":\"3 1 1 {rsa}\",\"file\":{:?}}}\n", files[0]);
    assert_eq!((code, json), (0, object));
    // Wrong files say what is wrong, and nothing of what they contain.
    site.write("secret", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    site.write("text", "no PEM");
    for (arguments, wanted, said) in [
        (&["tlsa", "secret"][..], 65, "a private key of a kind that is not supported"),
        (&["tlsa", "text"], 65, "expected a certificate or a key in PEM; there is none"),
        (&["tlsa", "missing"], 74, "No such file"),
        (&["tlsa", "--host", "a..b"], 64, "--host needs the name of a host"),
    ] {
        let paths: Vec<String> = arguments
            .iter()
            .map(|word| if site.path(word).exists() { site.path(word).display().to_string() } else { (*word).into() })
            .collect();
        let (code, text) = with(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(code == wanted && text.contains(said) && !text.contains("c2VjcmV0"), "{arguments:?}: {code}\n{text}");
    }
    site.set("tls", "certificate", "\"/missing.pem\"");
    let (code, text) = run(&site, &["tlsa"]);
    assert!(code == 78 && text.contains("/missing.pem: "), "{code} {text}");
    let (code, text) = run(&Site::new(), &["tlsa"]);
    assert!(code == 69 && text.contains("there is no certificate in the configuration"), "{code} {text}");
}

#[test]
fn the_policy_names_the_exchangers_and_its_id_changes_with_it() {
    let mut site = Site::with(
        "hostname = \"mx.example.org\"\nlocal.domains = [\"example.org\", \"localhost\"]\nrelay.domains = [\"b.example\"]",
    );
    let zone = "example.org MX 10 MX.example.org
example.org MX 20 backup.example.net
b.example TXT none
null.example MX 0 .
lost.example SERVFAIL
";
    let dns = Dns::zone(zone);
    site.set("dns", "nameservers", &dns.nameservers());
    let (code, policy) = run(&site, &["mta-sts", "Example.org"]);
    let wanted = "version: STSv1\nmode: testing\nmx: backup.example.net\nmx: mx.example.org\nmax_age: 86400\n";
    assert_eq!((code, policy.as_str()), (0, wanted));
    let (code, text) = run(&site, &["mta-sts"]);
    assert_eq!(code, 0, "{text}");
    let id =
        |text: &str| text.split_once("id=").map(|(_, rest)| rest.chars().take(24).collect::<String>()).expect("an id");
    let first = id(&text);
    let second = id(text.rsplit_once("_mta-sts").expect("two").1);
    assert_eq!(
        text,
        format!(
            "_mta-sts.example.org. IN TXT \"v=STSv1; id={first}\"
mta-sts.example.org. IN CNAME mx.example.org.
_smtp._tls.example.org. IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@example.org\"
_mta-sts.b.example. IN TXT \"v=STSv1; id={second}\"
mta-sts.b.example. IN CNAME mx.example.org.
_smtp._tls.b.example. IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@b.example\"
"
        )
    );
    // Everything that is in the policy changes the id; the order of the records does not.
    let lines: Vec<&str> = zone.lines().collect();
    let mut ids = vec![first.clone()];
    for (zone, mode, is_new) in [
        (format!("{}\n{}\n", lines[1], lines[0]), "testing", false),
        (format!("{}\n{}\n", lines[0], lines[1]), "enforce", true),
        (format!("{}\n{}\n", lines[0], lines[1]), "none", true),
        (format!("{}\n", lines[0]), "testing", true),
    ] {
        let dns = Dns::zone(&zone);
        site.set("dns", "nameservers", &dns.nameservers());
        let (code, json) = run(&site, &["mta-sts", "--mode", mode, "--json", "example.org"]);
        assert_eq!(code, 0, "{json}");
        let new = id(&json);
        assert_eq!(ids.contains(&new), !is_new, "{json}");
        ids.push(new);
    }
    site.set("dns", "nameservers", &dns.nameservers());
    let (code, json) = run(&site, &["mta-sts", "--json", "--no-dns", "--mode", "enforce", "example.org"]);
    let wanted =
        "{\"domain\":\"example.org\",\"mode\":\"enforce\",\"max_age\":1209600,\"mx\":[\"mx.example.org\"],\"id\":\"";
    assert!(code == 0 && json.starts_with(wanted), "{json}");
    let policy = "\"policy\":\"version: STSv1\\nmode: enforce\\nmx: mx.example.org\\nmax_age: 1209600\\n\"";
    assert!(json.contains(policy) && json.contains("\"publish\":[\"_mta-sts.example.org. IN TXT "), "{json}");
    for (arguments, wanted, said) in [
        (&["mta-sts", "null.example"][..], 75, "null.example says in the DNS that it accepts no mail"),
        (&["mta-sts", "lost.example"], 75, "the mail exchangers of lost.example: "),
        (&["mta-sts", "--mode", "x"], 64, "--mode needs testing, enforce or none"),
        (&["mta-sts", "a..b"], 64, "expected a domain"),
        (&["mta-sts", "a.b", "c"], 64, "one argument too many"),
    ] {
        let (code, text) = run(&site, arguments);
        assert!(code == wanted && text.contains(said), "{arguments:?}: {code}\n{text}");
    }
}
