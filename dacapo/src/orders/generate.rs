//! Orders from a seed: a stated mix of ends, the same orders for the same seed on every machine.

use serde_json::{Value, json};

use super::Order;
use crate::{
    draws::Draws,
    seed::{self, Shelf},
};

/// The postcode whose parcels the simulated courier refuses once.
const REFUSED_ONCE: &str = "REFUSED 1";

/// Shares of the ends, in percent; what is left over completes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// The gateway declines the payment.
    pub declined: f64,
    /// One line is out of stock.
    pub short: f64,
    /// One line is not on the shelf when the order is packaged.
    pub lost: f64,
    /// The order names a customer, a sku or a price that is not there.
    pub refused: f64,
    /// The customer asks for a cancellation as soon as it is placed.
    pub cancelled: f64,
    /// The courier refuses the first attempt.
    pub delayed: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { declined: 8.0, short: 6.0, lost: 4.0, refused: 2.0, cancelled: 0.0, delayed: 0.0 }
    }
}

/// Shares that are none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "the shares must be 0 or more and at most 100 percent together; declined {}, short {}, lost {}, refused {}, cancelled {} and \
     delayed {} are not",
    .0.declined, .0.short, .0.lost, .0.refused, .0.cancelled, .0.delayed
)]
pub struct MixError(Mix);

impl Mix {
    /// The mix, if it is one.
    ///
    /// # Errors
    /// A share is negative or not a number, or they are more than 100 percent together.
    pub fn checked(self) -> Result<Self, MixError> {
        let shares = self.shares().map(|(_, share)| share);
        let each_is_a_share = shares.iter().all(|share| *share >= 0.0);
        if each_is_a_share && shares.iter().sum::<f64>() <= 100.0 { Ok(self) } else { Err(MixError(self)) }
    }

    fn shares(self) -> [(Aim, f64); 6] {
        let Self { declined, short, lost, refused, cancelled, delayed } = self;
        [
            (Aim::Declined, declined),
            (Aim::Short, short),
            (Aim::Lost, lost),
            (Aim::Refused, refused),
            (Aim::Cancelled, cancelled),
            (Aim::Delayed, delayed),
        ]
    }
}

/// Makes orders.
#[derive(Debug, Clone, Copy)]
pub struct Generator {
    seed: u64,
    mix: Mix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Completed,
    Declined,
    Short,
    Lost,
    Refused,
    Cancelled,
    Delayed,
}

impl Generator {
    /// A generator of a seed and a mix.
    #[must_use]
    pub fn new(seed: u64, mix: Mix) -> Self {
        Self { seed, mix }
    }

    /// The order with this index.
    #[must_use]
    pub fn order(&self, index: u64) -> Order {
        let mut draws = Draws::new(self.seed, index);
        let aim = self.aim(&mut draws);
        let customer = draws.below(seed::CUSTOMERS);
        let mut lines = lines(&mut draws, Shelf::Stocked);
        let mut customer_id = seed::customer_id(customer);
        match aim {
            Aim::Short => lines.push(line(seed::draw_sku(Shelf::Empty, draws.any()), 1)),
            Aim::Lost => lines.push(line(seed::draw_sku(Shelf::Ghost, draws.any()), 1)),
            Aim::Refused => match draws.below(3) {
                0 => customer_id = format!("customer-nobody-{index}"),
                1 => lines.push(line("lp-no-such-album", 1)),
                _ => lines.push(line(seed::draw_sku(Shelf::NotSold, draws.any()), 1)),
            },
            Aim::Completed | Aim::Declined | Aim::Cancelled | Aim::Delayed => {}
        }
        let mut ship_to = seed::address(customer);
        if aim == Aim::Delayed {
            ship_to["postcode"] = REFUSED_ONCE.into();
        }
        let body = json!({
            "customer_id": customer_id,
            "ship_to": ship_to,
            "lines": lines,
            "payment_method": if aim == Aim::Declined { "card-declined" } else { "card-ok" },
        });
        Order { key: format!("generated-{}-{index}", self.seed), body, cancel: aim == Aim::Cancelled }
    }

