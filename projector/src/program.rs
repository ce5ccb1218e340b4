//! The projector as a program: its settings, and what ends it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use runtime::service::{Program, RunningProgram};
use serde::{Deserialize, Serialize};

use crate::{Declaration, Running, start};

/// How often somebody who waits for a failure looks again.
const LOOK: Duration = Duration::from_millis(100);

/// The projector's own settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// A saga's declaration; may be given several times. Without one, those that ship are used.
    #[arg(long = "saga", value_name = "FILE")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sagas: Vec<PathBuf>,
}

/// The projector as a program: its own binary runs it, and so does `dacapo service`.
#[must_use]
pub fn program() -> Program {
    Program::new("projector", "Shows where every saga stands", |config, settings: Settings| async move {
        let declarations = match settings.sagas.as_slice() {
            [] => Declaration::shipped()?,
            files => files.iter().map(|file| Declaration::load(file)).collect::<Result<_, _>>()?,
        };
        Ok(start(&config, &declarations).await?)
    })
}

impl RunningProgram for Running {
    fn address(&self) -> Option<SocketAddr> {
        Some(Running::address(self))
    }

    async fn failed(&self) -> anyhow::Error {
        loop {
            if let Some(failure) = self.failure() {
                return anyhow::anyhow!(failure);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn stop(self) -> bool {
        Running::stop(self).await
    }
}
