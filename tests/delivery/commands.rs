//! Commands that take mail: exit codes, the time limit, the recorded output, and the form in which
//! a command is in the spool. Each row is a promise of penfold-aliases(5).
//!
//! The list of exit codes is read from the manual page. Tests of time limits need libfaketime. The
//! input of a command is tested in tests/delivery/aliases.rs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Instant;

use common::clock::Clock;
use common::homes::Homes;
use common::{Daemon, Site, pages};
use penfold::outcome::{Fate, Outcome};
use penfold::sys::command::Ended;

/// The status codes that the manual page assigns to each exit code, and the status for all other
/// exit codes.
fn code_and_text() -> (BTreeMap<i32, Vec<String>>, String) {
    let section = pages::section("penfold-aliases.5", "COMMANDS");
    let (_, list) = section.split_once("The exit status of the command decides what happens").expect("the list");
    let (list, _) = list.split_once("\n.El\n").expect("its end");
    let (mut codes, mut others) = (BTreeMap::new(), String::new());
    for item in list.split("\n.It ").skip(1) {
        let (label, text) = item.split_once('\n').expect("a label");
        let is_status = |word: &&str| word.len() == 5 && word.matches('.').count() == 2;
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|word| word.trim_matches('.'));
        let mut statuses: Vec<String> = words.filter(is_status).map(str::to_owned).collect();
        if label == "any other" {
            others = statuses.remove(0);
            continue;
        }
        let mut of_label = Vec::new();
        for part in label.split(", ") {
            let (first, last) = part.split_once(" to ").unwrap_or((part, part));
            of_label.extend(first.parse::<i32>().expect(label)..=last.parse().expect(label));
        }
        // If an item of the page has as many statuses as exit codes, they correspond in order.
        // Otherwise each code may have any of the statuses.
        let each = statuses.len() > 2 && statuses.len() == of_label.len();
        for (at, code) in of_label.into_iter().enumerate() {
            let own = if each { vec![statuses[at].clone()] } else { statuses.clone() };
            assert_eq!(codes.insert(code, own), None, "{code}");
        }
    }
    (codes, others)
}

#[test]
fn the_page_explains_each_exit_code() {
    let (codes, others) = code_and_text();
    assert!(codes.len() > 13 && others == "5.3.0", "{codes:?}");
    for code in 0..256 {
        let outcome = Outcome::from_command(Ended::Code(code), "");
        let status = outcome.status.to_string();
        let fate = match status.as_bytes()[0] {
            b'2' => Fate::Delivered,
            b'4' => Fate::Deferred,
            _ => Fate::Failed,
        };
        assert_eq!(outcome.fate, fate, "{code}");
        match codes.get(&code) {
            Some(documented) if documented.is_empty() => assert_eq!((code, fate), (0, Fate::Delivered)),
            Some(documented) => {
                assert!(documented.contains(&status), "{code}: {status}, and the page has {documented:?}")
            }
            None => assert_eq!(status, others, "{code}"),
        }
    }
    assert_eq!(Outcome::from_command(Ended::Signal(9), "").fate, Fate::Deferred);
    assert_eq!(Outcome::from_command(Ended::Late, "").fate, Fate::Deferred);
}

fn waits(daemon: &Daemon, path: &std::path::Path, count: usize) {
    let lines = || fs::read_to_string(path).map_or(0, |text| text.lines().count());
    daemon.wait_until(&format!("{count} lines in {}", path.display()), || lines() >= count);
}

#[test]
fn a_command_times_out_after_a_thousand_seconds() {
    let site = Site::new();
    let pid_file = site.path("mail/begun");
    site.write("aliases", &format!("slow: \"|echo $$ >>{}; exec sleep 61\"\n", pid_file.display()));
    let Some(clock) = Clock::new(&site) else { return };
    let daemon = clock.start(&site, true);
    daemon.submit(&["slow"]);
    waits(&daemon, &pid_file, 1);
    let pid = fs::read_to_string(&pid_file).expect("a number");
    let runs = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "));
    clock.set("+900");
    // Half a second is enough for the daemon to notice the new time: it looks at the clock ten
    // times a second.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(runs() && !daemon.log().contains("deferred"), "{}", daemon.log());
    clock.set("+1100");
    let late = "the command took too long and was killed";
    daemon.wait_words(&[" deferred to=<slow@razorback>", "via=command", "dsn=4.3.0", late]);
    assert!(!runs());
}

