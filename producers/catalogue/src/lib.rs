//! The catalogue: owns what albums there are and what they cost. Key: the sku.
//!
//! - **Hears** nobody.
//! - **Inbox** ListAlbum, ChangePrice.
//! - **Says** AlbumListed, AlbumPriceChanged, CommandRefused.
//! - **Remembers** title, artist and price of each listed album.
//! - **Undoes** nothing: an order keeps the price of its day.
//! - **Personal data** none.

use std::borrow::Cow;

use runtime::{Decider, Decision, Heard, NoEffect};

pub mod decide;
pub mod events;
pub mod evolve;
pub mod inbox;
pub mod reads;
pub mod request;

/// The catalogue's rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Catalogue;

impl Decider for Catalogue {
    const NAME: &'static str = "catalogue";
    type State = evolve::State;
    type Input = reads::Input;
    type Event = events::Event;
    type Command = inbox::Command;
    type Effect = NoEffect;

    fn entity<'a>(&self, input: &'a Heard<Self::Input>) -> Cow<'a, str> {
        reads::sku_of(input)
    }

    fn decide(&self, state: &Self::State, input: &Heard<Self::Input>) -> Decision<Self::Event, Self::Command> {
        decide::decide(state, input)
    }

    fn evolve(&self, state: Self::State, event: &Self::Event) -> Self::State {
        evolve::evolve(state, event)
    }
}
