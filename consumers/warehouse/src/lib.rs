//! The warehouse: holds an order's items, has them picked and packed, hands the parcel to the courier, or gives everything back.
//!
//! | card | |
//! |---|---|
//! | key | the order (*fulfilment*); the sku (*stock item*) |
//! | hears | order-processor: OrderPlaced, OrderPaid, OrderCancelled |
//! | inbox | ReceiveGoods from outside; between orders and items: HoldItem, FreeItem, ShipItem, WriteOffItem, HoldResult, FreeResult, WriteOffResult; from the outside world: PickResult, CourierAnswer |
//! | says | of an order: ReservationStarted, LineHeld, StockReserved, StockShort, PaymentNoted, PickingStarted, OrderPackaged, PackagingFailed, OrderDispatched, ReleaseStarted, LineReleased, StockReleased; of an item: GoodsReceived, ItemHeld, ItemShort, ItemFreed, ItemShipped, StockWrittenOff, CommandRefused |
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
    Config, Decider, Decision, Heard,
    service::{self, Running, StartError},
};

use crate::{
    effects::{Effect, FloorAndCourier},
    events::Event,
    evolve::State,
    inbox::Command,
    reads::Input,
};

/// The warehouse service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Warehouse;

impl Decider for Warehouse {
    const NAME: &'static str = "warehouse";

    type State = State;
    type Input = Input;
    type Event = Event;
    type Command = Command;
    type Effect = Effect;

    fn entity<'a>(&self, input: &'a Heard<Input>) -> Cow<'a, str> {
        Cow::Borrowed(reads::entity(&input.body))
    }

    fn decide(&self, state: &State, input: &Heard<Input>) -> Decision<Event, Command> {
        decide::decide(state, input)
    }

    fn evolve(&self, state: State, event: &Event) -> State {
        evolve::evolve(state, event)
    }

    fn pending(&self, state: &State) -> Vec<Effect> {
        effects::pending(state)
    }
}

/// Starts the service.
///
/// # Errors
/// Something that waiting does not resolve keeps it from starting.
pub async fn service(config: Config, outside: FloorAndCourier) -> Result<Running, StartError> {
    service::start(config, Warehouse, outside, axum::Router::new()).await
}
