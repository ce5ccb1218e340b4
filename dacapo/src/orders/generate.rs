//! Orders generated from a seed, with a given mix of outcomes. A seed gives the same orders on every machine.

use serde_json::{Value, json};

use super::Order;
use crate::{
    rng::SeededRng,
    sample_data::{self, Availability},
};

/// The postcode whose parcels the simulated courier refuses once.
const REFUSED_ONCE: &str = "REFUSED 1";

/// Shares of the outcomes, in percent; the remaining orders complete.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderMix {
    /// The gateway declines the payment.
    pub declined: f64,
    /// One line is out of stock.
    pub short: f64,
    /// One line is not on the shelf when the order is packaged.
    pub lost: f64,
    /// The order names a customer, a sku or a price that does not exist.
    pub rejected: f64,
    /// The customer requests a cancellation as soon as the order is placed.
    pub cancelled: f64,
    /// The courier refuses the first attempt.
    pub delayed: f64,
}

impl Default for OrderMix {
    fn default() -> Self {
        Self { declined: 8.0, short: 6.0, lost: 4.0, rejected: 2.0, cancelled: 0.0, delayed: 0.0 }
    }
}

/// Invalid shares.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "the shares must be 0 or more and at most 100 percent together; declined {}, short {}, lost {}, rejected {}, cancelled {} and \
     delayed {} are not",
    .0.declined, .0.short, .0.lost, .0.rejected, .0.cancelled, .0.delayed
)]
pub struct OrderMixError(OrderMix);

impl OrderMix {
    /// The mix, if its shares are valid.
    ///
    /// # Errors
    /// A share is negative or not a number, or the shares exceed 100 percent together.
    pub fn checked(self) -> Result<Self, OrderMixError> {
        let shares = self.shares().map(|(_, share)| share);
        let each_is_a_share = shares.iter().all(|share| *share >= 0.0);
        if each_is_a_share && shares.iter().sum::<f64>() <= 100.0 { Ok(self) } else { Err(OrderMixError(self)) }
    }

    fn shares(self) -> [(IntendedOutcome, f64); 6] {
        let Self { declined, short, lost, rejected, cancelled, delayed } = self;
        [
            (IntendedOutcome::Declined, declined),
            (IntendedOutcome::Short, short),
            (IntendedOutcome::Lost, lost),
            (IntendedOutcome::Rejected, rejected),
            (IntendedOutcome::Cancelled, cancelled),
            (IntendedOutcome::Delayed, delayed),
        ]
    }
}

/// Generates orders.
#[derive(Debug, Clone, Copy)]
pub struct OrderGenerator {
    seed: u64,
    mix: OrderMix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IntendedOutcome {
    Completed,
    Declined,
    Short,
    Lost,
    Rejected,
    Cancelled,
    Delayed,
}

impl OrderGenerator {
    /// A generator with a seed and a mix.
    #[must_use]
    pub fn new(seed: u64, mix: OrderMix) -> Self {
        Self { seed, mix }
    }

    /// The order with this index.
    #[must_use]
    pub fn order(&self, index: u64) -> Order {
        let mut rng = SeededRng::new(self.seed, index);
        let intended = self.intended(&mut rng);
        let customer = rng.below(sample_data::CUSTOMERS);
        let mut lines = lines(&mut rng, Availability::InStock);
        let mut customer_id = sample_data::customer_id(customer);
        match intended {
            IntendedOutcome::Short => lines.push(piece_of(Availability::OutOfStock, &mut rng)),
            IntendedOutcome::Lost => lines.push(piece_of(Availability::MissingFromShelf, &mut rng)),
            IntendedOutcome::Rejected => match rng.below(3) {
                0 => customer_id = format!("customer-nobody-{index}"),
                1 => lines.push(line("lp-no-such-album", 1)),
                _ => lines.push(piece_of(Availability::NotForSale, &mut rng)),
            },
            IntendedOutcome::Completed
            | IntendedOutcome::Declined
            | IntendedOutcome::Cancelled
            | IntendedOutcome::Delayed => {}
        }
        let mut ship_to = sample_data::address(customer);
        if intended == IntendedOutcome::Delayed {
            ship_to["postcode"] = REFUSED_ONCE.into();
        }
        let body = json!({
            "customer_id": customer_id,
            "ship_to": ship_to,
            "lines": lines,
            "payment_method": if intended == IntendedOutcome::Declined { "card-declined" } else { "card-ok" },
        });
        Order { key: format!("generated-{}-{index}", self.seed), body, cancel: intended == IntendedOutcome::Cancelled }
    }

