//! `penfoldctl top`: a live view of the queue and the traffic.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::{Call, Command, Flag, ask};
use crate::cli::failed;
use crate::config::Config;
use crate::control;
use crate::exit::Exit;

pub(super) const COMMAND: Command = Command {
    name: "top",
    about: "show the queue and the traffic, and refresh the view",
    flags: &[
        Flag { short: "d", long: "delay", hint: "seconds", about: "wait this long between two views" },
        Flag { short: "n", long: "count", hint: "number", about: "end after this number of views" },
    ],
    run,
    ..Command::NONE
};

/// The default time between two views.
const DELAY: Duration = Duration::from_secs(2);
/// The width of a view.
const WIDTH: usize = 79;
/// The rows of traffic: the name in the daemon's answer, and the words.
const TRAFFIC: [(&str, &str); 7] = [
    ("connected", "connections"),
    ("accepted", "accepted"),
    ("octets", "octets"),
    ("delivered", "delivered"),
    ("deferred", "deferred"),
    ("failed", "failed"),
    ("refused", "refused"),
];

/// The numbers of one moment.
#[derive(Debug, Default)]
struct Sample {
    numbers: HashMap<String, u64>,
    /// The time in the zone of the daemon.
    clock: String,
    /// The destinations with the most jobs: jobs, running jobs, the oldest age, and the name.
    destinations: Vec<(u64, u64, u64, String)>,
}

