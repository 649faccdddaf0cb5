//! What the DNS says, as a zone in memory, and what is made of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::finding::{Level, Report};
use super::name::{self, Addresses};
use super::net::Net;
use super::proof::Certificates;
use crate::config::{self, Config};
use crate::dns::lookup::Lookup;
use crate::outcome::NoAnswer;
use crate::privsep::Rights;
use crate::tls::{Client, Fault, FaultKind, Server};
use crate::tls_policy::sts::StsPolicy;

/// A DNS with these records, one a line: name, type, data. The type `FAIL` makes all look-ups of a
/// name fail.
struct Zone(String);

impl Zone {
    fn find<T>(&self, name: &str, kind: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, NoAnswer> {
        let name = name.trim_end_matches('.');
        let lines = self.0.lines().filter_map(|line| line.trim().split_once(' '));
        let of_name: Vec<&str> = lines.filter(|(owner, _)| *owner == name).map(|(_, rest)| rest).collect();
        if of_name.contains(&"FAIL") {
            return Err(NoAnswer::ServFail);
        }
        let data = of_name.iter().filter_map(|rest| rest.strip_prefix(kind)?.strip_prefix(' '));
        let found: Vec<T> = data.filter_map(read).collect();
        match (found.is_empty(), of_name.is_empty()) {
            (false, _) => Ok(found),
            (true, false) => Err(NoAnswer::NoData),
            (true, true) => Err(NoAnswer::NxDomain),
        }
    }
}

impl Lookup for Zone {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        self.find(name, "TXT", |text| Some(text.as_bytes().to_vec()))
    }

    fn ipv4(&self, name: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        self.find(name, "A", |text| text.parse().ok())
    }

    fn ipv6(&self, name: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        self.find(name, "AAAA", |text| text.parse().ok())
    }

    fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        self.find(domain, "MX", |text| Some((10, text.to_owned())))
    }

    fn names(&self, address: IpAddr) -> Result<Vec<String>, NoAnswer> {
        self.find(&address.to_string(), "PTR", |text| Some(text.to_owned()))
    }

    fn alias(&self, name: &str) -> Result<Option<String>, NoAnswer> {
        self.find(name, "CNAME", |text| Some(text.to_owned())).map(|found| found.into_iter().next()).or(Ok(None))
    }
}

/// A zone without faults. Each case changes one line.
const GOOD: &str = "mx.example.org A 8.8.8.1
8.8.8.1 PTR mx.example.org
example.org MX mx.example.org
example.org TXT v=spf1 mx -all
_dmarc.example.org TXT v=DMARC1; p=reject
_mta-sts.example.org TXT v=STSv1; id=20261130
_smtp._tls.example.org TXT v=TLSRPTv1; rua=mailto:postmaster@example.org";

fn config(more: &str) -> Config {
    let text = format!(
        "hostname = \"mx.example.org\"\nlocal.domains = [\"example.org\", \"localhost\"]\n\
         listen = [{{ address = \"0.0.0.0:25\" }}]\n{more}"
    );
    config::parse(Path::new("/etc/p.conf"), &text).expect("a valid text")
}

/// All findings, one a line.
fn check(zone: &str, config: &Config, own: &[&str]) -> (String, Vec<String>) {
    check_with(zone, config, own, &[])
}

/// The same with these source addresses and their names.
fn check_with(zone: &str, config: &Config, own: &[&str], sources: &[(IpAddr, String)]) -> (String, Vec<String>) {
    let own = own.iter().map(|text| text.parse().expect("an address")).collect();
    let (mut report, mut exchangers) = (Report::default(), Vec::new());
    let zone = Zone(zone.to_owned());
    Net { dns: &zone, config, keys: None, own, sources: sources.to_vec(), certificates: None, fetch: None }
        .check(&mut report, &mut exchangers);
    let lines = report.findings.iter().map(|finding| format!("{finding}\n"));
    (lines.collect(), exchangers)
}

