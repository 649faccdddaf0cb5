//! The series of the benchmark: each varies one quantity and keeps all others constant.
//!
//! A series returns its figures, or the first failure.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Bench;
use crate::field::{Case, Field, Measured, To, serve};
use crate::load::Client;
use crate::machine::{self, Watch};
use crate::queue;
use crate::server::{self, Server};
use crate::sink::Sink;
use common::Site;
use common::figure::{Figure, plain, whole};
use common::plot::{Axis, Scale};

const KIB: usize = 1024;
/// The size of a small message, in octets.
const SIZE: usize = 4 * KIB;
/// If a server has used no processor time for this long, it counts as idle.
const STILL: Duration = Duration::from_millis(400);

/// Measures messages to one mailbox, with many messages in each session.
///
/// # Errors
/// Errors of [`Field`].
pub fn sessions(bench: &Bench) -> io::Result<Vec<Figure>> {
    let how = ["Local mail by sessions", "4 KiB, one mailbox, many messages a session"];
    by_sessions(bench, ["sessions", "sessions-accepted", "sessions-cpu"], how, (true, To::Local(1)))
}

/// Measures messages to one mailbox, each over a new connection.
///
/// # Errors
/// Errors of [`Field`].
pub fn connections(bench: &Bench) -> io::Result<Vec<Figure>> {
    let how = ["Local mail by sessions, a connection each", "4 KiB, one mailbox, a connection for each message"];
    by_sessions(bench, ["connections", "connections-accepted", "connections-cpu"], how, (false, To::Local(1)))
}

/// Measures messages to another host, with many messages in each session.
///
/// # Errors
/// Errors of [`Field`].
pub fn relay(bench: &Bench) -> io::Result<Vec<Figure>> {
    let how = ["Relayed mail by sessions", "4 KiB, one recipient elsewhere, many messages a session"];
    by_sessions(bench, ["relay", "relay-accepted", "relay-cpu"], how, (true, To::Elsewhere(1)))
}

/// Compares messages to a local domain with messages to the last of many `[[domain]]`.
///
/// # Errors
/// Errors of [`Field`].
pub fn domains(bench: &Bench) -> io::Result<Vec<Figure>> {
    const TABLES: usize = 200;
    let how = ["Local mail with 200 tables [[domain]], or with a quota", "4 KiB, one mailbox, many messages a session"];
    let names = ["domains", "domains-accepted", "domains-cpu"];
    by_sessions_of(bench, Field::of_domains(bench, TABLES)?, names, how, (true, To::Local(1)))
}

