//! Measures servers in comparison: one measurement at a time, the servers in alternation.
//!
//! All servers run at once, each at rest while another is measured, so that changes of the machine
//! affect all of them. Every measurement begins with a message in each session, as a warm-up, and
//! with a synced disk. If other processes used more than a quarter of a processor during a
//! measurement, the measurement is repeated while there is time, and the quieter of the two counts.
//! A measurement fails if the server rejects a message, or does not deliver a message in time.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::syncfs;

use crate::Bench;
use crate::floor;
use crate::load::{Load, Sent};
use crate::machine::{self, Watch};
use crate::server::{self, BOXES, Server, local};
use crate::sink::Sink;

/// The first mailbox for messages to one recipient; each measurement uses the next mailbox. The
/// mailboxes below this number are for messages to many recipients.
const SINGLE: usize = 1000;
/// The processors that other processes may use in a quiet measurement.
const QUIET: f64 = 0.25;
/// The longest time that a measurement waits without a new delivery.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(4);
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// The recipients of each message.
#[derive(Debug, Clone, Copy)]
pub enum To {
    /// This many mailboxes.
    Local(usize),
    /// This many recipients at other hosts.
    Elsewhere(usize),
}

/// The load of a case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The number of sessions. For the floor, the disk without a mail server: the number of
    /// threads.
    pub sessions: usize,
    /// The octets of a message.
    pub size: usize,
    /// Whether a session sends many messages; otherwise each message has a new connection.
    pub reuse: bool,
    /// The recipients.
    pub to: To,
}

/// The result of a measurement. A message counts once, whatever the number of its recipients.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Acknowledged messages per second.
    pub accepted: f64,
    /// Completely delivered messages per second.
    pub delivered: f64,
    /// Milliseconds of processor time per message.
    pub cpu: f64,
    /// The average number of processors that other processes used.
    pub others: f64,
}

impl Measured {
    /// Whether other processes disturbed the measurement.
    pub fn is_noisy(&self) -> bool {
        self.others > QUIET
    }
}

/// A measured server, or the floor.
pub enum Contestant {
    /// A mail server.
    Server(&'static str, Box<Server>),
    /// The disk without a mail server.
    Floor(PathBuf),
}

impl Contestant {
    /// The name of the contestant in tables.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Server(label, _) => label,
            Self::Floor(_) => "floor",
        }
    }
}

/// The contestants.
pub struct Field {
    sink: Sink,
    contestants: Vec<Contestant>,
    turn: usize,
}

impl Field {
    /// Starts penfold, Postfix if it is available, and the floor if `with_floor`.
    ///
    /// # Errors
    /// If one of the servers does not start.
    pub fn start(bench: &Bench, with_floor: bool) -> io::Result<Self> {
        let sink = Sink::start()?;
        let penfold = Server::own_penfold(&bench.scratch, sink.address)?;
        let mut contestants = vec![Contestant::Server("penfold", Box::new(penfold))];
        if let Some(tree) = &bench.postfix {
            let postfix = Server::postfix(tree, &bench.scratch, sink.address, &[])?;
            contestants.push(Contestant::Server("Postfix", Box::new(postfix)));
        }
        if with_floor {
            contestants.push(Contestant::Floor(bench.scratch.clone()));
        }
        Ok(Self { sink, contestants, turn: 0 })
    }

    /// Starts penfold, penfold with this many tables `[[domain]]`, and penfold with a quota.
    ///
    /// # Errors
    /// If one of the servers does not start.
    pub fn of_domains(bench: &Bench, tables: usize) -> io::Result<Self> {
        let sink = Sink::start()?;
        let one = Server::own_penfold(&bench.scratch, sink.address)?;
        let many = Server::penfold_of(server::site_of_domains(&bench.scratch, sink.address, tables))?;
        let mut site = server::site(&bench.scratch, sink.address);
        site.set("local", "quota", "\"100G\"");
        let limited = Server::penfold_of(site)?;
        let contestants = [("[local]", one), ("[[domain]]", many), ("quota", limited)];
        let contestants = contestants.map(|(label, server)| Contestant::Server(label, Box::new(server)));
        Ok(Self { sink, contestants: contestants.into(), turn: 0 })
    }

