//! Gives orders to the order-processor's edge, so many at a time, at a given rate, from a file or a generator.

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
    orders::{Generator, Line, Lines, Order, digest},
    output,
};

/// Orders that wait for their answer at once. Enough to keep every service busy, few enough that an order's time is spent in the
/// choreography and not in a queue before it.
const IN_FLIGHT: usize = 256;
/// How long an order is tried again before it counts as not placed.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first pause before an order is tried again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Where orders come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Nowhere.
    None,
    /// A file; `-` is standard input.
    File(PathBuf),
    /// A generator, and how many.
    Generated(Generator, u64),
}

impl Source {
    /// How many orders there will be, if that is known.
    #[must_use]
    pub(super) fn orders(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::File(_) => None,
            Self::Generated(_, orders) => Some(*orders),
        }
    }

    /// What its orders are counted in.
    fn unit(&self) -> &'static str {
        match self {
            Self::File(_) => "line",
            Self::None | Self::Generated(..) => "order",
        }
    }
}

/// What became of the orders that were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Ids of the orders that this run was the first to place.
    pub(super) placed: BTreeSet<String>,
    /// Orders that an earlier run had placed.
    pub(super) placed_before: u64,
    /// Orders that did not get in.
    pub(super) not_placed: u64,
}

impl Tally {
    /// Orders that were answered.
    #[must_use]
    pub(super) fn answered(&self) -> u64 {
        self.placed.len() as u64 + self.placed_before
    }
}

/// Places every order of a source. `stop` ends it early. `seen` is told the tally after every answer.
///
/// # Errors
/// The source cannot be read.
pub(super) async fn place_all(
    edge: OrderEdge,
    source: Source,
    rate: Option<f64>,
    mut stop: watch::Receiver<bool>,
    mut seen: impl FnMut(&Tally),
) -> anyhow::Result<Tally> {
    let unit = source.unit();
    let (lines, mut read) = mpsc::channel(IN_FLIGHT);
    let reading = tokio::task::spawn_blocking(move || read_source(source, &lines));
    let (mut tally, mut under_way) = (Tally::default(), JoinSet::new());
    let mut pace = Pace::new(rate);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(done) = under_way.join_next() => {
                count(&mut tally, done?, unit);
                seen(&tally);
            }
            line = pace.next(&mut read), if under_way.len() < IN_FLIGHT => match line {
                Some(Line { number, order: Ok(order) }) => {
                    under_way.spawn(place(edge.clone(), number, order));
                }
                Some(Line { number, order: Err(reason) }) => {
                    count(&mut tally, Answer { number, placed: Err(reason) }, unit);
                    seen(&tally);
                }
                None => break,
            },
        }
    }
    drop(read);
    while let Some(done) = under_way.join_next().await {
        count(&mut tally, done?, unit);
        seen(&tally);
    }
    reading.await??;
    Ok(tally)
}

/// What became of one order.
struct Answer {
    number: u64,
    placed: Result<Placement, String>,
}

async fn place(edge: OrderEdge, number: u64, order: Order) -> Answer {
    let mut placed = asked(number, || edge.place(&order.key, &order.body)).await;
    if let Ok(new) = &placed
        && order.cancel
        && new.outcome != PlacementOutcome::Pending
    {
        // Too late is an answer as well: the order then completes.
        let key = format!("cancel-{}", order.key);
        let key = if key.len() > MAX_KEY_BYTES { None } else { Some(key.as_str()) };
        if let Err(reason) = asked(number, || edge.cancel(&new.order_id, key, "")).await {
            placed = Err(format!("its cancellation was not asked for: {reason}"));
        }
    }
    Answer { number, placed }
}

/// Asks the edge until it takes the request, or patience ends.
async fn asked<T, Asking>(number: u64, ask: impl Fn() -> Asking) -> Result<T, String>
where
    Asking: Future<Output = Result<T, RequestError>>,
{
    let (deadline, mut pause) = (Instant::now() + PATIENCE, FIRST_PAUSE);
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                tracing::debug!(number, %error, "order is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn count(tally: &mut Tally, answer: Answer, unit: &str) {
    match answer.placed {
        Ok(placed) if placed.is_new => drop(tally.placed.insert(placed.order_id)),
        Ok(_) => tally.placed_before += 1,
        Err(reason) => {
            output::note(&format!("{unit} {} is not placed: {reason}", answer.number));
            tally.not_placed += 1;
        }
    }
}

/// Lets orders through at a rate.
struct Pace {
    between: Option<Duration>,
    next_at: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Self {
        let between = rate.filter(|rate| *rate > 0.0).map(|rate| Duration::from_secs_f64(1.0 / rate));
        Self { between, next_at: Instant::now() }
    }

    async fn next(&mut self, lines: &mut mpsc::Receiver<Line>) -> Option<Line> {
        if let Some(between) = self.between {
            tokio::time::sleep_until(self.next_at.into()).await;
            let line = lines.recv().await;
            self.next_at = (self.next_at + between).max(Instant::now().checked_sub(between).unwrap_or(self.next_at));
            return line;
        }
        lines.recv().await
    }
}

fn read_source(source: Source, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    match source {
        Source::None => Ok(()),
        Source::Generated(generator, orders) => {
            for index in 0..orders {
                let line = Line { number: index + 1, order: Ok(generator.order(index)) };
                if lines.blocking_send(line).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        }
        Source::File(path) if path.as_os_str() == "-" => {
            // Standard input cannot be read twice, so its digest is that of its whole content, held in memory.
            let mut content = Vec::new();
            std::io::stdin().lock().read_to_end(&mut content).context("cannot read standard input")?;
            let digest = digest(&content);
            hand_on(Lines::new(content.as_slice(), digest), lines)
        }
        Source::File(path) => {
            let cannot = || format!("cannot read the orders in {}", path.display());
            let mut file = File::open(&path).with_context(cannot)?;
            let mut content = Vec::new();
            file.read_to_end(&mut content).with_context(cannot)?;
            let digest = digest(&content);
            if !file.metadata().with_context(cannot)?.is_file() {
                // A pipe is read once.
                return hand_on(Lines::new(content.as_slice(), digest), lines);
            }
            drop(content);
            file.seek(SeekFrom::Start(0)).with_context(cannot)?;
            hand_on(Lines::new(BufReader::new(file), digest), lines)
        }
    }
}

fn hand_on<R: BufRead>(mut source: Lines<R>, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    while let Some(line) = source.next_line()? {
        if lines.blocking_send(line).is_err() {
            break;
        }
    }
    Ok(())
}
