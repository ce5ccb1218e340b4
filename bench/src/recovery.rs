//! Time from kill -9 to the next visible decision, in any partition and in every partition. The process is restarted at once.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};

use crate::{
    environment::{BenchEndpoints, BenchEnvironment, PARTITIONS},
    load::{self, BenchClock, DecisionReader},
    print_line,
};

/// How often an input is sent while the service is down.
const TICK: Duration = Duration::from_millis(5);
/// The longest recovery.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Flags of `bench recovery`.
#[derive(Debug, clap::Args)]
pub(crate) struct RecoveryArgs {
    #[command(flatten)]
    endpoints: BenchEndpoints,
    /// Number of entities in the service's state
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "10000,1000000")]
    entities: Vec<u64>,
    /// Number of kills for each kind of instance
    #[arg(long, value_name = "N", default_value_t = 3)]
    kills: u64,
}

/// One way to run an instance.
#[derive(Debug, Clone, Copy)]
struct InstanceKind {
    named: bool,
    store: bool,
}

const INSTANCE_KINDS: [InstanceKind; 4] = [
    InstanceKind { named: true, store: true },
    InstanceKind { named: true, store: false },
    InstanceKind { named: false, store: true },
    InstanceKind { named: false, store: false },
];

/// Kills and restarts the instance, for every number of entities and every kind of instance.
pub(crate) async fn run(args: &RecoveryArgs) -> anyhow::Result<()> {
    for entities in &args.entities {
        let environment = BenchEnvironment::create(&args.endpoints).await?;
        print_line(&format!(
            "kill -9 to the next visible decision on {}, {entities} entities, seconds",
            environment.name
        ))?;
        print_line("  (in any partition, and in every partition)")?;
        let measured = tokio::task::block_in_place(|| measure(&environment, *entities, args.kills));
        environment.shut_down().await;
        measured?;
    }
    Ok(())
}

fn measure(environment: &BenchEnvironment, entities: u64, kills: u64) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let filled = fill(environment, entities, data.path())?;
    print_line(&format!("  filled with {entities} decisions at {filled:.0} a second"))?;
    for kind in INSTANCE_KINDS {
        let mut durations = Vec::new();
        let mut child = start(environment, kind, data.path())?;
        wait_until_first_decision(environment)?;
        for _ in 0..kills {
            // A checkpoint is written every five seconds, and an instance in production has one.
            std::thread::park_timeout(Duration::from_secs(6));
            let (seconds, again) = kill_and_restart(environment, kind, data.path(), child)?;
            durations.push(seconds);
            child = again;
        }
        let cells: Vec<String> = durations.iter().map(|(any, every)| format!("{any:.2} and {every:.2}")).collect();
        let name = if kind.named { "named" } else { "unnamed" };
        let store = if kind.store { "with its store" } else { "without a store" };
        print_line(&format!("  {name}, {store:<16} {}", cells.join(", ")))?;
    }
    Ok(())
}

/// Makes one decision for each entity. Returns the decisions per second.
fn fill(environment: &BenchEnvironment, entities: u64, data: &Path) -> anyhow::Result<f64> {
    let child = start(environment, INSTANCE_KINDS[0], data)?;
    wait_until_first_decision(environment)?;
    let clock = BenchClock::start();
    let reader = DecisionReader::start(environment, &load::decisions(environment), clock, usize::try_from(entities)?)?;
    let (producer, to) = (load::producer(environment)?, load::inputs(environment));
    for number in 0..entities {
        load::send_input(environment, &producer, &to, &format!("entity-{number}"), i64::try_from(number)?)?;
    }
    producer.flush(TIMEOUT)?;
    let decisions = reader.take(usize::try_from(entities)?, TIMEOUT);
    let seconds = clock.now_us() as f64 / 1e6;
    // The last decisions are in a checkpoint before the first kill.
    std::thread::park_timeout(Duration::from_secs(6));
    drop(child);
    ensure!(decisions.len() as u64 == entities, "{} of {entities} were decided", decisions.len());
    Ok(entities as f64 / seconds)
}

