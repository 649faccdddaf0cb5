//! The status page and the metrics, as a client of HTTP, Prometheus' own tools and a browser see
//! them. Nothing that they get names a person.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use common::programs::feed;
use common::tls::Authority;
use common::{Daemon, Site, built, unpacked};

/// Words that occur in the addresses and subjects of the test's mail only.
const PRIVATE: [&str; 7] = ["jon", "anna", "elvis", "greta", "secretary", "@", "confidential"];

/// A site with a status listener at a port that the system chooses, and one at a Unix socket.
fn site(authority: &Authority) -> Site {
    let mut site = authority.site("remote.timeout = \"60s\"");
    let path = format!("\"unix:{}\"", site.path("status").display());
    for (section, address) in [("listen#2", "\"127.0.0.1:0\""), ("listen#3", &path)] {
        site.set(section, "address", address);
        site.set(section, "kind", "\"status\"");
    }
    site
}

/// The address of the status listener: the second one that is logged.
fn address(daemon: &Daemon) -> SocketAddr {
    let status = |log: &str| log.lines().filter_map(common::port).nth(1);
    daemon.wait_until("the status listener", || status(&daemon.log()).is_some());
    (Ipv4Addr::LOCALHOST, status(&daemon.log()).expect("a port")).into()
}

/// Sends octets, and returns everything that comes back.
fn exchange(mut stream: impl Read + Write, octets: &[u8]) -> String {
    stream.write_all(octets).expect("written");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("a response");
    String::from_utf8(received).expect("UTF-8")
}

/// The head and the content of the response to a request with these lines.
fn ask(address: SocketAddr, lines: &str) -> (String, String) {
    let stream = TcpStream::connect(address).expect("it accepts");
    stream.set_read_timeout(Some(common::TIMEOUT)).expect("a timeout");
    let response = exchange(stream, format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes());
    let (head, content) = response.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), content.to_owned())
}

