//! The state of one order: its phase, and the items that are held for it.
//!
//! ```text
//!                     every line held        paid              packed            courier took it
//! Unplaced ─▶ Reserving ─────────▶ Reserved ─────▶ Picking ─────────▶ Packaged ─────────▶ Dispatched
//!                 │ one short                         │   ╲ packed, but cancelled meanwhile
//!                 ▼                                   ▼    ╲
//!               Short                       PackagingFailed ▶ Unpacking
//!
//! release:  NotCancelled ──CancellationAccepted──▶ Accepted ──OrderCancelled──▶ Started ──no answer is pending──▶ Done
//!              └──OrderCancelled, from any phase──────────────────────────────────▲
//! ```
//!
//! | event | legal in phase | leads to |
//! |---|---|---|
//! | ReservationStarted | Unplaced | Reserving; the hold of the first line is pending |
//! | LineHeld | Reserving, Short | the line held and the hold of the next one pending; once stopped: no next one; once cancelled: the line is being released |
//! | StockShort | Reserving | Short |
//! | StockReserved | Reserving | Reserved |
//! | PaymentNoted | Unplaced, Reserving | the same, paid |
//! | PickingStarted | Reserved | Picking |
//! | OrderPackaged | Picking | Packaged; once stopped: Unpacking; once cancelled: its lines are being released |
//! | PackagingFailed | Picking | PackagingFailed; once cancelled: its lines are being released |
//! | DispatchDelayed | Packaged, with a pending call to the courier | the attempt is pausing, or being withdrawn |
//! | DispatchRequested | Packaged, the attempt pausing or abandoned | a call to the courier is pending |
//! | DispatchAbandoned | Packaged, with a pending call to the courier | the attempt abandoned; once cancelled: Unpacking, its lines are being released |
//! | OrderDispatched | Packaged | Dispatched |
//! | CancellationAccepted | any before Packaged; Packaged and abandoned | the same, stopped |
//! | CancellationRefused | Packaged, Dispatched | the same |
//! | ReleaseStarted | any, once | held lines are being released, except while picking or the courier is working; Packaged: Unpacking |
//! | LineReleased | any, after ReleaseStarted | the line released |
//! | StockReleased | any, after ReleaseStarted, once | Done |

use runtime::TimestampMs;
use serde::{Deserialize, Serialize};

use crate::events::{
    Address, DispatchRequested, ItemLine, LineReleased, OrderPackaged, PackagingFailed, ReservationStarted,
};

/// The state of one order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fulfilment {
    /// The order.
    pub order_id: String,
    /// Its phase.
    pub phase: FulfilmentPhase,
    /// The status of its cancellation and of the release of its stock.
    pub release: ReleaseStatus,
    /// The number of the last request to cancel it that was answered.
    pub answered_request: i32,
    /// True if it was paid before its stock was reserved.
    pub paid_early: bool,
    /// Its lines in sku order, one per sku; empty before it is placed and after it ended.
    pub lines: Vec<FulfilmentLine>,
    /// The address, until the parcel is dispatched or never will be.
    pub ship_to: Option<Address>,
}

/// The phase of an order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum FulfilmentPhase {
    /// OrderPlaced was not received yet.
    #[default]
    Unplaced,
    /// Its lines are being held, one after another.
    Reserving,
    /// A line could not be held.
    Short,
    /// Every line is held.
    Reserved,
    /// Picking is in progress.
    Picking,
    /// Picking did not find every item.
    PackagingFailed {
        /// The missing items; empty after they are written off.
        missing: Vec<ItemLine>,
        /// The details from picking.
        detail: String,
    },
    /// Packed after it was stopped: its items go back to the shelf.
    Unpacking,
    /// Packed; the courier must take it.
    Packaged {
        /// The parcel.
        parcel_id: String,
        /// The progress of its dispatch.
        dispatch: DispatchProgress,
    },
    /// The courier has the parcel.
    Dispatched,
}

/// The progress of a dispatch.
///
/// ```text
///            no answer in time
///    Requested ──────────────▶ Withdrawing
///    ▲  ▲ │ a definite no           │ a definite no
///    │  │ ▼                         │
///    │  └─Pausing ◀─────────────────┤ attempts are left
///    │ RetryDispatch                ▼
///    └──────────────────────── Abandoned
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchProgress {
    /// The number of the attempt, counted from 1 per order.
    pub number: i32,
    /// The first attempt since the order was packed, or since an operator retried the dispatch.
    pub first_of_round: i32,
    /// The status of the attempt.
    pub attempt: AttemptStatus,
}

