//! Waits until every order has come to its end, and says what became of each.

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
    placing::Tally,
    progress::{Progress, Standing},
};

/// How often the counts are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The saga whose end is waited for. Customers verify their addresses when they like.
const ORDERS: &str = "order-fulfilment";

/// How many orders there are, and how many of them are on their way.
#[must_use]
pub(super) fn standing(projector: &RunningProjector) -> (u64, u64) {
    of_orders(projector).map_or((0, 0), |counts| (counts.total, counts.open))
}

fn of_orders(projector: &RunningProjector) -> Option<SagaCounts> {
    projector.counts().into_iter().find(|counts| counts.saga == ORDERS)
}

/// Waits until the projector has seen `sagas` sagas and none is open.
///
/// # Errors
/// Nothing moved for `patience`: the text says how many are open, and what they wait for.
pub(super) async fn wait(
    projector: &RunningProjector,
    sagas: u64,
    patience: Duration,
    tally: &Tally,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let mut last = (0, u64::MAX, 0);
    let mut moved_at = Instant::now();
    loop {
        let (total, open) = standing(projector);
        progress.show(Standing { placed: tally.answered(), orders: None, settled: total - open, open });
        if total >= sagas && open == 0 {
            return Ok(());
        }
        let now = (total, open, projector.board().view().records());
        if now != last {
            (last, moved_at) = (now, Instant::now());
        }
        if moved_at.elapsed() >= patience {
            bail!("{}", stuck(projector, sagas, total, open, patience));
        }
        if let Some(failure) = projector.failure() {
            bail!("the projector failed: {failure}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn stuck(projector: &RunningProjector, sagas: u64, total: u64, open: u64, patience: Duration) -> String {
    let waiting = of_orders(projector).into_iter().flat_map(|counts| counts.waiting);
    let waiting: Vec<String> =
        waiting.filter(|(_, count)| *count > 0).map(|(step, count)| format!("{count} for {step}")).collect();
    let unseen = sagas.saturating_sub(total);
    format!(
        "nothing moved for {} s: {open} sagas are open (waiting: {}) and {unseen} orders were never heard of; \
         `dacapo sagas list --state running,compensating` shows them",
        patience.as_secs(),
        if waiting.is_empty() { "none".to_owned() } else { waiting.join(", ") }
    )
}

/// How sagas ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// All of them, by outcome.
    pub(super) by_outcome: BTreeMap<String, u64>,
    /// How long those of a run took from their first event to the last thing that their end needed, in milliseconds.
    pub(super) took_ms: Vec<u64>,
}

/// How the sagas ended; `run` are the ids of those whose time is of interest.
///
/// # Errors
/// The projector refuses the question.
pub(super) fn ended(projector: &RunningProjector, run: &BTreeSet<String>) -> anyhow::Result<Ended> {
    let orders = SagaFilter { saga: Some(ORDERS.to_owned()), ..SagaFilter::default() };
    let (mut ended, mut before) = (Ended::default(), None);
    loop {
        let page = projector.board().view().list(&orders, before, LIMIT_MAX)?;
        for saga in &page.items {
            count(&mut ended, saga, run.contains(&saga.id));
        }
        match page.next {
            Some(next) => before = Some(next),
            None => return Ok(ended),
        }
    }
}

fn count(ended: &mut Ended, saga: &SagaSummary, is_of_run: bool) {
    let outcome = saga.outcome.clone().unwrap_or_else(|| saga.state.clone());
    *ended.by_outcome.entry(outcome).or_default() += 1;
    if is_of_run {
        ended.took_ms.extend(saga.took_ms.and_then(|took| u64::try_from(took).ok()));
    }
}
