//! The series of distant and faulty hosts: many worlds, each with every server in turn.
//!
//! A world is a set of hosts and the mail for them. Each run is a process in namespaces of its own;
//! see [`world`]. All runs are made once, and again in further rounds while there is time. The
//! series needs root and Linux; otherwise it prints that it is skipped.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use crate::Bench;
use crate::machine::{self, Watch};
use crate::world::{self, STEP, Shown, World};
use common::figure::{Figure, plain, whole};
use common::plot::{Axis, Scale};

/// After this time no run of a second or later round begins.
const MOST: Duration = Duration::from_secs(900);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time that a run may take beyond its limit.
const SLACK: Duration = Duration::from_secs(90);
/// The processors that other processes may use in a quiet run.
const QUIET: f64 = 0.25;

/// The rows of a table: the name of the row, the name of the value, and which of its three numbers
/// (half, 95 %, all).
const ROWS: [(&str, &str, usize); 9] = [
    ("half", "healthy", 0),
    ("95 %", "healthy", 1),
    ("all", "healthy", 2),
    ("probe 50", "probe", 0),
    ("probe 95", "probe", 1),
    ("probe max", "probe", 2),
    ("late 50", "late", 0),
    ("late 95", "late", 1),
    ("late max", "late", 2),
];
const LEGEND: &str = "half, 95 %, all: until this part of the mail for healthy hosts had arrived\n\
    probe: from the 250 of a message to a healthy domain of its own, one a second, until its arrival\n\
    late: from the time when a retry at a grey host was due, 20 s after the 451, until it began";

/// The figure in which a run is shown.
#[derive(Clone, Copy)]
enum Part {
    /// A table of its own, with this number.
    Case(usize),
    /// A point of the curves over the percentage of faulty domains: this percentage.
    Share(usize),
    /// A point of the curve over the number of domains that share a host: this number.
    Shared(usize),
    /// A curve over time.
    Drain,
}

/// Mail to hundreds of distant hosts, some of them faulty.
///
/// # Errors
/// Errors of the runs.
pub fn internet(bench: &Bench) -> io::Result<Vec<Figure>> {
    if !is_possible() {
        return Ok(Vec::new());
    }
    let mut figures = Figures::new();
    let start = Instant::now();
    let servers: &[&str] = if bench.postfix.is_some() { &["penfold", "Postfix"] } else { &["penfold"] };
    for round in 0..bench.rounds {
        for (part, world) in runs(bench) {
            for place in 0..servers.len() {
                if round > 0 && (start.elapsed() > MOST || matches!(part, Part::Drain)) {
                    continue;
                }
                let label = servers[(place + round) % servers.len()];
                let world = World { seed: round + 1, ..world };
                let (shown, noisy) =
                    run(bench, label, &world).map_err(|e| io::Error::other(format!("{label}: {world:?}: {e}")))?;
                figures.add(label, part, &world, &shown, noisy);
            }
        }
    }
    Ok(figures.done())
}

fn is_possible() -> bool {
    let lack = match () {
        () if !cfg!(target_os = "linux") => "it needs Linux",
        () if !geteuid().is_root() => "it needs root",
        () if !unshare().arg("true").status().is_ok_and(|status| status.success()) => "no network of its own to be had",
        () => return true,
    };
    println!("skipped: the Internet: {lack}");
    false
}

/// A command that runs a program in new namespaces, whose processes all end with the command. The
/// first process of the PID namespace has to reap orphans, so a shell stays in that place.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.args(["sh", "-c", "\"$@\"; exit $?", "sh"]);
    command
}

/// A world of healthy hosts, 100 ms away.
fn healthy(domains: usize, messages: usize) -> World {
    World {
        healthy: domains,
        grey: 0,
        tarpit: 0,
        mute: 0,
        dead: 0,
        messages,
        others: 0,
        shares: false,
        patient: true,
        trip: 100,
        limit: 120,
        seed: 1,
    }
}

/// A world with this many domains and messages. `percent` has the percentages of them that are for
/// dead, mute, tarpit and greylisting hosts.
fn with_ill(domains: usize, messages: usize, percent: [usize; 4]) -> World {
    let [dead, mute, tarpit, grey] = percent.map(|share| domains * share / 100);
    let others = messages * percent.iter().sum::<usize>() / 100;
    let healthy = healthy(domains - dead - mute - tarpit - grey, messages - others);
    World { dead, mute, tarpit, grey, others, ..healthy }
}