/// The content of a page.
fn page(address: SocketAddr, path: &str, accept: &str) -> String {
    let (head, content) = ask(address, &format!("GET {path} HTTP/1.1\nHost: localhost\nAccept: {accept}"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", content.len())), "{head}");
    content
}

/// Makes traffic of all kinds: delivered, deferred, refused, and a delivery that runs until the
/// returned connection is closed. The port is that of the host of deferred mail.
fn traffic(site: &Site, daemon: &Daemon) -> (TcpStream, u16) {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let closed = common::free_port();
    let port = silent.local_addr().expect("bound").port();
    site.add("routes", &format!("hung.example 127.0.0.1:{port}"));
    site.add("routes", &format!("dead.example 127.0.0.1:{closed}"));
    daemon.hup();
    let mut client = daemon.greeted();
    for (recipient, count) in [("jon", 5), ("elvis@dead.example", 3), ("greta@hung.example", 1)] {
        for _ in 0..count {
            client.send("anna@far.example", &[recipient], "Subject: confidential\r\n\r\nhello\r\n");
        }
    }
    for _ in 0..4 {
        client.ask("MAIL FROM:<anna@far.example>", "250 ");
        client.ask("RCPT TO:<secretary@razorback>", "550 ");
        client.ask("RSET", "250 ");
    }
    daemon.wait_until("three deferrals", || daemon.log().matches(" deferred to=<elvis@").count() == 3);
    daemon.wait_mail(site, "jon", 5);
    (silent.accept().expect("a delivery that runs").0, closed)
}

#[test]
fn the_page_and_the_metrics_have_the_numbers_and_name_nobody() {
    let authority = Authority::new();
    let site = site(&authority);
    let daemon = site.start();
    let address = address(&daemon);
    let (running, port) = traffic(&site, &daemon);
    daemon.wait_running(&site, 1);
    let html = page(address, "/", "text/html");
    for part in [
        "<title>Mail at razorback.test</title>",
        &format!("<tr><th scope=\"row\">host:127.0.0.1:{port}</th><td>3</td>"),
        "<td>waiting for the greeting</td>",
        "<figcaption>Messages accepted <b>9</b>",
        "<figcaption>Recipients delivered <b>5</b>",
        "<figcaption>Attempts deferred <b>3</b>",
        "<figcaption>Commands refused <b>4</b>",
        "<th scope=\"row\">unreachable</th>",
        "cert.pem</th>",
        "<dd>1 running",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
    let formats = ["application/openmetrics-text; version=1.0.0", "text/plain"];
    let metrics = formats.map(|accept| page(address, "/metrics", accept));
    for line in [
        "penfold_up 1",
        "penfold_accepted_messages_total{from=\"network\"} 9",
        "penfold_queue_messages 4",
        "penfold_queue_jobs{state=\"running\"} 1",
        &format!("penfold_queue_destination_jobs{{destination=\"host:127.0.0.1:{port}\"}} 3"),
        "penfold_attempts_total{via=\"maildir\",result=\"sent\"} 5",
    ] {
        assert!(metrics.iter().all(|text| text.lines().any(|other| other == line)), "{line}\n{}", metrics[0]);
    }
    for text in metrics.iter().chain([&html]) {
        let directory = site.path("").display().to_string();
        let text = text.replace(&*directory, "").replace(daemon.address().ip().to_string().as_str(), "");
        assert_eq!(PRIVATE.map(|word| text.contains(word)), [false; 7], "{text}");
    }
    examine(&metrics[0], &metrics[1]);
    samples_use(&metrics[0]);
    requests(address);
    let socket = site.path("status");
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o660);
    let stream = UnixStream::connect(&socket).expect("it accepts");
    let response = exchange(stream, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 200 ") && response.contains("\npenfold_up 1\n"), "{response}");
    drop(running);
    assert!(daemon.terminate().success());
}

/// The sum of the numbers that stand behind `key` in the pieces of a text that contain `label`.
fn sum(text: &str, separator: &str, (label, key): (&str, &str)) -> u64 {
    let number = |piece: &str| {
        let digits = piece.split_once(key)?.1.chars().take_while(|c| c.is_ascii_digit());
        digits.collect::<String>().parse::<u64>().ok()
    };
    text.split(separator).filter(|piece| piece.contains(label)).filter_map(number).sum()
}

/// The page, the metrics, `stats`, `top` and `status` show the same numbers.
#[test]
fn all_views_of_one_moment_agree() {
    let site = site(&Authority::new());
    let daemon = site.start();
    let address = address(&daemon);
    let (running, _) = traffic(&site, &daemon);
    let log = daemon.log();
    let held = log.lines().find(|line| line.contains(" deferred to=<elvis@")).and_then(|line| line.split(' ').next());
    site.penfoldctl(&["hold", held.expect("an id")]);
    let html = page(address, "/", "text/html");
    let metrics = page(address, "/metrics", "text/plain");
    let [stats, status] = ["stats", "status"].map(|word| site.penfoldctl(&[word, "--json"]));
    let raw = exchange_raw(&site);
    let of_page = |key: &str| sum(&html, "\0", ("", key));
    let of_metrics = |label: &str, key: &str| sum(&metrics, "\n", (label, key));
    let of_stats = |array: &str, label: &str| {
        let (_, rest) = stats.split_once(&format!("\"{array}\":[")).expect("a family");
        sum(rest.split_once(']').expect("its end").0, "}", (label, "\"count\":"))
    };
    let of_raw = |key: &str| sum(&raw, "\n", (key, &format!("{key} ")));
    for (what, numbers) in [
        (
            "accepted",
            vec![
                of_page("Messages accepted <b>"),
                of_metrics("penfold_accepted_messages_total{", "} "),
                of_stats("accepted", ""),
                of_raw("accepted"),
            ],
        ),
        (
            "delivered",
            vec![
                of_page("Recipients delivered <b>"),
                of_metrics("result=\"sent\"", "} "),
                of_stats("attempts", "\"sent\""),
                of_raw("delivered"),
            ],
        ),
        (
            "deferred",
            vec![
                of_page("Attempts deferred <b>"),
                of_metrics("result=\"deferred\"", "} "),
                of_stats("attempts", "\"deferred\""),
                of_raw("deferred"),
            ],
        ),
        (
            "refused",
            vec![
                of_page("Commands refused <b>"),
                of_metrics("penfold_refused_commands_total{", "} "),
                of_stats("refused", ""),
                of_raw("refused"),
            ],
        ),
        (
            "in the queue",
            vec![
                of_page("<dt>Queue</dt><dd>"),
                of_metrics("penfold_queue_messages ", " ") + of_metrics("penfold_held_messages ", " "),
                sum(&status, "\0", ("", "\"messages\":")) + sum(&status, "\0", ("", "\"held\":")),
                of_raw("messages") + of_raw("held"),
            ],
        ),
        (
            "running",
            vec![
                of_page("<dt>Deliveries</dt><dd>"),
                of_metrics("penfold_queue_jobs{state=\"running\"}", " "),
                sum(&status, "\0", ("", "\"running\":")),
                of_raw("running"),
            ],
        ),
    ] {
        assert!(
            numbers[0] > 0 && numbers.iter().all(|number| *number == numbers[0]),
            "{what}: {numbers:?}\n{raw}{stats}"
        );
    }
    drop(running);
}

/// What `penfoldctl top` asks for.
fn exchange_raw(site: &Site) -> String {
    let mut stream = UnixStream::connect(site.path("penfold.sock")).expect("it accepts");
    stream.write_all(b"stats raw - - -\n").expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Requests that get no page, and the parts of a page.
fn requests(address: SocketAddr) {
    for (lines, status) in [
        ("GET / HTTP/1.1\nHost: attacker.example", "421"),
        ("GET /metrics HTTP/1.1\nHost: 192.0.2.1:80", "421"),
        ("GET / HTTP/1.1", "400"),
        ("GET /../etc/passwd HTTP/1.1\nHost: localhost", "404"),
        ("POST / HTTP/1.1\nHost: localhost\nContent-Length: 0", "405"),
        ("GET / HTTP/1.1\nHost: localhost\nContent-Length: 5", "413"),
        ("GET / HTTP/2.0\nHost: localhost", "505"),
        ("GET /style.css HTTP/1.1\nHost: razorback.test", "200"),
        ("GET /icon.svg HTTP/1.1\nHost: 127.0.0.1", "200"),
    ] {
        let (head, _) = ask(address, lines);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{lines}: {head}");
        assert!(head.contains("\r\nContent-Security-Policy: default-src 'none';"), "{head}");
    }
    let (head, content) = ask(address, "HEAD / HTTP/1.1\nHost: localhost");
    assert!(head.starts_with("HTTP/1.1 200 ") && content.is_empty(), "{content}");
    let (head, _) = ask(address, &format!("GET / HTTP/1.1\nHost: localhost\nX: {}", "x".repeat(9000)));
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

/// A program of Prometheus' package; `None` without it.
fn of_prometheus(name: &str) -> Option<PathBuf> {
    let unpacked = unpacked::tree("prometheus").map(|tree| tree.join("usr/bin").join(name));
    let found = unpacked.into_iter().chain([PathBuf::from("/usr/bin").join(name)]).find(|path| path.exists());
    if found.is_none() {
        common::skipped(format_args!("{name} is neither unpacked nor installed"));
    }
    found
}

/// Shows the metrics to promtool and to a strict parser of OpenMetrics, and promtool the samples.
fn examine(openmetrics: &str, prometheus: &str) {
    if let Some(promtool) = of_prometheus("promtool") {
        let output = feed(Command::new(&promtool).args(["check", "metrics"]), prometheus.as_bytes());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let rules = common::programs::python(
            "daemon/dashboard.py",
            &fs::read(built::source("etc/grafana/penfold.json")).expect("a dashboard"),
        );
        if let Some(rules) = rules {
            let output = feed(Command::new(&promtool).args(["check", "rules", "/dev/stdin"]), &rules.stdout);
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && printed.contains(" rules found"), "{rules:?}\n{output:?}");
        }
        for (what, sample) in [("config", "penfold.yml"), ("rules", "penfold-rules.yml")] {
            let path = built::source("etc/prometheus").join(sample);
            let output = Command::new(&promtool).args(["check", what]).arg(path).output().expect("it runs");
            assert!(output.status.success(), "{output:?}");
        }
    }
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  print(sum(len(family.samples) for family in read(sys.stdin.read())))";
    let output = feed(Command::new("/usr/bin/python3").args(["-c", script]), openmetrics.as_bytes());
    if String::from_utf8_lossy(&output.stderr).contains("ModuleNotFoundError") {
        return common::skipped("python3-prometheus-client is not installed");
    }
    let count = openmetrics.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), count.to_string(), "{output:?}");
}

/// Asserts that all metrics in the samples for Prometheus and Grafana are among the metrics, or would
/// be after other events.
fn samples_use(metrics: &str) {
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("penfold_")).map(str::to_owned).collect()
    };
    let mut known = names(metrics);
    let counters: Vec<String> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .map(|name| format!("{name}_total"))
        .collect();
    known.extend(counters);
    for sample in ["etc/prometheus/penfold-rules.yml", "etc/grafana/penfold.json"] {
        let used = names(&fs::read_to_string(built::source(sample)).expect(sample));
        assert!(used.len() > 5 && used.is_subset(&known), "{sample}: {:?}", used.difference(&known));
    }
}

