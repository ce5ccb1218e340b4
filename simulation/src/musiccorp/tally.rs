//! A service outside MusicCorp: it adds up sales, and closes an account to which nothing was added for a while.
//!
//! It also counts price changes, on an account per album. They come from another topic under the same key.
//!
//! Unlike MusicCorp's services it is *not* idempotent by its state: a repeated input would be added twice, so the result depends
//! on the runtime's recognition of handled inputs. It also consumes a record with another key, sends commands to its own inbox,
//! and uses timers.

use std::borrow::Cow;

use runtime::{Decider, Decision, NoEffect, Received, TimerFired, TimestampMs};
use serde::{Deserialize, Serialize};

/// The account to which every sale is added.
pub(super) const HOUSE: &str = "house";
/// How long an account stays open.
const OPEN_FOR_MS: i64 = 2_500;

runtime::produces! {
    /// The events of the tally.
    pub enum Event in "schemas" {
        events of "tally" { Rung = 1, Closed = 1 }
    }
}

runtime::produces! {
    /// The commands of the tally.
    pub enum Command in "schemas" {
        inbox of "tally" { Ring = 1 }
    }
}

runtime::consumes! {
    /// The inputs of the tally.
    pub enum Input {
        events of "order-processor" { OrderCompleted }
        events of "catalogue" { AlbumPriceChanged }
        inbox of "tally" { Ring }
        inbox of "runtime" { TimerFired }
    }
}

/// An amount was added to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// The account.
    pub account: String,
    /// The added amount.
    pub amount_minor: i64,
    /// Its sum.
    pub sum_minor: i64,
    /// When it is closed, unless more is added.
    pub closes_at: i64,
    /// When it was decided.
    pub occurred_at: i64,
}

/// An account was closed. The next amount opens it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// The account.
    pub account: String,
    /// Its sum.
    pub sum_minor: i64,
    /// When its closing was due.
    pub due_at: i64,
    /// When it was decided.
    pub occurred_at: i64,
}

/// Add an amount to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// The account.
    pub account: String,
    /// The amount to add.
    pub amount_minor: i64,
}

/// An order was completed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OrderCompleted {
    /// The customer who ordered.
    pub customer_id: String,
    /// The total of the order.
    pub total: Money,
}

/// An album's price changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AlbumPriceChanged {
    /// The album, which has an account of its own.
    pub sku: String,
}

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Money {
    /// The amount.
    pub amount_minor: i64,
}

/// The state of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TallyState {
    /// Its sum.
    pub sum_minor: i64,
    /// When it is closed, while it is open.
    pub closes_at: Option<TimestampMs>,
}

/// The tally.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally;

impl Decider for Tally {
    const NAME: &'static str = "tally";
    type State = TallyState;
    type Input = Input;
    type Event = Event;
    type Command = Command;
    type Effect = NoEffect;

    fn entity<'a>(&self, input: &'a Received<Input>) -> Cow<'a, str> {
        Cow::Borrowed(match &input.body {
            Input::OrderCompleted(order) => &order.customer_id,
            Input::AlbumPriceChanged(change) => &change.sku,
            Input::Ring(ring) => &ring.account,
            Input::TimerFired(_) => &input.key,
        })
    }

    fn shares_keys_with(&self, owner: &str) -> bool {
        owner == "catalogue"
    }

    fn decide(&self, state: &TallyState, input: &Received<Input>) -> Decision<Event, Command> {
        let at = input.at_ms;
        match &input.body {
            Input::OrderCompleted(order) => {
                let amount_minor = order.total.amount_minor;
                let house = Ring { account: HOUSE.to_owned(), amount_minor };
                Decision::event(rung(state, &order.customer_id, amount_minor, at)).and_command(HOUSE, house)
            }
            Input::AlbumPriceChanged(change) => Decision::event(rung(state, &change.sku, 1, at)),
            Input::Ring(ring) => Decision::event(rung(state, &ring.account, ring.amount_minor, at)),
            Input::TimerFired(fired) if state.closes_at == Some(fired.due_at) => Decision::event(Closed {
                account: input.key.clone(),
                sum_minor: state.sum_minor,
                due_at: fired.due_at,
                occurred_at: at,
            }),
            Input::TimerFired(_) => Decision::nothing(),
        }
    }

    fn evolve(&self, state: TallyState, event: &Event) -> TallyState {
        match event {
            Event::Rung(rung) => TallyState { sum_minor: rung.sum_minor, closes_at: Some(rung.closes_at) },
            Event::Closed(_) => TallyState { closes_at: None, ..state },
        }
    }

    fn wake_at(&self, state: &TallyState) -> Option<TimestampMs> {
        state.closes_at
    }
}

fn rung(state: &TallyState, account: &str, amount_minor: i64, at: TimestampMs) -> Rung {
    Rung {
        account: account.to_owned(),
        amount_minor,
        sum_minor: state.sum_minor + amount_minor,
        closes_at: at + OPEN_FOR_MS,
        occurred_at: at,
    }
}
