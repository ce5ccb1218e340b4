//! A table on a broker whose rows cannot always be made.
//!
//! Runs on the broker and registry in `DACAPO_TEST_KAFKA` and `DACAPO_TEST_REGISTRY`, else on the embedded pair.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use cluster::{Cluster, PATIENCE};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use runtime::{
    Channel, Message,
    kafka::{TopicKind, TopicSpec},
    message::topic,
    table::{ChangedRows, Row, Rows, Table},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Total {
    total: i64,
}

runtime::produces! {
    /// The rows of the table.
    enum TotalRow in "../runtime-core/tests/schemas" {
        state of "probe" { Total = 1 }
    }
}

/// Where the rows panic.
const NOWHERE: u8 = 0;
const IN_CHANGED: u8 = 1;
const IN_IS_CURRENT: u8 = 2;

/// One row for each number up to a count, which panics where a test wants it to.
#[derive(Clone, Default)]
struct Totals {
    count: Arc<AtomicU64>,
    panics: Arc<AtomicU8>,
    calls: Arc<AtomicU64>,
}

impl Rows for Totals {
    type Message = TotalRow;

    fn is_current(&self) -> bool {
        self.calls.fetch_add(1, SeqCst);
        assert!(self.panics.load(SeqCst) != IN_IS_CURRENT, "is_current was told to panic");
        true
    }

    fn changed(&self, since: u64, limit: usize) -> ChangedRows<TotalRow> {
        assert!(self.panics.load(SeqCst) != IN_CHANGED, "changed was told to panic");
        let count = self.count.load(SeqCst);
        let row = |number: u64| Row {
            key: format!("order-{number}"),
            correlation_id: format!("saga-{number}"),
            cause: None,
            message: Total { total: number.cast_signed() }.into(),
        };
        let next = count.min(since + limit as u64);
        ChangedRows { rows: (since..next).map(row).collect(), next, more: next < count }
    }
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !tokio::task::block_in_place(&mut look) {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many members the table's group has. A consumer that nobody closed would still be one.
fn members(cluster: &Cluster) -> usize {
    let asker: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &cluster.config.bootstrap).create().unwrap();
    let group = runtime::kafka::client::group(&cluster.config.system, "probe");
    let groups = asker.fetch_group_list(Some(&group), PATIENCE).unwrap();
    groups.groups().iter().map(|group| group.members().len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_rows_panic_reports_it_and_tries_again_until_they_do_not() {
    for (place, reason) in [(IN_CHANGED, "changed was told to panic"), (IN_IS_CURRENT, "is_current was told to panic")]
    {
        let cluster = Cluster::start("probe").await;
        let name = topic(&cluster.config.system, "probe", Channel::State);
        cluster.create(&[TopicSpec::new(name, cluster.config.partitions, TopicKind::Compacted)]).await;
        cluster.register(TotalRow::RECORDS);
        let totals = Totals::default();
        totals.count.store(10, SeqCst);
        totals.panics.store(place, SeqCst);
        let table = Table::start(&cluster.config, cluster.registry.clone(), totals.clone()).unwrap();
        let expected = format!("the code that makes the rows panicked: {reason}");
        let is_reported = || table.issue().as_deref() == Some(expected.as_str());
        until("a report", is_reported).await;
        // It is tried again, and reported without a break.
        let calls = totals.calls.load(SeqCst);
        until("a second attempt", || {
            assert!(is_reported(), "{:?}", table.issue());
            totals.calls.load(SeqCst) >= calls + 2
        })
        .await;
        assert_eq!(table.written(), 0);
        totals.panics.store(NOWHERE, SeqCst);
        until("every row", || table.written() == 10).await;
        until("no problem left", || table.issue().is_none()).await;
        assert_eq!(tokio::task::block_in_place(|| members(&cluster)), 1);
        // The same in a table that has worked.
        totals.panics.store(place, SeqCst);
        until("a report", is_reported).await;
        totals.count.store(12, SeqCst);
        totals.panics.store(NOWHERE, SeqCst);
        until("the new rows alone", || table.written() == 12).await;
        until("no problem left", || table.issue().is_none()).await;
        assert!(table.stop(PATIENCE).await, "it ends in time");
        assert_eq!(tokio::task::block_in_place(|| members(&cluster)), 0);
    }
}
