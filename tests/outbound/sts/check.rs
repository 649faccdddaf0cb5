//! `penfoldctl check` compares the policy that a web server serves with the DNS and the certificate.

use common::dns::Dns;
use common::https::{Server, answer};
use common::namespace::in_a_network;
use common::programs::{code_and_text, command};
use common::tls::Authority;

use super::publish;

#[test]
fn the_served_policy_is_fetched_and_compared() {
    in_a_network(&["192.0.2.1/24", "192.0.2.2/24"], || {
        let authority = Authority::new();
        let mut site = authority.site("hostname = \"mx.example.org\"\nlocal.domains = [\"example.org\"]");
        authority.give(&site, "cert", "mx.example.org", 300);
        authority.trusted_by(&mut site);
        let dns = Dns::zone(
            "mx.example.org A 192.0.2.1
1.2.0.192.in-addr.arpa PTR mx.example.org
example.org MX 10 mx.example.org
_mta-sts.example.org TXT v=STSv1; id=1
mta-sts.example.org A 192.0.2.2",
        );
        site.set("dns", "nameservers", &dns.nameservers());
        let leaf = authority.leaf("mta-sts.example.org", 300);
        let policy =
            |mode: &str, mx: &str| publish(&format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n"));
        let server = Server::start("192.0.2.2", &leaf.config, policy("enforce", "mx.example.org"));
        let check = |wanted: &str| {
            site.configure();
            let (_, text) = code_and_text(&command(&site, "penfoldctl", &["check"]).output().expect("it runs"));
            assert!(text.contains(wanted), "{wanted}\n{text}");
        };
        check("ok: domain: the MTA-STS policy of example.org is served, with the mode enforce\n");
        server.behave(policy("enforce", "old.example.org"));
        check("error: domain: the MTA-STS policy of example.org does not name the mail exchanger mx.example.org\n");
        server.behave(super::Conduct::Answer(answer("404 Not Found", "text/plain", "")));
        check("warning: domain: the MTA-STS policy of example.org cannot be fetched: the status is 404\n");
        // Another authority's certificate, which others do not accept.
        server.behave(policy("enforce", "mx.example.org"));
        Authority::new().give(&site, "cert", "mx.example.org", 300);
        check("cert.pem: not valid for mx.example.org, as the MTA-STS policy of example.org demands: ");
        authority.give(&site, "cert", "other.example.org", 300);
        check("cert.pem: not valid for mx.example.org, as the MTA-STS policy of example.org demands: ");
        assert_eq!(server.requests().len(), 5);
    });
}
