//! The flags that choose generated orders, and `dacapo orders`, which prints them.

use super::{OrderGenerator, OrderMix};
use crate::output;

/// Flags for the seed and the mix of generated orders.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct OrderMixArgs {
    /// Seed of generated orders: a seed always gives the same orders
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Share of orders whose payment is declined, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = OrderMix::default().declined)]
    pub declined: f64,
    /// Share of orders with a line that is out of stock, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = OrderMix::default().short)]
    pub short: f64,
    /// Share of orders with a line that is missing from the shelf when they are packaged, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = OrderMix::default().lost)]
    pub lost: f64,
    /// Share of orders that are rejected when they are placed, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = OrderMix::default().rejected)]
    pub rejected: f64,
    /// Share of orders whose customer requests a cancellation as soon as they are placed, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = OrderMix::default().cancelled)]
    pub cancelled: f64,
    /// Share of generated orders whose parcel the courier refuses once, in percent: their postcode asks the stub for it
    #[arg(long, value_name = "PERCENT", default_value_t = OrderMix::default().delayed)]
    pub delayed: f64,
}

impl OrderMixArgs {
    /// The generator that these flags configure.
    ///
    /// # Errors
    /// The shares are invalid.
    pub fn generator(&self) -> anyhow::Result<OrderGenerator> {
        let Self { seed, declined, short, lost, rejected, cancelled, delayed } = *self;
        let mix = OrderMix { declined, short, lost, rejected, cancelled, delayed };
        Ok(OrderGenerator::new(seed, mix.checked()?))
    }
}

/// Flags of `dacapo orders`.
#[derive(Debug, clap::Args)]
pub struct OrdersArgs {
    /// How many orders
    #[arg(value_name = "N")]
    orders: u64,
    #[command(flatten)]
    mix: OrderMixArgs,
}

/// Prints generated orders, one JSON object a line.
///
/// # Errors
/// The shares are invalid, or standard output cannot be written to.
pub fn run(args: &OrdersArgs) -> anyhow::Result<()> {
    let generator = args.mix.generator()?;
    for index in 0..args.orders {
        let order = generator.order(index);
        let mut line = order.body;
        if let Some(fields) = line.as_object_mut() {
            fields.insert("key".to_owned(), order.key.into());
            if order.cancel {
                fields.insert("cancel".to_owned(), true.into());
            }
        }
        output::line(&line.to_string())?;
    }
    Ok(())
}