#[test]
fn a_zone_without_faults_has_no_complaint() {
    let (found, exchangers) = check(GOOD, &config(""), &["8.8.8.1"]);
    assert_eq!(
        found,
        "ok: name: /etc/p.conf:1:1: mx.example.org has the address 8.8.8.1\n\
         ok: name: the address 8.8.8.1 has the name mx.example.org\n\
         ok: domain: the mail exchanger mx.example.org of example.org is this host\n\
         ok: domain: the SPF record of example.org permits this host\n\
         ok: domain: example.org has a DMARC record with the policy reject\n\
         ok: domain: example.org announces an MTA-STS policy, with the id 20261130\n\
         ok: domain: example.org asks other hosts for reports about TLS\n"
    );
    assert_eq!(exchangers, ["mx.example.org"]);
}

#[test]
fn the_names_of_other_source_addresses_are_compared_and_spf_must_permit_them() {
    let zone = format!("{GOOD}\nnews.example.org A 8.8.8.2\n8.8.8.2 PTR news.example.org\n8.8.8.3 PTR mx.example.org");
    let sources = [("8.8.8.2", "news.example.org"), ("8.8.8.3", "out.example.org")];
    let sources = sources.map(|(ip, name)| (ip.parse().expect("an address"), name.to_owned()));
    let (found, _) = check_with(&zone, &config(""), &["8.8.8.1"], &sources);
    for line in [
        "ok: name: the address 8.8.8.2 has the name news.example.org\n",
        "error: name: the address 8.8.8.3 has the name mx.example.org, which does not lead back to it\n",
        "publish: 3.8.8.8.in-addr.arpa. IN PTR out.example.org.\n",
    ] {
        assert!(found.contains(line), "no {line} in {found}");
    }
    assert!(found.contains("8.8.8.2") && !found.contains("the SPF record of example.org permits this host"), "{found}");
}