/// A world with the same healthy domains and mail each time, and additional faulty domains, which
/// are this percentage of all domains. Per domain, the faulty ones have as much mail as the healthy
/// ones.
fn with_share(percent: usize) -> World {
    let (domains, messages) = (100, 1000);
    let more = |count: usize| count * percent / (100 - percent);
    let ill = more(domains);
    let [dead, mute, tarpit, grey] = [0, 1, 2, 3].map(|place| (ill + place) / 4);
    World { dead, mute, tarpit, grey, others: more(messages), patient: false, limit: 60, ..healthy(domains, messages) }
}

fn runs(bench: &Bench) -> Vec<(Part, World)> {
    let cases = [with_ill(300, 3000, [2, 2, 3, 8]), with_ill(300, 3000, [6, 6, 8, 8]), healthy(100, 600)];
    let shares = [0, 50, 35, 20, 10].map(|share| (Part::Share(share), with_share(share)));
    let shared = [1, 50, 10];
    let shared = shared.map(|count| (Part::Shared(count), World { shares: true, limit: 60, ..healthy(count, 500) }));
    let cases: Vec<_> = (0..).map(Part::Case).zip(cases).collect();
    // A smoke test takes only one run of each kind.
    let few = |of: &[(Part, World)]| of.iter().copied().take(bench.points.div_ceil(2)).collect::<Vec<_>>();
    let mut runs = [few(&cases), few(&shares), few(&shared)].concat();
    if bench.extreme {
        let world = World { patient: false, limit: 600, ..with_ill(5000, 50_000, [2, 2, 3, 8]) };
        runs.push((Part::Drain, world));
    }
    runs.into_iter().map(|(part, world)| (part, at_most(bench.least, world))).collect()
}

/// Reduces a world to this many messages, so that a smoke test takes only seconds.
fn at_most(messages: usize, world: World) -> World {
    if world.messages <= messages {
        return world;
    }
    let World { healthy, grey, tarpit, mute, dead, others, .. } = world;
    let [grey, tarpit, mute, dead, others] = [grey, tarpit, mute, dead, others].map(|count| count.min(2));
    let healthy = healthy.min(messages);
    World { healthy, grey, tarpit, mute, dead, others, messages, patient: false, trip: 10, limit: 5, ..world }
}

/// The processes of a run, which end when this is dropped.
struct Inside(Child);

