//! `dacapo sagas`: queries the projector and prints its responses, as text or as JSON.

use std::time::Duration;

use clap::Subcommand;
use projector::{api::SagaChange, client::ProjectorClient, query::SagaFilter, render};

use crate::{output, target::Target};

/// How long the projector may hold a long poll for changes open.
const CHANGES_PATIENCE: Duration = Duration::from_secs(25);

/// Subcommands of `dacapo sagas`.
#[derive(Debug, Subcommand)]
pub enum SagasCommand {
    /// List sagas, the most recently changed first
    List {
        #[command(flatten)]
        query: FilterArgs,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Continue where a list ended
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
    },
    /// Show one saga: its steps, its timeline, what it waits for and which service owes that
    Show {
        #[command(flatten)]
        query: QueryArgs,
        /// The saga's id, which is its correlation id: for an order its order id
        id: String,
    },
    /// Show changes as they come
    Watch {
        #[command(flatten)]
        query: FilterArgs,
    },
    /// Count sagas by state, outcome and what they wait for
    Counts {
        #[command(flatten)]
        query: QueryArgs,
    },
}

/// The projector to query, and the output format.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    #[command(flatten)]
    target: Target,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The projector to query, the sagas to select, and the output format.
#[derive(Debug, clap::Args)]
pub struct FilterArgs {
    #[command(flatten)]
    one: QueryArgs,
    /// Only sagas of this declaration
    #[arg(long, value_name = "NAME,...")]
    saga: Option<String>,
    /// Only sagas in these states
    #[arg(long, value_name = "STATE,...")]
    state: Option<String>,
    /// Only sagas with these outcomes
    #[arg(long, value_name = "OUTCOME,...")]
    outcome: Option<String>,
    /// Only sagas that wait for these steps
    #[arg(long, value_name = "STEP,...")]
    step: Option<String>,
    /// Only sagas that wait for these owners
    #[arg(long, value_name = "OWNER,...")]
    owner: Option<String>,
    /// Only sagas with these flags
    #[arg(long, value_name = "FLAG,...")]
    flag: Option<String>,
}

impl FilterArgs {
    fn filter(&self) -> SagaFilter {
        SagaFilter {
            saga: self.saga.clone(),
            state: self.state.clone(),
            outcome: self.outcome.clone(),
            step: self.step.clone(),
            owner: self.owner.clone(),
            flag: self.flag.clone(),
            key: None,
        }
    }
}

impl QueryArgs {
    fn client(&self) -> anyhow::Result<ProjectorClient> {
        Ok(ProjectorClient::new(&self.target.projector()?)?)
    }

    fn show<T: serde::Serialize>(&self, reply: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let shown = if self.json { serde_json::to_string_pretty(reply)? } else { text(reply) };
        Ok(output::line(shown.trim_end())?)
    }
}

/// Runs a subcommand.
///
/// # Errors
/// The projector cannot be reached, or has no such saga.
pub async fn run(command: &SagasCommand) -> anyhow::Result<()> {
    match command {
        SagasCommand::List { query, limit, cursor } => {
            let reply = query.one.client()?.list(&query.filter(), *limit, cursor.as_deref()).await?;
            query.one.show(&reply, |reply| {
                let more = reply.next.as_ref().map(|next| format!("\nnext: --cursor {next}")).unwrap_or_default();
                format!("{}{more}", render::list(reply).trim_end())
            })
        }
        SagasCommand::Show { query, id } => {
            let reply = query.client()?.show_all(id, None).await?;
            query.show(&reply, render::show)
        }
        SagasCommand::Counts { query } => {
            let reply = query.client()?.counts().await?;
            query.show(&reply, render::counts)
        }
        SagasCommand::Watch { query } => watch(query).await,
    }
}

async fn watch(query: &FilterArgs) -> anyhow::Result<()> {
    let client = query.one.client()?;
    let filter = query.filter();
    let mut since: Option<String> = None;
    output::end_on_interrupt()?;
    if !query.one.json {
        output::note("waiting for changes; Ctrl-C ends");
    }
    loop {
        let changes = client.changes(&filter, since.as_deref(), CHANGES_PATIENCE).await?;
        for change in &changes.changes {
            let shown = if query.one.json { serde_json::to_string(change)? } else { shown(change) };
            output::line(&shown)?;
        }
        since = Some(changes.next);
    }
}

fn shown(change: &SagaChange) -> String {
    render::change(change).trim_end().to_owned()
}
