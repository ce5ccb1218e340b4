//! `dacapo sagas`: asks the projector and shows what it says, as text or as JSON.

use std::time::Duration;

use clap::Subcommand;
use projector::{api::SagaChange, client::ProjectorClient, query::SagaFilter, render};

use crate::{output, target::Target};

/// How long the projector may keep a question for changes open.
const CHANGES_PATIENCE: Duration = Duration::from_secs(25);

/// What can be asked of sagas.
#[derive(Debug, Subcommand)]
pub enum SagasCommand {
    /// List sagas, the last changed first
    List {
        #[command(flatten)]
        ask: Ask,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Go on where a list ended
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
    },
    /// Show one saga: its steps, its timeline, what it waits for and who owes it
    Show {
        #[command(flatten)]
        ask: AskOne,
        /// The saga's id, which is its correlation id: for an order its order id
        id: String,
    },
    /// Show changes as they come
    Watch {
        #[command(flatten)]
        ask: Ask,
    },
    /// Count sagas by state, outcome and what they wait for
    Counts {
        #[command(flatten)]
        ask: AskOne,
    },
}

/// Where to ask, and how to show the answer.
#[derive(Debug, clap::Args)]
pub struct AskOne {
    #[command(flatten)]
    target: Target,
    /// Show the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Where to ask, about which sagas, and how to show the answer.
#[derive(Debug, clap::Args)]
pub struct Ask {
    #[command(flatten)]
    one: AskOne,
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
    /// Only sagas for which these owe something
    #[arg(long, value_name = "OWNER,...")]
    owner: Option<String>,
    /// Only sagas with these flags
    #[arg(long, value_name = "FLAG,...")]
    flag: Option<String>,
}

impl Ask {
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

impl AskOne {
    fn client(&self) -> anyhow::Result<ProjectorClient> {
        Ok(ProjectorClient::new(&self.target.projector()?)?)
    }

    fn show<T: serde::Serialize>(&self, reply: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let shown = if self.json { serde_json::to_string_pretty(reply)? } else { text(reply) };
        Ok(output::line(shown.trim_end())?)
    }
}

/// Carries a command out.
///
/// # Errors
/// The projector cannot be asked, or has no such saga.
pub async fn run(command: &SagasCommand) -> anyhow::Result<()> {
    match command {
        SagasCommand::List { ask, limit, cursor } => {
            let reply = ask.one.client()?.list(&ask.filter(), *limit, cursor.as_deref()).await?;
            ask.one.show(&reply, |reply| {
                let more = reply.next.as_ref().map(|next| format!("\nnext: --cursor {next}")).unwrap_or_default();
                format!("{}{more}", render::list(reply).trim_end())
            })
        }
        SagasCommand::Show { ask, id } => {
            let reply = ask.client()?.show_all(id, None).await?;
            ask.show(&reply, render::show)
        }
        SagasCommand::Counts { ask } => {
            let reply = ask.client()?.counts().await?;
            ask.show(&reply, render::counts)
        }
        SagasCommand::Watch { ask } => watch(ask).await,
    }
}

async fn watch(ask: &Ask) -> anyhow::Result<()> {
    let client = ask.one.client()?;
    let filter = ask.filter();
    let mut since: Option<String> = None;
    output::end_on_interrupt()?;
    if !ask.one.json {
        output::note("changes from now on; Ctrl-C ends");
    }
    loop {
        let changes = client.changes(&filter, since.as_deref(), CHANGES_PATIENCE).await?;
        for change in &changes.changes {
            let shown = if ask.one.json { serde_json::to_string(change)? } else { shown(change) };
            output::line(&shown)?;
        }
        since = Some(changes.next);
    }
}

fn shown(change: &SagaChange) -> String {
    render::change(change).trim_end().to_owned()
}