fn by_sessions(
    bench: &Bench,
    names: [&'static str; 3],
    how: [&str; 2],
    (reuse, to): (bool, To),
) -> io::Result<Vec<Figure>> {
    by_sessions_of(bench, Field::start(bench, matches!(to, To::Local(_)))?, names, how, (reuse, to))
}

fn by_sessions_of(
    bench: &Bench,
    mut field: Field,
    names: [&'static str; 3],
    how: [&str; 2],
    (reuse, to): (bool, To),
) -> io::Result<Vec<Figure>> {
    let points = bench.points(&[1, 2, 5, 10, 20, 50, 100, 200]);
    let cases: Vec<_> = points.iter().map(|&sessions| Case { sessions, size: SIZE, reuse, to }).collect();
    let labels =
        ["messages delivered a second", "messages accepted a second", "ms of the server's processor time a message"];
    let axis = || Axis { label: "sessions at once".to_owned(), scale: Scale::Log, show: whole };
    let mut figures: Vec<_> = names.into_iter().zip(labels).map(|(name, y)| rate(name, how, axis(), y)).collect();
    field.alternate(bench, &cases, |label, number, measured| {
        let values = [measured.delivered, measured.accepted, measured.cpu];
        for (figure, value) in figures.iter_mut().zip(values) {
            figure.add(label, points[number] as f64, value, measured.is_noisy());
        }
    })?;
    Ok(figures)
}

/// Measures messages of different sizes.
///
/// # Errors
/// Errors of [`Field`].
pub fn size(bench: &Bench) -> io::Result<Vec<Figure>> {
    let points = bench.points(&[1, 4, 16, 64, 256, 1024, 4096, 16384]);
    let case = |&kib: &usize| Case { sessions: 10, size: kib * KIB, reuse: true, to: To::Local(1) };
    let cases: Vec<_> = points.iter().map(case).collect();
    let how = "10 sessions, one mailbox, many messages a session";
    let axis = || Axis { label: "octets in a message".to_owned(), scale: Scale::Log, show: octets };
    let mut rates = rate("size", ["Local mail by size", how], axis(), "messages delivered a second");
    rates.y.scale = Scale::Log;
    let mut flow = rate("size-octets", ["Octets by size", how], axis(), "MB delivered a second");
    Field::start(bench, true)?.alternate(bench, &cases, |label, number, measured| {
        let (x, noisy) = ((points[number] * KIB) as f64, measured.is_noisy());
        rates.add(label, x, measured.delivered, noisy);
        flow.add(label, x, measured.delivered * x / 1e6, noisy);
    })?;
    Ok(vec![rates, flow])
}

/// Measures messages to many mailboxes, and messages to many recipients at another host.
///
/// # Errors
/// Errors of [`Field`].
pub fn recipients(bench: &Bench) -> io::Result<Vec<Figure>> {
    let points = bench.points(&[1, 3, 10, 30, 100, 300, 1000]);
    let how = "4 KiB, 5 sessions, many messages a session";
    let axis = || Axis { label: "recipients of a message".to_owned(), scale: Scale::Log, show: whole };
    let deliveries = "deliveries a second";
    let figures = [
        rate("recipients", ["Mailboxes of one message", how], axis(), deliveries),
        rate("recipients-relay", ["Recipients of one relayed message", how], axis(), deliveries),
    ];
    let mut field = Field::start(bench, false)?;
    let mut done = Vec::new();
    for (mut figure, to) in figures.into_iter().zip([To::Local as fn(usize) -> To, To::Elsewhere]) {
        let case = |&count: &usize| Case { sessions: 5, size: SIZE, reuse: true, to: to(count) };
        let cases: Vec<_> = points.iter().map(case).collect();
        field.alternate(bench, &cases, |label, number, measured: Measured| {
            let x = points[number] as f64;
            figure.add(label, x, measured.delivered * x, measured.is_noisy());
        })?;
        done.push(figure);
    }
    Ok(done)
}

/// Measures how long a daemon takes to start on a spool with deferred messages, and what the spool
/// costs it then.
///
/// # Errors
/// Errors of the system and of the load.
pub fn queue(bench: &Bench) -> io::Result<Vec<Figure>> {
    let mut points = bench.points(&[0, 1_000, 10_000, 100_000]);
    points.extend(bench.extreme.then_some(1_000_000));
    let axis = || Axis { label: "deferred messages in the spool".to_owned(), scale: Scale::Log, show: whole };
    let seconds = || Axis { label: "seconds".to_owned(), scale: Scale::Log, show: plain };
    let mut times = Figure::new("queue", ["The queue by its length", "penfold alone, warm cache"], axis(), seconds());
    times.compares = false;
    let how = "penfold alone, 4 KiB, 10 sessions, one mailbox";
    let mut accepts = rate("queue-accept", ["New mail by queue length", how], axis(), "messages delivered a second");
    let mebibytes = Axis { label: "MiB (PSS)".to_owned(), scale: Scale::Linear, show: plain };
    let mut memory =
        Figure::new("queue-memory", ["Memory by queue length", "penfold alone, at rest"], axis(), mebibytes);
    let sink = Sink::start()?;
    let mut sites = Vec::new();
    for &count in &points {
        bench.go_on()?;
        let site = server::site(&bench.scratch, sink.address);
        queue::fill(&site, count)?;
        sites.push((count as f64, site));
    }
    for round in 0..bench.rounds {
        for (x, site) in &sites {
            let look = Look::at(bench, site, &sink, round)?;
            for (label, seconds) in ["to the first 220", "to all loaded", "to list all"].into_iter().zip(look.seconds) {
                times.add(label, *x, seconds, look.noisy);
            }
            accepts.add("penfold", *x, look.accepts.delivered, look.accepts.is_noisy());
            memory.add("penfold", *x, look.pss / 1024.0, look.noisy);
        }
    }
    memory.notes = per_unit(&memory, "penfold", &points, 1024.0 * 1024.0, "octets a deferred message");
    Ok(vec![times, accepts, memory])
}

/// The measurements of one start on a spool.
struct Look {
    seconds: [f64; 3],
    pss: f64,
    accepts: Measured,
    noisy: bool,
}

impl Look {
    fn at(bench: &Bench, site: &Site, sink: &Sink, turn: usize) -> io::Result<Self> {
        let (watch, start) = (Watch::start(None), Instant::now());
        let server = Server::penfold(site)?;
        let loaded = server.idles(STILL) - start;
        let pss = machine::pss(&server.pids());
        let list = Instant::now();
        site.penfoldctl(&["queue"]);
        let seconds = [server.greeted, loaded, list.elapsed()].map(|time| time.as_secs_f64());
        // This watch counts the server as another process, so the server's own processor time is
        // subtracted.
        let noisy = watch.others() - machine::cpu(&server.pids()) / start.elapsed().as_secs_f64() > 0.25;
        let case = Case { sessions: 10, size: SIZE, reuse: true, to: To::Local(1) };
        let accepts = serve(bench, &server, &case, sink, turn)?;
        bench.tell(&format!("queue: {seconds:?} s, {pss} KiB, {accepts:?}"));
        Ok(Self { seconds, pss, accepts, noisy })
    }
}

/// Measures the memory of sessions that are idle after EHLO.
///
/// # Errors
/// Errors of the system and of the servers.
pub fn memory(bench: &Bench) -> io::Result<Vec<Figure>> {
    let mut points = bench.points(&[0, 10, 100, 1000]);
    points.extend(bench.extreme.then_some(5000));
    let axis = Axis { label: "idle sessions".to_owned(), scale: Scale::Log, show: whole };
    let mebibytes = Axis { label: "MiB (PSS), all processes".to_owned(), scale: Scale::Log, show: plain };
    let mut figure = Figure::new("memory", ["Memory by sessions", "idle after EHLO"], axis, mebibytes);
    let sink = Sink::start()?;
    // A server with a process for each session would need a gigabyte for a thousand sessions.
    let few: Vec<usize> = points.iter().copied().filter(|&count| count <= 100).collect();
    for _ in 0..bench.rounds.min(2) {
        bench.go_on()?;
        let penfold = Server::own_penfold(&bench.scratch, sink.address)?;
        hold(&mut figure, "penfold", &penfold, &points)?;
        drop(penfold);
        if let Some(tree) = &bench.postfix {
            let postfix = Server::postfix(tree, &bench.scratch, sink.address, &[])?;
            hold(&mut figure, "Postfix", &postfix, &few)?;
        }
    }
    figure.notes = per_unit(&figure, "penfold", &points, 1024.0, "KiB a session");
    figure.notes.extend(per_unit(&figure, "Postfix", &few, 1024.0, "KiB a session"));
    Ok(vec![figure])
}

fn hold(figure: &mut Figure, label: &str, server: &Server, points: &[usize]) -> io::Result<()> {
    let mut clients = Vec::new();
    for &count in points {
        while clients.len() < count {
            clients.push(Client::connect(server.address)?);
        }
        server.idles(STILL);
        figure.add(label, count as f64, machine::pss(&server.pids()) / 1024.0, false);
    }
    Ok(())
}

/// The cost of each unit, such as a session, beyond none: a line of text for each point.
fn per_unit(figure: &Figure, label: &str, points: &[usize], factor: f64, unit: &str) -> Vec<String> {
    let at = |count: usize| figure.summary(label, count as f64).map(|s| s.median);
    let Some(none) = at(0) else { return Vec::new() };
    let more = points.iter().filter(|&&count| count > 0);
    let each = |&count: &usize| {
        let cost = (at(count)? - none) * factor / count as f64;
        Some(format!("{label}, {count}: {} {unit}", plain(cost)))
    };
    more.filter_map(each).collect()
}

/// Measures the system calls of one message. Two runs differ by [`MORE`] messages; the difference
/// of their counts is divided by that number, so that start and end of the server do not count.
///
/// # Errors
/// Errors of the system and of the servers.
pub fn calls(bench: &Bench) -> io::Result<Vec<Figure>> {
    let axis = || Axis { label: "way of the message".to_owned(), scale: Scale::Linear, show: way };
    let unit = |label: &str| Axis { label: label.to_owned(), scale: Scale::Linear, show: plain };
    let how = "4 KiB, one session; local: 1 and 3 mailboxes, then 1 recipient elsewhere";
    let mut syncs = Figure::new("syncs", ["Syncs of a message", how], axis(), unit("fsync and its like a message"));
    let mut all = Figure::new("calls", ["System calls of a message", how], axis(), unit("system calls a message"));
    let mut work =
        Figure::new("instructions", ["Instructions of a message", how], axis(), unit("instructions a message"));
    let [strace, valgrind] = ["strace", "valgrind"].map(|program| is_there(program) && bench.watches);
    // As root, the server is another process, and confined: valgrind would count the monitor.
    let is_root = nix::unistd::geteuid().is_root();
    if valgrind && is_root {
        println!("skipped: instructions are counted only for an ordinary user");
    }
    let valgrind = valgrind && !is_root;
    for (x, to) in (0..).zip([To::Local(1), To::Local(3), To::Elsewhere(1)]) {
        let x = f64::from(x);
        for (label, _) in
            [("penfold", true), ("Postfix", bench.postfix.is_some())].iter().filter(|(_, is)| strace && *is)
        {
            if let Some([syncs_each, calls_each]) = each(bench, label, to, "strace")?[..].first_chunk().copied() {
                syncs.add(label, x, syncs_each, false);
                all.add(label, x, calls_each, false);
            }
        }
        if valgrind && let Some(&instructions) = each(bench, "penfold", to, "valgrind")?.first() {
            work.add("penfold", x, instructions, false);
        }
    }
    Ok([(strace, syncs), (strace, all), (valgrind, work)].into_iter().filter_map(|(is, f)| is.then_some(f)).collect())
}

fn way(number: f64) -> String {
    ["local", "3 local", "relay"].get(number as usize).map_or(String::new(), |&name| name.to_owned())
}

/// The number of messages in the first run. The second run has [`MORE`] messages in addition.
const FEW: usize = 20;
const MORE: usize = 100;

/// The counts for one more message, under the program `by`. If the server cannot be traced, the
/// result is empty, and the reason is printed.
fn each(bench: &Bench, label: &str, to: To, by: &str) -> io::Result<Vec<f64>> {
    bench.go_on()?;
    let counts =
        counted(bench, label, to, by, FEW).and_then(|few| Ok((few, counted(bench, label, to, by, FEW + MORE)?)));
    match counts {
        Ok((few, many)) => Ok(few.iter().zip(&many).map(|(few, many)| (many - few) / MORE as f64).collect()),
        Err(error) => {
            println!("skipped: {label} below {by}, {to:?}: {error}");
            Ok(Vec::new())
        }
    }
}

/// The counts for a run with this many messages, including the start and the end of the server.
fn counted(bench: &Bench, label: &str, to: To, by: &str, messages: usize) -> io::Result<Vec<f64>> {
    let sink = Sink::start()?;
    let file = bench.scratch.join("counted");
    let file = file.to_string_lossy();
    let log = format!("--log-file={file}");
    let watcher: &[&str] = match by {
        "strace" => &["strace", "-f", "-c", "-o", &file],
        _ => &["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", &log],
    };
    let site = server::site(&bench.scratch, sink.address);
    let server = match &bench.postfix {
        Some(tree) if label == "Postfix" => Server::postfix(tree, &bench.scratch, sink.address, watcher)?,
        _ => Server::watched_penfold(&site, watcher)?,
    };
    let bench = Bench { time: Duration::from_secs(60), least: messages, ..bench.clone() };
    serve(&bench, &server, &Case { sessions: 1, size: SIZE, reuse: true, to }, &sink, 0)?;
    drop(server);
    let text = fs::read_to_string(&*file)?;
    bench.tell(&format!("calls: {label} below {by}: {to:?}, {messages}"));
    Ok(if by == "strace" { of_strace(&text) } else { of_callgrind(&text) })
}

/// The number of syncs and the number of all system calls in the summary of strace.
fn of_strace(text: &str) -> Vec<f64> {
    let syncs = HashSet::from(["fsync", "fdatasync", "syncfs", "sync", "sync_file_range", "msync"]);
    let (mut synced, mut all) = (0.0, 0.0);
    for line in text.lines() {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let (Some(name), Some(Ok(count))) = (words.last(), words.get(3).map(|word| word.parse::<f64>())) else {
            continue;
        };
        if *name != "total" {
            all += count;
            synced += if syncs.contains(name) { count } else { 0.0 };
        }
    }
    vec![synced, all]
}

fn of_callgrind(text: &str) -> Vec<f64> {
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    vec![count.unwrap_or(f64::NAN)]
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    let is = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !is {
        println!("skipped: {program} is not installed");
    }
    is
}

fn rate(name: &'static str, text: [&str; 2], x: Axis, label: &str) -> Figure {
    Figure::new(name, text, x, Axis { label: label.to_owned(), scale: Scale::Linear, show: plain })
}

fn octets(value: f64) -> String {
    match value / 1024.0 {
        kib if kib < 1024.0 => format!("{kib:.0} KiB"),
        kib => format!("{:.0} MiB", kib / 1024.0),
    }
}