#[test]
fn each_fault_of_a_zone_is_found_with_the_record_to_publish() {
    for (old, new, wanted) in [
        (
            "mx.example.org A 8.8.8.1\n",
            "",
            "error: name: /etc/p.conf:1:1: hostname mx.example.org has no address in the DNS: other hosts refuse mail from such a name\n    publish: mx.example.org. IN A 8.8.8.1\n",
        ),
        (
            "A 8.8.8.1\n",
            "A 8.8.8.7\n",
            "error: name: /etc/p.conf:1:1: hostname mx.example.org has the address 8.8.8.7, and no address of this host\n",
        ),
        (
            "A 8.8.8.1\n",
            "A 10.0.0.1\n",
            "warning: name: /etc/p.conf:1:1: hostname mx.example.org has only the address 10.0.0.1, which is not public\n",
        ),
        (
            "A 8.8.8.1\n",
            "A 192.0.2.1\n",
            "warning: name: /etc/p.conf:1:1: hostname mx.example.org has only the address 192.0.2.1, which is for examples in documentation\n    publish the public address of this host\n",
        ),
        (
            "mx.example.org A 8.8.8.1\n",
            "mx.example.org CNAME other.example.org\nmx.example.org A 8.8.8.1\n",
            "warning: name: mx.example.org is another name (CNAME) of other.example.org: a mail exchanger must not have such a name\n",
        ),
        (
            "8.8.8.1 PTR mx.example.org\n",
            "",
            "error: name: the address 8.8.8.1 has no name: many hosts refuse mail from such an address\n    the owner of the address, often the provider, can publish this\n    publish: 1.8.8.8.in-addr.arpa. IN PTR mx.example.org.\n",
        ),
        (
            "PTR mx.example.org",
            "PTR host.provider.example",
            "error: name: the address 8.8.8.1 has the name host.provider.example, which does not lead back to it\n",
        ),
        (
            "PTR mx.example.org",
            "PTR x.provider.example\nx.provider.example A 8.8.8.1",
            "note: name: the address 8.8.8.1 has the name x.provider.example, and not mx.example.org: some hosts count that as a fault\n",
        ),
        ("8.8.8.1 PTR mx.example.org", "8.8.8.1 FAIL", "unknown: name: the name of 8.8.8.1: the name server could not"),
        (
            "example.org MX mx.example.org\n",
            "",
            "error: domain: example.org has neither an MX record nor an address: no mail can come\n    publish: example.org. IN MX 10 mx.example.org.\n",
        ),
        (
            "example.org MX mx.example.org\n",
            "example.org A 8.8.8.9\n",
            "error: domain: example.org has no MX record, and its address 8.8.8.9 is not this host: its mail goes there\n",
        ),
        (
            "example.org MX mx.example.org\n",
            "example.org A 8.8.8.1\n",
            "ok: domain: example.org has no MX record, and its address is that of this host\n",
        ),
        ("MX mx.example.org", "MX .", "error: domain: example.org says in the DNS that it accepts no mail (null MX)\n"),
        (
            "MX mx.example.org",
            "MX in.other.example\nin.other.example A 8.8.8.9",
            "error: domain: no mail exchanger of example.org is this host: its mail goes to in.other.example\n",
        ),
        (
            "MX mx.example.org",
            "MX gone.example.org\nexample.org MX mx.example.org",
            "error: domain: gone.example.org, a mail exchanger of example.org, has no address\n",
        ),
        (
            "MX mx.example.org",
            "MX in.example.org\nin.example.org A 10.0.0.1",
            "warning: domain: in.example.org, a mail exchanger of example.org, has only the address 10.0.0.1, which is not public\n",
        ),
        (
            "MX mx.example.org",
            "MX m.example.org\nm.example.org CNAME mx.example.org\nm.example.org A 8.8.8.1",
            "warning: domain: m.example.org, a mail exchanger of example.org, is another name (CNAME) of mx.example.org\n    publish: example.org. IN MX 10 mx.example.org.\n",
        ),
        ("example.org MX mx.example.org", "example.org FAIL", "unknown: domain: the mail exchangers of example.org: "),
        (
            "example.org TXT v=spf1 mx -all\n",
            "",
            "warning: domain: example.org has no SPF record: some hosts refuse its mail or call it suspicious\n    publish: example.org. IN TXT \"v=spf1 mx -all\"\n",
        ),
        (
            "v=spf1 mx -all",
            "v=spf1 ip4:8.8.8.7 -all",
            "error: domain: the SPF record of example.org does not permit the address 8.8.8.1 of this host: fail by all\n    publish: example.org. IN TXT \"v=spf1 ip4:8.8.8.7 ip4:8.8.8.1 -all\"\n",
        ),
        (
            "v=spf1 mx -all",
            "v=spf1 ~all",
            "warning: domain: the SPF record of example.org does not permit the address 8.8.8.1 of this host: softfail by ",
        ),
        (
            "v=spf1 mx -all",
            "v=spf1 mx -all\nexample.org TXT v=spf1 a -all",
            "error: domain: example.org has 2 SPF records: receivers use none of them\n",
        ),
        ("v=spf1 mx -all", "v=spf1 nonsense:x -all", "error: domain: the SPF record of example.org cannot be used: "),
        (
            "_dmarc.example.org TXT v=DMARC1; p=reject",
            "",
            "warning: domain: example.org has no DMARC record: large mailbox providers ask for one\n    publish: _dmarc.example.org. IN TXT \"v=DMARC1; p=none\"\n",
        ),
        ("p=reject", "p=x", "warning: domain: the DMARC record at _dmarc.example.org has no valid policy (p=)\n"),
        (
            "_dmarc.example.org TXT v=DMARC1; p=reject",
            "_dmarc.example.org FAIL",
            "unknown: domain: the record _dmarc.example.org: ",
        ),
        (
            "_mta-sts.example.org TXT v=STSv1; id=20261130\n",
            "",
            "note: domain: example.org has no MTA-STS policy\n    penfoldctl mta-sts example.org prints one for a web server; see penfold-tls(7)\n    publish: _mta-sts.example.org. IN TXT \"v=STSv1; id=aea7c72260e81221478c3a6c\"\n    publish: mta-sts.example.org. IN CNAME mx.example.org.\n",
        ),
        (
            "id=20261130",
            "id=2026-11-30",
            "warning: domain: the record _mta-sts.example.org cannot be used: other hosts take example.org for one without MTA-STS\n    there must be one record, with an id\n    publish: _mta-sts.example.org. IN TXT ",
        ),
        (
            "id=20261130",
            "id=1\n_mta-sts.example.org TXT v=STSv1; id=2",
            "warning: domain: the record _mta-sts.example.org cannot be used",
        ),
        (
            "_mta-sts.example.org TXT v=STSv1; id=20261130",
            "_mta-sts.example.org FAIL",
            "unknown: domain: the record _mta-sts.example.org: ",
        ),
        (
            "\n_smtp._tls.example.org TXT v=TLSRPTv1; rua=mailto:postmaster@example.org",
            "",
            "note: domain: example.org asks for no reports about TLS\n    publish: _smtp._tls.example.org. IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@example.org\"\n",
        ),
        (
            "rua=mailto:",
            "ruf=mailto:",
            "warning: domain: the record _smtp._tls.example.org cannot be used: no reports about TLS come\n",
        ),
        (
            "rua=mailto:postmaster@example.org",
            "rua=mailto:",
            "warning: domain: the record _smtp._tls.example.org cannot be used: no reports about TLS come\n",
        ),
        (
            "rua=mailto:",
            "rua=mailto:x@example.org; rua=mailto:",
            "warning: domain: the record _smtp._tls.example.org cannot be used: no reports about TLS come\n",
        ),
        (
            "rua=mailto:",
            "rua=https://x.example\n_smtp._tls.example.org TXT v=TLSRPTv1; rua=mailto:",
            "warning: domain: the record _smtp._tls.example.org cannot be used",
        ),
    ] {
        let zone = GOOD.replacen(old, new, 1);
        assert_ne!(zone, GOOD, "{old}");
        let (found, _) = check(&zone, &config(""), &["8.8.8.1"]);
        assert!(found.contains(wanted), "{old} -> {new}:\n{wanted}\n{found}");
    }
}

