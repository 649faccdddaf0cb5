//! The benchmark measures messages per second, processor time and memory of the real daemon. It
//! varies the number of sessions, the size of messages, the number of recipients and the length of
//! the queue, and compares penfold with Postfix and with the bare disk.
//!
//! `make bench` runs it; penfold-performance(7) explains the figures. It writes a table, the
//! samples and a plot of each figure to `bench/` in cargo's target directory, prints the tables,
//! and removes its scratch directory. It fails if mail is rejected or lost, never because it is
//! slow.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use getopts::Options;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};

#[allow(dead_code, reason = "another test uses the rest")]
mod field;
mod floor;
mod hosts;
mod internet;
mod load;
mod machine;
mod names;
mod queue;
mod series;
mod server;
mod sink;
mod together;
mod world;

use common::figure::Figure;

type Series = fn(&Bench) -> io::Result<Vec<Figure>>;

/// The name of each series, and the function that measures it.
const SERIES: &[(&str, Series)] = &[
    ("sessions", series::sessions),
    ("connections", series::connections),
    ("relay", series::relay),
    ("domains", series::domains),
    ("size", series::size),
    ("recipients", series::recipients),
    ("queue", series::queue),
    ("memory", series::memory),
    ("calls", series::calls),
    ("hosts", together::hosts),
    ("internet", internet::internet),
];

/// The most octets of mail that one measurement sends, not counting the first message of each
/// session.
const MOST_OCTETS: usize = 128 << 20;
/// The pause between two series, because the disk is busy for a while after files were deleted.
const REST: Duration = Duration::from_secs(2);

/// The parameters of the measurements.
#[derive(Clone)]
pub struct Bench {
    /// A directory on the measured disk.
    scratch: PathBuf,
    /// How many times each point of a figure is measured.
    rounds: usize,
    /// The duration of each measurement.
    time: Duration,
    /// The most messages of a measurement. Large messages have a lower limit, from `MOST_OCTETS`.
    least: usize,
    /// The number of points of each series.
    points: usize,
    /// The total time that each series may spend on repeating noisy measurements.
    repeats: Duration,
    /// Whether system calls and instructions are counted, by a server under strace or valgrind.
    watches: bool,
    /// Whether to include points that take minutes.
    extreme: bool,
    /// Whether the result of each measurement is printed at once.
    tells: bool,
    postfix: Option<PathBuf>,
    /// Set by SIGINT and SIGTERM, to end the run.
    stopped: Arc<AtomicBool>,
}

impl Bench {
    fn points(&self, all: &[usize]) -> Vec<usize> {
        all.iter().copied().take(self.points).collect()
    }

    fn most(&self, size: usize) -> usize {
        self.least.min(MOST_OCTETS / size).max(1)
    }

    /// Fails if the run is to end.
    ///
    /// # Errors
    /// `Interrupted` after a signal; the caller returns it, so that servers and files are removed
    /// in order.
    fn go_on(&self) -> io::Result<()> {
        if self.stopped.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn tell(&self, text: &str) {
        if self.tells {
            eprintln!("{text}");
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    // The series `internet` starts this program with `--world` for each of its runs.
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [flag, label, world, scratch] = &arguments[..]
        && flag == "--world"
    {
        return world::run(label, world, scratch.as_ref());
    }
    let mut options = Options::new();
    options
        .optflag("", "bench", "given by cargo bench; nothing is done without it")
        .optopt("r", "rounds", "measure each point so often (3)", "N")
        .optopt("t", "time", "for so long (0.7)", "SECONDS")
        .optflag(
            "x",
            "extreme",
            "with 1,000,000 deferred messages, 5,000 idle sessions, 50,000 messages to 5,000 domains",
        )
        .optflag("v", "verbose", "tell each measurement")
        .optflag("h", "help", "this");
    let given = options.parse(arguments).map_err(io::Error::other)?;
    let names: Vec<_> = SERIES.iter().map(|(name, _)| *name).collect();
    if given.opt_present("h") {
        println!("{}", options.usage(&format!("make bench ARGS='[options] [smoke] [{}]'", names.join("] ["))));
        return Ok(());
    }
    if !given.opt_present("bench") {
        return Ok(());
    }
    if let Some(name) = given.free.iter().find(|name| *name != "smoke" && !names.contains(&name.as_str())) {
        return Err(io::Error::other(format!("{name}: expected smoke, {}", names.join(", "))));
    }
    let number =
        |name, default| given.opt_get_default(name, default).map_err(|e| io::Error::other(format!("-{name}: {e}")));
    let is_smoke = given.free.iter().any(|name| name == "smoke");
    let wanted: Vec<_> = given.free.iter().map(String::as_str).filter(|name| *name != "smoke").collect();
    let (rounds, seconds) = (number("r", 3.0)?, number("t", 0.7)?);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    let parent = env::var_os("BENCH_DIR").map_or_else(|| out.clone(), PathBuf::from);
    let mut bench = Bench {
        scratch: parent.join("scratch"),
        rounds: rounds as usize,
        time: Duration::from_secs_f64(seconds),
        least: usize::MAX,
        points: usize::MAX,
        repeats: Duration::from_secs(20),
        watches: true,
        extreme: given.opt_present("x"),
        tells: given.opt_present("v"),
        postfix: server::unpacked_postfix(),
        stopped: Arc::default(),
    };
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&bench.stopped))?;
    }
    if is_smoke {
        let time = Duration::from_millis(50);
        bench = Bench { rounds: 1, time, least: 8, points: 2, repeats: Duration::ZERO, watches: false, ..bench };
    }
    measure(bench, &out, &wanted, is_smoke)
}

