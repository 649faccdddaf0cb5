//! penfold-tls(7): the records, the policy and its web server, and the change of a key.

use common::pages;

use crate::reader::Reader;

/// The rest of the world.
const WORLD: &str = "mail.example.org A 192.0.2.25\nmta-sts.example.org CNAME mail.example.org\n";

/// Web servers, with the words of the page that begin their part.
const SERVERS: [(&str, &str); 3] = [("nginx", "\nnginx:\n"), ("apache2", "\nApache:\n"), ("caddy", "\nCaddy, ")];
/// The words of the page behind the last web server.
const SERVED: &str = "\nOthers see this:\n";

/// A page cut before each of these texts.
fn cut<'a>(mut page: &'a str, texts: &[&str]) -> Vec<&'a str> {
    let mut parts = Vec::new();
    for text in texts {
        let (part, _) = page.split_once(text).unwrap_or_else(|| panic!("penfold-tls.7 has no {text:?}"));
        parts.push(part);
        page = &page[part.len()..];
    }
    parts.push(page);
    parts
}

#[test]
fn the_page() {
    let Some(mut reader) = Reader::at("mail.example.org", WORLD) else { return };
    let page = pages::page("penfold-tls.7");
    let texts = [SERVERS[0].1, SERVERS[1].1, SERVERS[2].1, SERVED, "\nWhen the reports", "\n.Ss Changing the key"];
    let [begin, nginx, apache, caddy, served, enforced, key] = cut(&page, &texts)[..] else { unreachable!() };
    // What penfold-server(7) makes before.
    reader.machine.run("certbot certonly --standalone -d mail.example.org && install -d /etc/penfold/tls");
    let copy = "cat /etc/letsencrypt/live/mail.example.org/fullchain.pem > /etc/penfold/tls/cert.pem && \
                install -o penfold -m 600 /etc/letsencrypt/live/mail.example.org/privkey.pem /etc/penfold/tls/key.pem";
    reader.machine.run(copy);
    reader.machine.write(
        "/etc/penfold/penfold.conf",
        "hostname = \"mail.example.org\"\n\n[local]\ndomains = [\"example.org\"]\n\n[[tls]]\n\
         certificate = \"/etc/penfold/tls/cert.pem\"\nkey = \"/etc/penfold/tls/key.pem\"\n",
    );
    reader.machine.install(&["curl"]);
    reader.follow("penfold-tls.7", begin);
    for ((package, _), part) in SERVERS.into_iter().zip([nginx, apache, caddy]) {
        reader.machine.install(&[package]);
        reader.machine.run(&format!("systemctl restart {package}"));
        if package == "caddy" {
            follow_caddy(&mut reader, part);
        } else {
            reader.follow("penfold-tls.7", part);
        }
        reader.follow("penfold-tls.7", served);
        reader.machine.run(&format!("systemctl stop {package}"));
    }
    reader.follow("penfold-tls.7", enforced);
    let policy = reader.machine.read("/srv/mta-sts/.well-known/mta-sts.txt");
    assert!(policy.contains("mode: enforce") && policy.contains("max_age: 1209600"), "{policy}");

    // Renewals keep the key, so the record stays right.
    let digest = || reader.machine.run("penfoldctl tlsa /etc/letsencrypt/live/mail.example.org/cert.pem");
    let before = digest();
    reader.machine.run("certbot renew");
    assert_eq!(digest(), before);
    reader.follow("penfold-tls.7", key);
    let records: Vec<&str> = before.lines().collect();
    assert!(reader.printed().contains(records[0]), "the record of the key in use: {records:?}");
}

/// There is no authority here that Caddy could ask, so it is its own, which the system trusts.
fn follow_caddy(reader: &mut Reader, part: &str) {
    let own = part.replace("# /etc/caddy/Caddyfile\n", "# /etc/caddy/Caddyfile\n{\n    local_certs\n}\n");
    reader.follow("penfold-tls.7", &own);
    reader.machine.run(
        "root=/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt\n\
         timeout 30 sh -c \"until [ -s $root ]; do sleep 0.1; done\" && \
         cp $root /usr/local/share/ca-certificates/caddy.crt && update-ca-certificates > /dev/null 2>&1",
    );
}