#[test]
fn a_record_to_publish_permits_all_addresses() {
    let own = ["8.8.8.1", "2a00::1"];
    let zone = GOOD.replace("A 8.8.8.1\n", "A 8.8.8.1\nmx.example.org AAAA 2a00::1\n");
    let (found, _) = check(&zone.replace("v=spf1 mx -all", "v=spf1 -all"), &config(""), &own);
    let record = "publish: example.org. IN TXT \"v=spf1 ip4:8.8.8.1 ip6:2a00::1 -all\"\n";
    assert_eq!(found.matches(record).count(), 2, "{found}");
    let (found, _) = check(&zone.replace("v=spf1 mx -all", "v=spf1 nonsense:x -all"), &config(""), &own);
    assert_eq!(found.matches("the SPF record of example.org cannot be used: ").count(), 1, "{found}");
}

#[test]
fn a_host_that_sends_by_a_smart_host_needs_no_name_for_its_address() {
    let zone = GOOD.replace("8.8.8.1 PTR mx.example.org\n", "").replace("v=spf1 mx -all", "v=spf1 include:x -all");
    let (found, _) = check(&zone, &config("remote.smarthosts = [\"smtp.provider.example\"]"), &["8.8.8.1"]);
    assert!(!found.contains("error") && !found.contains("PTR"), "{found}");
    let without = zone.replace("example.org TXT v=spf1 include:x -all\n", "");
    let (found, _) = check(&without, &config("remote.smarthosts = [\"smtp.provider.example\"]"), &["8.8.8.1"]);
    assert!(found.contains("the record that the operator of the smart host names"), "{found}");
    // Only the smart host sees the name of a host that gets no mail from others.
    let local = Config { listen: Vec::new(), ..config("remote.smarthosts = [\"smtp.provider.example\"]") };
    let (found, _) = check("", &local, &["8.8.8.1"]);
    assert!(found.contains("note: name: /etc/p.conf:1:1: hostname mx.example.org has no address"), "{found}");
}