    fn intended(&self, rng: &mut SeededRng) -> IntendedOutcome {
        #[expect(clippy::cast_precision_loss, reason = "a number below 1,000,000 is exact")]
        let mut random = rng.below(1_000_000) as f64 / 10_000.0;
        for (intended, share) in self.mix.shares() {
            if random < share {
                return intended;
            }
            random -= share;
        }
        IntendedOutcome::Completed
    }
}

/// One to four different albums with this availability, up to three pieces of each.
fn lines(rng: &mut SeededRng, availability: Availability) -> Vec<Value> {
    let mut skus: Vec<&str> = (0..=rng.below(4)).map(|_| sample_data::pick_sku(availability, rng.next_u64())).collect();
    skus.sort_unstable();
    skus.dedup();
    skus.iter().map(|sku| line(sku, 1 + rng.below(3))).collect()
}

/// One piece of an album with this availability.
fn piece_of(availability: Availability, rng: &mut SeededRng) -> Value {
    line(sample_data::pick_sku(availability, rng.next_u64()), 1)
}

fn line(sku: &str, quantity: u64) -> Value {
    json!({ "sku": sku, "quantity": quantity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_orders_and_another_seed_gives_others() {
        let orders =
            |seed| (0..50).map(|index| OrderGenerator::new(seed, OrderMix::default()).order(index)).collect::<Vec<_>>();
        assert_eq!(orders(1), orders(1));
        assert_ne!(orders(1)[0].body, orders(2)[0].body);
        let keys: std::collections::BTreeSet<String> = orders(1).into_iter().map(|order| order.key).collect();
        assert_eq!(keys.len(), 50);
    }

    #[test]
    fn the_orders_have_the_configured_mix() {
        let generator = OrderGenerator::new(7, OrderMix::default());
        let orders: Vec<String> = (0..10_000).map(|index| generator.order(index).body.to_string()).collect();
        let share = |word: &str| orders.iter().filter(|order| order.contains(word)).count();
        assert!((700..900).contains(&share("card-declined")), "{}", share("card-declined"));
        assert!((500..700).contains(&share("\"rare-")), "{}", share("\"rare-"));
        assert!((320..480).contains(&share("\"ghost-")), "{}", share("\"ghost-"));
        let rejected = share("customer-nobody-") + share("lp-no-such-album") + share("\"gone-");
        assert!((140..260).contains(&rejected), "{rejected}");
    }

    #[test]
    fn cancelled_and_delayed_shares_leave_the_other_orders_unchanged() {
        let orders = |mix| (0..2_000).map(|index| OrderGenerator::new(7, mix).order(index)).collect::<Vec<_>>();
        let usual = orders(OrderMix::default());
        assert!(usual.iter().all(|order| !order.cancel && !order.body.to_string().contains(REFUSED_ONCE)));
        let mixed = orders(OrderMix { cancelled: 5.0, delayed: 10.0, ..OrderMix::default() });
        let cancelled = mixed.iter().filter(|order| order.cancel).count();
        let delayed = mixed.iter().filter(|order| order.body.to_string().contains(REFUSED_ONCE)).count();
        assert!((60..140).contains(&cancelled) && (150..250).contains(&delayed), "{cancelled} {delayed}");
        let same = usual.iter().zip(&mixed).filter(|(usual, mixed)| usual == mixed).count();
        assert_eq!(same, 2_000 - cancelled - delayed);
    }

    #[test]
    fn invalid_shares_are_refused() {
        let only = |mix: OrderMix| OrderMix { short: 0.0, lost: 0.0, rejected: 0.0, ..mix };
        assert!(
            OrderMix { short: 41.0, ..only(OrderMix { declined: 60.0, ..OrderMix::default() }) }.checked().is_err()
        );
        assert!(OrderMix { declined: -1.0, ..OrderMix::default() }.checked().is_err());
        assert!(OrderMix { declined: f64::NAN, ..OrderMix::default() }.checked().is_err());
        assert!(only(OrderMix { declined: 100.0, ..OrderMix::default() }).checked().is_ok());
        let error = OrderMix { delayed: 90.0, ..OrderMix::default() }.checked().unwrap_err().to_string();
        assert!(error.contains("rejected 2, cancelled 0 and delayed 90 are not"), "{error}");
    }
}
