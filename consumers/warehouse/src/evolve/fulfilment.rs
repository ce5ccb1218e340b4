//! What is remembered of one order: where its story stands, and what is held for it.
//!
//! ```text
//!                     every line held        paid              packed            courier took it
//! Unplaced ─▶ Reserving ─────────▶ Reserved ─────▶ Picking ─────────▶ Packaged ─────────▶ Dispatched
//!                 │ one short                         │   ╲ packed, but cancelled meanwhile
//!                 ▼                                   ▼    ╲
//!               Short                       PackagingFailed ▶ Unpacking
//!
//! beside it, from any phase:   No ──OrderCancelled──▶ Started ──nothing asked is unanswered──▶ Done
//! ```
//!
//! | event | legal in phase | leads to |
//! |---|---|---|
//! | ReservationStarted | Unplaced | Reserving; the first line asked |
//! | LineHeld | Reserving, Short | the line held and the next one asked; once cancelled: the line being released |
//! | StockShort | Reserving | Short |
//! | StockReserved | Reserving | Reserved |
//! | PaymentNoted | Unplaced, Reserving | the same, paid |
//! | PickingStarted | Reserved | Picking |
//! | OrderPackaged | Picking | Packaged; once cancelled: Unpacking, its lines being released |
//! | PackagingFailed | Picking | PackagingFailed; once cancelled: its lines being released |
//! | OrderDispatched | Packaged | Dispatched |
//! | ReleaseStarted | any, once | held lines are being released, except while the floor or the courier is at work |
//! | LineReleased | any, after ReleaseStarted | the line released |
//! | StockReleased | any, after ReleaseStarted, once | Done |

use serde::{Deserialize, Serialize};

use crate::events::{Address, ItemLine, LineReleased, PackagingFailed, ReservationStarted};

/// What is remembered of one order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fulfilment {
    /// The order.
    pub order_id: String,
    /// Where its story stands.
    pub phase: Phase,
    /// Whether it was cancelled, and how far its stock is given back.
    pub release: Release,
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
    /// Packed; the courier is asked.
    Packaged {
        /// The parcel.
        parcel_id: String,
    },
    /// On its way.
    Dispatched,
}

/// How far a cancelled order's stock is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Release {
    /// Not cancelled.
    #[default]
    No,
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
            paid_early: false,
            lines: Vec::new(),
            ship_to: None,
        }
    }

    /// True if it was cancelled, however far its stock is given back.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.release != Release::No
    }

    /// True while the picking floor or the courier has the goods in hand: nothing can be put back before they answer.
    #[must_use]
    pub fn is_in_hand(&self) -> bool {
        matches!(self.phase, Phase::Picking | Phase::Packaged { .. })
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
        if self.is_cancelled() {
            self.set_stock(sku, LineStock::Releasing);
        } else {
            self.set_stock(sku, LineStock::Held);
            self.ask_next();
        }
    }

    pub(super) fn stock_short(&mut self, sku: &str) {
        self.phase = Phase::Short;
        self.set_stock(sku, LineStock::Short);
    }

    pub(super) fn order_packaged(&mut self, parcel_id: &str) {
        if self.is_cancelled() {
            self.phase = Phase::Unpacking;
            self.release_held();
        } else {
            self.phase = Phase::Packaged { parcel_id: parcel_id.to_owned() };
        }
    }

    pub(super) fn packaging_failed(&mut self, event: &PackagingFailed) {
        self.phase = Phase::PackagingFailed { missing: event.missing.clone(), detail: event.detail.clone() };
        if self.is_cancelled() {
            self.release_held();
        }
    }

    pub(super) fn order_dispatched(&mut self) {
        self.phase = Phase::Dispatched;
        self.forget_details();
    }

    pub(super) fn release_started(&mut self) {
        self.release = Release::Started;
        if !self.is_in_hand() {
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