    /// Measures all cases with all contestants, whose order changes with every round. `record` gets
    /// the label of the contestant, the number of the case, and the result.
    ///
    /// # Errors
    /// Errors of the measurements.
    pub fn alternate(
        &mut self,
        bench: &Bench,
        cases: &[Case],
        mut record: impl FnMut(&str, usize, Measured),
    ) -> io::Result<()> {
        let mut spent = Duration::ZERO;
        for round in 0..bench.rounds {
            for (number, case) in cases.iter().enumerate() {
                for place in 0..self.contestants.len() {
                    self.turn += 1;
                    let contestant = &self.contestants[(place + round) % self.contestants.len()];
                    let mut measured = self.measure(bench, contestant, case)?;
                    if measured.is_noisy() && spent < bench.repeats {
                        let start = Instant::now();
                        let again = self.measure(bench, contestant, case)?;
                        measured = if again.others < measured.others { again } else { measured };
                        spent += start.elapsed();
                    }
                    bench.tell(&format!("{} {case:?}: {measured:?}", contestant.label()));
                    record(contestant.label(), number, measured);
                }
            }
        }
        Ok(())
    }

    fn measure(&self, bench: &Bench, contestant: &Contestant, case: &Case) -> io::Result<Measured> {
        bench.go_on()?;
        match contestant {
            Contestant::Server(label, server) => {
                serve(bench, server, case, &self.sink, self.turn).map_err(|e| io::Error::other(format!("{label}: {e}")))
            }
            Contestant::Floor(dir) => {
                settle(bench)?;
                let (watch, cpu) = (Watch::start(None), machine::own_cpu());
                let sent = floor::measure(dir, case.sessions, case.size, bench.time, bench.most(case.size))?;
                let (rate, cpu) = (sent.rate(sent.last), machine::own_cpu() - cpu);
                let cpu = cpu * 1e3 / sent.messages as f64;
                Ok(Measured { accepted: rate, delivered: rate, cpu, others: watch.others() })
            }
        }
    }
}

/// Sends a case's load to a server, and waits until all of it has arrived. `turn` selects the
/// mailbox for messages to one recipient.
///
/// # Errors
/// Errors of the load; `TimedOut` if nothing has arrived for [`TIMEOUT`].
pub fn serve(bench: &Bench, server: &Server, case: &Case, sink: &Sink, turn: usize) -> io::Result<Measured> {
    let boxes: Vec<usize> = match case.to {
        To::Local(1) => vec![SINGLE + turn % (BOXES - SINGLE)],
        To::Local(count) => (0..count).collect(),
        To::Elsewhere(_) => Vec::new(),
    };
    let recipients: Vec<String> = match case.to {
        To::Local(_) => boxes.iter().copied().map(local).collect(),
        To::Elsewhere(count) => (0..count).map(|number| format!("m{number}@elsewhere.test")).collect(),
    };
    let arrived = || if boxes.is_empty() { sink.taken() } else { server.arrived(&boxes) };
    let Case { sessions, size, reuse, .. } = *case;
    let (time, most) = (bench.time, bench.most(size));
    let load = Load { sessions, size, recipients, reuse, time, most };

    let first = load.recipients[..1].to_vec();
    let warm = Load { size: 512, recipients: first, reuse: true, time: Duration::ZERO, most: sessions, ..load.clone() };
    let before = arrived();
    let sent = warm.send(server.address)?;
    wait_for(&arrived, before + sent.messages)?;
    settle(bench)?;

    let (watch, cpu, before) = (Watch::start(Some(server.root())), machine::cpu(&server.pids()), arrived());
    let sent: Sent = load.send(server.address)?;
    let end = wait_for(&arrived, before + sent.messages * load.recipients.len())?.max(sent.last);
    let cpu = (machine::cpu(&server.pids()) - cpu) * 1e3 / sent.messages as f64;
    Ok(Measured { accepted: sent.rate(sent.last), delivered: sent.rate(end), cpu, others: watch.others() })
}

/// Waits until `wanted` messages have arrived, and returns the time at which they had.
fn wait_for(arrived: &dyn Fn() -> usize, wanted: usize) -> io::Result<Instant> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let look = Instant::now();
        let now = arrived();
        if now >= wanted {
            return Ok(look);
        }
        if now > last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > TIMEOUT {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{now} of {wanted} arrived")));
        }
        // Polling uses at most a sixth of a processor, since processor time is measured.
        thread::sleep(POLL_INTERVAL.max(5 * look.elapsed()));
    }
}

/// Waits until earlier writes are on the disk, so that they do not slow down the next measurement.
fn settle(bench: &Bench) -> io::Result<()> {
    syncfs(File::open(&bench.scratch)?)?;
    thread::sleep(SETTLE_TIME);
    Ok(())
}
