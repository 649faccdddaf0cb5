//! penfold.conf(5): valid and invalid configurations, and the positions of errors. Also shows that
//! the manual page, the sample and the reader have the same keys.
//!
//! Files in tests/manual/config/good are valid configurations. Files in tests/manual/config/bad end
//! with lines `#! line:column: text`, each with the beginning of an error. Both name files in
//! /etc/penfold, for which tests/manual/config/etc is used.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::pages;
use penfold::address::Address;
use penfold::config::policy::{Answers, Dmarc, DnsList, Greylist, Quarantine, Spf};
use penfold::config::{
    Auth, Config, ConfigError, Dkim, DkimKey, Dns, Domain, Families, Filter, FilterGroup, FilterProtocol, HostPort,
    KeyPair, Kind, Limits, Listen, ListenTls, Local, LogTo, MailboxTemplate, Network, OfferAuth, OnFailure, Places,
    Policy, Printed, Queue, Relay, Remote, RemoteTls, Report, Scheme, Shared, Smtp, Sources, Store, StoreUrl,
    Submission, TableFile, Users, load, parse, print,
};
use penfold::endpoint::Endpoint;
use penfold::envelope::Folder;
use penfold::history::Bounds;
use penfold::json::Format;

/// The store in every-key.conf.
const STORE: &str = "rediss://penfold@store.example.org:6380/2";
const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(SOURCE).join(path)).expect(path)
}

/// The path of a table among the test files.
fn etc(name: &str) -> PathBuf {
    Path::new(SOURCE).join("tests/manual/config/etc").join(name)
}

fn read(text: &str) -> Result<Config, Vec<ConfigError>> {
    let etc = etc("");
    // Most builds have no such part, and take the key for an error.
    let url = if cfg!(feature = "shared-store") { STORE } else { "" };
    let text = text.replace(&format!("store = {STORE:?}"), &format!("store = {url:?}"));
    let text =
        text.replace("/etc/aliases", "/etc/penfold/aliases").replace("/etc/penfold/", etc.to_str().expect("path"));
    parse(Path::new("penfold.conf"), &text)
}

fn sources(all: &[&str]) -> Sources {
    let mut sources = Sources::default();
    all.iter().for_each(|address| sources.add(address).expect("an address"));
    sources
}

fn families(all: &[&str]) -> Families {
    let mut families = Families::default();
    all.iter().for_each(|word| families.add(word).expect("a family"));
    families
}

fn files(directory: &str) -> Vec<(String, String)> {
    let directory = Path::new(SOURCE).join("tests/manual/config").join(directory);
    let paths = fs::read_dir(directory).expect("directory").map(|entry| entry.expect("entry").path());
    let file = |path: PathBuf| (path.display().to_string(), fs::read_to_string(&path).expect("text"));
    let files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "conf")).map(file).collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn a_status_listener_alone_leaves_the_default_addresses_for_mail() {
    let addresses = |text: &str| -> Vec<String> {
        read(text).expect(text).listen.iter().map(|listen| listen.address.to_string()).collect()
    };
    let status = "[[listen]]\naddress = \"127.0.0.1:8025\"\nkind = \"status\"\n";
    assert_eq!(addresses(""), ["127.0.0.1:25", "[::1]:25"]);
    assert_eq!(addresses(status), ["127.0.0.1:8025", "127.0.0.1:25", "[::1]:25"]);
    let both = format!("{status}[[listen]]\naddress = \"192.0.2.1:25\"\n");
    assert_eq!(addresses(&both), ["127.0.0.1:8025", "192.0.2.1:25"]);
    assert!(addresses("listen = []").is_empty());
}

#[test]
#[cfg_attr(not(all(feature = "arc", feature = "filters")), ignore = "a part is not built in")]
fn valid_files_are_accepted() {
    for (name, text) in files("good") {
        assert!(read(&text).is_ok(), "{name}: {:#?}", read(&text));
    }
}

