//! What goes wrong, and when. Every place where something could is numbered in the order of asking, so that a fault can be left
//! out by its number while the others stay.

use std::collections::BTreeSet;

use crate::chance::Chance;

macro_rules! faults {
    ($( $(#[doc = $doc:literal])* $Name:ident = $text:literal, $permille:literal; )*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $( $(#[doc = $doc])* $Name, )* }

        impl Fault {
            /// Every kind.
            pub const ALL: &'static [Self] = &[ $( Self::$Name, )* ];

            /// As stories name it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$Name => $text, )* }
            }

            /// How often it strikes where it may, of a thousand times.
            fn permille(self) -> u64 {
                match self { $( Self::$Name => $permille, )* }
            }
        }
    };
}

faults! {
    /// A process ends between two of its steps, as by kill -9.
    Crash = "crash", 6;
    /// A process stands still, perhaps longer than its session, and goes on believing what it believed.
    Pause = "pause", 3;
    /// A process is asked to stop: it finishes its batch, saves, and starts again.
    Stop = "stop", 1;
    /// A request never arrives, and its sender learns only that it has waited too long.
    RequestLost = "request lost", 8;
    /// A request is carried out, and its sender is told that it failed.
    ReplyLost = "written but error", 8;
    /// A request is carried out long after its sender has given it up or died.
    RequestLate = "written late", 8;
    /// A record is appended twice.
    Duplicate = "duplicate", 25;
    /// The group gives its partitions out anew without a reason.
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
    /// A request to the outside world never arrives.
    AskLost = "ask lost", 60;
    /// The outside world has done what it was asked, and the answer is lost on the way.
    AnswerLost = "answer lost", 80;
    /// The outside world says the same twice.
    AnswerTwice = "answer twice", 60;
    /// A record that nobody can read lies on an inbox.
    Poison = "poison", 12;
    /// A decider fails on an input, every time, until it is mended.
    Mistake = "mistake", 3;
    /// Somebody finds the mistakes of a service and mends them.
    Mended = "mended", 15;
    /// Time leaps: everything takes longer than anybody's patience.
    Leap = "leap", 4;
}

/// The faults of one history.
#[derive(Debug, Clone)]
pub struct Faults {
    chance: Chance,
    kinds: BTreeSet<Fault>,
    times: u64,
    asked: u32,
    only: Option<BTreeSet<u32>>,
    fired: Vec<(u32, Fault)>,
    healed: bool,
}

impl Faults {
    /// Draws which kinds there are in this history and how often they strike: a history with few kinds reaches states that one
    /// with all of them never does. A wild one has most kinds, and all of them often. `only` leaves out every fault that is not
    /// among these numbers.
    #[must_use]
    pub fn draw(seed: u64, is_wild: bool, only: Option<BTreeSet<u32>>) -> Self {
        let mut chance = Chance::new(seed, 2);
        let (shares, often): (&[u64], &[u64]) =
            if is_wild { (&[600, 800, 1_000], &[4, 8, 12]) } else { (&[0, 200, 400, 600, 1_000], &[1, 1, 2, 4]) };
        let share = *chance.pick(shares);
        let kinds = Fault::ALL.iter().copied().filter(|_| chance.permille(share)).collect();
        let times = *chance.pick(often);
        Self { chance, kinds, times, asked: 0, only, fired: Vec::new(), healed: false }
    }

    /// Asks whether a fault strikes here.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let drawn = self.chance.permille(fault.permille() * self.times);
        let number = self.asked;
        self.asked += 1;
        let strikes = drawn
            && !self.healed
            && self.kinds.contains(&fault)
            && self.only.as_ref().is_none_or(|only| only.contains(&number));
        if strikes {
            self.fired.push((number, fault));
        }
        strikes
    }

    /// From now on nothing goes wrong.
    pub fn heal(&mut self) {
        self.healed = true;
    }

    /// True once nothing goes wrong any more.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.healed
    }

    /// What went wrong, with the numbers by which it can be left out.
    #[must_use]
    pub fn fired(&self) -> &[(u32, Fault)] {
        &self.fired
    }

    /// A number for how long or how far a fault goes.
    pub fn extent(&mut self) -> &mut Chance {
        &mut self.chance
    }
}
