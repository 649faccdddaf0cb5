//! The power goes: what got a 250 is there, once and whole.
//!
//! Clients send to a penfoldd whose spool and mailboxes are on ext4, xfs or btrfs,
//! together or on one each; the mailboxes are the server's own, or in the homes of users of
//! the system (see `people`). At a random moment the power is cut (see `disks`): so
//! that the disk keeps all that it was given, or only what it was told to flush.
//! Penfoldd is started on what is left, and when it has settled everything, every
//! letter is counted: of those whose 250 had been read before the cut, lost; of all,
//! doubled, damaged, or there for a part of their recipients. Many clients make many
//! states; one client that sends a letter at a time shows a sync that is missing, for
//! nobody else syncs. `missing` leaves the syncs out.
//!
//! PENFOLD_CUTS is how many cuts are made in all; `make powercut` makes a thousand,
//! and prints the table. Needs root, xfsprogs, btrfs-progs and loop devices, and says
//! `skipped` without.

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
/// Both kinds of cut, and both kinds of mailboxes.
const CELLS: usize = 4 * PACES.len() * LAYOUTS.len() * FILE_SYSTEMS.len();

/// How the mail comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// From several clients at once.
    Dense,
    /// A letter at a time.
    Sparse,
}

#[test]
fn what_got_a_250_survives_where_the_disk_keeps_what_it_was_given() {
    survives(People::Virtual, Cut::Given, 2);
}

#[test]
fn what_got_a_250_survives_where_the_disk_keeps_only_what_it_was_told_to_flush() {
    survives(People::Virtual, Cut::Flushed, 2);
}

#[test]
fn what_got_a_250_comes_home_where_the_disk_keeps_what_it_was_given() {
    survives(People::System, Cut::Given, 1);
}

#[test]
fn what_got_a_250_comes_home_where_the_disk_keeps_only_what_it_was_told_to_flush() {
    survives(People::System, Cut::Flushed, 1);
}

/// Makes PENFOLD_CUTS in all, or `some` of each kind.
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

/// What is cut, and how.
#[derive(Debug, Clone, Copy)]
struct Plan {
    people: People,
    cut: Cut,
    pace: Pace,
    layout: Layout,
    file_system: &'static str,
}

/// A cut that was made.
struct Made {
    moment: Moment,
    /// How many messages the remote peer had got by then.
    sent: usize,
}

impl Plan {
    /// Makes some cuts; `None` where they cannot be made.
    fn tally(self, wanted: usize) -> Option<Tally> {
        let mut tally = Tally::default();
        while tally.cuts < wanted {
            tally += self.round(wanted - tally.cuts)?;
        }
        Some(tally)
    }

    /// Fresh disks, mail, one or more cuts, and what they left.
    fn round(self, wanted: usize) -> Option<Tally> {
        let mut host = Host::new(self.file_system, self.people, self.layout, self.cut)?;
        let daemon = host.start(&std::env::var("PENFOLD_FAULT").unwrap_or_default());
        // Only where the image is cloned there is something to go on with.
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
        let load = Load::new(daemon.address(), self.people.kinds(), chance.below(1000));
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