/// What `penfoldctl config` prints is a file with the same values.
#[test]
#[cfg_attr(not(all(feature = "arc", feature = "filters")), ignore = "a part is not built in")]
fn a_configuration_that_is_printed_and_read_again_is_the_same() {
    for (name, text) in files("good") {
        let config = read(&text).expect(&name);
        let (mut again, mut table) = (String::new(), ("", 0));
        for printed in print(&config).iter().filter(|printed| printed.line.is_some()) {
            if table != (printed.table, printed.number) {
                table = (printed.table, printed.number);
                let brackets = if printed.is_repeated { ("[[", "]]") } else { ("[", "]") };
                again += &format!("{}{}{}\n", brackets.0, printed.table, brackets.1);
            }
            again += &format!("{} = {}\n", printed.key, printed.value);
            let line = text.lines().nth(printed.line.unwrap_or(0) - 1).expect("a line");
            assert!(line.contains(&format!("{} = ", printed.key)), "{name}: {printed:?}: {line}");
        }
        assert_eq!(parse(Path::new("penfold.conf"), &again), Ok(config.clone()), "{name}:\n{again}");
        if name.ends_with("/every-key.conf") {
            let printed: BTreeSet<String> = print(&config).iter().map(Printed::name).collect();
            let absent: Vec<_> = keys_of_the_page().into_iter().filter(|key| !printed.contains(key)).collect();
            assert!(absent.is_empty(), "{absent:?}");
        }
    }
}

#[test]
#[cfg_attr(not(all(feature = "arc", feature = "filters")), ignore = "a part is not built in")]
fn every_error_is_reported_with_its_position() {
    for (name, text) in files("bad") {
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let errors = read(&text).expect_err(&name);
        let found: Vec<String> = errors.iter().map(|e| format!("{}:{}: {}", e.line, e.column, e.text)).collect();
        let same = found.len() == expected.len() && found.iter().zip(&expected).all(|(f, e)| f.starts_with(e));
        assert!(same, "{name}: these errors were found:\n#! {}", found.join("\n#! "));
    }
}

