//! Latency from the scheduled send of an input to its visible decision.

use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::producer::{BaseRecord, Producer};
use runtime::{
    Channel,
    core::{DropParked, ParkingCommand},
    message::topic,
};

use crate::{
    baseline::BaselineLoop,
    environment::{BenchEndpoints, BenchEnvironment},
    load::{self, BenchClock, DecisionReader, VisibleDecision},
    print_line,
};

/// Inputs scheduled before this time are not counted, in microseconds: connections, schemas and first transactions.
const WARM_UP_US: i64 = 2_000_000;
/// One of this many inputs belongs to the entity that is parked.
const HOT_ONE_IN: u64 = 20;
const HOT: &str = "hot";
const ENTITIES: u64 = 5_000;

/// Flags of `bench latency` and `bench parked`.
#[derive(Debug, clap::Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    endpoints: BenchEndpoints,
    /// Inputs per second
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    rate: u64,
    /// Duration of each measurement in seconds; the first two seconds are not counted
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// How often the compared variants alternate
    #[arg(long, value_name = "N", default_value_t = 2)]
    rounds: u64,
}

impl LatencyArgs {
    fn inputs(&self) -> anyhow::Result<usize> {
        Ok(usize::try_from(self.rate * self.seconds)?)
    }

    fn title(&self, environment: &BenchEnvironment) -> String {
        format!(
            "{} inputs/s for {} s on {}, milliseconds from scheduled send to visible decision",
            self.rate, self.seconds, environment.name
        )
    }
}

fn spread(number: u64) -> String {
    format!("entity-{}", number * 7_919 % ENTITIES)
}

fn spread_or_hot(number: u64) -> String {
    if number.is_multiple_of(HOT_ONE_IN) { HOT.to_owned() } else { spread(number) }
}

/// Measures the runtime and the baseline alternately.
pub(crate) async fn compare_with_baseline(args: &LatencyArgs) -> anyhow::Result<()> {
    let environment = BenchEnvironment::create(&args.endpoints).await?;
    print_line(&args.title(&environment))?;
    print_line(&load::header(""))?;
    for _ in 0..args.rounds {
        let running = environment.start().await?;
        let (to, from) = (load::inputs(&environment), load::decisions(&environment));
        report(args, "runtime", &measure_round(&environment, args, (&to, &from), spread)?)?;
        ensure!(running.stop().await, "the service did not stop in time");
        let baseline = BaselineLoop::start(&environment)?;
        let (to, from) = (environment.baseline_name("baseline.in"), environment.baseline_name("baseline.out"));
        report(args, "librdkafka baseline", &measure_round(&environment, args, (&to, &from), spread)?)?;
        baseline.stop()?;
    }
    environment.shut_down().await;
    Ok(())
}

fn measure_round(
    environment: &BenchEnvironment,
    args: &LatencyArgs,
    (to, from): (&str, &str),
    key_of: load::KeyFunction,
) -> anyhow::Result<Vec<VisibleDecision>> {
    let clock = BenchClock::start();
    let reader = DecisionReader::start(environment, from, clock, args.inputs()?)?;
    tokio::task::block_in_place(|| {
        load::send_inputs(environment, to, clock, (args.rate, args.seconds), key_of)?;
        Ok(reader.take(args.inputs()?, Duration::from_secs(15)))
    })
}

fn report(args: &LatencyArgs, what: &str, decisions: &[VisibleDecision]) -> anyhow::Result<()> {
    ensure!(decisions.len() == args.inputs()?, "{what}: {} of {} inputs were decided", decisions.len(), args.inputs()?);
    for latencies in load::latencies_by(decisions, WARM_UP_US, |_| ()).into_values() {
        print_line(&latencies.row(what))?;
    }
    Ok(())
}