/// The status of an attempt to dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptStatus {
    /// A call to the courier is pending.
    Requested {
        /// The deadline of the call, if there is one.
        answer_by: Option<TimestampMs>,
    },
    /// The courier has not answered in time; a withdrawal is pending.
    Withdrawing,
    /// The attempt failed; the next one waits.
    Pausing {
        /// Until when.
        until: TimestampMs,
    },
    /// The attempt failed, and no further one follows automatically.
    Abandoned,
}

/// The status of the cancellation of an order and of the release of its stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ReleaseStatus {
    /// Not cancelled.
    #[default]
    NotCancelled,
    /// Its cancellation was accepted: no further step is taken for it, and held items stay held until it is cancelled.
    Accepted,
    /// Cancelled; items are still held, or answers are pending.
    Started,
    /// Cancelled; nothing is held any more.
    Done,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FulfilmentLine {
    /// The item.
    pub sku: String,
    /// How many pieces.
    pub quantity: i32,
    /// The requests to the item and its answers.
    pub stock: LineStock,
}

/// The requests to an item for a line, and its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineStock {
    /// Nothing requested yet.
    Wanted,
    /// A hold is pending.
    Requested,
    /// Held.
    Held,
    /// Not held: the free stock was too small.
    Short,
    /// A release is pending.
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
    /// An order without events.
    pub(crate) fn of(order_id: &str) -> Self {
        Self {
            order_id: order_id.to_owned(),
            phase: FulfilmentPhase::Unplaced,
            release: ReleaseStatus::NotCancelled,
            answered_request: 0,
            paid_early: false,
            lines: Vec::new(),
            ship_to: None,
        }
    }

    /// True if it was cancelled, regardless of the release of its stock.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.release, ReleaseStatus::Started | ReleaseStatus::Done)
    }

    /// True if no further item is held, picked or packed for it, because it is cancelled or will be.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.release != ReleaseStatus::NotCancelled
    }

    /// True while picking or the courier has the goods, or may have them: nothing can be put back before they answer.
    #[must_use]
    pub fn is_being_handled(&self) -> bool {
        match &self.phase {
            FulfilmentPhase::Picking => true,
            FulfilmentPhase::Packaged { dispatch, .. } => {
                matches!(dispatch.attempt, AttemptStatus::Requested { .. } | AttemptStatus::Withdrawing)
            }
            _ => false,
        }
    }

    /// The time of its next automatic step: an unanswered attempt is withdrawn, a failed one is followed by the next.
    #[must_use]
    pub fn wake_at(&self) -> Option<TimestampMs> {
        let FulfilmentPhase::Packaged { dispatch, .. } = &self.phase else { return None };
        match dispatch.attempt {
            // The attempt of a cancelled order is being withdrawn already.
            AttemptStatus::Requested { answer_by } => answer_by.filter(|_| !self.is_cancelled()),
            AttemptStatus::Pausing { until } => Some(until),
            AttemptStatus::Withdrawing | AttemptStatus::Abandoned => None,
        }
    }

    /// True if nothing is held and no answer is pending.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let open =
            |line: &FulfilmentLine| matches!(line.stock, LineStock::Requested | LineStock::Held | LineStock::Releasing);
        !self.is_being_handled() && !self.lines.iter().any(open)
    }

    /// The line of a sku.
    #[must_use]
    pub fn line(&self, sku: &str) -> Option<&FulfilmentLine> {
        self.lines.iter().find(|line| line.sku == sku)
    }

    /// The lines that are held now.
    pub fn held_lines(&self) -> impl Iterator<Item = &FulfilmentLine> {
        self.lines.iter().filter(|line| line.stock == LineStock::Held)
    }

    /// The items of the order.
    #[must_use]
    pub fn item_lines(&self) -> Vec<ItemLine> {
        self.lines.iter().map(FulfilmentLine::to_item_line).collect()
    }

    pub(super) fn reservation_started(&mut self, event: &ReservationStarted) {
        self.phase = FulfilmentPhase::Reserving;
        self.ship_to = Some(event.ship_to.clone());
        self.lines = event.lines.iter().map(FulfilmentLine::wanted).collect();
        self.request_next();
    }

    pub(super) fn line_held(&mut self, sku: &str) {
        match self.release {
            ReleaseStatus::NotCancelled => {
                self.set_stock(sku, LineStock::Held);
                self.request_next();
            }
            ReleaseStatus::Accepted => self.set_stock(sku, LineStock::Held),
            ReleaseStatus::Started | ReleaseStatus::Done => self.set_stock(sku, LineStock::Releasing),
        }
    }

    pub(super) fn stock_short(&mut self, sku: &str) {
        self.phase = FulfilmentPhase::Short;
        self.set_stock(sku, LineStock::Short);
    }

    pub(super) fn order_packaged(&mut self, event: &OrderPackaged) {
        if !self.is_stopped() {
            let attempt = AttemptStatus::Requested { answer_by: event.answer_by };
            let dispatch = DispatchProgress { number: 1, first_of_round: 1, attempt };
            self.phase = FulfilmentPhase::Packaged { parcel_id: event.parcel_id.clone(), dispatch };
            return;
        }
        self.phase = FulfilmentPhase::Unpacking;
        if self.is_cancelled() {
            self.release_held();
        }
    }

    /// The parcel did not leave: its items go back to the shelf.
    fn unpack(&mut self) {
        self.phase = FulfilmentPhase::Unpacking;
        self.release_held();
    }

    pub(super) fn packaging_failed(&mut self, event: &PackagingFailed) {
        self.phase = FulfilmentPhase::PackagingFailed { missing: event.missing.clone(), detail: event.detail.clone() };
        if self.is_cancelled() {
            self.release_held();
        }
    }

    pub(super) fn dispatch_delayed(&mut self, next_attempt_at: Option<TimestampMs>) {
        if let FulfilmentPhase::Packaged { dispatch, .. } = &mut self.phase {
            dispatch.attempt =
                next_attempt_at.map_or(AttemptStatus::Withdrawing, |until| AttemptStatus::Pausing { until });
        }
    }

    pub(super) fn dispatch_requested(&mut self, event: &DispatchRequested) {
        if let FulfilmentPhase::Packaged { dispatch, .. } = &mut self.phase {
            if dispatch.attempt == AttemptStatus::Abandoned {
                dispatch.first_of_round = event.attempt;
            }
            dispatch.number = event.attempt;
            dispatch.attempt = AttemptStatus::Requested { answer_by: event.answer_by };
        }
    }

    pub(super) fn dispatch_abandoned(&mut self) {
        if let FulfilmentPhase::Packaged { dispatch, .. } = &mut self.phase {
            dispatch.attempt = AttemptStatus::Abandoned;
        }
        if self.is_cancelled() {
            self.unpack();
        }
    }

    pub(super) fn order_dispatched(&mut self) {
        self.phase = FulfilmentPhase::Dispatched;
        self.drop_details();
    }

    pub(super) fn cancellation_accepted(&mut self, request: i32) {
        self.answered_request = request;
        self.release = ReleaseStatus::Accepted;
    }

    pub(super) fn release_started(&mut self) {
        self.release = ReleaseStatus::Started;
        if self.is_being_handled() {
            return;
        }
        if matches!(self.phase, FulfilmentPhase::Packaged { .. }) {
            self.unpack();
        } else {
            self.release_held();
        }
    }

    pub(super) fn line_released(&mut self, event: &LineReleased) {
        self.set_stock(&event.sku, LineStock::Released { freed: event.freed, written_off: event.written_off });
    }

    pub(super) fn stock_released(&mut self) {
        self.release = ReleaseStatus::Done;
        self.drop_details();
    }

    /// An ended order needs neither its lines nor its address.
    fn drop_details(&mut self) {
        self.lines = Vec::new();
        self.ship_to = None;
        if let FulfilmentPhase::PackagingFailed { missing, detail } = &mut self.phase {
            *missing = Vec::new();
            *detail = String::new();
        }
    }

    fn request_next(&mut self) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.stock == LineStock::Wanted) {
            line.stock = LineStock::Requested;
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

impl FulfilmentLine {
    fn wanted(line: &ItemLine) -> Self {
        Self { sku: line.sku.clone(), quantity: line.quantity, stock: LineStock::Wanted }
    }

    /// The line as events have it.
    #[must_use]
    pub fn to_item_line(&self) -> ItemLine {
        ItemLine { sku: self.sku.clone(), quantity: self.quantity }
    }
}