#[test]
#[cfg_attr(not(all(feature = "arc", feature = "filters")), ignore = "a part is not built in")]
fn every_key_has_its_effect() {
    let network = |address: &str, prefix| Network { address: address.parse().expect("address"), prefix };
    let at = |scheme, host: &str, port| HostPort { host: host.into(), port, scheme };
    let host = |host: &str, port| at(Scheme::Smtp, host, port);
    let sockets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("socket")).collect::<Vec<_>>();
    let list = |zone: &str, answers: Option<&str>, weight| {
        let answers = answers.map(|text| Answers::parse(text).expect("a pattern"));
        DnsList { zone: zone.into(), answers, weight }
    };
    let table = |name| TableFile { path: etc(name), required: true };
    let domain = |name: &str, users, mailbox, aliases| Domain {
        local: Local {
            domains: vec![name.into()],
            users,
            mailbox,
            aliases,
            virtual_table: table("virtual"),
            subaddress: None,
            postmaster: "Jon@example.org".into(),
            catch_all: Some("else@example.org".into()),
            quota: Some(2 << 30),
            refuses_over_quota: true,
        },
        auth: Auth::Dovecot("/run/dovecot/auth-client".into()),
        message_size: 65536,
        messages_per_hour: 10,
        recipients_per_hour: 100,
    };
    let expected = Config {
        smtp: Smtp { disable: vec!["VRFY", "CHUNKING"] },
        hostname: "mx.example.org".into(),
        spool: "/srv/spool".into(),
        socket: "/srv/penfold.sock".into(),
        user: "mail".into(),
        listen: vec![
            Listen { tls: ListenTls::None, ..Listen::at(sockets(&["192.0.2.1:2525"])[0]) },
            Listen {
                address: sockets(&["[2001:db8::1]:0"])[0].into(),
                kind: Kind::Submission,
                tls: ListenTls::Required,
                auth: OfferAuth::Always,
                proxy: vec![network("192.0.2.7", 32)],
                xclient: vec![network("192.0.2.7", 32)],
                is_default: false,
            },
            Listen {
                address: Endpoint::Unix(Path::new("/run/penfold/lmtp").into()),
                kind: Kind::Lmtp,
                ..Listen::at(sockets(&["192.0.2.1:24"])[0])
            },
            Listen { kind: Kind::Status, tls: ListenTls::None, ..Listen::at(sockets(&["[::1]:8025"])[0]) },
            Listen {
                address: Endpoint::Unix(Path::new("/run/penfold/status").into()),
                kind: Kind::Status,
                tls: ListenTls::None,
                ..Listen::at(sockets(&["192.0.2.1:24"])[0])
            },
        ],
        tls: vec![KeyPair { certificate: etc("cert.pem"), key: etc("key.pem") }],
        auth: Auth::Dovecot("/run/dovecot/auth-client".into()),
        submission: Submission {
            senders: table("senders"),
            messages_per_hour: 10,
            recipients_per_hour: 100,
            hide_client: true,
            masquerade: Some("example.org".into()),
            rewrite: table("rewrite"),
            local_messages_per_hour: 50,
            local_exempt: vec!["root".into(), "33".into()],
            drop: Some("/var/spool/penfold-drop".into()),
        },
        limits: Limits {
            connections: 10,
            connections_per_host: 3,
            message_size: 65536,
            recipients: 100,
            command_timeout: Duration::from_secs(30),
            data_timeout: Duration::from_millis(500),
        },
        local: Local {
            domains: vec!["example.org".into(), "[192.0.2.1]".into(), "[IPv6:2001:db8::1]".into()],
            users: Users::File(etc("users")),
            mailbox: MailboxTemplate::Maildir("/srv/mail/{domain}/{user}/Maildir".into()),
            aliases: table("aliases"),
            virtual_table: table("virtual"),
            subaddress: None,
            postmaster: "Jon@example.org".into(),
            catch_all: Some("else".into()),
            quota: Some(2 << 30),
            refuses_over_quota: true,
        },
        domains: vec![
            Domain {
                local: Local {
                    domains: vec!["shop.example".into(), "shop.example.net".into()],
                    users: Users::System,
                    mailbox: MailboxTemplate::Store(Store::Host(at(Scheme::Lmtp, "store.example", 24))),
                    aliases: TableFile::none(),
                    virtual_table: table("virtual"),
                    subaddress: Some('-'),
                    postmaster: "mary".into(),
                    catch_all: None,
                    quota: None,
                    refuses_over_quota: false,
                },
                auth: Auth::File(etc("users")),
                message_size: 65536,
                messages_per_hour: 7,
                recipients_per_hour: 70,
            },
            // It has the values of [local], in which names belong to the first domain there.
            domain(
                "more.example",
                Users::File(etc("users")),
                MailboxTemplate::Maildir("/srv/mail/{domain}/{user}/Maildir".into()),
                table("aliases"),
            ),
            domain(
                "dovecot.example",
                Users::Dovecot("/run/dovecot/auth-userdb".into()),
                MailboxTemplate::Maildir("/srv/mail/~/Maildir".into()),
                TableFile::none(),
            ),
            domain(
                "any.example",
                Users::Any,
                MailboxTemplate::Store(Store::Socket(Path::new("/run/dovecot/lmtp").into())),
                TableFile::none(),
            ),
        ]
        .into(),
        relay: Relay {
            networks: vec![
                network("192.0.2.7", 32),
                network("2001:db8::", 32),
                network("10.0.0.0", 8),
                network("0.0.0.0", 0),
            ],
            domains: vec!["friend.example".into()],
            recipients: Some(etc("relay-recipients")),
            verify: true,
            etrn: vec!["site.example".into(), ".example.net".into()],
        },
        policy: Policy {
            access: table("access"),
            always_bcc: table("always_bcc"),
            dnsbl: vec![list("bl.example", Some("127.0.0.2..11"), 2), list("allow.example", None, -2)],
            dnsbl_threshold: 2,
            sender_lists: vec![list("dbl.example", None, 1)],
            greet_delay: Duration::from_secs(60),
            refuses_own_hello: false,
            refuses_sender_domain: false,
            spf: Spf::Refuse,
            dmarc: Dmarc::Obey,
            arc_sealers: vec!["lists.example.net".into(), "xn--mller-kva.example".into()],
            dmarc_reports: Some(Address::parse("dmarc@example.org").expect("an address")),
            greylist: Greylist::Suspicious,
            greylist_delay: Duration::from_secs(24 * 3600),
            quarantine: Quarantine::Folder(Folder::parse(".Junk").expect("a folder")),
            messages_per_hour: 1000,
            unknown_recipients_per_hour: 10_000_000,
        },
        remote: Remote {
            smarthosts: vec![
                host("mail.example.org", 25),
                host("mail.example.org", 587),
                host("192.0.2.9", 26),
                host("2001:db8::2", 25),
                host("2001:db8::2", 27),
                at(Scheme::Smtps, "mail.example.org", 465),
                at(Scheme::StartTls, "mail.example.org", 587),
                at(Scheme::Smtps, "2001:db8::2", 466),
            ],
            fallback: vec![host("fallback.example.org", 2525)],
            senders: table("senders-via"),
            credentials: table("credentials"),
            tls: RemoteTls::Required,
            authorities: Some(etc("cert.pem")),
            routes: table("routes"),
            dane: false,
            tls_policies: table("tls-policies"),
            timeout: Duration::from_secs(120),
            source: sources(&["192.0.2.7", "2001:db8::7"]),
            families: families(&["ipv6", "ipv4"]),
            hello: Some("out.example.org".into()),
            outgoing: table("outgoing"),
            mta_sts: false,
            local_only: false,
            tls_reports: Some(Address::parse("TLS@example.org").expect("an address")),
            srs: false,
            srs_secret: table("srs_secret"),
        },
        dkim: vec![
            Dkim::Key(DkimKey {
                domain: "example.org".into(),
                selector: "202611-rsa".into(),
                key: etc("dkim/example.org.202611-rsa.pem"),
            }),
            Dkim::Table(etc("dkim/keys")),
        ],
        queue: Queue {
            workers: 1000,
            workers_per_destination: 1,
            retry_min: Duration::from_secs(3600),
            retry_max: Duration::from_secs(3600),
            expire_after: Duration::from_secs(7 * 24 * 3600),
            warn_after: Duration::ZERO,
        },
        report: Report { languages: vec!["de".into(), "pt-BR".into()], multilingual: true, texts: table("languages") },
        filters: vec![
            Filter {
                socket: Endpoint::Unix(Path::new("/run/rspamd/milter.sock").into()),
                protocol: FilterProtocol::Milter,
                groups: vec![FilterGroup::Strangers, FilterGroup::Submission, FilterGroup::Local],
                on_failure: OnFailure::Defer,
                timeout: Duration::from_secs(30),
            },
            Filter {
                socket: Endpoint::Tcp(sockets(&["127.0.0.1:10023"])[0]),
                protocol: FilterProtocol::Policy,
                groups: vec![FilterGroup::Strangers, FilterGroup::Local],
                on_failure: OnFailure::Accept,
                timeout: Duration::from_secs(10),
            },
        ],
        shared: Shared {
            store: cfg!(feature = "shared-store").then(|| StoreUrl::parse(STORE).expect("a URL")),
            password: table("shared_password"),
            secret: table("shared_secret"),
        },
        dns: Dns {
            nameservers: sockets(&["127.0.0.1:5353", "192.0.2.53:53", "[::1]:53", "[::1]:54"]),
            timeout: Duration::from_secs(3),
            trust_ad: Some(true),
        },
        log: LogTo::File("/var/log/penfold".into()),
        log_format: Format::Json,
        history: Bounds { size: 2 << 20, keep: Duration::from_secs(36 * 3600) },
        places: Places::default(),
    };
    assert_eq!(read(&source("tests/manual/config/good/every-key.conf")), Ok(expected));
}