/// The process of the measured service. Dropping it kills the process.
struct ServiceProcess(Child);

impl ServiceProcess {
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "the measured service may still run");
        }
    }
}

fn start(environment: &BenchEnvironment, kind: InstanceKind, data: &Path) -> anyhow::Result<ServiceProcess> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("service").args(["--system", &environment.config.system]);
    command.args(["--bootstrap", &environment.config.bootstrap, "--registry", &environment.config.registry_url]);
    if kind.named {
        command.args(["--instance", "a"]);
    }
    if kind.store {
        command.arg("--data").arg(data);
    }
    command.stdout(Stdio::null()).spawn().map(ServiceProcess).context("cannot start the measured service")
}

fn wait_until_first_decision(environment: &BenchEnvironment) -> anyhow::Result<()> {
    DecisionProbe::start(environment)?.next_decisions(0, 1).map(|_| ())
}

/// Kills the child and starts another one. Returns the seconds to the next visible decision about an input that was sent after the
/// kill, and the seconds until every partition had such a decision.
fn kill_and_restart(
    environment: &BenchEnvironment,
    kind: InstanceKind,
    data: &Path,
    mut child: ServiceProcess,
) -> anyhow::Result<((f64, f64), ServiceProcess)> {
    // Reader and producer are running before the kill: their start is not part of the measured time.
    let mut probe = DecisionProbe::start(environment)?;
    probe.next_decisions(0, 1)?;
    let killed_us = probe.clock.now_us();
    child.kill()?;
    let child = start(environment, kind, data)?;
    let seconds = |visible_us: i64| (visible_us - killed_us) as f64 / 1e6;
    let (any_us, every_us) = probe.next_decisions(killed_us, usize::try_from(PARTITIONS)?)?;
    Ok(((seconds(any_us), seconds(every_us)), child))
}

/// Sends inputs and reads the decisions.
struct DecisionProbe<'s> {
    environment: &'s BenchEnvironment,
    clock: BenchClock,
    reader: DecisionReader,
    producer: ThreadedProducer<DefaultProducerContext>,
    sent: u64,
}

impl<'s> DecisionProbe<'s> {
    fn start(environment: &'s BenchEnvironment) -> anyhow::Result<Self> {
        let clock = BenchClock::start();
        let reader = DecisionReader::start(environment, &load::decisions(environment), clock, 1_000)?;
        Ok(Self { environment, clock, reader, producer: load::producer(environment)?, sent: 0 })
    }

    /// Sends inputs until this many partitions have a visible decision about an input that was sent at `since_us` or later. Returns
    /// the time of the first such decision, and the time of the last.
    fn next_decisions(&mut self, since_us: i64, partitions: usize) -> anyhow::Result<(i64, i64)> {
        let (began_us, to) = (self.clock.now_us(), load::inputs(self.environment));
        let (mut decided, mut first_us) = (BTreeSet::new(), None);
        loop {
            // The keys cover all partitions, so it does not matter which partition decides first.
            let key = format!("entity-{}", self.sent % 1_000);
            load::send_input(self.environment, &self.producer, &to, &key, self.clock.now_us())?;
            self.sent += 1;
            let mut next = self.reader.decisions.recv_timeout(TICK).ok();
            while let Some(decision) = next {
                if decision.scheduled_us >= since_us {
                    let first_us = *first_us.get_or_insert(decision.visible_us);
                    decided.insert(decision.partition);
                    if decided.len() >= partitions {
                        return Ok((first_us, decision.visible_us));
                    }
                }
                next = self.reader.decisions.try_recv().ok();
            }
            let waited_us = self.clock.now_us() - began_us;
            ensure!(waited_us < i64::try_from(TIMEOUT.as_micros())?, "no decision became visible within {TIMEOUT:?}");
        }
    }
}
