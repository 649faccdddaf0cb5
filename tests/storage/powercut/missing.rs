//! Leaves out each sync in turn, and shows that this has a cost.
//!
//! A debug build can leave out a system call (`sys::fault`). Each scene leaves out one sync, brings
//! the message to the point from which that sync protects it, and cuts the power, so that the disk
//! keeps only flushed writes. The cut must cost something, or the power-cut test could not fail.
//! With the sync the same scene must cost nothing. Some syncs are needed on none of these file
//! systems; they are justified in `spool/mod.rs`.

use std::thread;
use std::time::Duration;

use super::audit::Tally;
use super::disks::{Cut, Layout};
use super::host::Host;
use super::load::{Offered, send};
use super::people::People;
use common::Daemon;

/// A message that is brought to the point where a sync is missing, and the cost of a power cut
/// there.
struct Scene {
    /// The name of the sync, as in spool/mod.rs.
    sync: &'static str,
    /// The rule of PENFOLD_FAULT that leaves out the sync. If the scene has a restart, the rule
    /// applies only after it.
    left_out: &'static str,
    /// Other rules of PENFOLD_FAULT.
    faults: &'static str,
    /// Other rules of PENFOLD_FAULT after a restart.
    faults_again: &'static str,
    people: People,
    layout: Layout,
    file_system: &'static str,
    steps: &'static [Step],
    /// The count of the tally that shows the cost of the missing sync.
    cost: fn(&Tally) -> usize,
}

/// A step before the power cut.
enum Step {
    /// A letter to this recipient is acknowledged.
    Letter(&'static str),
    /// The daemon crashes while it takes a letter to this recipient, so its client gets no reply.
    Crash(&'static str),
    /// The daemon is started again.
    Restart,
    /// The test waits for a log line with these words.
    Logged(&'static [&'static str]),
    /// The owners of the mailboxes read their mail.
    Read,
    /// A second passes, so that files that are created from now on have other names.
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
    // The commit of the next message makes the two names of the file durable, in the spool and in
    // the mailbox, but not its data.
    Scene {
        sync: "after a restart: the file, of a user's",
        left_out: "fsync spool/new/1 * skip",
        faults: "fsync spool/new/# 1 before",
        people: People::System,
        steps: &[Crash("jon@razorback"), Restart, Logged(&["sent to=<jon@"]), Letter("far@far.test")],
        cost: |tally| tally.damaged,
        ..PLAIN
    },
    // The commit of the next message makes the rename into the mailbox durable, but not the data of
    // the file.
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
    // After the cut the daemon makes the copy again, although its owner has read it.
    Scene {
        sync: "prepare: the record",
        left_out: "fsync spool/new/1 * skip",
        layout: Layout::Two,
        steps: &[Letter("ada@razorback"), Logged(&["sent to=<ada@"]), Read],
        cost: |tally| tally.doubled,
        ..PLAIN
    },
    // The copy is in a home directory; the agent, the process with the user's rights, makes it.
    Scene {
        sync: "prepare: the record, of a user's",
        left_out: "fsync spool/new/1 * skip",
        people: People::System,
        layout: Layout::Two,
        steps: &[Letter("ada@razorback"), Logged(&["sent to=<ada@"]), Read],
        cost: |tally| tally.doubled,
        ..PLAIN
    },
    // The commit of the next message makes the removal of the entry durable, but not the rename of
    // the copy.
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
    // After the cut the daemon makes the report again.
    Scene {
        sync: "create_report: the records",
        left_out: "fsync spool/new/1 * skip",
        faults: "mkdir mail/ret * EIO",
        steps: &[Letter("void@far.test"), Logged(&["bounced"]), Logged(&["deferred to=<ret@"]), NextSecond],
        cost: |tally| tally.doubled,
        ..PLAIN
    },
    // After the cut the daemon makes the report again, although the sender has read it.
    Scene {
        sync: "create_report: new/",
        left_out: "fsync spool/new$ * skip",
        faults: "fsync spool/tmp$ 2- skip",
        layout: Layout::Two,
        steps: &[Letter("void@far.test"), Logged(&["sent to=<ret@"]), NextSecond],
        cost: |tally| tally.doubled,
        ..PLAIN
    },
    // The commit of the next message makes the removal of the report durable, but not the record
    // that the report is to be made.
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

/// How often a scene may be tried until the missing sync has a cost. If another process calls
/// sync(2), these disks are flushed, too, and nothing is lost.
const TRIES: usize = 3;

#[test]
fn each_missing_sync_has_a_cost() {
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
    /// Plays the scene with the sync, or without it if `is_left_out`. Returns the counts after the
    /// cut; `None` where disks are not possible.
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