#[test]
fn a_network_contains_its_addresses_and_no_others() {
    for (network, inside, outside) in [
        ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
        ("10.9.8.7/8", "10.0.0.1", "11.0.0.0"),
        ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
        ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
    ] {
        let config = read(&format!("[relay]\nnetworks = [\"{network}\"]")).expect(network);
        let holds = |address: &str| config.relay.networks[0].contains(address.parse().expect("address"));
        assert!(holds(inside) && !holds(outside), "{network}");
    }
}

#[test]
fn a_users_file_has_no_home_directories() {
    let config = read("[local]\nusers = \"file:/etc/penfold/users\"").expect("good");
    assert_eq!(config.local.mailbox.path(), Some("/var/mail/{domain}/{user}"));
}

#[test]
fn the_default_mailbox_of_dovecots_users_is_its_store() {
    let users = "users = \"dovecot:/run/mine/auth-userdb\"\n";
    let config = read(&format!("[local]\n{users}")).expect("good");
    let store = MailboxTemplate::Store(Store::parse("lmtp:/run/mine/lmtp").expect("one").expect("good"));
    assert_eq!((&config.local.mailbox, &config.auth), (&store, &Auth::None));
    // The mailboxes of [local] are for those who have a home there.
    let config = read(&format!("[[domain]]\nnames = [\"example.net\"]\n{users}")).expect("good");
    assert_eq!(config.domains[0].local.mailbox, store);
    let homes = "[local]\nmailbox = \"/srv/mail/~/Maildir\"\n";
    let config =
        read(&format!("{homes}{users}[[domain]]\nnames = [\"example.net\"]\nusers = \"system\"")).expect("good");
    assert_eq!(config.domains[0].local.mailbox.path(), Some("~/Maildir"));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_without_a_line() {
    let errors = load(Path::new("/nonexistent/penfold.conf")).expect_err("absent");
    assert!(errors[0].to_string().starts_with("/nonexistent/penfold.conf: "), "{errors:?}");
}

/// The text of the sample, with every default uncommented.
fn sample() -> String {
    let active = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest.to_owned() + "\n",
        _ => line.to_owned() + "\n",
    };
    pages::sample("penfold.conf").lines().map(active).collect()
}