#[test]
fn behind_a_translating_router_the_addresses_in_the_dns_count() {
    let (found, exchangers) = check(GOOD, &config(""), &["10.0.0.5"]);
    let note = "note: name: /etc/p.conf:1:1: this host has no public address (10.0.0.5): the addresses of mx.example.org (8.8.8.1) are assumed to lead to it\n";
    assert!(found.contains(note) && !found.contains("error"), "{found}");
    assert_eq!(exchangers, ["mx.example.org"]);
    let (found, _) = check(&GOOD.replace("A 8.8.8.1", "AAAA 2001:db8::1"), &config(""), &["10.0.0.5"]);
    let record =
        "publish: 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR mx.example.org.\n";
    assert!(found.contains(record), "{found}");
    let (found, _) = check(&GOOD.replace("MX mx.example.org", "A 10.0.0.5"), &config(""), &["10.0.0.5"]);
    let wrong = "error: domain: example.org has no MX record, and has only the address 10.0.0.5, which is not public\n";
    assert!(found.contains(wrong), "{found}");
    // A front end receives the mail, so another exchanger is no error.
    let zone = GOOD.replace("MX mx.example.org", "MX in.other.example\nin.other.example A 8.8.8.9");
    let behind = config("").listen.first().cloned().map(|listen| config::Listen { kind: config::Kind::Lmtp, ..listen });
    let config = Config { listen: behind.into_iter().collect(), ..config("") };
    let (found, _) = check(&zone, &config, &["8.8.8.1"]);
    assert!(found.contains("note: domain: no mail exchanger of example.org is this host"), "{found}");
}

