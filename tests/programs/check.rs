//! `penfoldctl check`, with and without a daemon, as each kind of user.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::{Duration, Instant};

use common::dns::{Answer, Dns};
use common::keys;
use common::namespace::in_a_network;
use common::programs::{code_and_text, command, stranger};
use common::remote::Remote;
use common::tls::Authority;
use common::{Daemon, Site};
use nix::unistd::{User, geteuid};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Runs `penfoldctl check`, and returns its exit code and its output.
fn check(site: &Site, arguments: &[&str]) -> (i32, String) {
    site.configure();
    let arguments: Vec<&str> = ["check"].iter().chain(arguments).copied().collect();
    code_and_text(&command(site, "penfoldctl", &arguments).output().expect("it runs"))
}

fn assert_has(text: &str, wanted: &[String]) {
    for line in wanted {
        assert!(text.contains(line.as_str()), "{line}\n{text}");
    }
}

/// A host in the DNS, without faults.
const ZONE: &str = "mx.example.org A 192.0.2.1
1.2.0.192.in-addr.arpa PTR mx.example.org
example.org MX 10 mx.example.org
example.org TXT v=spf1 a:mx.example.org -all
_dmarc.example.org TXT v=DMARC1; p=quarantine
try.example MX 10 mx.try.example
mx.try.example A 127.0.0.1
";

