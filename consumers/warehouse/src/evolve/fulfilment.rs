//! What is remembered of one order: where its story stands, and what is held for it.
//!
//! ```text
//!                     every line held        paid              packed            courier took it
//! Unplaced ─▶ Reserving ─────────▶ Reserved ─────▶ Picking ─────────▶ Packaged ─────────▶ Dispatched
//!                 │ one short                         │   ╲ packed, but cancelled meanwhile
//!                 ▼                                   ▼    ╲
//!               Short                       PackagingFailed ▶ Unpacking
//!
//! beside it:   No ──a cancellation is accepted──▶ Promised ──OrderCancelled──▶ Started ──nothing asked is unanswered──▶ Done
//!              └──OrderCancelled, from any phase──────────────────────────────▲
//! ```
//!
//! | event | legal in phase | leads to |
//! |---|---|---|
//! | ReservationStarted | Unplaced | Reserving; the first line asked |
//! | LineHeld | Reserving, Short | the line held and the next one asked; once called off: no next one; once cancelled: the line being released |
//! | StockShort | Reserving | Short |
//! | StockReserved | Reserving | Reserved |
//! | PaymentNoted | Unplaced, Reserving | the same, paid |
//! | PickingStarted | Reserved | Picking |
//! | OrderPackaged | Picking | Packaged; once called off: Unpacking; once cancelled: its lines being released |
//! | PackagingFailed | Picking | PackagingFailed; once cancelled: its lines being released |
//! | DispatchDelayed | Packaged, the courier being asked | the attempt pausing, or being withdrawn |
//! | DispatchRequested | Packaged, the attempt pausing or abandoned | the courier being asked |
//! | DispatchAbandoned | Packaged, the courier being asked | the attempt abandoned; once cancelled: Unpacking, its lines being released |
//! | OrderDispatched | Packaged | Dispatched |
//! | CancellationAccepted | any before Packaged; Packaged and abandoned | the same, called off |
//! | CancellationRefused | Packaged, Dispatched | the same |
//! | ReleaseStarted | any, once | held lines are being released, except while the floor or the courier is at work; Packaged: Unpacking |
//! | LineReleased | any, after ReleaseStarted | the line released |
//! | StockReleased | any, after ReleaseStarted, once | Done |

use runtime::TimestampMs;
use serde::{Deserialize, Serialize};

use crate::events::{
    Address, DispatchRequested, ItemLine, LineReleased, OrderPackaged, PackagingFailed, ReservationStarted,
};

/// What is remembered of one order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fulfilment {
    /// The order.
    pub order_id: String,
    /// Where its story stands.
    pub phase: Phase,
    /// Whether it was cancelled, and how far its stock is given back.
    pub release: Release,
    /// The number of the last request to cancel it that was answered.
    pub answered_request: i32,
    /// It was paid before its stock was reserved.
    pub paid_early: bool,
    /// What it needs, in sku order, one line per sku; empty before it is placed and after it ended.
    pub lines: Vec<Line>,
    /// Where the parcel goes, until it is on its way or never will be.
    pub ship_to: Option<Address>,
}

/// Where an order's story stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Not heard of as placed.
    #[default]
    Unplaced,
    /// Its lines are being held, one after another.
    Reserving,
    /// A line could not be held.
    Short,
    /// Every line is held.
    Reserved,
    /// The picking floor is at work.
    Picking,
    /// The floor did not find everything.
    PackagingFailed {
        /// What was not there; empty again once it is written off.
        missing: Vec<ItemLine>,
        /// What the floor says about it.
        detail: String,
    },
    /// Packed after it was cancelled: its items go back to the shelf.
    Unpacking,
    /// Packed; the courier is to take it.
    Packaged {
        /// The parcel.
        parcel_id: String,
        /// How that goes.
        dispatch: Dispatch,
    },
    /// On its way.
    Dispatched,
}

/// How it goes to get the courier to take a parcel.
///
/// ```text
///            no answer in time
///    Asked ──────────────────▶ Withdrawing
///    ▲  ▲ │ a definite no           │ a definite no
///    │  │ ▼                         │
///    │  └─Pausing ◀─────────────────┤ attempts are left
///    │ RetryDispatch                ▼
///    └──────────────────────── Abandoned
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Which attempt, counted from 1 per order.
    pub number: i32,
    /// The first attempt since the order was packed, or since an operator had it tried again.
    pub first_of_round: i32,
    /// How it stands.
    pub attempt: Attempt,
}