fn run(call: &Call) -> Result<(), Exit> {
    call.words(0)?;
    let number = |name: &str, most: u64| match call.options.opt_str(name) {
        None => Ok(None),
        Some(text) => match text.parse().ok().filter(|number| (1..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(call.usage(&format!("--{name} '{text}': expected a number from 1 to {most}"))),
        },
    };
    let delay = number("delay", 3600)?.map_or(DELAY, Duration::from_secs);
    let is_live = io::stdout().is_terminal() && io::stdin().is_terminal();
    // A program that reads the output gets one view.
    let count = number("count", u64::MAX)?.or(if is_live { None } else { Some(1) });
    let config = call.start.load()?;
    let mut last = sample(&config)?;
    let screen = if is_live { Screen::open().ok() } else { None };
    let mut began = Instant::now();
    let mut text = view(&last, None);
    for views in 1.. {
        match show(&text, screen.is_some()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => break,
            result => result.map_err(|e| failed("write the view", &e))?,
        }
        if count.is_some_and(|count| views >= count) || wait(delay, screen.is_some()) {
            break;
        }
        let next = sample(&config)?;
        text = view(&next, Some((&last, began.elapsed())));
        (last, began) = (next, Instant::now());
    }
    Ok(())
}

/// Asks the daemon for the numbers.
fn sample(config: &Config) -> Result<Sample, Exit> {
    let mut answer = Vec::new();
    ask(config, &["stats", "raw", "-", "-", "-"], &mut answer, "see the statistics")?;
    Ok(Sample::parse(&String::from_utf8_lossy(&answer)))
}

/// Waits until the next view. Returns true if the user wants to quit.
fn wait(delay: Duration, is_live: bool) -> bool {
    let deadline = Instant::now() + delay;
    if !is_live {
        thread::sleep(delay);
        return false;
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let stdin = io::stdin();
        let mut wanted = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => return false,
            Ok(_) => {
                let mut key = [0];
                match stdin.lock().read(&mut key) {
                    // 3 is Ctrl-C, and 4 is Ctrl-D.
                    Ok(1) if !matches!(key, [b'q' | b'Q' | 3 | 4]) => return false,
                    _ => return true,
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}

/// Writes a view, on a terminal in the place of the last one.
fn show(text: &str, is_live: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if is_live {
        out.write_all(b"\x1b[H")?;
        // Each line replaces the one of the last view, and the rest of the screen is cleared.
        text.lines().try_for_each(|line| write!(out, "{line}\x1b[K\r\n"))?;
        out.write_all(b"\x1b[J")?;
    } else {
        writeln!(out, "{text}")?;
    }
    out.flush()
}

/// A guard: while it exists, the terminal shows a screen of its own, and keys are read at once.
struct Screen(Termios);

impl Screen {
    fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut keys = before.clone();
        keys.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &keys)?;
        io::stdout().write_all(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Self(before))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = io::stdout().write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

impl Sample {
    /// Reads the daemon's answer. Lines that are malformed are skipped.
    fn parse(text: &str) -> Self {
        let mut sample = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.splitn(5, ' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            match words.as_slice() {
                ["destination", .., name] if words.len() == 5 => {
                    let numbers = (number(1).unwrap_or(0), number(2).unwrap_or(0), number(3).unwrap_or(0));
                    sample.destinations.push((numbers.0, numbers.1, numbers.2, (*name).to_owned()));
                }
                ["clock", ..] => sample.clock = line.split_at("clock ".len()).1.chars().take(WIDTH / 2).collect(),
                [name, _] => drop(sample.numbers.insert((*name).to_owned(), number(1).unwrap_or(0))),
                _ => {}
            }
        }
        sample
    }

    fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }
}

/// Returns a view as text. `last` is the sample before, and the time since then.
fn view(sample: &Sample, last: Option<(&Sample, Duration)>) -> String {
    let n = |name| sample.number(name);
    let up = n("now").saturating_sub(n("started"));
    let mut out = String::new();
    // Writing to a string cannot fail.
    let title = format!("penfoldd, up {}", span(up));
    let messages = n("messages") + n("held");
    let _ = writeln!(out, "{title:<40}{:>39}", sample.clock);
    let _ = writeln!(
        out,
        "queue        {messages} message{}, {}; oldest {}; {} held",
        if messages == 1 { "" } else { "s" },
        control::octets(n("queue_octets")),
        span(n("oldest")),
        n("held")
    );
    let _ = writeln!(out, "attempts     {} running, {} ready, {} deferred", n("running"), n("ready"), n("waiting"));
    let _ = writeln!(
        out,
        "workers      {} of {} busy; {} connections from clients",
        n("running"),
        n("workers"),
        n("connections")
    );
    let _ = writeln!(out, "destinations {} up, {} new, {} slow, {} down", n("up"), n("new"), n("slow"), n("down"));
    let _ = writeln!(out, "\n{:<14}{:>12}{:>14}{:>14}", "", "a second", "an hour", "since start");
    for (name, words) in TRAFFIC {
        // The first view shows the mean since the start.
        let (count, time) = match last {
            Some((last, time)) => (n(name).saturating_sub(last.number(name)), time.as_secs_f64()),
            None => (n(name), up as f64),
        };
        let rate = count as f64 / time.max(0.001);
        let _ = writeln!(out, "{words:<14}{rate:>12.1}{:>14.0}{:>14}", rate * 3600.0, n(name));
    }
    if !sample.destinations.is_empty() {
        let _ = writeln!(out, "\n{:>8} {:>8} {:>8}  destination", "attempts", "running", "oldest");
    }
    for (jobs, running, oldest, name) in &sample.destinations {
        let _ = writeln!(out, "{jobs:>8} {running:>8} {:>8}  {name}", span(*oldest));
    }
    let cut = |line: &str| line.chars().take(WIDTH).collect::<String>();
    out.lines().map(|line| cut(line) + "\n").collect()
}

/// Returns a time span in its two largest units.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_shows_the_difference_between_two_samples() {
        let first = Sample::parse("now 1000\nstarted 0\naccepted 100\nbogus\ndestination 1\n");
        assert!(view(&first, None).contains("accepted               0.1           360           100\n"));
        let text = "clock 2026-11-22 11:15:00 CET\nnow 1010\nstarted 0\naccepted 150\nmessages 6\nheld 1\nwaiting 5\nworkers 200\ndestination 5 2 7200 a b.example\n";
        let next = Sample::parse(text);
        let view = view(&next, Some((&first, Duration::from_secs(10))));
        assert!(view.lines().next().is_some_and(|line| line.ends_with(" 2026-11-22 11:15:00 CET")), "{view}");
        assert!(view.contains("accepted               5.0         18000           150\n"), "{view}");
        assert!(
            view.contains(" 7 messages, ") && view.contains("; 1 held\n") && view.contains(" 5 deferred\n"),
            "{view}"
        );
        assert!(
            view.contains("       5        2  2 h 0 min  a b.example\n") || view.contains("2 h 0 min  a b.example"),
            "{view}"
        );
        assert!(view.lines().all(|line| line.len() <= WIDTH), "{view}");
    }
}