#[test]
#[cfg_attr(not(all(feature = "arc", feature = "filters")), ignore = "a part is not built in")]
fn the_sample_states_the_defaults() {
    let mut sample = read(&sample()).expect("good");
    let pair = KeyPair { certificate: etc("cert.pem"), key: etc("key.pem") };
    assert_eq!(std::mem::take(&mut sample.tls), [pair]);
    // The filter of the sample has the defaults of its optional keys.
    let filter = read("[[filter]]\nsocket = \"unix:/run/rspamd/milter.sock\"").expect("good").filters;
    assert_eq!(std::mem::take(&mut sample.filters), filter);
    let domains = std::mem::take(&mut sample.domains);
    assert!(matches!(&*domains, [Domain { local, .. }] if local.domains == ["example.net"]), "{domains:?}");
    let keys = std::mem::take(&mut sample.dkim);
    assert!(matches!(keys.as_slice(), [Dkim::Key(_), Dkim::Table(_)]), "{keys:?}");
    let default = read("hostname = \"mx.example.org\"").expect("good");
    for (table, default, name) in [
        (&mut sample.local.aliases, &default.local.aliases, "aliases"),
        (&mut sample.local.virtual_table, &default.local.virtual_table, "virtual"),
        (&mut sample.remote.credentials, &default.remote.credentials, "credentials"),
        (&mut sample.remote.routes, &default.remote.routes, "routes"),
        (&mut sample.remote.senders, &default.remote.senders, "senders-via"),
        (&mut sample.remote.tls_policies, &default.remote.tls_policies, "tls-policies"),
        (&mut sample.remote.outgoing, &default.remote.outgoing, "outgoing"),
        (&mut sample.remote.srs_secret, &default.remote.srs_secret, "srs_secret"),
        (&mut sample.shared.password, &default.shared.password, "shared_password"),
        (&mut sample.shared.secret, &default.shared.secret, "shared_secret"),
        (&mut sample.submission.senders, &default.submission.senders, "senders"),
        (&mut sample.submission.rewrite, &default.submission.rewrite, "rewrite"),
        (&mut sample.policy.access, &default.policy.access, "access"),
        (&mut sample.policy.always_bcc, &default.policy.always_bcc, "always_bcc"),
        (&mut sample.report.texts, &default.report.texts, "languages"),
    ] {
        // If the configuration names a table, the table must exist; a table with a default path
        // need not.
        assert_eq!(*table, TableFile { path: etc(name), required: true });
        let key = match name {
            "languages" => "texts",
            "tls-policies" => "tls_policies",
            "shared_password" => "password",
            "shared_secret" => "secret",
            "senders-via" => "senders",
            name => name,
        };
        assert!(pages::sample("penfold.conf").contains(&format!("\n#{key} = \"{}\"\n", default.path.display())));
        table.clone_from(default);
    }
    // Addresses, too, are marked as defaults only if the configuration does not name them.
    sample.listen.iter_mut().for_each(|listen| listen.is_default = true);
    // By default the name of this system is local in addition to the domains of the sample.
    assert!(default.local.domains.starts_with(&sample.local.domains), "{:?}", default.local.domains);
    sample.local.domains.clone_from(&default.local.domains);
    assert_eq!(sample, default);
    assert_eq!(
        read(&pages::sample("penfold.conf")).map(|mut config| {
            config.hostname.clone_from(&default.hostname);
            config.local.domains.clone_from(&default.local.domains);
            config
        }),
        Ok(default),
        "as it is installed"
    );
}

