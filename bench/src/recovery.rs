//! From kill -9 to the next decision that is visible, in any partition and in every one, with a process that is started again at once.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};

use crate::{
    load::{self, Clock, Watch},
    say,
    stage::{PARTITIONS, Stage, Where},
};

/// How often an input is sent while the service is away.
const TICK: Duration = Duration::from_millis(5);
/// How long a recovery may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Flags of `bench recovery`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    at: Where,
    /// How many entities the service remembers
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "10000,1000000")]
    entities: Vec<u64>,
    /// How many kills of each kind
    #[arg(long, value_name = "N", default_value_t = 3)]
    kills: u64,
}

/// One way to run an instance.
#[derive(Debug, Clone, Copy)]
struct Kind {
    named: bool,
    store: bool,
}

const KINDS: [Kind; 4] = [
    Kind { named: true, store: true },
    Kind { named: true, store: false },
    Kind { named: false, store: true },
    Kind { named: false, store: false },
];

/// Kills and starts again, for every number of entities and every way to run an instance.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    for entities in &args.entities {
        let stage = Stage::set(&args.at).await?;
        say(&format!("kill -9 to the next visible decision on {}, {entities} entities, seconds", stage.name))?;
        say("  (in any partition, and in every one of them)")?;
        let measured = tokio::task::block_in_place(|| measure(&stage, *entities, args.kills));
        stage.end().await;
        measured?;
    }
    Ok(())
}

fn measure(stage: &Stage, entities: u64, kills: u64) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let filled = fill(stage, entities, data.path())?;
    say(&format!("  filled with {entities} decisions at {filled:.0} a second"))?;
    for kind in KINDS {
        let mut took = Vec::new();
        let mut child = start(stage, kind, data.path())?;
        wait_until_it_decides(stage)?;
        for _ in 0..kills {
            // A checkpoint is written every five seconds; an instance that has run for a while has one.
            std::thread::park_timeout(Duration::from_secs(6));
            let (seconds, again) = kill(stage, kind, data.path(), child)?;
            took.push(seconds);
            child = again;
        }
        let told: Vec<String> = took.iter().map(|(any, every)| format!("{any:.2} and {every:.2}")).collect();
        let name = if kind.named { "named" } else { "unnamed" };
        let store = if kind.store { "with its store" } else { "without a store" };
        say(&format!("  {name}, {store:<16} {}", told.join(", ")))?;
    }
    Ok(())
}

/// One decision for each entity. Answers how many a second.
fn fill(stage: &Stage, entities: u64, data: &Path) -> anyhow::Result<f64> {
    let child = start(stage, KINDS[0], data)?;
    wait_until_it_decides(stage)?;
    let clock = Clock::start();
    let watch = Watch::start(stage, &load::decisions(stage), clock, usize::try_from(entities)?)?;
    let (producer, to) = (load::producer(stage)?, load::inputs(stage));
    for number in 0..entities {
        load::tick(stage, &producer, &to, &format!("entity-{number}"), i64::try_from(number)?)?;
    }
    producer.flush(PATIENCE)?;
    let seen = watch.take(usize::try_from(entities)?, PATIENCE);
    let seconds = clock.now_us() as f64 / 1e6;
    // Whatever was decided last is in a checkpoint before the first kill.
    std::thread::park_timeout(Duration::from_secs(6));
    drop(child);
    ensure!(seen.len() as u64 == entities, "{} of {entities} were decided", seen.len());
    Ok(entities as f64 / seconds)
}

/// The measured service as a process. It is killed when nobody measures it any more.
struct Measured(Child);

impl Measured {
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "the measured service may still run");
        }
    }
}

fn start(stage: &Stage, kind: Kind, data: &Path) -> anyhow::Result<Measured> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("service").args(["--system", &stage.config.system]);
    command.args(["--bootstrap", &stage.config.bootstrap, "--registry", &stage.config.registry_url]);
    if kind.named {
        command.args(["--instance", "a"]);
    }
    if kind.store {
        command.arg("--data").arg(data);
    }
    command.stdout(Stdio::null()).spawn().map(Measured).context("cannot start the measured service")
}

fn wait_until_it_decides(stage: &Stage) -> anyhow::Result<()> {
    Onlooker::start(stage)?.next_decisions(0, 1).map(|_| ())
}

/// Kills the child and starts another one. Answers the seconds to the next visible decision about an input that was sent later, and
/// to such a decision in every partition.
fn kill(stage: &Stage, kind: Kind, data: &Path, mut child: Measured) -> anyhow::Result<((f64, f64), Measured)> {
    // Reader and producer are at work before: their own start is none of the instance's.
    let mut onlooker = Onlooker::start(stage)?;
    onlooker.next_decisions(0, 1)?;
    let killed_us = onlooker.clock.now_us();
    child.kill()?;
    let child = start(stage, kind, data)?;
    let seconds = |seen_us: i64| (seen_us - killed_us) as f64 / 1e6;
    let (any_us, every_us) = onlooker.next_decisions(killed_us, usize::try_from(PARTITIONS)?)?;
    Ok(((seconds(any_us), seconds(every_us)), child))
}

/// Sends inputs, and sees what is decided about them.
struct Onlooker<'s> {
    stage: &'s Stage,
    clock: Clock,
    watch: Watch,
    producer: ThreadedProducer<DefaultProducerContext>,
    sent: u64,
}

impl<'s> Onlooker<'s> {
    fn start(stage: &'s Stage) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let watch = Watch::start(stage, &load::decisions(stage), clock, 1_000)?;
        Ok(Self { stage, clock, watch, producer: load::producer(stage)?, sent: 0 })
    }

    /// Sends inputs until decisions in so many partitions are visible about such as were sent at `since_us` or later. Answers when the
    /// first was, and when that many were.
    fn next_decisions(&mut self, since_us: i64, partitions: usize) -> anyhow::Result<(i64, i64)> {
        let (began_us, to) = (self.clock.now_us(), load::inputs(self.stage));
        let (mut decided, mut first_us) = (BTreeSet::new(), None);
        loop {
            // Of all partitions in turn, so that it does not matter which one decides first.
            let key = format!("entity-{}", self.sent % 1_000);
            load::tick(self.stage, &self.producer, &to, &key, self.clock.now_us())?;
            self.sent += 1;
            let mut seen = self.watch.seen.recv_timeout(TICK).ok();
            while let Some(news) = seen {
                if news.intended_us >= since_us {
                    let first_us = *first_us.get_or_insert(news.seen_us);
                    decided.insert(news.partition);
                    if decided.len() >= partitions {
                        return Ok((first_us, news.seen_us));
                    }
                }
                seen = self.watch.seen.try_recv().ok();
            }
            let waited_us = self.clock.now_us() - began_us;
            ensure!(waited_us < i64::try_from(PATIENCE.as_micros())?, "nothing was decided within {PATIENCE:?}");
        }
    }
}
