//! An edge that starts in the background: it responds from the first moment, and reports why it does not accept commands yet.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use super::{ConnectError, Edge, EdgeError, EntityStates, Submission, Submitted, connect};
use crate::{
    codec::Readers,
    config::Config,
    decider::Decider,
    message::{Channel, topic},
    projection::{LiveView, Topics, ViewError},
    publisher::Publisher,
    telemetry,
};

/// How long an answer is held back until the view of states includes it.
const STATE_LAG: Duration = Duration::from_secs(2);

/// An edge with the states of its service's entities, started in the background. Clones share it.
pub struct BackgroundEdge<D: Decider, S: Clone + Send + Sync + 'static> {
    running: Arc<OnceLock<RunningEdge<D, S>>>,
    failure: Arc<Mutex<Option<String>>>,
}

struct RunningEdge<D: Decider, S: Clone + Send + Sync + 'static> {
    edge: Edge<D, S>,
    states: LiveView<EntityStates<D>>,
}

impl<D: Decider, S: Clone + Send + Sync + 'static> Clone for BackgroundEdge<D, S> {
    fn clone(&self) -> Self {
        Self { running: Arc::clone(&self.running), failure: Arc::clone(&self.failure) }
    }
}

#[derive(Debug, thiserror::Error)]
enum EdgeStartError {
    #[error("the HTTP API cannot connect")]
    Connect(#[source] ConnectError),
    #[error("the HTTP API cannot read the events of its service")]
    View(#[source] ViewError),
}

impl<D: Decider, S: Clone + Send + Sync + 'static> BackgroundEdge<D, S> {
    /// Begins to start the edge of a service, and retries until registry and broker are available. Needs a tokio runtime.
    /// `summarise` as in [`Edge::start`].
    #[must_use]
    pub fn start(config: &Config, decider: D, summarise: fn(&D::Event) -> Option<S>) -> Self {
        let config = config.for_service(D::NAME);
        let edge = Self { running: Arc::default(), failure: Arc::default() };
        let starting = edge.clone();
        tokio::spawn(async move {
            let opened = match connect::<D>(&config).await {
                Ok((publisher, readers)) => {
                    RunningEdge::start(&config, publisher, readers, decider, summarise).map_err(EdgeStartError::View)
                }
                Err(error) => Err(EdgeStartError::Connect(error)),
            };
            match opened {
                Ok(open) => drop(starting.running.set(open)),
                Err(error) => {
                    let reason = telemetry::chain(&error);
                    tracing::error!(service = D::NAME, %reason, "an HTTP API cannot start");
                    *starting.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                }
            }
        });
        edge
    }

    /// Whether it accepts commands.
    ///
    /// # Errors
    /// The reason why not.
    pub fn ready(&self) -> Result<(), String> {
        let open = self.usable()?;
        match [open.edge.health(), open.states.health()].iter().any(|health| health.is_disconnected) {
            true => Err("no broker answers".to_owned()),
            false => Ok(()),
        }
    }

    /// The running edge, once its views have caught up. Queries keep working while no broker is available.
    fn usable(&self) -> Result<&RunningEdge<D, S>, String> {
        let Some(open) = self.running.get() else {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(failure.unwrap_or_else(|| "connecting".to_owned()));
        };
        for health in [open.edge.health(), open.states.health()] {
            if let Some(reason) = health.failed {
                return Err(reason);
            }
            if !health.caught_up {
                return Err("still reading the events of the service".to_owned());
            }
        }
        Ok(open)
    }

    /// Submits a command like [`Edge::submit`]. After an answer, [`BackgroundEdge::state`] includes it.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn submit(&self, submission: Submission<D::Command>) -> Result<Submitted<S>, EdgeError> {
        let open = self.running()?;
        let submitted = open.edge.submit(submission).await?;
        if let Submitted::Answered(answered) = &submitted
            && let Err(error) = open.states.wait_for(&answered.position, STATE_LAG).await
        {
            // The answer is valid all the same; only a query right after it may miss it.
            tracing::warn!(service = D::NAME, error = telemetry::chain(&error), "states lag behind answers");
        }
        Ok(submitted)
    }

    /// The state of an entity, as far as its events were read; `None` if there are none.
    ///
    /// # Errors
    /// [`EdgeError::NotReady`].
    pub fn state(&self, entity: &str) -> Result<Option<D::State>, EdgeError> {
        Ok(self.running()?.states.read(|states| states.get(entity).cloned()))
    }

    fn running(&self) -> Result<&RunningEdge<D, S>, EdgeError> {
        self.usable().map_err(|_| EdgeError::NotReady)
    }
}

impl<D: Decider, S: Clone + Send + Sync + 'static> RunningEdge<D, S> {
    fn start(
        config: &Config,
        publisher: Publisher,
        readers: Readers,
        decider: D,
        summarise: fn(&D::Event) -> Option<S>,
    ) -> Result<Self, ViewError> {
        let own = Topics::decoded([topic(&config.system, D::NAME, Channel::Events)]);
        let states = EntityStates::new(&config.system, decider);
        Ok(Self {
            states: LiveView::start(config, &format!("states-{}", D::NAME), readers.clone(), own, states)?,
            edge: Edge::start(config, publisher, readers, summarise)?,
        })
    }
}
