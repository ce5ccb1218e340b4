//! The command line: the commands of `dacapo`, and the function that runs each.

use clap::{Parser, Subcommand};

use crate::{audit, events, health, orders, parked, prepare, replay, sagas, schemas, send, service, stubs, topics, up};

/// MusicCorp on Kafka: run it, follow every order, repair what is stuck.
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
    /// Run one service as its own process, as one of any number of instances
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Query sagas: the state of each, what it waits for, which service owes the next step
    #[command(subcommand)]
    Sagas(sagas::SagasCommand),
    /// Rebuild a projection from the topics, beside the live one, and compare both
    #[command(subcommand)]
    Replay(replay::ReplayCommand),
    /// List parked records, and retry or drop them
    #[command(subcommand)]
    Parked(parked::ParkedCommand),
    /// Send one command to a service's inbox
    Send(send::SendArgs),
    /// Write one event to a topic that no service owns
    Publish(send::PublishArgs),
    /// Read events
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Compare the schemas of this build with a registry, and register them
    #[command(subcommand)]
    Schemas(schemas::SchemasCommand),
    /// Compare the topics with what they must be, and create them
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Wait for broker and registry, create the topics, register the schemas, and load the sample data with --sample-data
    Prepare(prepare::PrepareArgs),
    /// Check the rules of MusicCorp from the topics alone
    Audit(audit::AuditArgs),
    /// Run the stubs of the external services: payment gateway, picking, courier
    Stubs(stubs::StubsArgs),
    /// Print generated orders, one JSON object a line
    Orders(orders::OrdersArgs),
    /// Request a health endpoint of a process
    Health(health::HealthArgs),
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Show which topics would be created; with --apply, create them
    Create(topics::CreateArgs),
}

/// Runs the command.
///
/// # Errors
/// The command failed; the message says what, where and what to do next.
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
        Command::Stubs(args) => stubs::run(args).await,
        Command::Orders(args) => orders::run(&args),
        Command::Health(args) => health::run(&args).await,
    }
}
