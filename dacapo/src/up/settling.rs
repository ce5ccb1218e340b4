//! Waits until every order has settled, and collects the outcomes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::bail;
use projector::{
    RunningProjector,
    api::{SagaCounts, SagaSummary},
    query::{LIMIT_MAX, SagaFilter},
};

use super::{
    place_orders::PlacementCounts,
    progress::{Progress, ProgressCounts},
};

/// The interval between two checks of the counts.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The saga that must settle. Customers verify their addresses at any time, so their sagas may stay open.
const ORDERS: &str = "order-fulfilment";

/// The number of order sagas, and how many of them are open.
#[must_use]
pub(super) fn total_and_open(projector: &RunningProjector) -> (u64, u64) {
    of_orders(projector).map_or((0, 0), |counts| (counts.total, counts.open))
}

fn of_orders(projector: &RunningProjector) -> Option<SagaCounts> {
    projector.counts().into_iter().find(|counts| counts.saga == ORDERS)
}

/// Waits until the projector has read `sagas` sagas and none is open.
///
/// # Errors
/// Nothing changed for `patience`: the message says how many sagas are open, and what they wait for.
pub(super) async fn wait(
    projector: &RunningProjector,
    sagas: u64,
    patience: Duration,
    placed: &PlacementCounts,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let mut last = (0, u64::MAX, 0);
    let mut changed_at = Instant::now();
    loop {
        let (total, open) = total_and_open(projector);
        progress.show(ProgressCounts { placed: placed.answered(), orders: None, settled: total - open, open });
        if total >= sagas && open == 0 {
            return Ok(());
        }
        let now = (total, open, projector.board().view().records());
        if now != last {
            (last, changed_at) = (now, Instant::now());
        }
        if changed_at.elapsed() >= patience {
            bail!("{}", stuck(projector, sagas, total, open, patience));
        }
        if let Some(failure) = projector.failure() {
            bail!("the projector failed: {failure}");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn stuck(projector: &RunningProjector, sagas: u64, total: u64, open: u64, patience: Duration) -> String {
    let waiting = of_orders(projector).into_iter().flat_map(|counts| counts.waiting);
    let waiting: Vec<String> =
        waiting.filter(|(_, count)| *count > 0).map(|(step, count)| format!("{count} for {step}")).collect();
    let unseen = sagas.saturating_sub(total);
    format!(
        "nothing changed for {} s: {open} sagas are open (waiting: {}) and {unseen} orders have no saga; \
         `dacapo sagas list --state running,compensating` shows them",
        patience.as_secs(),
        if waiting.is_empty() { "none".to_owned() } else { waiting.join(", ") }
    )
}

/// The outcomes of the sagas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SagaOutcomes {
    /// All sagas, by outcome.
    pub(super) by_outcome: BTreeMap<String, u64>,
    /// How long each saga of this run took from its first event until it was settled, in milliseconds.
    pub(super) took_ms: Vec<u64>,
}

/// The outcomes of the sagas; `run` has the ids of the sagas of this run.
///
/// # Errors
/// The projector refuses the query.
pub(super) fn outcomes(projector: &RunningProjector, run: &BTreeSet<String>) -> anyhow::Result<SagaOutcomes> {
    let orders = SagaFilter { saga: Some(ORDERS.to_owned()), ..SagaFilter::default() };
    let (mut outcomes, mut before) = (SagaOutcomes::default(), None);
    loop {
        let page = projector.board().view().list(&orders, before, LIMIT_MAX)?;
        for saga in &page.items {
            count(&mut outcomes, saga, run.contains(&saga.id));
        }
        match page.next {
            Some(next) => before = Some(next),
            None => return Ok(outcomes),
        }
    }
}

fn count(outcomes: &mut SagaOutcomes, saga: &SagaSummary, is_of_run: bool) {
    let outcome = saga.outcome.clone().unwrap_or_else(|| saga.state.clone());
    *outcomes.by_outcome.entry(outcome).or_default() += 1;
    if is_of_run {
        outcomes.took_ms.extend(saga.took_ms.and_then(|took| u64::try_from(took).ok()));
    }
}