fn measure(mut bench: Bench, out: &Path, wanted: &[&str], is_smoke: bool) -> io::Result<()> {
    fs::create_dir_all(out)?;
    // Two runs would disturb each other, and remove each other's files.
    let alone = fs::File::create(out.join("lock"))?;
    alone.try_lock().map_err(|_| io::Error::other("another run has not ended"))?;
    let scratch = Scratch::make(&bench.scratch)?;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If the limit cannot be raised, the sessions beyond it fail, and the run ends with their
        // error.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let facts = facts(&bench)?;
    println!("{}\n", facts.join("\n"));
    fs::write(out.join("machine.txt"), facts.join("\n") + "\n")?;
    let start = Instant::now();
    for (name, series) in SERIES.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        let figures = series(&bench).map_err(|e| io::Error::other(format!("{name}: {e}")))?;
        for figure in figures {
            keep(&figure, out, &facts)?;
        }
        if is_smoke {
            // Postfix starts slowly, so a smoke test starts it only for the first series.
            bench.postfix = None;
        }
        scratch.clear()?;
        thread::sleep(if is_smoke { Duration::ZERO } else { REST });
    }
    println!("{:.0} seconds; tables and plots are in {}", start.elapsed().as_secs_f64(), out.display());
    Ok(())
}

/// The scratch directory, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty directory. The files of a run that was killed are removed first.
    fn make(path: &Path) -> io::Result<Self> {
        let scratch = Self(path.to_owned());
        scratch.clear()?;
        Ok(scratch)
    }

    fn clear(&self) -> io::Result<()> {
        self.remove()?;
        fs::create_dir_all(&self.0)?;
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755))?;
        nix::unistd::sync();
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        if self.0.exists() { fs::remove_dir_all(&self.0) } else { Ok(()) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn facts(bench: &Bench) -> io::Result<Vec<String>> {
    let mut facts = machine::facts(&bench.scratch);
    let sent = floor::measure(&bench.scratch, 1, 4096, bench.time, bench.most(4096))?;
    facts.push(format!("disk          {:.0} durable 4 KiB files a second, one after the other", sent.rate(sent.last)));
    facts.push(format!("penfold       {}", machine::said(env!("CARGO_BIN_EXE_penfoldd"), &["-V"])));
    if let Some(tree) = &bench.postfix {
        let libraries = format!("LD_LIBRARY_PATH={}", tree.join("usr/lib/postfix").display());
        let postconf = tree.join("usr/sbin/postconf");
        facts.push(format!(
            "Postfix       {}",
            machine::said("env", &[&libraries, &postconf.to_string_lossy(), "-d", "mail_version"])
        ));
    }
    facts.push(format!("measured      {} rounds of {:?} a point, ~ where others were busy", bench.rounds, bench.time));
    Ok(facts)
}

fn keep(figure: &Figure, out: &Path, facts: &[String]) -> io::Result<()> {
    let table = figure.table();
    println!("{table}");
    let short = facts.iter().filter_map(|fact| fact.split_once("  ")).map(|(_, fact)| fact.trim());
    let footer = short.clone().take(3).collect::<Vec<_>>().join("; ");
    fs::write(out.join(format!("{}.txt", figure.name)), table)?;
    fs::write(out.join(format!("{}.tsv", figure.name)), figure.tsv())?;
    fs::write(out.join(format!("{}.svg", figure.name)), figure.svg(&footer))
}
