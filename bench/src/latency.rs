//! Input to visible decision, on the clock of the intended send.

use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::producer::{BaseRecord, Producer};
use runtime::{
    Channel,
    core::{DropParked, ParkingCommand},
    message::topic,
};

use crate::{
    load::{self, Clock, Seen, Watch},
    raw::Raw,
    say,
    stage::{Stage, Where},
};

/// What is sent before the measurement begins, in microseconds: connections, schemas, and the first transactions.
const WARM_UP_US: i64 = 2_000_000;
/// One in so many inputs is for the entity that is parked.
const HOT_ONE_IN: u64 = 20;
const HOT: &str = "hot";
const ENTITIES: u64 = 5_000;

/// Flags of `bench latency` and `bench parked`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    at: Where,
    /// Inputs a second
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    rate: u64,
    /// How long each turn lasts, in seconds, two of which are not counted
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// How often what is compared takes turns
    #[arg(long, value_name = "N", default_value_t = 2)]
    rounds: u64,
}

impl Args {
    fn inputs(&self) -> anyhow::Result<usize> {
        Ok(usize::try_from(self.rate * self.seconds)?)
    }

    fn title(&self, stage: &Stage) -> String {
        format!(
            "{} inputs/s for {} s on {}, milliseconds from intended send to visible decision",
            self.rate, self.seconds, stage.name
        )
    }
}

fn spread(number: u64) -> String {
    format!("entity-{}", number * 7_919 % ENTITIES)
}

fn spread_or_hot(number: u64) -> String {
    if number.is_multiple_of(HOT_ONE_IN) { HOT.to_owned() } else { spread(number) }
}

/// The runtime and the raw loop in turns.
pub(crate) async fn beside_raw(args: &Args) -> anyhow::Result<()> {
    let stage = Stage::set(&args.at).await?;
    say(&args.title(&stage))?;
    say(&load::head(""))?;
    for _ in 0..args.rounds {
        let running = stage.start().await?;
        let (to, from) = (load::inputs(&stage), load::decisions(&stage));
        report(args, "runtime", &turn(&stage, args, (&to, &from), spread)?)?;
        ensure!(running.stop().await, "the service did not stop in time");
        let raw = Raw::start(&stage)?;
        let (to, from) = (stage.raw("raw.in"), stage.raw("raw.out"));
        report(args, "raw transactional loop", &turn(&stage, args, (&to, &from), spread)?)?;
        raw.stop()?;
    }
    stage.end().await;
    Ok(())
}

fn turn(stage: &Stage, args: &Args, (to, from): (&str, &str), key_of: load::KeyOf) -> anyhow::Result<Vec<Seen>> {
    let clock = Clock::start();
    let watch = Watch::start(stage, from, clock, args.inputs()?)?;
    tokio::task::block_in_place(|| {
        load::send(stage, to, clock, (args.rate, args.seconds), key_of)?;
        Ok(watch.take(args.inputs()?, Duration::from_secs(15)))
    })
}

fn report(args: &Args, what: &str, seen: &[Seen]) -> anyhow::Result<()> {
    ensure!(seen.len() == args.inputs()?, "{what}: {} of {} inputs were decided", seen.len(), args.inputs()?);
    for times in load::by(seen, WARM_UP_US, |_| ()).into_values() {
        say(&times.row(what))?;
    }
    Ok(())
}

/// The others while one entity is parked, and while none is, in turns. At last what waited is let go, and must be in its order.
pub(crate) async fn beside_parked(args: &Args) -> anyhow::Result<()> {
    let stage = Stage::set(&args.at).await?;
    say(&args.title(&stage))?;
    say(&load::head(""))?;
    let (to, from) = (load::inputs(&stage), load::decisions(&stage));
    let running = stage.start().await?;
    for _ in 0..args.rounds {
        let seen = turn(&stage, args, (&to, &from), spread_or_hot)?;
        report_others(&seen, "others, nothing is parked")?;
        let poison = poison(&stage)?;
        let clock = Clock::start();
        let watch = Watch::start(&stage, &from, clock, args.inputs()?)?;
        let (hot, seen) = tokio::task::block_in_place(|| -> anyhow::Result<_> {
            load::send(&stage, &to, clock, (args.rate, args.seconds), spread_or_hot)?;
            let hot = usize::try_from((args.rate * args.seconds).div_ceil(HOT_ONE_IN))?;
            Ok((hot, watch.take(args.inputs()? - hot, Duration::from_secs(15))))
        })?;
        ensure!(seen.iter().all(|seen| seen.key != HOT), "what waits was decided");
        report_others(&seen, "others, one entity is parked")?;
        let asked_us = clock.now_us();
        give_up(&stage, &poison)?;
        let waited = tokio::task::block_in_place(|| watch.take(hot, Duration::from_secs(30)));
        let took_ms = waited.last().map_or(0, |last| last.seen_us - asked_us) / 1_000;
        ensure!(waited.len() == hot, "{} of {hot} that waited were decided", waited.len());
        ensure!(waited.is_sorted_by_key(|seen| seen.intended_us), "what waited was not decided in its order");
        say(&format!("{hot} records that waited were decided in their order within {took_ms} ms"))?;
    }
    ensure!(running.stop().await, "the service did not stop in time");
    stage.end().await;
    Ok(())
}

fn report_others(seen: &[Seen], what: &str) -> anyhow::Result<()> {
    match load::by(seen, WARM_UP_US, |seen| seen.key == HOT).get(&false) {
        Some(times) => say(&times.row(what)),
        None => anyhow::bail!("{what}: nothing was decided"),
    }
}

/// A record that nobody can read, for the hot entity. Answers its place.
fn poison(stage: &Stage) -> anyhow::Result<String> {
    let inbox = put(stage, b"nobody can read this")?;
    let partition = runtime::core::partition_of(HOT.as_bytes(), crate::stage::PARTITIONS);
    let asker: rdkafka::consumer::BaseConsumer = stage.client().set("group.id", "bench-look").create()?;
    use rdkafka::consumer::Consumer;
    let (_, end) = asker.fetch_watermarks(&inbox, partition, Duration::from_secs(30))?;
    Ok(format!("{inbox}/{partition}/{}", end - 1))
}

fn give_up(stage: &Stage, place: &str) -> anyhow::Result<()> {
    let (place, by, reason) = (place.to_owned(), "bench".to_owned(), "it was meant to wait".to_owned());
    let mut value = Vec::new();
    stage.writers.encode(&ParkingCommand::from(DropParked { place, by, reason }), &mut value)?;
    put(stage, &value)?;
    Ok(())
}

fn put(stage: &Stage, value: &[u8]) -> anyhow::Result<String> {
    let inbox = topic(&stage.config.system, "meter", Channel::Inbox);
    let producer = load::producer(stage)?;
    let sent = producer.send(BaseRecord::to(&inbox).key(HOT).payload(value)).map_err(|(error, _)| error);
    sent.context("cannot put a record into the inbox")?;
    producer.flush(Duration::from_secs(30))?;
    Ok(inbox)
}