#[test]
fn each_complaint_says_what_to_change_or_to_publish() {
    let made = keys::Made::new("example.org", "s");
    let mut site =
        Authority::new().site("hostname = \"mx.example.org\"\nlocal.domains = [\"example.org\", \"localhost\"]");
    made.give(&site);
    made.of(&site).iter().for_each(|key| key.add_to(&mut site));
    let [rsa, ed25519] = made.keys.as_slice() else { panic!("two keys") };
    let smart_host = Remote::sink();
    let port = smart_host.host_port();
    site.set("remote", "smarthosts", &format!("[\"smtp://{port}\", \"127.0.0.1:{}\"]", common::free_port()));
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("bound");
    site.set("listen", "address", &format!("\"{taken}\""));
    let dns = Dns::zone(&format!("{ZONE}{}", rsa.zone_line()));
    site.set("dns", "nameservers", &dns.nameservers());
    fs::set_permissions(site.path("cert.key"), fs::Permissions::from_mode(0o644)).expect("a mode");
    let before = fs::read_dir(site.path("spool")).expect("a spool").count();
    let (code, text) = check(&site, &[]);
    let conf = site.path("penfold.conf").display().to_string();
    let name = fs::read_to_string("/proc/self/comm").expect("a name");
    assert_eq!(code, 65, "{text}");
    assert_has(
        &text,
        &[
            format!("warning: configuration: {}: others may read it (mode 644)\n", site.path("cert.key").display()),
            format!("ok: configuration: {conf} and the tables that it names have no errors\n"),
            "ok: domain: example.org has an SPF record: v=spf1 a:mx.example.org -all\n".into(),
            format!("ok: domain: the key {}._domainkey.example.org: good\n", rsa.selector),
            format!(
                "error: domain: the key {0}._domainkey.example.org: there is no TXT record\n    publish: {0}._domainkey.example.org. IN TXT \"v=DKIM1; k=ed25519; p=",
                ed25519.selector
            ),
            "ok: domain: example.org has a DMARC record with the policy quarantine\n".into(),
            "cert.pem: the certificate is valid for 2".into(),
            format!(": another program listens on {taken}: {} (process {})\n", name.trim_end(), std::process::id()),
            format!(": no penfoldd listens on the socket {}\n    start it", site.path("penfold.sock").display()),
            format!(": the smart host {port} answers\n"),
            ": the smart host 127.0.0.1:".into(),
            " does not answer: ".into(),
        ],
    );
    // One fact is one finding.
    let told = ["and only this host can connect", "no [[listen]] has port 25"].map(|fact| text.contains(fact));
    assert_eq!(told.into_iter().filter(|is_told| *is_told).count(), 1, "{text}");
    // Nothing was made or changed, and the smart host got no mail.
    assert_eq!(fs::read_dir(site.path("spool")).expect("a spool").count(), before);
    assert!(smart_host.take().is_empty());
    let (code, json) = check(&site, &["--json", "-q"]);
    assert_eq!(code, 65, "{json}");
    assert!(!json.contains(r#""level":"ok""#) && !json.contains("note"), "{json}");
    let line = json.lines().find(|line| line.contains("there is no TXT record")).expect("a finding");
    let start = r#"{"level":"error","topic":"domain","text":"the key "#;
    assert!(line.starts_with(start) && line.contains(r#","publish":[""#) && line.ends_with(r#""]}"#), "{line}");
    // Whether anything listens on port 25 of this machine is unknown.
    let (_, text) = check(&site, &["--try", "try.example", "--quiet"]);
    let is_tried = text.contains("no connection to a mail exchanger of try.example: mx.try.example [");
    assert!(is_tried || TcpStream::connect("127.0.0.1:25").is_ok(), "{text}");
    // A failed look-up says nothing about the port.
    let (_, text) = check(&site, &["--try", "nosuch.example", "--quiet"]);
    let not_tried = "unknown: outside: no mail exchanger of nosuch.example was tried: no such domain\n";
    assert!(text.contains(not_tried) && !text.contains("the provider blocks"), "{text}");
    // Without the DNS, nothing outside is asked.
    let asked = dns.asked().len();
    let (_, text) = check(&site, &["--no-dns"]);
    assert!(!text.contains("domain:") && !text.contains("outside:") && dns.asked().len() == asked, "{text}");
}

#[test]
fn a_check_beside_a_daemon_and_as_other_users() {
    let site = Site::with(&format!("listen.address = \"127.0.0.1:{}\"", common::free_port()));
    let daemon = site.start();
    let (code, text) = check(&site, &["--no-dns", "--quiet"]);
    assert!(code == 0 && !text.contains("error:"), "{text}");
    let (_, text) = check(&site, &["--no-dns"]);
    let ours = format!(": penfoldd listens on {}\n", daemon.address());
    assert_has(&text, &["ok: host: penfoldd is running\n".into(), ours]);
    // A file that was changed and not put into force.
    let conf = fs::File::options().append(true).open(site.path("penfold.conf")).expect("a file");
    conf.set_modified(std::time::SystemTime::now() + Duration::from_secs(60)).expect("a time");
    let changed = command(&site, "penfoldctl", &["check", "--no-dns"]).output().expect("it runs");
    assert_has(&code_and_text(&changed).1, &["put it into force: penfoldctl reload\n".into()]);
    if geteuid().is_root() {
        // As the server's user, all is the same, except that the ports of root's daemon have no name.
        let owner = fs::metadata(site.path("spool")).expect("a spool");
        let mut as_server = command(&site, "penfoldctl", &["check", "--no-dns"]);
        let (code, text) = code_and_text(&as_server.uid(owner.uid()).gid(owner.gid()).output().expect("it runs"));
        assert!(code == 0 && text.contains("ok: host: penfoldd is running\n"), "{text}");
        // Others learn nothing from files that they cannot read.
        fs::set_permissions(site.path("users"), fs::Permissions::from_mode(0o600)).expect("a mode");
        if let Some(mut stranger) = stranger(&command(&site, "penfoldctl", &["check", "--no-dns"])) {
            let (code, text) = code_and_text(&stranger.output().expect("it runs"));
            assert!(code == 78 && text.contains("Permission denied"), "{text}");
            // The spool is not given away to whoever runs the check.
            assert!(text.contains("run the check as root or as the user "), "{text}");
            assert!(!text.contains("give it to that user") && !text.contains("give the directory"), "{text}");
        }
    }
    drop(daemon);
    fs::set_permissions(site.path("spool"), fs::Permissions::from_mode(0o500)).expect("a mode");
    let (code, text) = check(&site, &["--no-dns", "-q"]);
    assert!(code == 65 && text.contains(" cannot write to the spool "), "{text}");
    fs::set_permissions(site.path("spool"), fs::Permissions::from_mode(0o700)).expect("a mode");
    site.write("aliases", "jon jon\n");
    let mut site = site;
    site.set("queue", "workers", "\"x\"");
    let (code, text) = check(&site, &["--no-dns", "-q"]);
    assert_eq!(code, 78, "{text}");
    let conf = site.path("penfold.conf").display().to_string();
    assert!(
        text.lines()
            .any(|line| line.starts_with(&format!("error: configuration: {conf}:")) && line.contains("queue.workers"))
    );
    assert!(text.contains(&format!("error: configuration: {}:1:", site.path("aliases").display())), "{text}");
    for arguments in [&["--try", "a..b"][..], &["--try", "x.y", "--no-dns"], &["x"], &["--jsn"]] {
        assert_eq!(check(&site, arguments).0, 64, "{arguments:?}");
    }
}

#[test]
fn a_mute_name_server_is_one_finding() {
    let mut site = Site::with(
        "hostname = \"mx.example.org\"\nlocal.domains = [\"example.org\", \"b.example.org\", \"localhost\"]\ndns.timeout = \"3s\"",
    );
    let dns = Dns::start(|_, _| Answer::silence());
    site.set("dns", "nameservers", &dns.nameservers());
    let start = Instant::now();
    let (code, text) = check(&site, &[]);
    assert_eq!((code, text.matches("unknown:").count()), (75, 1), "{text}");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    // The same for a host that only has smart hosts.
    site.set("", "hostname", "\"vm\"");
    site.set("local", "domains", "[\"localhost\"]");
    site.set("remote", "smarthosts", "[\"smtp://a.example.net\", \"smtp://b.example.net\"]");
    let start = Instant::now();
    let (code, text) = check(&site, &[]);
    assert_eq!((code, text.matches("did not answer in time").count()), (75, 3), "{text}");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

/// A service manager holds the socket while the daemon is down: it accepts connections.
#[test]
fn a_socket_without_an_answer_is_no_running_daemon() {
    let site = Site::new();
    let held = UnixListener::bind(site.path("penfold.sock")).expect("a socket");
    let (code, text) = check(&site, &["--no-dns"]);
    let wanted = format!("the control socket {} is open, but no penfoldd answers", site.path("penfold.sock").display());
    assert!(code == 65 && text.contains(&wanted) && !text.contains("penfoldd is running"), "{code} {text}");
    drop(held);
}

#[test]
fn a_spool_that_the_server_cannot_use_is_an_error_of_n() {
    if !geteuid().is_root() {
        return common::skipped("only root can give a spool to another user");
    }
    let site = Site::with("user = \"nobody\"");
    site.configure();
    let examine = || code_and_text(&site.penfoldd(&["-n"]).output().expect("it runs"));
    let spool = site.path("spool");
    fs::create_dir_all(&spool).expect("a directory");
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o755)).expect("a mode");
    let (code, text) = examine();
    assert_eq!(code, 0, "an empty spool of root becomes the server's: {text}");
    fs::create_dir_all(spool.join("new")).expect("a directory");
    let (code, text) = examine();
    let wanted = format!("spool: it must belong to the user that runs penfoldd: chown -R nobody {}", spool.display());
    assert!(code == 77 && text.contains(&wanted), "{code} {text}");
    nix::unistd::chown(&spool, User::from_name("nobody").expect("users").map(|user| user.uid), None).expect("an owner");
    let (code, text) = examine();
    let inside = format!("use the spool: {}: ", spool.join("new").display());
    assert!(code == 77 && text.contains(&inside) && text.contains(&wanted), "{code} {text}");
}

#[test]
fn port_25_is_tried_in_both_directions() {
    in_a_network(&["192.0.2.1/24", "192.0.2.2/24"], || {
        let mut site = Site::with("hostname = \"mx.example.org\"\nlisten.address = \"192.0.2.1:25\"");
        let dns = Dns::zone(&ZONE.replace("mx.try.example A 127.0.0.1", "mx.try.example A 192.0.2.2"));
        site.set("dns", "nameservers", &dns.nameservers());
        let try_it = |site: &Site| check(site, &["--try", "try.example"]).1;
        let text = try_it(&site);
        assert_has(
            &text,
            &[
                "error: outside: no connection to 192.0.2.1:25, an address of this host: Connection refused (os error 111)\n    start penfoldd".into(),
                "error: outside: no connection to a mail exchanger of try.example: mx.try.example [192.0.2.2]: ".into(),
                "which is for examples in documentation\n".into(),
            ],
        );
        let other = TcpListener::bind("192.0.2.2:25").expect("port 25");
        thread::spawn(move || {
            for mut client in other.incoming().map_while(Result::ok) {
                let _ = client.write_all(b"220 mx.try.example ESMTP\r\n");
            }
        });
        let ready = |line: &str| line.starts_with("listening on 192.0.2.1:25").then_some(25);
        let daemon = Daemon::spawn_until(site.penfoldd(&["-d"]), ready).expect("it listens");
        let text = try_it(&site);
        assert_has(
            &text,
            &[
                "ok: outside: 192.0.2.1:25 answers as mx.example.org, tried from here\n".into(),
                "note: outside: whether a firewall keeps other hosts from port 25 cannot be seen from here\n".into(),
                "ok: outside: this host can connect to port 25 of others: mx.try.example [192.0.2.2] answers\n".into(),
            ],
        );
        assert!(!text.contains("error: outside:"), "{text}");
        // The name leads to another server.
        let dns = Dns::zone(&ZONE.replace("mx.example.org A 192.0.2.1", "mx.example.org A 192.0.2.2"));
        site.set("dns", "nameservers", &dns.nameservers());
        let text = try_it(&site);
        let wrong =
            "error: outside: another server answers at 192.0.2.2:25: 220 mx.try.example ESMTP\n    correct the address";
        assert_has(&text, &[wrong.into()]);
        drop(daemon);
    });
}

/// The digest of the key in a file, as `penfoldctl tlsa` prints it.
fn digest(site: &Site, file: &str) -> String {
    let path = site.path(file).display().to_string();
    let (code, text) = code_and_text(&command(site, "penfoldctl", &["tlsa", &path]).output().expect("it runs"));
    assert_eq!(code, 0, "{text}");
    text.trim_end().rsplit(' ').next().expect("digits").to_owned()
}

#[test]
fn the_tlsa_records_are_compared_with_the_certificates() {
    let authority = Authority::new();
    let mut site = authority.site("hostname = \"mx.example.org\"\nlocal.domains = [\"example.org\"]");
    authority.give(&site, "cert", "mx.example.org", 300);
    authority.give(&site, "next", "mx.example.org", 300);
    site.configure();
    let (now, next) = (digest(&site, "cert.pem"), digest(&site, "next.key"));
    let certificate = site.path("cert.pem").display().to_string();
    let der = CertificateDer::from_pem_file(site.path("cert.pem")).expect("a certificate");
    let whole = data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, &der).as_ref());
    let publish = format!("    publish: _25._tcp.mx.example.org. IN TLSA 3 1 1 {now}\n");
    let records = "the TLSA records of mx.example.org";
    let secure = "_25._tcp.mx.example.org SECURE\n";
    let tlsa = |data: &str| format!("_25._tcp.mx.example.org TLSA {data}\n");
    let (of_now, of_next) = (tlsa(&format!("3 1 1 {now}")), tlsa(&format!("3 1 1 {next}")));
    let wrong = format!("{certificate}: {records} are not for this certificate (");
    let tell = |site: &mut Site, zone: &str, trust: &str, wanted: &[String]| {
        let dns = Dns::zone(&format!("{ZONE}{zone}"));
        site.set("dns", "nameservers", &dns.nameservers());
        site.set("dns", "trust_ad", trust);
        let (code, text) = check(site, &[]);
        assert_has(&text, wanted);
        (code, text)
    };
    let none = "note: tls: mx.example.org has no TLSA record: other hosts cannot verify it with DANE\n";
    tell(&mut site, "", "true", &[none.into(), publish.clone()]);
    let good = format!("ok: tls: {records} are for the certificates in use");
    tell(&mut site, &format!("{secure}{of_now}"), "true", &[format!("{good}\n")]);
    let others = format!("{good}; others are for other keys, such as the next one\n");
    tell(&mut site, &format!("{secure}{of_now}{of_next}"), "true", &[others]);
    let unknown = format!("{good}; whether DNSSEC secures them is not known, see dns.trust_ad\n");
    tell(&mut site, &format!("{secure}{of_now}"), "false", &[unknown]);
    // The key was changed, and its record was not.
    let (code, text) =
        tell(&mut site, &format!("{secure}{of_next}"), "true", &[format!("error: tls: {wrong}"), publish.clone()]);
    assert!(code == 65 && text.contains("mail from hosts with DANE waits"), "{text}");
    tell(&mut site, &of_next, "false", &[format!("error: tls: {wrong}")]);
    let ignored = format!("note: tls: {records} are not secured by DNSSEC: other hosts ignore them\n");
    tell(&mut site, &of_next, "true", &[ignored.clone(), format!("warning: tls: {wrong}"), publish.clone()]);
    let (_, text) = tell(&mut site, &of_now, "true", &[ignored]);
    assert!(!text.contains("ok: tls: the TLSA records"), "{text}");
    let unusable = tlsa(&format!("1 1 1 {now}"));
    let text = "warning: tls: no TLSA record of mx.example.org can be used for mail: ".to_owned();
    tell(&mut site, &format!("{secure}{unusable}"), "true", &[text, publish.clone()]);
    let renewed = format!("note: tls: {records} must change with every renewal of a certificate\n");
    tell(&mut site, &format!("{secure}{}", tlsa(&format!("3 0 1 {whole}"))), "true", &[renewed, publish]);
    let failed = "unknown: tls: the TLSA records of mx.example.org: ".to_owned();
    tell(&mut site, "_25._tcp.mx.example.org SERVFAIL\n", "true", &[failed]);
    // Two certificates for one name need two records, and one for another name needs none.
    authority.give(&site, "other", "other.example.org", 300);
    let dns = Dns::zone(&format!("{ZONE}{secure}{of_now}"));
    site.set("dns", "nameservers", &dns.nameservers());
    site.configure();
    let text = fs::read_to_string(site.path("penfold.conf")).expect("a file");
    let more: String = ["other", "next"]
        .map(|name| {
            let path = |end: &str| site.path(&format!("{name}.{end}"));
            format!("\n[[tls]]\ncertificate = {:?}\nkey = {:?}\n", path("pem"), path("key"))
        })
        .concat();
    assert!(text.contains("[tls]"), "{text}");
    fs::write(site.path("penfold.conf"), text.replace("[tls]", "[[tls]]") + &more).expect("a file");
    let (_, text) = code_and_text(&command(&site, "penfoldctl", &["check"]).output().expect("it runs"));
    let wrong = format!("{}: {records} are not for this certificate (", site.path("next.pem").display());
    assert_has(&text, &[format!("error: tls: {wrong}"), format!("IN TLSA 3 1 1 {next}\n")]);
    assert!(!text.contains("cert.pem: the TLSA") && !text.contains("other.pem: the TLSA"), "{text}");
}
