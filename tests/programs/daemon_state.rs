//! What penfoldctl(8) says about the daemon itself: the configuration in force, and its reload.

use common::Site;
use common::programs::{code_and_text, command, stranger};

/// Runs penfoldctl, and returns its exit code and its output.
fn ctl(site: &Site, arguments: &[&str]) -> (i32, String) {
    code_and_text(&command(site, "penfoldctl", arguments).output().expect("it runs"))
}

#[test]
fn the_configuration_in_force_is_printed_with_the_place_of_each_value() {
    let mut site = Site::with("queue.workers = 7");
    site.configure();
    let (code, text) = ctl(&site, &["config", "queue.workers"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("no daemon is running") && text.contains("\nworkers = 7"), "{text}");
    let daemon = site.start();
    let file = site.path("penfold.conf").display().to_string();
    let place = |key: &str| {
        let text = std::fs::read_to_string(&file).expect("the file");
        text.lines().position(|line| line.contains(key)).expect("the key") + 1
    };
    let (code, all) = ctl(&site, &["config"]);
    assert!(code == 0 && all.starts_with(&format!("# {file}, in force since 20")), "{all}");
    assert!(all.contains(&format!("workers = 7{:37} # line {}\n", "", place("workers = 7"))), "{all}");
    assert!(all.contains("\n#retry_max = \"4h\"\n") && all.contains("\n[[listen]]\naddress = "), "{all}");
    // What is printed is a configuration with the same values.
    std::fs::write(site.path("again.conf"), &all).expect("a file");
    let again = ctl(&site, &["-f", site.path("again.conf").to_str().expect("a path"), "config", "--given", "queue"]);
    assert!(again.0 == 0 && again.1.contains("workers = 7"), "{again:?}");
    let (code, given) = ctl(&site, &["config", "--given", "--json"]);
    assert_eq!(code, 0);
    let line = given.lines().find(|line| line.contains("queue.workers")).expect("the key");
    let place = place("workers = 7");
    assert_eq!(line, format!(r#"{{"key":"queue.workers","value":"7","from":"file","file":"{file}","line":{place}}}"#));
    assert!(!given.contains("retry_max"), "{given}");
    // One key is printed with the file, too; a sentence about "#" only where there is one.
    let (_, one) = ctl(&site, &["config", "queue.workers"]);
    assert!(one.starts_with(&format!("# {file}, in force since 20")) && !one.contains("A key after"), "{one}");
    assert!(!ctl(&site, &["config", "--given"]).1.contains("A key after"));
    let unknown = ctl(&site, &["config", "queue.worker"]);
    assert_eq!(unknown, (69, "penfoldctl: 'queue.worker' is not a key; did you mean queue.workers?\n".into()));
    // The file is not what counts, but what the daemon has read.
    site.set("queue", "workers", "8");
    site.configure();
    assert!(ctl(&site, &["config", "queue.workers"]).1.contains("workers = 7"));
    drop(daemon);
}

#[test]
fn a_reload_is_waited_for_and_its_errors_are_printed() {
    let mut site = Site::new();
    assert_eq!(ctl(&site, &["reload"]).0, 75);
    let daemon = site.start();
    assert_eq!(ctl(&site, &["reload"]), (0, String::new()));
    site.set("queue", "retry_max", "\"2h\"");
    site.set("queue", "workers", "8");
    site.configure();
    let (code, text) = ctl(&site, &["reload"]);
    assert!(code == 0 && text.ends_with(": queue.workers has changed: that needs a restart\n"), "{text}");
    assert!(ctl(&site, &["config", "queue.retry_max"]).1.contains("retry_max = \"2h\""));
    site.set("queue", "retry_max", "\"2 hours\"");
    site.configure();
    let (code, text) = ctl(&site, &["reload"]);
    assert!(code == 78 && text.contains("queue.retry_max: expected a duration"), "{text}");
    assert!(text.ends_with("the old configuration stays in force\n"), "{text}");
    assert!(ctl(&site, &["config", "queue.retry_max"]).1.contains("retry_max = \"2h\""));
    for arguments in [&["reload"][..], &["config"]] {
        let Some(mut other) = stranger(&command(&site, "penfoldctl", arguments)) else { return };
        let (code, text) = code_and_text(&other.output().expect("it runs"));
        assert!(code == 77 && text.starts_with("penfoldctl: only root and "), "{text}");
    }
    drop(daemon);
}

#[test]
fn the_status_shows_the_daemon_and_what_it_does() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut site = Site::with(&format!("remote.smarthosts = [\"smtp://{}\"]", silent.local_addr().expect("bound")));
    let (code, text) = ctl(&site, &["status"]);
    assert!(code == 75 && text.contains("the mail system is not running"), "{text}");
    site.set("dns", "nameservers", "[\"192.0.2.53\"]");
    let daemon = site.start();
    daemon.submit(&["far@example.net"]);
    let (stream, _) = silent.accept().expect("a connection");
    let (code, text) = ctl(&site, &["status"]);
    assert_eq!(code, 0, "{text}");
    let line =
        |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    assert!(line("penfoldd").contains(concat!(" ", env!("CARGO_PKG_VERSION"), ", pid ")), "{text}");
    assert!(line("configuration").contains(", in force since 20"), "{text}");
    assert!(line("listening").contains(&format!("{}  smtp, tls none", daemon.address())), "{text}");
    assert!(line("queue").contains("1 message, ") && line("queue").contains("1 running"), "{text}");
    assert!(line("workers").contains("1 of "), "{text}");
    assert!(text.contains(&format!("  [127.0.0.1]:{}\n", silent.local_addr().expect("bound").port())), "{text}");
    assert!(line("resolver").contains("192.0.2.53:53"), "{text}");
    let (code, json) = ctl(&site, &["status", "--json"]);
    assert!(code == 0 && json.lines().count() == 1 && json.contains(r#","running":[{"id":""#), "{json}");
    // Times have the form of all others in JSON.
    assert!([r#","started":"20"#, r#","since":"20"#].iter().all(|time| json.contains(time)), "{json}");
    drop((stream, daemon));
}
