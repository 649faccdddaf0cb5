//! Power cuts: acknowledged mail survives, once and complete.
//!
//! Clients send to a penfoldd whose spool and mailboxes are on ext4, xfs or btrfs, together or on
//! one file system each. The mailboxes are the server's own, or in home directories of system
//! users. Those of a second domain, with users and aliases of its own, are always on the file system
//! of the spool. At a random moment the power is cut: the disk keeps all writes that it has received, or
//! only flushed ones. penfoldd is started on the result. When its spool is empty, the test counts
//! the letters that were acknowledged before the cut and are lost. It also counts those that are
//! duplicated, damaged, or delivered to only some of their recipients. Many clients make many
//! states. A single client that sends one letter at a time shows a missing sync, since no other
//! client syncs.
//!
//! PENFOLD_CUTS is the number of cuts; `make powercut` makes a thousand, and prints the table. The
//! tests need root, xfsprogs, btrfs-progs and loop devices; otherwise they are reported as skipped.
//!
//! - `audit`: the fate of every letter
//! - `disks`: disks with power cuts
//! - `host`: a mail host on such disks
//! - `load`: clients that send until the power is cut
//! - `missing`: each sync is left out
//! - `people`: the recipients

mod audit;
mod disks;
mod host;
mod load;
mod missing;
mod people;

use std::thread;

use audit::Tally;
use common::Daemon;
use disks::{Cut, Layout, Moment};
use host::Host;
use load::{Chance, Load, Offered};
use people::People;

const FILE_SYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
const LAYOUTS: [Layout; 2] = [Layout::One, Layout::Two];
const PACES: [Pace; 2] = [Pace::Dense, Pace::Sparse];
/// The number of combinations: two kinds of cut, two kinds of mailboxes, and the lists above.
const CELLS: usize = 4 * PACES.len() * LAYOUTS.len() * FILE_SYSTEMS.len();

/// How fast the clients send mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Several clients send at once.
    Dense,
    /// One client sends one letter at a time.
    Sparse,
}

#[test]
fn acknowledged_mail_survives_where_all_writes_do() {
    survives(People::Virtual, Cut::Given, 2);
}

#[test]
fn acknowledged_mail_survives_where_flushed_writes_do() {
    survives(People::Virtual, Cut::Flushed, 2);
}

#[test]
fn acknowledged_mail_survives_in_home_directories_where_all_writes_do() {
    survives(People::System, Cut::Given, 1);
}

#[test]
fn acknowledged_mail_survives_in_home_directories_where_flushed_writes_do() {
    survives(People::System, Cut::Flushed, 1);
}

/// Makes as many cuts as PENFOLD_CUTS says, or `some` of each kind. Asserts that no cut does harm.
fn survives(people: People, cut: Cut, some: usize) {
    let number = |cuts: String| cuts.parse::<usize>().expect("a number").div_ceil(CELLS);
    let wanted = std::env::var("PENFOLD_CUTS").map_or(some, number);
    let mut table = format!("kept    for     load   systems files {}\n", Tally::HEAD);
    let mut sum = Tally::default();
    for pace in PACES {
        for layout in LAYOUTS {
            for file_system in FILE_SYSTEMS {
                let plan = Plan { people, cut, pace, layout, file_system };
                let Some(tally) = plan.tally(wanted) else { return };
                let [cut, pace, layout] = [format!("{cut:?}"), format!("{pace:?}"), format!("{layout:?}")];
                let people = format!("{people:?}");
                table += &format!("{cut:7} {people:7} {pace:6} {layout:7} {file_system:5} {tally}\n").to_lowercase();
                sum += tally;
            }
        }
    }
    println!("{table}{:35} {sum}", "in all");
    assert!(sum.acknowledged > 0);
    assert!(sum.is_clean(), "{table}");
}

/// The circumstances of a power cut.
#[derive(Debug, Clone, Copy)]
struct Plan {
    people: People,
    cut: Cut,
    pace: Pace,
    layout: Layout,
    file_system: &'static str,
}

/// A power cut that was made.
struct Made {
    moment: Moment,
    /// The number of messages that the remote host had accepted at the time of the cut.
    sent: usize,
}

impl Plan {
    /// Makes `wanted` cuts, and returns the sum of their counts. `None` where cuts are not
    /// possible.
    fn tally(self, wanted: usize) -> Option<Tally> {
        let mut tally = Tally::default();
        while tally.cuts < wanted {
            tally += self.round(wanted - tally.cuts)?;
        }
        Some(tally)
    }

    /// Sends mail to empty disks, cuts the power up to `wanted` times, and counts the results.
    fn round(self, wanted: usize) -> Option<Tally> {
        let mut host = Host::new(self.file_system, self.people, self.layout, self.cut)?;
        let daemon = host.start(&std::env::var("PENFOLD_FAULT").unwrap_or_default());
        // A cut that clones the image does not end the disks, so another cut can follow; the other
        // kind ends them.
        let cuts = if self.cut == Cut::Given { wanted.min(6) } else { 1 };
        let (offered, made) = self.send_and_cut(&mut host, daemon, cuts);
        host.disks.power_off();
        let mut tally = Tally::default();
        for (number, cut) in made.into_iter().enumerate() {
            let arrived = host.disks.after_cut(number, || host.settle(cut.sent));
            tally += arrived.audit(&offered, cut.moment);
        }
        Some(tally)
    }

    fn send_and_cut(self, host: &mut Host, daemon: Daemon, cuts: usize) -> (Vec<Offered>, Vec<Made>) {
        let mut chance = Chance::new();
        let load = Load::new(daemon.address(), host.paths(), self.people.kinds(), chance.below(1000));
        let (mut offered, mut made) = (Vec::new(), Vec::new());
        thread::scope(|scope| {
            let count = if self.pace == Pace::Dense { 5 } else { 0 };
            let clients: Vec<_> = (0..count).map(|_| scope.spawn(|| load.client())).collect();
            for number in 1..=cuts {
                let lever = host.disks.lever();
                if self.pace == Pace::Sparse {
                    offered.extend((0..=chance.below(4)).map(|_| load.taken()));
                }
                chance.wait(if self.pace == Pace::Sparse { 300 } else { 1500 });
                if number == cuts {
                    load.end();
                }
                made.push(Made { moment: lever.pull(), sent: host.sent() });
            }
            daemon.kill9();
            offered.extend(clients.into_iter().flat_map(|client| client.join().expect("a client")));
        });
        (offered, made)
    }
}
