//! The inputs of the catalogue: its own inbox, nothing else.

use std::borrow::Cow;

use runtime::Received;

use crate::inbox::{ChangePrice, ListAlbum};

runtime::consumes! {
    /// The inputs of the catalogue.
    pub enum Input {
        inbox of "catalogue" { ListAlbum, ChangePrice }
    }
}

/// The sku of an input, regardless of its key.
pub fn sku_of(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::ListAlbum(command) => &command.sku,
        Input::ChangePrice(command) => &command.sku,
    })
}
