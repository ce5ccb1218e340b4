//! Which faults occur, and when. Every point at which a fault could be injected has a number, in the order of the points, so a
//! fault can be left out by its number while the others stay.

use std::collections::BTreeSet;

use crate::random::SeededRandom;

macro_rules! faults {
    ($( $(#[doc = $doc:literal])* $Name:ident = $text:literal, $permille:literal; )*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $( $(#[doc = $doc])* $Name, )* }

        impl Fault {
            /// Every kind.
            pub const ALL: &'static [Self] = &[ $( Self::$Name, )* ];

            /// Its name in traces.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$Name => $text, )* }
            }

            /// How often it is injected, of a thousand points at which it could be.
            fn permille(self) -> u64 {
                match self { $( Self::$Name => $permille, )* }
            }
        }
    };
}

faults! {
    /// A process ends between two of its steps, as by kill -9.
    Crash = "crash", 6;
    /// A process is paused, perhaps for longer than its session timeout, and then continues with what it knew before.
    Pause = "pause", 3;
    /// A process is asked to stop: it finishes its batch, saves a checkpoint, and starts again.
    Stop = "stop", 1;
    /// A request never arrives, and its sender runs into a timeout.
    RequestLost = "request lost", 8;
    /// A request takes effect, and its sender gets an error.
    ReplyLost = "reply lost", 8;
    /// A request takes effect long after its sender has abandoned it or crashed.
    RequestLate = "request late", 8;
    /// A record is appended twice.
    Duplicate = "duplicate", 25;
    /// The group assigns its partitions again without a reason.
    Rebalance = "rebalance", 3;
    /// The group has lost its committed offsets.
    OffsetsLost = "offsets lost", 1;
    /// A process finds its store empty.
    StoreLost = "store lost", 150;
    /// A process finds an older copy of its store.
    StoreOld = "store old", 200;
    /// A process finds its store damaged.
    StoreCorrupt = "store corrupt", 150;
    /// The registry does not answer for a while.
    RegistryDown = "registry down", 2;
    /// A replica of the registry does not have a schema yet.
    RegistryLag = "registry lag", 20;
    /// A call of an external service never arrives.
    CallLost = "call lost", 60;
    /// An external service has done what it was asked, and the answer is lost.
    AnswerLost = "answer lost", 80;
    /// An answer of an external service is delivered twice.
    AnswerTwice = "answer twice", 60;
    /// A record that cannot be read is appended to an inbox.
    PoisonRecord = "poison record", 12;
    /// A decider fails on an input, every time, until the bug is fixed.
    DeciderBug = "decider bug", 3;
    /// The bugs of a service are fixed.
    BugFixed = "bug fixed", 15;
    /// The time jumps ahead: everything takes longer than its timeout.
    TimeJump = "time jump", 4;
}

/// The faults of one run.
#[derive(Debug, Clone)]
pub struct Faults {
    random: SeededRandom,
    kinds: BTreeSet<Fault>,
    times: u64,
    points: u32,
    only: Option<BTreeSet<u32>>,
    injected: Vec<(u32, Fault)>,
    ended: bool,
}

impl Faults {
    /// Draws which kinds occur in this run, and how often: a run with few kinds reaches states that a run with all of them never
    /// does. A wild run has most kinds, and all of them often. `only` leaves out every fault that is not among these numbers.
    #[must_use]
    pub fn draw(seed: u64, is_wild: bool, only: Option<BTreeSet<u32>>) -> Self {
        let mut random = SeededRandom::new(seed, 2);
        let (shares, often): (&[u64], &[u64]) =
            if is_wild { (&[600, 800, 1_000], &[4, 8, 12]) } else { (&[0, 200, 400, 600, 1_000], &[1, 1, 2, 4]) };
        let share = *random.pick(shares);
        let kinds = Fault::ALL.iter().copied().filter(|_| random.permille(share)).collect();
        let times = *random.pick(often);
        Self { random, kinds, times, points: 0, only, injected: Vec::new(), ended: false }
    }

    /// Returns whether a fault is injected at this point.
    pub fn injects(&mut self, fault: Fault) -> bool {
        let drawn = self.random.permille(fault.permille() * self.times);
        let number = self.points;
        self.points += 1;
        let injects = drawn
            && !self.ended
            && self.kinds.contains(&fault)
            && self.only.as_ref().is_none_or(|only| only.contains(&number));
        if injects {
            self.injected.push((number, fault));
        }
        injects
    }

    /// From here on no fault is injected.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// True once no fault is injected any more.
    #[must_use]
    pub fn have_ended(&self) -> bool {
        self.ended
    }

    /// The injected faults, with the numbers by which they can be left out.
    #[must_use]
    pub fn injected(&self) -> &[(u32, Fault)] {
        &self.injected
    }

    /// Random numbers for how long or how far a fault goes.
    pub fn extent(&mut self) -> &mut SeededRandom {
        &mut self.random
    }
}