/// How an attempt to get a parcel taken stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attempt {
    /// The courier is asked.
    Asked {
        /// When it is withdrawn, if ever.
        answer_by: Option<TimestampMs>,
    },
    /// The courier has not answered in time and is asked to forget it.
    Withdrawing,
    /// It failed; the next one waits.
    Pausing {
        /// Until when.
        until: TimestampMs,
    },
    /// It failed, and no other one follows by itself.
    Abandoned,
}

/// How far a cancelled order's stock is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Release {
    /// Not cancelled.
    #[default]
    No,
    /// Its cancellation was accepted: nothing more is done for it, and what is held stays held until it is cancelled.
    Promised,
    /// Cancelled; something is still held or unanswered.
    Started,
    /// Nothing is held any more.
    Done,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The item.
    pub sku: String,
    /// How many pieces.
    pub quantity: i32,
    /// What the item has been asked and has answered.
    pub stock: LineStock,
}

/// What an item has been asked for a line, and has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineStock {
    /// Nothing asked yet.
    Wanted,
    /// Asked to hold.
    Asked,
    /// Held.
    Held,
    /// Not held: too few were free.
    Short,
    /// Asked to free or write off.
    Releasing,
    /// No longer held.
    Released {
        /// How many pieces became free.
        freed: i32,
        /// How many pieces were written off.
        written_off: i32,
    },
}

impl Fulfilment {
    /// An order nothing was ever said about.
    pub(crate) fn of(order_id: &str) -> Self {
        Self {
            order_id: order_id.to_owned(),
            phase: Phase::Unplaced,
            release: Release::No,
            answered_request: 0,
            paid_early: false,
            lines: Vec::new(),
            ship_to: None,
        }
    }

