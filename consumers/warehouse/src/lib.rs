//! The warehouse: holds an order's items, has them picked and packed, hands the parcel to the courier, or gives everything back.
//!
//! | card | |
//! |---|---|
//! | key | the order (*fulfilment*); the sku (*stock item*) |
//! | hears | order-processor: OrderPlaced, OrderPaid, OrderCancellationRequested, OrderCancelled |
//! | inbox | ReceiveGoods from outside; between orders and items: HoldItem, FreeItem, ShipItem, WriteOffItem, HoldResult, FreeResult, WriteOffResult; from the outside world: PickResult, CourierAnswer; its timers; operator: RetryDispatch |
//! | says | of an order: ReservationStarted, LineHeld, StockReserved, StockShort, PaymentNoted, PickingStarted, OrderPackaged, PackagingFailed, DispatchDelayed, DispatchRequested, DispatchAbandoned, OrderDispatched, CancellationAccepted, CancellationRefused, ReleaseStarted, LineReleased, StockReleased; of an item: GoodsReceived, ItemHeld, ItemShort, ItemFreed, ItemShipped, StockWrittenOff; of either: CommandRefused |
//! | remembers | of an order: its phase, and until it ends its lines and where the parcel goes; of an item: its counts, what is held for which order, its deliveries |
//! | undoes | on OrderCancelled: frees what is held, writes off what was not on the shelf, and says StockReleased once |
//! | personal data | the postal address, in ReservationStarted; the state forgets it when the parcel is dispatched or the stock released |
//!
//! An order knows no stock and an item knows no order's story: they talk through the inbox. The next stop of an order's walk is
//! `reads`, then `decide`, `events`, `evolve`, `effects`. This crate must never know prices, payments or another service's types.

pub mod decide;
pub mod effects;
pub mod events;
pub mod evolve;
pub mod inbox;
pub mod reads;

use std::borrow::Cow;

use runtime::{
    Config, Decider, Decision, Received, TimestampMs,
    service::{self, Program, Running, StartError},
};

use crate::{
    effects::{Effect, FloorAndCourier, Settings},
    events::Event,
    evolve::State,
    inbox::Command,
    reads::Input,
};

/// The warehouse service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warehouse {
    /// How long the courier may take to answer an attempt before it is withdrawn, in milliseconds.
    pub courier_deadline_ms: u32,
    /// How long after a failed attempt to dispatch the next one comes, in milliseconds; doubled each time, up to an hour.
    pub dispatch_pause_ms: u32,
    /// How many attempts to dispatch are made before an operator is needed; at least one.
    pub dispatch_attempts: u8,
}

impl Default for Warehouse {
    fn default() -> Self {
        Self { courier_deadline_ms: 5 * 60 * 1_000, dispatch_pause_ms: 60 * 1_000, dispatch_attempts: 5 }
    }
}

/// The longest pause between two attempts to dispatch.
const LONGEST_PAUSE_MS: i64 = 60 * 60 * 1_000;

impl Warehouse {
    /// The service with the patience that the settings give.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let usual = Self::default();
        Self {
            courier_deadline_ms: settings.courier_deadline_ms.unwrap_or(usual.courier_deadline_ms),
            dispatch_pause_ms: settings.dispatch_pause_ms.unwrap_or(usual.dispatch_pause_ms),
            dispatch_attempts: settings.dispatch_attempts.unwrap_or(usual.dispatch_attempts),
        }
    }

    fn courier_answers_by(&self, at: TimestampMs) -> TimestampMs {
        at.saturating_add(self.courier_deadline_ms.into())
    }

    /// The pause after so many attempts have failed in a row, at least one.
    fn pause_ms(&self, failed: i32) -> i64 {
        let doublings = u32::try_from(failed.saturating_sub(1)).unwrap_or(0).min(30);
        i64::from(self.dispatch_pause_ms).saturating_mul(1 << doublings).min(LONGEST_PAUSE_MS)
    }
}

impl Decider for Warehouse {
    const NAME: &'static str = "warehouse";

    type State = State;
    type Input = Input;
    type Event = Event;
    type Command = Command;
    type Effect = Effect;

    fn entity<'a>(&self, input: &'a Received<Input>) -> Cow<'a, str> {
        reads::entity(input)
    }

    fn decide(&self, state: &State, input: &Received<Input>) -> Decision<Event, Command> {
        decide::decide(self, state, input)
    }

    fn evolve(&self, state: State, event: &Event) -> State {
        evolve::evolve(state, event)
    }

    fn pending(&self, state: &State) -> Vec<Effect> {
        effects::pending(state)
    }

    fn wake_at(&self, state: &State) -> Option<TimestampMs> {
        state.fulfilment.as_ref()?.wake_at()
    }
}

/// Starts the service.
///
/// # Errors
/// Something that waiting does not resolve keeps it from starting.
pub async fn service(config: Config, warehouse: Warehouse, outside: FloorAndCourier) -> Result<Running, StartError> {
    service::start(config, warehouse, outside, axum::Router::new()).await
}

/// The service as a program: its own binary runs it, and so does `dacapo service`.
#[must_use]
pub fn program() -> Program {
    Program::new(
        Warehouse::NAME,
        "Holds stock, has orders packaged and dispatched",
        |config, settings: Settings| async move {
            Ok(service(config, Warehouse::of(&settings), FloorAndCourier::of(&settings)?).await?)
        },
    )
}