/// With PENFOLD_SCREENSHOTS, the screenshots are kept in that directory.
#[test]
fn a_browser_shows_the_page_on_a_telephone_and_follows_its_links() {
    let chromium =
        ["/usr/bin/chromium", "/usr/bin/chromium-browser"].into_iter().find(|path| fs::exists(path).is_ok_and(|is| is));
    let Some(chromium) = chromium else { return common::skipped("chromium is not installed") };
    let authority = Authority::new();
    let site = site(&authority);
    authority.give(&site, "cert", "razorback.test", 5);
    let daemon = site.start();
    let address = address(&daemon);
    let (running, _) = traffic(&site, &daemon);
    let directory = std::env::var_os("PENFOLD_SCREENSHOTS").map_or_else(|| site.path("shots"), PathBuf::from);
    fs::create_dir_all(&directory).expect("a directory");
    let mut browser = Command::new("python3");
    browser.arg("-B").arg(built::source("tests/daemon/browser.py")).arg(chromium).arg(&directory);
    let output = browser.arg(format!("http://localhost:{}/", address.port())).output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !printed.contains("error: "), "{printed}{output:?}");
    for part in [
        "page: telephone Mail at razorback.test with ",
        "page: wide Mail at razorback.test with ",
        &format!("page: http://localhost:{}/metrics with ", address.port()),
        "/?hours=48 with ",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    let html = page(address, "/?hours=48", "text/html");
    assert!(html.contains("expires in 4 days") || html.contains("expires in 5 days"), "{html}");
    assert!(html.contains("<h2>The last 48 hours</h2>"));
    drop(running);
}
