//! The warehouse: holds the items of an order, has them picked and packed, dispatches the parcel, or releases the items.
//!
//! | card | |
//! |---|---|
//! | key | the order (*fulfilment*); the sku (*stock item*) |
//! | consumes | order-processor: OrderPlaced, OrderPaid, OrderCancellationRequested, OrderCancelled |
//! | inbox | ReceiveGoods from deliveries; between orders and items: HoldItem, FreeItem, ShipItem, WriteOffItem, HoldResult, FreeResult, WriteOffResult; from picking and the courier: PickResult, CourierAnswer; its timers; operator: RetryDispatch |
//! | produces | of an order: ReservationStarted, LineHeld, StockReserved, StockShort, PaymentNoted, PickingStarted, OrderPackaged, PackagingFailed, DispatchDelayed, DispatchRequested, DispatchAbandoned, OrderDispatched, CancellationAccepted, CancellationRefused, ReleaseStarted, LineReleased, StockReleased; of an item: GoodsReceived, ItemHeld, ItemShort, ItemFreed, ItemShipped, StockWrittenOff; of either: CommandRefused |
//! | remembers | of an order: its phase, and until it ends its lines and the address; of an item: its quantities, what is held for each order, and its deliveries |
//! | compensates | on OrderCancelled: frees held items, writes off missing ones, and produces StockReleased once |
//! | personal data | the postal address, in ReservationStarted; the state drops it when the parcel is dispatched or the stock released |
//!
//! An order does not know the stock, and an item does not know the phase of an order: they exchange commands through the inbox. A
//! record passes through `reads`, `decide`, `events`, `evolve` and `effects`. This crate knows no prices, no payments and no type of
//! another service.

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
    effects::{PickingAndCourier, Settings, WarehouseCall},
    events::Event,
    evolve::State,
    inbox::Command,
    reads::Input,
};

/// The warehouse service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warehouse {
    /// The time in which the courier must answer an attempt before it is withdrawn, in milliseconds.
    pub courier_deadline_ms: u32,
    /// The pause after a failed attempt to dispatch, in milliseconds; doubled each time, up to an hour.
    pub dispatch_pause_ms: u32,
    /// The number of attempts to dispatch before an operator is needed; at least one.
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
    /// The service with the deadlines of the settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let default = Self::default();
        Self {
            courier_deadline_ms: settings.courier_deadline_ms.unwrap_or(default.courier_deadline_ms),
            dispatch_pause_ms: settings.dispatch_pause_ms.unwrap_or(default.dispatch_pause_ms),
            dispatch_attempts: settings.dispatch_attempts.unwrap_or(default.dispatch_attempts),
        }
    }

    fn courier_deadline(&self, at: TimestampMs) -> TimestampMs {
        at.saturating_add(self.courier_deadline_ms.into())
    }

    /// The pause after `failed` consecutive attempts, at least one.
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
    type Effect = WarehouseCall;

    fn entity<'a>(&self, input: &'a Received<Input>) -> Cow<'a, str> {
        reads::entity(input)
    }

    fn decide(&self, state: &State, input: &Received<Input>) -> Decision<Event, Command> {
        decide::decide(self, state, input)
    }

    fn evolve(&self, state: State, event: &Event) -> State {
        evolve::evolve(state, event)
    }

    fn pending(&self, state: &State) -> Vec<WarehouseCall> {
        effects::pending(state)
    }

    fn wake_at(&self, state: &State) -> Option<TimestampMs> {
        state.fulfilment.as_ref()?.wake_at()
    }
}

/// Starts the service.
///
/// # Errors
/// The service cannot start, and waiting does not help.
pub async fn service(config: Config, warehouse: Warehouse, calls: PickingAndCourier) -> Result<Running, StartError> {
    service::start(config, warehouse, calls, axum::Router::new()).await
}

/// The service as a program. The `warehouse` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new(
        Warehouse::NAME,
        "Holds stock, packages and dispatches orders",
        |config, settings: Settings| async move {
            Ok(service(config, Warehouse::of(&settings), PickingAndCourier::of(&settings)?).await?)
        },
    )
}