/// Measures the other entities alternately with and without a parked entity. Finally the parked record is dropped, and the waiting
/// records must be decided in order.
pub(crate) async fn compare_with_parked(args: &LatencyArgs) -> anyhow::Result<()> {
    let environment = BenchEnvironment::create(&args.endpoints).await?;
    print_line(&args.title(&environment))?;
    print_line(&load::header(""))?;
    let (to, from) = (load::inputs(&environment), load::decisions(&environment));
    let running = environment.start().await?;
    for _ in 0..args.rounds {
        let decisions = measure_round(&environment, args, (&to, &from), spread_or_hot)?;
        report_others(&decisions, "others, no parked entity")?;
        let parked = park_hot_entity(&environment)?;
        let clock = BenchClock::start();
        let reader = DecisionReader::start(&environment, &from, clock, args.inputs()?)?;
        let (hot, decisions) = tokio::task::block_in_place(|| -> anyhow::Result<_> {
            load::send_inputs(&environment, &to, clock, (args.rate, args.seconds), spread_or_hot)?;
            let hot = usize::try_from((args.rate * args.seconds).div_ceil(HOT_ONE_IN))?;
            Ok((hot, reader.take(args.inputs()? - hot, Duration::from_secs(15))))
        })?;
        ensure!(decisions.iter().all(|decision| decision.key != HOT), "a waiting record was decided");
        report_others(&decisions, "others, one parked entity")?;
        let dropped_us = clock.now_us();
        drop_parked(&environment, &parked)?;
        let released = tokio::task::block_in_place(|| reader.take(hot, Duration::from_secs(30)));
        let took_ms = released.last().map_or(0, |last| last.visible_us - dropped_us) / 1_000;
        ensure!(released.len() == hot, "{} of {hot} waiting records were decided", released.len());
        ensure!(
            released.is_sorted_by_key(|decision| decision.scheduled_us),
            "the waiting records were decided out of order"
        );
        print_line(&format!("{hot} waiting records were decided in order within {took_ms} ms"))?;
    }
    ensure!(running.stop().await, "the service did not stop in time");
    environment.shut_down().await;
    Ok(())
}

fn report_others(decisions: &[VisibleDecision], what: &str) -> anyhow::Result<()> {
    match load::latencies_by(decisions, WARM_UP_US, |decision| decision.key == HOT).get(&false) {
        Some(latencies) => print_line(&latencies.row(what)),
        None => anyhow::bail!("{what}: nothing was decided"),
    }
}

/// Parks the hot entity with an unreadable record. Returns the record's position.
fn park_hot_entity(environment: &BenchEnvironment) -> anyhow::Result<String> {
    let inbox = produce_to_inbox(environment, b"unreadable")?;
    let partition = runtime::core::partition_of(HOT.as_bytes(), crate::environment::PARTITIONS);
    let client: rdkafka::consumer::BaseConsumer = environment.client().set("group.id", "bench-look").create()?;
    use rdkafka::consumer::Consumer;
    let (_, end) = client.fetch_watermarks(&inbox, partition, Duration::from_secs(30))?;
    Ok(format!("{inbox}/{partition}/{}", end - 1))
}

fn drop_parked(environment: &BenchEnvironment, position: &str) -> anyhow::Result<()> {
    let (by, reason) = ("bench".to_owned(), "it was only needed for the measurement".to_owned());
    let mut value = Vec::new();
    environment
        .writers
        .encode(&ParkingCommand::from(DropParked { position: position.to_owned(), by, reason }), &mut value)?;
    produce_to_inbox(environment, &value)?;
    Ok(())
}

fn produce_to_inbox(environment: &BenchEnvironment, value: &[u8]) -> anyhow::Result<String> {
    let inbox = topic(&environment.config.system, "meter", Channel::Inbox);
    let producer = load::producer(environment)?;
    let sent = producer.send(BaseRecord::to(&inbox).key(HOT).payload(value)).map_err(|(error, _)| error);
    sent.context("cannot put a record into the inbox")?;
    producer.flush(Duration::from_secs(30))?;
    Ok(inbox)
}