    fn aim(&self, draws: &mut Draws) -> Aim {
        #[expect(clippy::cast_precision_loss, reason = "a number below 1,000,000 is exact")]
        let mut drawn = draws.below(1_000_000) as f64 / 10_000.0;
        for (aim, share) in self.mix.shares() {
            if drawn < share {
                return aim;
            }
            drawn -= share;
        }
        Aim::Completed
    }
}

/// One to four different albums from a shelf, up to three of each.
fn lines(draws: &mut Draws, shelf: Shelf) -> Vec<Value> {
    let mut skus: Vec<&str> = (0..=draws.below(4)).map(|_| seed::draw_sku(shelf, draws.any())).collect();
    skus.sort_unstable();
    skus.dedup();
    skus.iter().map(|sku| line(sku, 1 + draws.below(3))).collect()
}

fn line(sku: &str, quantity: u64) -> Value {
    json!({ "sku": sku, "quantity": quantity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_orders_and_another_seed_others() {
        let orders = |seed| (0..50).map(|index| Generator::new(seed, Mix::default()).order(index)).collect::<Vec<_>>();
        assert_eq!(orders(1), orders(1));
        assert_ne!(orders(1)[0].body, orders(2)[0].body);
        let keys: std::collections::BTreeSet<String> = orders(1).into_iter().map(|order| order.key).collect();
        assert_eq!(keys.len(), 50);
    }

    #[test]
    fn the_mix_is_what_was_asked_for() {
        let generator = Generator::new(7, Mix::default());
        let orders: Vec<String> = (0..10_000).map(|index| generator.order(index).body.to_string()).collect();
        let share = |word: &str| orders.iter().filter(|order| order.contains(word)).count();
        assert!((700..900).contains(&share("card-declined")), "{}", share("card-declined"));
        assert!((500..700).contains(&share("\"rare-")), "{}", share("\"rare-"));
        assert!((320..480).contains(&share("\"ghost-")), "{}", share("\"ghost-"));
        let refused = share("customer-nobody-") + share("lp-no-such-album") + share("\"gone-");
        assert!((140..260).contains(&refused), "{refused}");
    }

    #[test]
    fn orders_are_cancelled_and_delayed_only_if_asked_for_and_the_others_stay_as_they_were() {
        let orders = |mix| (0..2_000).map(|index| Generator::new(7, mix).order(index)).collect::<Vec<_>>();
        let usual = orders(Mix::default());
        assert!(usual.iter().all(|order| !order.cancel && !order.body.to_string().contains(REFUSED_ONCE)));
        let troubled = orders(Mix { cancelled: 5.0, delayed: 10.0, ..Mix::default() });
        let cancelled = troubled.iter().filter(|order| order.cancel).count();
        let delayed = troubled.iter().filter(|order| order.body.to_string().contains(REFUSED_ONCE)).count();
        assert!((60..140).contains(&cancelled) && (150..250).contains(&delayed), "{cancelled} {delayed}");
        let same = usual.iter().zip(&troubled).filter(|(usual, troubled)| usual == troubled).count();
        assert_eq!(same, 2_000 - cancelled - delayed);
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        let only = |mix: Mix| Mix { short: 0.0, lost: 0.0, refused: 0.0, ..mix };
        assert!(Mix { short: 41.0, ..only(Mix { declined: 60.0, ..Mix::default() }) }.checked().is_err());
        assert!(Mix { declined: -1.0, ..Mix::default() }.checked().is_err());
        assert!(Mix { declined: f64::NAN, ..Mix::default() }.checked().is_err());
        assert!(only(Mix { declined: 100.0, ..Mix::default() }).checked().is_ok());
        let error = Mix { delayed: 90.0, ..Mix::default() }.checked().unwrap_err().to_string();
        assert!(error.contains("refused 2, cancelled 0 and delayed 90 are not"), "{error}");
    }
}