#[test]
fn page_sample_and_reader_have_the_same_keys() {
    let reader = keys_of_the_reader();
    assert!(reader.contains("queue.workers") && reader.len() > 30, "{reader:?}");
    assert_eq!(keys_of_the_sample(), reader);
    assert_eq!(keys_of_the_page(), reader);
}

/// The keys that the reader lists in its error about an unknown key.
fn keys_of_the_reader() -> BTreeSet<String> {
    let tables = [
        "tls",
        "limits",
        "smtp",
        "local",
        "domain",
        "relay",
        "policy",
        "auth",
        "submission",
        "remote",
        "dkim",
        "queue",
        "report",
        "shared",
        "dns",
        "log",
        "history",
    ];
    let ask: String = tables.iter().map(|table| format!("[{table}]\nx = 1\n")).collect();
    let arrays = "[[listen]]\naddress = \"[::1]:25\"\nx = 1\n[[filter]]\nsocket = \"unix:/x\"\nx = 1\n";
    let errors = read(&format!("x = 1\n{arrays}{ask}")).expect_err("unknown keys");
    let mut keys = BTreeSet::new();
    let unknown = errors.iter().filter_map(|error| error.text.split_once(": unknown key; expected one of "));
    for (asked, known) in unknown {
        let table = asked.strip_suffix('x').expect("the key asked for");
        keys.extend(known.split(", ").map(|key| format!("{table}{key}")));
    }
    keys.retain(|key| !tables.contains(&key.as_str()) && !["listen", "filter"].contains(&key.as_str()));
    keys
}

fn keys_of_the_sample() -> BTreeSet<String> {
    let sample = sample();
    let (mut table, mut keys) = (String::new(), BTreeSet::new());
    for line in sample.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_matches(['[', ']']));
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert(format!("{table}{key}"));
        }
    }
    keys
}

fn keys_of_the_page() -> BTreeSet<String> {
    let page = source("man/penfold.conf.5");
    let items = page.lines().filter_map(|line| line.strip_prefix(".It Ic "));
    items.map(|item| item.split(' ').next().expect("a key").to_owned()).collect()
}

#[test]
fn the_examples_of_the_page_are_files_that_are_tested() {
    let page = source("man/penfold.conf.5");
    let (_, examples) = page.split_once(".Sh EXAMPLES").expect("examples");
    let (examples, _) = examples.split_once(".Sh ").expect("an end");
    let examples: Vec<&str> = examples.split(".Bd -literal -offset indent\n").skip(1).collect();
    assert_eq!(examples.len(), 11);
    let good = files("good");
    for example in examples {
        let (text, _) = example.split_once(".Ed\n").expect("an end");
        assert!(good.iter().any(|(_, file)| file == text), "{text}");
    }
}

/// Without a configuration file, mail for root at any name of this host is local.
#[test]
fn the_names_of_this_system_are_local_by_default() {
    let name = nix::unistd::gethostname().expect("a name").into_string().expect("UTF-8").to_ascii_lowercase();
    let short = name.split('.').next().expect("a name").to_owned();
    let local = |text: &str| parse(Path::new("penfold.conf"), text).expect("good").local.domains;
    for text in ["", "hostname = \"mail.example.org\"\n"] {
        let domains = local(text);
        for wanted in [&name, &short, &"localhost".to_owned()] {
            assert!(domains.contains(wanted) || wanted.contains('_'), "{text}: {wanted}: {domains:?}");
        }
    }
    assert_eq!(local("local.domains = [\"example.org\"]"), ["example.org"]);
}