#[test]
fn the_output_of_a_failed_command_is_recorded_up_to_a_length() {
    let site = Site::new();
    let shell_output = |count| format!("yes abcdefg | head -c {count} | tr '\\\\n' . >&2");
    let well = format!("well: \"|{}; exit 0\"\nlater: \"|{}; exit 75\"\n", shell_output(80), shell_output(80));
    site.write(
        "aliases",
        &format!("much: \"|{}; exit 69\"\nall: \"|{}; exit 69\"\n{well}", shell_output(9000), shell_output(4096)),
    );
    let daemon = site.start();
    let output_length = |text: &str| text.matches("abcdefg.").count() * 8;
    for (number, name) in ["much", "all"].into_iter().enumerate() {
        daemon.submit_from("jon@razorback", &[name]);
        let line = daemon.wait_words(&[" failed to=<", &format!("<{name}@razorback>"), "dsn=5.3.0"]);
        assert_eq!(output_length(&line), 4096, "{name}: {line}");
        let report = String::from_utf8(daemon.wait_mail(&site, "jon", number + 1).remove(number)).expect("ASCII");
        let (_, reason) = report.split_once("the command ended with code 69").expect("a reason");
        let (reason, _) = reason.split_once("\n\n").expect("its end");
        let length = reason.split_whitespace().map(|word| word.len() + 1).sum::<usize>() + 30;
        assert!((1900..=2060).contains(&length) && output_length(reason) > 1800, "{length}: {report}");
    }
    for (name, length) in [("later", 80), ("well", 0)] {
        daemon.submit(&[name]);
        let line = daemon.wait_words(&[&format!(" to=<{name}@razorback>"), "via=command"]);
        assert_eq!(output_length(&line), length, "{line}");
    }
}

#[test]
fn a_running_command_has_five_seconds_at_shutdown() {
    let site = Site::new();
    let path = |name: &str| site.path("mail").join(name).display().to_string();
    site.write(
        "aliases",
        &format!(
            "quick: \"|echo >>{}; sleep 1; cat >{}\"\nslow: \"|echo >>{}; test -e {} || sleep 61\"\n",
            path("quick"),
            path("out"),
            path("slow"),
            path("go")
        ),
    );
    let daemon = site.start();
    for name in ["quick", "slow"] {
        daemon.submit(&[name]);
        waits(&daemon, &site.path("mail").join(name), 1);
    }
    let started = Instant::now();
    assert!(daemon.terminate().success());
    let took = started.elapsed().as_millis();
    assert!((4900..9000).contains(&took), "{took} ms");
    assert!(site.path("mail/out").exists());
    site.write("mail/go", "");
    let daemon = site.start();
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    let runs = |name: &str| fs::read_to_string(site.path("mail").join(name)).expect("its lines").lines().count();
    assert_eq!((runs("quick"), runs("slow")), (1, 2));
}

#[test]
fn a_command_is_retried_as_it_was_when_the_mail_was_accepted() {
    let site = Site::new();
    let old = site.path("mail/old");
    site.write("aliases", &format!("cmd: \"|echo >>{}; exit 75\"\n", old.display()));
    let daemon = site.start();
    daemon.submit(&["cmd"]);
    daemon.wait_words(&[" deferred to=<cmd@razorback>"]);
    site.write("aliases", "cmd: jon\n");
    daemon.submit(&["cmd"]);
    daemon.wait_mail(&site, "jon", 1);
    site.penfoldctl(&["flush"]);
    waits(&daemon, &old, 2);
    assert_eq!(site.mail("jon").len(), 1);
    let Some(homes) = Homes::new("") else { return };
    homes.write("jon", ".forward", "\"|echo >>old; exit 75\"\n", 0o644);
    let daemon = homes.start();
    daemon.submit(&["jon"]);
    daemon.wait_words(&[" deferred to=<jon@razorback> via=command"]);
    homes.write("jon", ".forward", "\"|cat >new\"\n", 0o644);
    daemon.submit(&["jon"]);
    daemon.wait_until("the new one", || homes.home("jon").join("new").exists());
    homes.site.penfoldctl(&["flush"]);
    waits(&daemon, &homes.home("jon").join("old"), 2);
}

#[test]
fn a_command_that_cannot_be_run_is_retried() {
    let site = Site::new();
    site.write("mail/plain", "#!/bin/sh\n");
    site.write("aliases", &format!("plain: |{0}\ngone: |{0}x\n", site.path("mail/plain").display()));
    let daemon = site.start();
    for name in ["plain", "gone"] {
        daemon.submit(&[name]);
        daemon.wait_words(&[" deferred", &format!("to=<{name}@razorback>"), "dsn=4.3.5"]);
    }
    daemon.wait_words(&["code 126: it may not be run"]);
    Command::new("chmod").arg("755").arg(site.path("mail/plain")).status().expect("chmod");
    assert!(daemon.flush_until(&site, || daemon.log().contains(" sent to=<plain@razorback>")));
}