#[test]
fn the_policy_that_is_served_is_compared_with_the_dns_and_the_certificate() {
    let directory = std::env::temp_dir().join(format!("penfold-served-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    // A certificate that is its own authority, for one name.
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["mx.example.org".to_owned()]).expect("a name");
    let (certificate, key_file) = (directory.join("cert.pem"), directory.join("cert.key"));
    std::fs::write(&certificate, params.self_signed(&key).expect("a certificate").pem()).expect("a file");
    std::fs::write(&key_file, key.serialize_pem()).expect("a file");
    let pair = config::KeyPair { certificate: certificate.clone(), key: key_file };
    let server = Server::open(&[pair], &Rights::Alone).expect("files").expect("a certificate");
    let trusting = Client::with_authorities(&certificate).expect("an authority");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "another authority");
    let other = params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate").pem();
    std::fs::write(directory.join("other.pem"), other).expect("a file");
    let strict = Client::with_authorities(&directory.join("other.pem")).expect("an authority");
    let policy = |mode: &str, mx: &str| format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 1209600\n");
    let good = policy("enforce", "mx.example.org");
    let id = crate::cli::published::id_of(&good);
    let ours = GOOD.replace("id=20261130", &format!("id={id}"));
    let with_other = GOOD
        .replace("MX mx.example.org", "MX mx.example.org\nexample.org MX new.example.org\nnew.example.org A 8.8.8.2");
    let not_named = "the MTA-STS policy of example.org does not name the mail exchanger new.example.org\n";
    let not_valid = "cert.pem: not valid for mx.example.org, as the MTA-STS policy of example.org demands: the certificate is not from a trusted authority\n";
    for (zone, text, client, has_server, wanted) in [
        (GOOD, Ok(good.clone()), &trusting, true, "ok: domain: the MTA-STS policy of example.org is served, with the mode enforce\n".to_owned()),
        (&ours, Ok(good.clone()), &trusting, true, "ok: domain: the MTA-STS policy of example.org is served, with the mode enforce\n".to_owned()),
        (&ours, Ok(policy("testing", "mx.example.org").replace("1209600", "86400")), &trusting, true, "warning: domain: the MTA-STS record of example.org has the id of another policy than the web server serves\n".to_owned()),
        (GOOD, Ok(policy("none", "other.example")), &strict, true, "ok: domain: the MTA-STS policy of example.org is served, with the mode none\n".to_owned()),
        (&with_other, Ok(good.clone()), &trusting, true, format!("error: domain: {not_named}")),
        (&with_other, Ok(policy("testing", "mx.example.org")), &trusting, true, format!("warning: domain: {not_named}")),
        (&with_other, Ok(policy("enforce", "*.example.org")), &trusting, true, "ok: domain: the MTA-STS policy of example.org is served".to_owned()),
        (GOOD, Ok(good.clone()), &strict, true, format!("error: tls: {}/{not_valid}", directory.display())),
        (GOOD, Ok(policy("testing", "mx.example.org")), &strict, true, format!("warning: tls: {}/{not_valid}", directory.display())),
        (GOOD, Ok(good.clone()), &strict, false, "error: tls: example.org has an MTA-STS policy, and this host has no certificate\n".to_owned()),
        (GOOD, Err("the status is 404"), &trusting, true, "warning: domain: the MTA-STS policy of example.org cannot be fetched: the status is 404\n".to_owned()),
    ] {
        let fetch = |domain: &str, id: &str| {
            assert_eq!(domain, "example.org");
            let text = text.as_ref().map_err(|why| Fault::new(FaultKind::StsFetch, why))?;
            Ok(StsPolicy::parse(text.as_bytes(), id, 0).expect("a policy"))
        };
        let (mut report, mut exchangers, config) = (Report::default(), Vec::new(), config(""));
        let certificates = Certificates { server: has_server.then_some(&*server), client };
        let own = vec!["8.8.8.1".parse().expect("an address")];
        let zone = Zone(zone.to_owned());
        let sources = Vec::new();
        let (certificates, fetch) = (Some(&certificates), Some(&fetch as &_));
        let net = Net { dns: &zone, config: &config, keys: None, own, sources, certificates, fetch };
        net.check(&mut report, &mut exchangers);
        let found: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
        assert!(found.contains(&wanted), "{wanted}\n{found}");
        let complaints = report.findings.iter().filter(|finding| matches!(finding.level, Level::Warning | Level::Error));
        assert_eq!(complaints.count(), usize::from(!wanted.starts_with("ok")), "{found}");
    }
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn an_address_is_that_of_this_host_or_of_its_name() {
    let at = |text: &str| text.parse::<IpAddr>().expect("an address");
    let here = Addresses { own: vec![at("10.0.0.1")], named: vec![at("8.8.8.1"), at("10.0.0.2")] };
    assert_eq!((here.seen(), here.is_translated()), (vec![at("8.8.8.1")], true));
    assert!(here.contains(at("10.0.0.1")) && here.contains(at("8.8.8.1")) && !here.contains(at("8.8.8.2")));
    let zone = Zone("a A 8.8.8.1\nb AAAA 2001:db8::1\nc FAIL".into());
    assert_eq!(name::addresses(&zone, "a"), Ok(vec![at("8.8.8.1")]));
    assert_eq!(name::addresses(&zone, "b"), Ok(vec![at("2001:db8::1")]));
    assert_eq!(name::addresses(&zone, "c"), Err(NoAnswer::ServFail));
    assert_eq!(name::addresses(&zone, "d"), Err(NoAnswer::NxDomain));
    assert_eq!(Level::Unknown.word(), "unknown");
}
