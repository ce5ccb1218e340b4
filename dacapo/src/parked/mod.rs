//! `dacapo parked`: lists parked records, and lets an operator retry or drop them.
//!
//! The command reads the services' parked topics, so no service has to answer. An operator's decision is a command in the inbox of
//! the service, under the key of the entity: the instance that owns the entity executes it, and the command remains as evidence.

mod act;
mod print;
mod skip;
mod view;

use clap::Subcommand;
use runtime::{
    core::{DropParked, ParkedRecord, RetryParked},
    envelope::Position,
};

use act::OperatorArgs;
use skip::SkipArgs;
use view::ParkedArgs;

/// Subcommands of `dacapo parked`.
#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// List the parked records that have failed, and how many records wait behind each
    List {
        #[command(flatten)]
        of: ParkedArgs,
        /// Also list the parked records that wait behind another one
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one parked record: its bytes, its headers, why it failed, and what waits behind it
    Show {
        #[command(flatten)]
        of: ParkedArgs,
        /// The position where the service read it: topic/partition/offset, as `list` prints it
        position: Position,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Retry a parked record, and after it the records that wait behind it, in order
    Retry {
        #[command(flatten)]
        of: ParkedArgs,
        /// The record: topic/partition/offset, as `list` prints it
        #[arg(required_unless_present = "all")]
        position: Option<Position>,
        /// Retry every parked record that has failed
        #[arg(long, conflicts_with = "position")]
        all: bool,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Drop a parked record: it is never processed, and the records that wait behind it are processed, in order
    Drop {
        #[command(flatten)]
        of: ParkedArgs,
        /// The record: topic/partition/offset, as `list` prints it
        position: Position,
        /// The reason; kept with the command
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Let one reader continue behind a batch that it cannot read, such as one that is compressed wrongly
    Skip(SkipArgs),
}

/// Runs a subcommand.
///
/// # Errors
/// The topics cannot be read, nothing is parked at the position, or a retried record failed again.
pub async fn run(command: &ParkedCommand) -> anyhow::Result<()> {
    match command {
        ParkedCommand::List { of, all, json } => {
            let view = of.read().await?;
            let waiting = skip::waiting(&view.config, view.services.clone()).await?;
            print::list(&view, &waiting, *all, *json)
        }
        ParkedCommand::Show { of, position, json } => print::show(&of.read().await?, position, *json).await,
        ParkedCommand::Retry { of, position, operator, .. } => {
            let view = of.read().await?;
            let records = match position {
                Some(position) => vec![view.failed_at(position)?],
                None => view.failed(),
            };
            let retry = |parked: &ParkedRecord| {
                RetryParked { position: parked.position.to_string(), by: operator.by.clone() }.into()
            };
            act::send(&view, records, retry, operator.wait).await
        }
        ParkedCommand::Drop { of, position, reason, operator } => {
            let view = of.read().await?;
            let drop = |parked: &ParkedRecord| {
                let (position, by) = (parked.position.to_string(), operator.by.clone());
                DropParked { position, by, reason: reason.clone() }.into()
            };
            act::send(&view, vec![view.at(position)?], drop, operator.wait).await
        }
        ParkedCommand::Skip(args) => skip::skip(args).await,
    }
}
