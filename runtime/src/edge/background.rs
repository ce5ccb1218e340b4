//! An edge that opens by itself: it answers from the first moment, and says why while it cannot take anything yet.

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

/// How long an answer waits until the states show it too.
const FOLLOW: Duration = Duration::from_secs(2);

/// An edge and the states of its service's entities, opened in the background. Clones share it.
pub struct BackgroundEdge<D: Decider, S: Clone + Send + Sync + 'static> {
    open: Arc<OnceLock<Open<D, S>>>,
    trouble: Arc<Mutex<Option<String>>>,
}

struct Open<D: Decider, S: Clone + Send + Sync + 'static> {
    edge: Edge<D, S>,
    states: LiveView<EntityStates<D>>,
}

impl<D: Decider, S: Clone + Send + Sync + 'static> Clone for BackgroundEdge<D, S> {
    fn clone(&self) -> Self {
        Self { open: Arc::clone(&self.open), trouble: Arc::clone(&self.trouble) }
    }
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("the edge cannot connect")]
    Connect(#[source] ConnectError),
    #[error("the edge cannot read what its service said")]
    View(#[source] ViewError),
}

impl<D: Decider, S: Clone + Send + Sync + 'static> BackgroundEdge<D, S> {
    /// Starts to open the edge of a service. A registry or broker that is away is waited for. Needs a tokio runtime.
    /// `summarise` as in [`Edge::start`].
    #[must_use]
    pub fn start(config: &Config, decider: D, summarise: fn(&D::Event) -> Option<S>) -> Self {
        let config = config.for_service(D::NAME);
        let door = Self { open: Arc::default(), trouble: Arc::default() };
        let opening = door.clone();
        tokio::spawn(async move {
            let opened = match connect::<D>(&config).await {
                Ok((publisher, readers)) => {
                    Open::start(&config, publisher, readers, decider, summarise).map_err(OpenError::View)
                }
                Err(error) => Err(OpenError::Connect(error)),
            };
            match opened {
                Ok(open) => drop(opening.open.set(open)),
                Err(error) => {
                    let reason = telemetry::chain(&error);
                    tracing::error!(service = D::NAME, %reason, "an edge cannot open");
                    *opening.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                }
            }
        });
        door
    }

    /// Whether it takes commands.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), String> {
        let open = self.usable()?;
        match [open.edge.health(), open.states.health()].iter().any(|health| health.is_cut_off) {
            true => Err("no broker answers".to_owned()),
            false => Ok(()),
        }
    }

    /// What it answers with, once that is up to date. It goes on answering while brokers are away.
    fn usable(&self) -> Result<&Open<D, S>, String> {
        let Some(open) = self.open.get() else {
            let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(trouble.unwrap_or_else(|| "connecting".to_owned()));
        };
        for health in [open.edge.health(), open.states.health()] {
            if let Some(reason) = health.failed {
                return Err(reason);
            }
            if !health.caught_up {
                return Err("still reading what the service said".to_owned());
            }
        }
        Ok(open)
    }

    /// Submits a command as [`Edge::submit`] does. What was answered can be seen in [`BackgroundEdge::state`] afterwards.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn submit(&self, submission: Submission<D::Command>) -> Result<Submitted<S>, EdgeError> {
        let open = self.opened()?;
        let submitted = open.edge.submit(submission).await?;
        if let Submitted::Answered(answered) = &submitted
            && let Err(error) = open.states.wait_for(&answered.position, FOLLOW).await
        {
            // The answer stands all the same; only a question right after it may see less.
            tracing::warn!(service = D::NAME, error = telemetry::chain(&error), "states lag behind answers");
        }
        Ok(submitted)
    }

    /// The state of an entity, as far as it was read; `None` if nothing was ever said about it.
    ///
    /// # Errors
    /// [`EdgeError::NotReady`].
    pub fn state(&self, entity: &str) -> Result<Option<D::State>, EdgeError> {
        Ok(self.opened()?.states.read(|states| states.get(entity).cloned()))
    }

    fn opened(&self) -> Result<&Open<D, S>, EdgeError> {
        self.usable().map_err(|_| EdgeError::NotReady)
    }
}

impl<D: Decider, S: Clone + Send + Sync + 'static> Open<D, S> {
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
