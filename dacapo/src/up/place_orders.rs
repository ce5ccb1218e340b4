//! Places orders from a file or a generator at the order-processor's HTTP API, with bounded concurrency, at a given rate.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use order_processor::{
    edge::{OrderEdge, Placement, PlacementOutcome, RequestError},
    request::MAX_KEY_BYTES,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    orders::{InputLine, InputLines, Order, OrderGenerator, digest},
    output,
};

/// The maximum number of orders in flight. Enough to keep every service busy, and few enough that orders do not queue before the
/// choreography starts.
const IN_FLIGHT: usize = 256;
/// How long transient failures of an order are retried before it counts as not placed.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first pause before a retry; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The source of the orders.
#[derive(Debug, Clone)]
pub(super) enum OrderSource {
    /// No orders.
    None,
    /// A file; `-` is standard input.
    File(PathBuf),
    /// A generator, and the number of orders.
    Generated(OrderGenerator, u64),
}

impl OrderSource {
    /// The number of orders, if it is known.
    #[must_use]
    pub(super) fn orders(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::File(_) => None,
            Self::Generated(_, orders) => Some(*orders),
        }
    }

    /// What the number of an order counts.
    fn unit(&self) -> &'static str {
        match self {
            Self::File(_) => "line",
            Self::None | Self::Generated(..) => "order",
        }
    }
}

/// The orders of this run, counted by result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PlacementCounts {
    /// Ids of the orders that this run was the first to place.
    pub(super) placed: BTreeSet<String>,
    /// Orders that an earlier run had placed.
    pub(super) placed_before: u64,
    /// Orders that could not be placed.
    pub(super) not_placed: u64,
}

impl PlacementCounts {
    /// Orders that were accepted or rejected.
    #[must_use]
    pub(super) fn answered(&self) -> u64 {
        self.placed.len() as u64 + self.placed_before
    }
}

/// Places every order of a source; `stop` ends it early. Calls `on_result` with the counts after every response.
///
/// # Errors
/// The source cannot be read.
pub(super) async fn place_all(
    edge: OrderEdge,
    source: OrderSource,
    rate: Option<f64>,
    mut stop: watch::Receiver<bool>,
    mut on_result: impl FnMut(&PlacementCounts),
) -> anyhow::Result<PlacementCounts> {
    let unit = source.unit();
    let (lines, mut read) = mpsc::channel(IN_FLIGHT);
    let reading = tokio::task::spawn_blocking(move || read_source(source, &lines));
    let (mut counts, mut in_flight) = (PlacementCounts::default(), JoinSet::new());
    let mut limiter = RateLimiter::new(rate);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(done) = in_flight.join_next() => {
                count(&mut counts, done?, unit);
                on_result(&counts);
            }
            line = limiter.next(&mut read), if in_flight.len() < IN_FLIGHT => match line {
                Some(InputLine { number, order: Ok(order) }) => {
                    in_flight.spawn(place(edge.clone(), number, order));
                }
                Some(InputLine { number, order: Err(reason) }) => {
                    count(&mut counts, PlacementResult { number, placed: Err(reason) }, unit);
                    on_result(&counts);
                }
                None => break,
            },
        }
    }
    drop(read);
    while let Some(done) = in_flight.join_next().await {
        count(&mut counts, done?, unit);
        on_result(&counts);
    }
    reading.await??;
    Ok(counts)
}

/// The result of one order.
struct PlacementResult {
    number: u64,
    placed: Result<Placement, String>,
}

async fn place(edge: OrderEdge, number: u64, order: Order) -> PlacementResult {
    let mut placed = retry_transient(number, || edge.place(&order.key, &order.body)).await;
    if let Ok(new) = &placed
        && order.cancel
        && new.outcome != PlacementOutcome::Pending
    {
        // A refused cancellation is a valid response as well: the order then completes.
        let key = format!("cancel-{}", order.key);
        let key = if key.len() > MAX_KEY_BYTES { None } else { Some(key.as_str()) };
        if let Err(reason) = retry_transient(number, || edge.cancel(&new.order_id, key, "")).await {
            placed = Err(format!("its cancellation was not requested: {reason}"));
        }
    }
    PlacementResult { number, placed }
}

/// Repeats a request while it fails transiently and time is left.
async fn retry_transient<T, Response>(number: u64, request: impl Fn() -> Response) -> Result<T, String>
where
    Response: Future<Output = Result<T, RequestError>>,
{
    let (deadline, mut pause) = (Instant::now() + PATIENCE, FIRST_PAUSE);
    loop {
        match request().await {
            Ok(response) => return Ok(response),
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                tracing::debug!(number, %error, "the order is retried");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn count(counts: &mut PlacementCounts, result: PlacementResult, unit: &str) {
    match result.placed {
        Ok(placed) if placed.is_new => drop(counts.placed.insert(placed.order_id)),
        Ok(_) => counts.placed_before += 1,
        Err(reason) => {
            output::note(&format!("{unit} {} is not placed: {reason}", result.number));
            counts.not_placed += 1;
        }
    }
}

/// Releases lines at a given rate.
struct RateLimiter {
    between: Option<Duration>,
    next_at: Instant,
}

impl RateLimiter {
    fn new(rate: Option<f64>) -> Self {
        let between = rate.filter(|rate| *rate > 0.0).map(|rate| Duration::from_secs_f64(1.0 / rate));
        Self { between, next_at: Instant::now() }
    }

    async fn next(&mut self, lines: &mut mpsc::Receiver<InputLine>) -> Option<InputLine> {
        if let Some(between) = self.between {
            tokio::time::sleep_until(self.next_at.into()).await;
            let line = lines.recv().await;
            self.next_at = (self.next_at + between).max(Instant::now().checked_sub(between).unwrap_or(self.next_at));
            return line;
        }
        lines.recv().await
    }
}

fn read_source(source: OrderSource, lines: &mpsc::Sender<InputLine>) -> anyhow::Result<()> {
    match source {
        OrderSource::None => Ok(()),
        OrderSource::Generated(generator, orders) => {
            for index in 0..orders {
                let line = InputLine { number: index + 1, order: Ok(generator.order(index)) };
                if lines.blocking_send(line).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        }
        OrderSource::File(path) if path.as_os_str() == "-" => {
            // Standard input cannot be read twice, so its whole content is kept in memory for the digest.
            let mut content = Vec::new();
            std::io::stdin().lock().read_to_end(&mut content).context("cannot read standard input")?;
            let digest = digest(&content);
            send_lines(InputLines::new(content.as_slice(), digest), lines)
        }
        OrderSource::File(path) => {
            let cannot = || format!("cannot read the orders in {}", path.display());
            let mut file = File::open(&path).with_context(cannot)?;
            let mut content = Vec::new();
            file.read_to_end(&mut content).with_context(cannot)?;
            let digest = digest(&content);
            if !file.metadata().with_context(cannot)?.is_file() {
                // A pipe can be read only once.
                return send_lines(InputLines::new(content.as_slice(), digest), lines);
            }
            drop(content);
            file.seek(SeekFrom::Start(0)).with_context(cannot)?;
            send_lines(InputLines::new(BufReader::new(file), digest), lines)
        }
    }
}

fn send_lines<R: BufRead>(mut source: InputLines<R>, lines: &mpsc::Sender<InputLine>) -> anyhow::Result<()> {
    while let Some(line) = source.next_line()? {
        if lines.blocking_send(line).is_err() {
            break;
        }
    }
    Ok(())
}
