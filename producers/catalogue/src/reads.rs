//! What the catalogue hears: its own inbox, nothing else.

use std::borrow::Cow;

use runtime::Received;

use crate::inbox::{ChangePrice, ListAlbum};

runtime::consumes! {
    /// What the catalogue hears.
    pub enum Input {
        inbox of "catalogue" { ListAlbum, ChangePrice }
    }
}

/// The sku an input is about, whatever key it came under.
pub fn sku_of(input: &Received<Input>) -> Cow<'_, str> {
    Cow::Borrowed(match &input.body {
        Input::ListAlbum(command) => &command.sku,
        Input::ChangePrice(command) => &command.sku,
    })
}
