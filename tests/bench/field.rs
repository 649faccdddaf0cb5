//! Servers in comparison: one measurement, and many in alternation.
//!
//! All servers run at once, each at rest while another is measured, so that changes of the machine affect
//! all of them. Every measurement begins with a message in each session, as a warm-up, and with
//! a synced disk. One during which other processes had more than a quarter of a processor is
//! repeated while there is time, and the quieter one counts. It fails if a server rejects a
//! message, or does not deliver one in time.

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
use crate::server::{BOXES, Server, local};
use crate::sink::Sink;

/// Mailboxes from this one on are for messages to one recipient, others in each measurement; those below
/// are for messages to many.
const SINGLE: usize = 1000;
/// The processors that other processes may use in a quiet measurement.
const QUIET: f64 = 0.25;
/// The longest time without a delivery.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(4);
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// The recipients.
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
    /// The number of sessions, or of threads for the floor.
    pub sessions: usize,
    /// The octets of a message.
    pub size: usize,
    /// Whether sessions send many messages.
    pub reuse: bool,
    /// The recipients.
    pub to: To,
}

/// The result, in messages, whatever the number of their recipients.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Acknowledged messages per second.
    pub accepted: f64,
    /// Completely delivered messages per second.
    pub delivered: f64,
    /// Milliseconds of processor time per message.
    pub cpu: f64,
    /// The processors that other processes used.
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
    /// The name in tables.
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
    /// penfold, Postfix if it is available, and the floor on request.
    ///
    /// # Errors
    /// If one of them does not start.
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

    /// Measures all cases with all contestants, in every round in another order; `record` gets the label, the
    /// number of the case, and the result.
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

/// Sends a case's load to a server, and waits until all of it has arrived.
///
/// # Errors
/// Errors of the load, and `TimedOut`.
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

/// When this many had arrived.
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
        // Polling must not use the processor time that is measured.
        thread::sleep(POLL_INTERVAL.max(5 * look.elapsed()));
    }
}

/// Earlier writes must not be charged to the next measurement.
fn settle(bench: &Bench) -> io::Result<()> {
    syncfs(File::open(&bench.scratch)?)?;
    thread::sleep(SETTLE_TIME);
    Ok(())
}
