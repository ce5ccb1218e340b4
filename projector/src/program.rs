//! The projector as a program: its settings, and the conditions that end it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use runtime::service::{Program, RunningProgram};
use serde::{Deserialize, Serialize};

use crate::{Declaration, RunningProjector, start};

/// How often the program checks for a failure.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The projector's own settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectorSettings {
    /// Declaration file of a saga; repeat the flag for several. Without it the shipped declarations are used.
    #[arg(long = "saga", value_name = "FILE")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sagas: Vec<PathBuf>,
}

/// The projector as a program. The `projector` binary and `dacapo service` both run it.
#[must_use]
pub fn program() -> Program {
    Program::new("projector", "Shows the status of every saga", |config, settings: ProjectorSettings| async move {
        let declarations = match settings.sagas.as_slice() {
            [] => Declaration::shipped()?,
            files => files.iter().map(|file| Declaration::load(file)).collect::<Result<_, _>>()?,
        };
        Ok(start(&config, &declarations).await?)
    })
}

impl RunningProgram for RunningProjector {
    fn address(&self) -> Option<SocketAddr> {
        Some(RunningProjector::address(self))
    }

    async fn failed(&self) -> anyhow::Error {
        loop {
            if let Some(failure) = self.failure() {
                return anyhow::anyhow!(failure);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn stop(self) -> bool {
        RunningProjector::stop(self).await
    }
}
