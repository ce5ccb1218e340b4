//! The command line: which command there is, and where each is carried out.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::{
    audit, events, health,
    orders::{Generator, Mix},
    output,
    outside::{Faults, Outside, OutsideConfig},
    parked, prepare, replay, sagas, schemas, send, service,
    signals::Signals,
    topics, up,
};

/// MusicCorp on Kafka: run it, watch every order, put right what is stuck.
#[derive(Debug, Parser)]
#[command(name = "dacapo", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all of MusicCorp in one process
    Up(Box<up::UpArgs>),
    /// Run one service as a process of its own, as one of any number of instances
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Look at sagas: where each is, what it waits for, who owes the next step
    #[command(subcommand)]
    Sagas(sagas::SagasCommand),
    /// Rebuild state from the topics
    #[command(subcommand)]
    Replay(replay::ReplayCommand),
    /// See what waits because a record cannot work, and put it right
    #[command(subcommand)]
    Parked(parked::ParkedCommand),
    /// Put one command into a service's inbox
    Send(send::SendArgs),
    /// Put one event into a topic that no service owns
    Publish(send::PublishArgs),
    /// Look at events
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Compare the contract with a registry, and register it
    #[command(subcommand)]
    Schemas(schemas::SchemasCommand),
    /// Compare the topics with what they must be, and create them
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Create the topics, register the schemas, and put the seed in if asked to, as soon as broker and registry are there
    Prepare(prepare::PrepareArgs),
    /// Find what does not add up, from the topics alone
    Audit(audit::AuditArgs),
    /// Run the simulated outside world alone: payment gateway, picking floor, courier
    Outside(OutsideArgs),
    /// Print generated orders, one JSON object a line
    Orders(OrdersArgs),
    /// Ask a process whether it is live or ready
    Health(health::HealthArgs),
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Show what would be created; with --apply, create it
    Create(topics::CreateArgs),
}

/// Flags of `dacapo outside`, and of `up` for the outside world.
#[derive(Debug, Clone, clap::Args)]
pub struct FaultArgs {
    /// How long the outside world takes to answer, at least; at most twice as long
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub outside_latency_ms: u64,
    /// Share of requests to the outside world that fail, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub outside_failures: f64,
    /// Share of charges that the payment gateway never answers, in percent; half of them are captured all the same
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub silent_charges: f64,
    /// Share of payments whose first refund the gateway refuses, in percent: each needs an operator's `RetryRefund`
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub refused_refunds: f64,
    /// Share of dispatch attempts that the courier refuses, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub refused_parcels: f64,
}

impl FaultArgs {
    /// The faults these flags ask for.
    ///
    /// # Errors
    /// A share is no percentage.
    pub fn faults(&self, seed: u64) -> anyhow::Result<Faults> {
        let share = self.outside_failures;
        if !(0.0..=95.0).contains(&share) {
            anyhow::bail!("--outside-failures is {share}; expected 0 to 95 percent, so that an answer comes at last");
        }
        let part = |flag: &str, percent: f64| {
            if (0.0..=100.0).contains(&percent) {
                Ok(percent / 100.0)
            } else {
                anyhow::bail!("--{flag} is {percent}; expected 0 to 100 percent")
            }
        };
        let mut faults = Faults::new(Duration::from_millis(self.outside_latency_ms), share / 100.0, seed);
        faults.silent_charges = part("silent-charges", self.silent_charges)?;
        faults.refused_refunds = part("refused-refunds", self.refused_refunds)?;
        faults.refused_parcels = part("refused-parcels", self.refused_parcels)?;
        Ok(faults)
    }
}

#[derive(Debug, clap::Args)]
struct OutsideArgs {
    /// Address to listen on, where services look for it by default; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Folder for the journal of given answers [default: memory]
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    faults: FaultArgs,
}

/// Flags that say what orders to generate.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct MixArgs {
    /// Seed of generated orders: the same seed makes the same orders
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Share of orders whose payment is declined, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().declined)]
    pub declined: f64,
    /// Share of orders with a line that is out of stock, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().short)]
    pub short: f64,
    /// Share of orders with a line that is not on the shelf when they are packaged, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().lost)]
    pub lost: f64,
    /// Share of orders that are refused at the door, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().refused)]
    pub refused: f64,
    /// Share of orders whose customer asks for a cancellation as soon as they are placed, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().cancelled)]
    pub cancelled: f64,
    /// Share of orders whose parcel the courier refuses once, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Mix::default().delayed)]
    pub delayed: f64,
}

impl MixArgs {
    /// The generator these flags ask for.
    ///
    /// # Errors
    /// The shares are none.
    pub fn generator(&self) -> anyhow::Result<Generator> {
        let Self { seed, declined, short, lost, refused, cancelled, delayed } = *self;
        Ok(Generator::new(seed, Mix { declined, short, lost, refused, cancelled, delayed }.checked()?))
    }
}

#[derive(Debug, clap::Args)]
struct OrdersArgs {
    /// How many
    #[arg(value_name = "N")]
    orders: u64,
    #[command(flatten)]
    mix: MixArgs,
}

/// Carries out what was asked for.
///
/// # Errors
/// It could not be done; the text says what, where and what to do next.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Up(args) => up::run(*args).await,
        Command::Service(command) => {
            service::run(&command).await;
            Ok(())
        }
        Command::Sagas(command) => sagas::run(&command).await,
        Command::Replay(command) => replay::run(&command).await,
        Command::Parked(command) => parked::run(&command).await,
        Command::Send(args) => send::send(&args).await,
        Command::Publish(args) => send::publish(&args).await,
        Command::Events(command) => events::run(&command).await,
        Command::Schemas(command) => schemas::run(&command).await,
        Command::Topics(TopicsCommand::Create(args)) => topics::create(&args).await,
        Command::Prepare(args) => prepare::run(&args).await,
        Command::Audit(args) => audit::run(&args).await,
        Command::Outside(args) => outside(args).await,
        Command::Orders(args) => orders(&args),
        Command::Health(args) => health::run(&args).await,
    }
}

async fn outside(args: OutsideArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let faults = args.faults.faults(0)?;
    let config = OutsideConfig { listen: args.listen, data_dir: args.journal, faults };
    let outside = Outside::start(config).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    output::line(&format!("payment gateway, picking floor and courier listen on {}", outside.url()))?;
    signals.asked_to_stop().await;
    Ok(outside.stop().await?)
}

fn orders(args: &OrdersArgs) -> anyhow::Result<()> {
    let generator = args.mix.generator()?;
    for index in 0..args.orders {
        let order = generator.order(index);
        let mut line = order.body;
        if let Some(fields) = line.as_object_mut() {
            fields.insert("key".to_owned(), order.key.into());
            if order.cancel {
                fields.insert("cancel".to_owned(), true.into());
            }
        }
        output::line(&line.to_string())?;
    }
    Ok(())
}
