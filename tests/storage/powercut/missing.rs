//! Each sync, left out: what that costs.
//!
//! A debug build can leave a system call out (`sys::fault`). The scenes here do so
//! with one sync each, bring the message to the point from which that sync protects
//! it, and cut the power, so that the disk keeps only what it was told to flush. Each
//! must cost something, or the power-cut test could not fail; and the same scene costs
//! nothing with the sync. Syncs that none of these file systems needs are argued for
//! in `spool/mod.rs`.

use std::thread;
use std::time::Duration;

use super::audit::Tally;
use super::disks::{Cut, Layout};
use super::host::Host;
use super::load::{Offered, send};
use super::people::People;
use common::Daemon;

/// A message on its way to where a sync is missed.
struct Scene {
    /// The sync, as in spool/mod.rs.
    sync: &'static str,
    /// How PENFOLD_FAULT leaves it out; if there is a restart, after it.
    left_out: &'static str,
    /// What else goes wrong.
    faults: &'static str,
    /// What goes wrong after a restart.
    faults_again: &'static str,
    people: People,
    layout: Layout,
    file_system: &'static str,
    steps: &'static [Step],
    /// What the missing sync costs.
    cost: fn(&Tally) -> usize,
}

/// What happens before the cut.
enum Step {
    /// A letter to a recipient is acknowledged.
    Letter(&'static str),
    /// One whose client never hears of it.
    Crash(&'static str),
    /// The daemon is started again.
    Restart,
    /// These words are in a line of the log.
    Logged(&'static [&'static str]),
    /// The owners of the mailboxes read their mail.
    Read,
    /// What is made from now on has another name.
    NextSecond,
}

use Step::{Crash, Letter, Logged, NextSecond, Read, Restart};

const PLAIN: Scene = Scene {
    sync: "",
    left_out: "",
    faults: "",
    faults_again: "",
    people: People::Virtual,
    layout: Layout::One,
    file_system: "ext4",
    steps: &[],
    cost: |tally| tally.lost,
};

const SCENES: &[Scene] = &[
    Scene {
        sync: "commit: the file",
        left_out: "fsync spool/new/# * skip",
        steps: &[Letter("jon@razorback")],
        ..PLAIN
    },
    Scene {
        sync: "commit: the file",
        left_out: "fsync spool/new/# * skip",
        file_system: "xfs",
        layout: Layout::Two,
        steps: &[Letter("jon@razorback")],
        ..PLAIN
    },
    Scene {
        sync: "commit: the file",
        left_out: "fsync spool/new/# * skip",
        file_system: "btrfs",
        layout: Layout::Two,
        steps: &[Letter("list@razorback")],
        ..PLAIN
    },
    Scene {
        sync: "commit: the file, of a user's",
        left_out: "fsync spool/new/# * skip",
        people: People::System,
        steps: &[Letter("jon@razorback"), Logged(&["sent to=<jon@"])],
        ..PLAIN
    },
    // With the next commit the name is durable, and the link in the mailbox; the data is not.
    Scene {
        sync: "after a restart: the file, of a user's",
        left_out: "fsync spool/new/1 * skip",
        faults: "fsync spool/new/# 1 before",
        people: People::System,
        steps: &[Crash("jon@razorback"), Restart, Logged(&["sent to=<jon@"]), Letter("far@far.test")],
        cost: |tally| tally.damaged,
        ..PLAIN
    },
    // With the next commit the name is durable, and the rename into the mailbox; the data is not.
    Scene {
        sync: "after a restart: the file",
        left_out: "fsync spool/new/1 * skip",
        faults: "fsync spool/new/# 1 before",
        steps: &[Crash("jon@razorback"), Restart, Logged(&["sent to=<jon@"]), Letter("far@far.test")],
        cost: |tally| tally.damaged,
        ..PLAIN
    },
    Scene {
        sync: "copy: tmp/N of the mailbox",
        left_out: "fsync ada/tmp/ * skip",
        layout: Layout::Two,
        steps: &[Letter("ada@razorback"), Logged(&["sent to=<ada@"])],
        cost: |tally| tally.damaged,
        ..PLAIN
    },
    // The copy is made again, though its owner has read it.
    Scene {
        sync: "prepare: the record",
        left_out: "fsync spool/new/1 * skip",
        layout: Layout::Two,
        steps: &[Letter("ada@razorback"), Logged(&["sent to=<ada@"]), Read],
        cost: |tally| tally.doubled,
        ..PLAIN
    },
    // The same in a home, where his agent makes the copy.
    Scene {
        sync: "prepare: the record, of a user's",
        left_out: "fsync spool/new/1 * skip",
        people: People::System,
        layout: Layout::Two,
        steps: &[Letter("ada@razorback"), Logged(&["sent to=<ada@"]), Read],
        cost: |tally| tally.doubled,
        ..PLAIN
    },
    // With the next commit the entry is gone for good, before the rename is for good.
    Scene {
        sync: "copy: new/ of the mailbox",
        left_out: "fsync ada/new$ * skip",
        layout: Layout::Two,
        steps: &[Letter("ada@razorback"), Logged(&["done"]), Letter("far@far.test")],
        ..PLAIN
    },
    Scene {
        sync: "create_report: the report in tmp/",
        left_out: "fsync spool/tmp/ * skip",
        faults: "mkdir mail/ret * EIO",
        steps: &[Letter("void@far.test"), Logged(&["bounced"]), Logged(&["deferred to=<ret@"])],
        ..PLAIN
    },
    // The report is made again.
    Scene {
        sync: "create_report: the records",
        left_out: "fsync spool/new/1 * skip",
        faults: "mkdir mail/ret * EIO",
        steps: &[Letter("void@far.test"), Logged(&["bounced"]), Logged(&["deferred to=<ret@"]), NextSecond],
        cost: |tally| tally.doubled,
        ..PLAIN
    },
    // The report is made again, though its reader has it.
    Scene {
        sync: "create_report: new/",
        left_out: "fsync spool/new$ * skip",
        faults: "fsync spool/tmp$ 2- skip",
        layout: Layout::Two,
        steps: &[Letter("void@far.test"), Logged(&["sent to=<ret@"]), NextSecond],
        cost: |tally| tally.doubled,
        ..PLAIN
    },
    // With the next commit the report is gone for good, before the record is that it is to be made.
    Scene {
        sync: "recover: the records",
        left_out: "fsync spool/new/1 * skip",
        faults: "rename spool/tmp/ 1 before",
        faults_again: "open spool/tmp/ * EIO",
        steps: &[
            Letter("void@far.test"),
            Logged(&["fault: abort"]),
            Restart,
            Logged(&["fault: EIO open"]),
            Letter("far@far.test"),
        ],
        ..PLAIN
    },
];

/// Another process's sync(2) flushes these disks too, and nothing is missed.
const TRIES: usize = 3;

#[test]
fn each_sync_is_missed() {
    for scene in SCENES {
        let name = format!("{} ({})", scene.sync, scene.file_system);
        let Some(with) = scene.play(false) else { return };
        assert!(with.is_clean(), "{name}, not left out: {with:?}");
        let costs = (0..TRIES).filter_map(|_| scene.play(true)).find(|tally| (scene.cost)(tally) > 0);
        let cost = costs.unwrap_or_else(|| panic!("{name}, left out, costs nothing"));
        println!("without {name}: lost {}, doubled {}, damaged {}", cost.lost, cost.doubled, cost.damaged);
    }
}

impl Scene {
    /// What the cut costs, with the sync or without it.
    fn play(&self, is_left_out: bool) -> Option<Tally> {
        let mut host = Host::new(self.file_system, self.people, self.layout, Cut::Flushed)?;
        let left_out = if is_left_out { self.left_out } else { "" };
        let at_first = if self.steps.iter().any(|step| matches!(step, Restart)) { "" } else { left_out };
        let mut daemon = host.start(&format!("{};{at_first}", self.faults));
        let mut offered = Vec::new();
        let lever = host.disks.lever();
        for (number, step) in self.steps.iter().enumerate() {
            match step {
                Restart => {
                    daemon.kill9();
                    daemon = host.start(&format!("{};{left_out}", self.faults_again));
                }
                step => offered.extend(step.take(&format!("letter-{number}"), &daemon, &host)),
            }
        }
        let moment = lever.pull();
        daemon.kill9();
        host.disks.power_off();
        let sent = host.sent();
        let arrived = host.disks.after_cut(0, || host.settle(sent));
        Some(arrived.audit(&offered, moment))
    }
}

impl Step {
    fn take(&self, token: &str, daemon: &Daemon, host: &Host) -> Option<Offered> {
        match *self {
            Letter(to) => {
                let letter = send(daemon.address(), token, &[to]);
                assert!(letter.taken.is_some(), "{letter:?}");
                return Some(letter);
            }
            Crash(to) => return Some(send(daemon.address(), token, &[to])),
            Logged(words) => drop(daemon.wait_words(words)),
            Read => host.disks.run(
                "cd mailboxes/mail; for m in $(find . -path '*/new/*'); do mv $m ${m%/new/*}/cur/; done; sync -f .",
            ),
            NextSecond => thread::sleep(Duration::from_millis(1001)),
            Restart => {}
        }
        None
    }
}