impl Drop for Inside {
    fn drop(&mut self) {
        let pids = machine::tree(self.0.id());
        // The call fails only if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
        let end = Instant::now() + SLACK;
        while pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) && Instant::now() < end {
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Runs a world; returns its output, and whether other processes disturbed it.
fn run(bench: &Bench, label: &str, world: &World) -> io::Result<(Shown, bool)> {
    let scratch = bench.scratch.join("internet");
    fs::create_dir_all(&scratch)?;
    let outcome = watched(bench, label, world, &scratch);
    let removed = fs::remove_dir_all(&scratch);
    outcome.and_then(|outcome| removed.map(|()| outcome))
}

fn watched(bench: &Bench, label: &str, world: &World, scratch: &Path) -> io::Result<(Shown, bool)> {
    bench.go_on()?;
    let mut command = unshare();
    command.arg(std::env::current_exe()?).args(["--world", label, &world.line()]).arg(scratch);
    let mut inside = Inside(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let watch = Watch::start(Some(inside.0.id()));
    let stdout = inside.0.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let end = Instant::now() + Duration::from_secs(world.limit as u64) + SLACK;
    let mut text = String::new();
    loop {
        bench.go_on()?;
        match lines.recv_timeout(POLL_INTERVAL) {
            Ok(line) if line == "end" => break,
            Ok(line) => text += &format!("{line}\n"),
            Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
            Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("it has ended")),
        }
    }
    let others = watch.others();
    let end = Instant::now() + SLACK;
    while inside.0.try_wait()?.is_none() && Instant::now() < end {
        thread::sleep(POLL_INTERVAL);
    }
    bench.tell(&format!("{label} {world:?}: others {others:.2}; {}", text.trim_end().replace('\n', "; ")));
    Ok((world::shown(&text), others > QUIET))
}

/// The results of all runs, sorted into figures.
struct Figures {
    cases: [Figure; 3],
    share: Figure,
    probe: Figure,
    shared: Figure,
    drain: Figure,
    /// The worst of all runs of a case, for each quantity: the label of the server, the case, the
    /// quantity, and its number.
    counts: Vec<(String, usize, &'static str, f64)>,
    memory: Vec<String>,
}

impl Figures {
    fn new() -> Self {
        let case = |name, title, how| {
            let x = Axis { label: "part".to_owned(), scale: Scale::Linear, show: row };
            Figure::new(name, [title, how], x, seconds())
        };
        let cases = [
            case(
                "internet-few",
                "Far hosts, a few of them ill",
                "2 % dead, 2 % mute, 3 % tarpits, 8 % grey; 3000 messages",
            ),
            case(
                "internet-more",
                "Far hosts, more of them ill",
                "6 % dead, 6 % mute, 8 % tarpits, 8 % grey; 3000 messages",
            ),
            case("internet-none", "Far hosts, none of them ill", "600 messages for 100 domains"),
        ];
        let share = || Axis { label: "% of all domains that are ill".to_owned(), scale: Scale::Linear, show: whole };
        let how = "100 healthy domains 100 ms away; a quarter each dead, mute, tarpits, grey";
        let share_text = ["Mail for healthy hosts by ill hosts beside them", how];
        let probe_text = ["One message to a healthy host by ill hosts beside it", how];
        let domains = Axis { label: "domains that share one host".to_owned(), scale: Scale::Log, show: whole };
        let shared_text = ["Connections to one host by its domains", "500 messages, 100 ms away"];
        let time = Axis { label: "seconds since the first message".to_owned(), scale: Scale::Linear, show: whole };
        let drain_text = ["A long queue by time", "50,000 messages for 5000 domains 100 ms away; few ill"];
        let linear = |label: &str| Axis { label: label.to_owned(), scale: Scale::Linear, show: plain };
        Self {
            cases,
            share: Figure::new("internet", share_text, share(), linear("seconds until 95 % of it arrived")),
            probe: Figure::new("internet-probe", probe_text, share(), linear("seconds from its 250, 95th percentile")),
            shared: Figure::new("internet-shared", shared_text, domains, linear("most connections at once")),
            drain: Figure::new("internet-drain", drain_text, time, linear("healthy messages a second")),
            counts: Vec::new(),
            memory: Vec::new(),
        }
    }

    fn add(&mut self, label: &str, part: Part, world: &World, shown: &Shown, noisy: bool) {
        let value = |name: &str, at: usize| shown.get(name).and_then(|values| values.get(at)).copied();
        let add = |figure: &mut Figure, x: usize, value: Option<f64>| {
            if let Some(value) = value {
                figure.add(label, x as f64, value, noisy);
            }
        };
        let missing = value("missing", 0).unwrap_or_default();
        match part {
            Part::Case(case) => {
                for (x, (_, name, at)) in ROWS.iter().enumerate() {
                    add(&mut self.cases[case], x, value(name, *at));
                }
                for (what, name) in [
                    ("messages missing at the limit", "missing"),
                    ("connections at once to one address", "connections"),
                ] {
                    self.count(label, case, what, value(name, 0).unwrap_or_default());
                }
            }
            Part::Share(share) => {
                add(&mut self.share, share, value("healthy", 1));
                add(&mut self.probe, share, value("probe", 1));
                if missing > 0.0 {
                    let limit = world.limit;
                    self.share.notes.push(format!(
                        "{label}, {share} %: {missing} messages had not arrived after {limit} s and count as {limit} s"
                    ));
                }
            }
            Part::Shared(domains) => add(&mut self.shared, domains, value("connections", 0)),
            Part::Drain => {
                for (step, rate) in shown.get("rate").into_iter().flatten().enumerate() {
                    add(&mut self.drain, step * STEP, Some(*rate));
                }
                let note = |what: &str, value: Option<f64>| value.map(|v| format!("{label}: {} {what}", plain(v)));
                self.memory.extend(note("octets of memory a queued message", value("memory", 0)));
                self.memory.extend(note("seconds until all was accepted", value("sent", 0)));
                self.memory.extend(note("messages missing at the limit", Some(missing)));
            }
        }
    }

    fn count(&mut self, label: &str, case: usize, what: &'static str, value: f64) {
        let known = self.counts.iter_mut().find(|(l, c, w, _)| (l.as_str(), *c, *w) == (label, case, what));
        match known {
            Some((.., worst)) => *worst = worst.max(value),
            None => self.counts.push((label.to_owned(), case, what, value)),
        }
    }

    fn done(mut self) -> Vec<Figure> {
        for (number, figure) in self.cases.iter_mut().enumerate() {
            let counts = self.counts.iter().filter(|(_, case, ..)| *case == number);
            figure.notes = counts.map(|(label, _, what, value)| format!("{label}: at most {value} {what}")).collect();
            figure.notes.extend(LEGEND.lines().map(str::to_owned));
        }
        self.drain.notes = self.memory;
        let figures = self.cases.into_iter().chain([self.share, self.probe, self.shared, self.drain]);
        figures.filter(|figure| !figure.is_empty()).collect()
    }
}

fn row(number: f64) -> String {
    ROWS.get(number as usize).map_or(String::new(), |(name, ..)| (*name).to_owned())
}

fn seconds() -> Axis {
    Axis { label: "seconds".to_owned(), scale: Scale::Log, show: plain }
}