    /// True if it was cancelled, however far its stock is given back.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.release, Release::Started | Release::Done)
    }

    /// True if nothing more is to be held, picked or packed for it: it is cancelled, or will be.
    #[must_use]
    pub fn is_called_off(&self) -> bool {
        self.release != Release::No
    }

    /// True while the picking floor or the courier has the goods in hand, or may have: nothing can be put back before they answer.
    #[must_use]
    pub fn is_in_hand(&self) -> bool {
        match &self.phase {
            Phase::Picking => true,
            Phase::Packaged { dispatch, .. } => {
                matches!(dispatch.attempt, Attempt::Asked { .. } | Attempt::Withdrawing)
            }
            _ => false,
        }
    }

    /// When its dispatch goes on by itself: an attempt that is not answered is withdrawn, one that failed is followed by the next.
    #[must_use]
    pub fn wake_at(&self) -> Option<TimestampMs> {
        let Phase::Packaged { dispatch, .. } = &self.phase else { return None };
        match dispatch.attempt {
            // A cancelled order's attempt is being withdrawn already.
            Attempt::Asked { answer_by } => answer_by.filter(|_| !self.is_cancelled()),
            Attempt::Pausing { until } => Some(until),
            Attempt::Withdrawing | Attempt::Abandoned => None,
        }
    }

    /// True if nothing is held and nothing asked is unanswered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let open = |line: &Line| matches!(line.stock, LineStock::Asked | LineStock::Held | LineStock::Releasing);
        !self.is_in_hand() && !self.lines.iter().any(open)
    }

    /// The line of a sku.
    #[must_use]
    pub fn line(&self, sku: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.sku == sku)
    }

    /// The lines that are held now.
    pub fn held_lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.stock == LineStock::Held)
    }

    /// What the order needs.
    #[must_use]
    pub fn item_lines(&self) -> Vec<ItemLine> {
        self.lines.iter().map(Line::to_item_line).collect()
    }

    pub(super) fn reservation_started(&mut self, event: &ReservationStarted) {
        self.phase = Phase::Reserving;
        self.ship_to = Some(event.ship_to.clone());
        self.lines = event.lines.iter().map(Line::wanted).collect();
        self.ask_next();
    }

    pub(super) fn line_held(&mut self, sku: &str) {
        match self.release {
            Release::No => {
                self.set_stock(sku, LineStock::Held);
                self.ask_next();
            }
            Release::Promised => self.set_stock(sku, LineStock::Held),
            Release::Started | Release::Done => self.set_stock(sku, LineStock::Releasing),
        }
    }

    pub(super) fn stock_short(&mut self, sku: &str) {
        self.phase = Phase::Short;
        self.set_stock(sku, LineStock::Short);
    }

    pub(super) fn order_packaged(&mut self, event: &OrderPackaged) {
        if !self.is_called_off() {
            let attempt = Attempt::Asked { answer_by: event.answer_by };
            let dispatch = Dispatch { number: 1, first_of_round: 1, attempt };
            self.phase = Phase::Packaged { parcel_id: event.parcel_id.clone(), dispatch };
            return;
        }
        self.phase = Phase::Unpacking;
        if self.is_cancelled() {
            self.release_held();
        }
    }

    /// The parcel did not leave: what is in it goes back to the shelf.
    fn unpack(&mut self) {
        self.phase = Phase::Unpacking;
        self.release_held();
    }

    pub(super) fn packaging_failed(&mut self, event: &PackagingFailed) {
        self.phase = Phase::PackagingFailed { missing: event.missing.clone(), detail: event.detail.clone() };
        if self.is_cancelled() {
            self.release_held();
        }
    }

    pub(super) fn dispatch_delayed(&mut self, next_attempt_at: Option<TimestampMs>) {
        if let Phase::Packaged { dispatch, .. } = &mut self.phase {
            dispatch.attempt = next_attempt_at.map_or(Attempt::Withdrawing, |until| Attempt::Pausing { until });
        }
    }

    pub(super) fn dispatch_requested(&mut self, event: &DispatchRequested) {
        if let Phase::Packaged { dispatch, .. } = &mut self.phase {
            if dispatch.attempt == Attempt::Abandoned {
                dispatch.first_of_round = event.attempt;
            }
            dispatch.number = event.attempt;
            dispatch.attempt = Attempt::Asked { answer_by: event.answer_by };
        }
    }

    pub(super) fn dispatch_abandoned(&mut self) {
        if let Phase::Packaged { dispatch, .. } = &mut self.phase {
            dispatch.attempt = Attempt::Abandoned;
        }
        if self.is_cancelled() {
            self.unpack();
        }
    }

    pub(super) fn order_dispatched(&mut self) {
        self.phase = Phase::Dispatched;
        self.forget_details();
    }

    pub(super) fn cancellation_accepted(&mut self, request: i32) {
        self.answered_request = request;
        self.release = Release::Promised;
    }

    pub(super) fn release_started(&mut self) {
        self.release = Release::Started;
        if self.is_in_hand() {
            return;
        }
        if matches!(self.phase, Phase::Packaged { .. }) {
            self.unpack();
        } else {
            self.release_held();
        }
    }

    pub(super) fn line_released(&mut self, event: &LineReleased) {
        self.set_stock(&event.sku, LineStock::Released { freed: event.freed, written_off: event.written_off });
    }

    pub(super) fn stock_released(&mut self) {
        self.release = Release::Done;
        self.forget_details();
    }

    /// An order that ended is remembered as such and no more: its lines and its address serve nobody.
    fn forget_details(&mut self) {
        self.lines = Vec::new();
        self.ship_to = None;
        if let Phase::PackagingFailed { missing, detail } = &mut self.phase {
            *missing = Vec::new();
            *detail = String::new();
        }
    }

    fn ask_next(&mut self) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.stock == LineStock::Wanted) {
            line.stock = LineStock::Asked;
        }
    }

    fn release_held(&mut self) {
        for line in self.lines.iter_mut().filter(|line| line.stock == LineStock::Held) {
            line.stock = LineStock::Releasing;
        }
    }

    fn set_stock(&mut self, sku: &str, stock: LineStock) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.sku == sku) {
            line.stock = stock;
        }
    }
}

impl Line {
    fn wanted(line: &ItemLine) -> Self {
        Self { sku: line.sku.clone(), quantity: line.quantity, stock: LineStock::Wanted }
    }

    /// The line as events show it.
    #[must_use]
    pub fn to_item_line(&self) -> ItemLine {
        ItemLine { sku: self.sku.clone(), quantity: self.quantity }
    }
}
