//! An edge that connects in the background: it can be used from the first moment, and reports why it does not accept commands yet.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use super::{ConnectError, Edge, EdgeError, EntityStates, Submission, Submitted, connect};
use crate::{
    codec::Readers,
    config::Config,
    decider::Decider,
    health::CheckResult,
    message::{Channel, topic},
    projection::{LiveView, Topics, ViewError, ViewHealth},
    publisher::Publisher,
    telemetry,
};

/// How long a submission waits until the states include its answer.
const FOLLOW: Duration = Duration::from_secs(2);

/// An edge and its views, connected in the background. Clones share it. `V` are the views that requests are answered from: by
/// default the states of the entities of the service.
pub struct BackgroundEdge<D: Decider, S: Clone + Send + Sync + 'static, V = LiveView<EntityStates<D>>> {
    running: Arc<OnceLock<RunningEdge<D, S, V>>>,
    failure: Arc<Mutex<Option<String>>>,
    health: HealthOfViews<V>,
}

/// The health of each view, with what the view is of.
type HealthOfViews<V> = fn(&V) -> Vec<(&'static str, ViewHealth)>;

struct RunningEdge<D: Decider, S: Clone + Send + Sync + 'static, V> {
    edge: Edge<D, S>,
    views: V,
}

impl<D: Decider, S: Clone + Send + Sync + 'static, V> Clone for BackgroundEdge<D, S, V> {
    fn clone(&self) -> Self {
        Self { running: Arc::clone(&self.running), failure: Arc::clone(&self.failure), health: self.health }
    }
}

#[derive(Debug, thiserror::Error)]
enum EdgeStartError {
    #[error("the edge cannot connect")]
    Connect(#[source] ConnectError),
    #[error("the edge cannot read its topics")]
    View(#[source] ViewError),
}

impl<D: Decider, S: Clone + Send + Sync + 'static> BackgroundEdge<D, S> {
    /// Starts to connect the edge of a service, with a view of the states of its entities. Waits for a registry or broker that is
    /// unreachable. Requires a tokio runtime. `summarise` as in [`Edge::start`].
    #[must_use]
    pub fn start(config: &Config, decider: D, summarise: fn(&D::Event) -> Option<S>) -> Self {
        let views = |config: &Config, readers: Readers| {
            let own = Topics::decoded([topic(&config.system, D::NAME, Channel::Events)]);
            LiveView::start(
                config,
                &format!("states-{}", D::NAME),
                readers,
                own,
                EntityStates::new(&config.system, decider),
            )
        };
        Self::start_with(config, summarise, views, |states| vec![("the states of its entities", states.health())])
    }

    /// Submits a command as [`Edge::submit`] does. [`BackgroundEdge::state`] includes the answer afterwards.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn submit(&self, submission: Submission<D::Command>) -> Result<Submitted<S>, EdgeError> {
        let (edge, states) = self.running().map_err(|_| EdgeError::NotReady)?;
        let submitted = edge.submit(submission).await?;
        if let Submitted::Answered(answered) = &submitted
            && let Err(error) = states.wait_for(&answered.position, FOLLOW).await
        {
            // The answer is valid all the same; only a query right after it may return an older state.
            tracing::warn!(service = D::NAME, error = telemetry::chain(&error), "states lag behind answers");
        }
        Ok(submitted)
    }

    /// The state of an entity, as far as it was read; `None` if it has no event.
    ///
    /// # Errors
    /// [`EdgeError::NotReady`].
    pub fn state(&self, entity: &str) -> Result<Option<D::State>, EdgeError> {
        let (_, states) = self.running().map_err(|_| EdgeError::NotReady)?;
        Ok(states.read(|states| states.get(entity).cloned()))
    }
}

impl<D: Decider, S: Clone + Send + Sync + 'static, V: Send + Sync + 'static> BackgroundEdge<D, S, V> {
    /// Starts to connect the edge of a service, with views of its own: `views` starts them once the registry is reachable, `health`
    /// returns the health of each. Waits for a registry or broker that is unreachable. Requires a tokio runtime.
    #[must_use]
    pub fn start_with(
        config: &Config,
        summarise: fn(&D::Event) -> Option<S>,
        views: impl FnOnce(&Config, Readers) -> Result<V, ViewError> + Send + 'static,
        health: HealthOfViews<V>,
    ) -> Self {
        let config = config.for_service(D::NAME);
        let edge = Self { running: Arc::default(), failure: Arc::default(), health };
        let starting = edge.clone();
        tokio::spawn(async move {
            let opened = match connect::<D>(&config).await {
                Ok((publisher, readers)) => {
                    RunningEdge::start(&config, publisher, readers, summarise, views).map_err(EdgeStartError::View)
                }
                Err(error) => Err(EdgeStartError::Connect(error)),
            };
            match opened {
                Ok(open) => drop(starting.running.set(open)),
                Err(error) => {
                    let reason = telemetry::chain(&error);
                    tracing::error!(service = D::NAME, %reason, "an edge cannot connect");
                    *starting.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                }
            }
        });
        edge
    }

    /// A readiness check: failed while it accepts no commands, degraded while one of its views lacks records.
    #[must_use]
    pub fn ready(&self) -> CheckResult {
        if let Err(reason) = self.running() {
            return CheckResult::Failed(reason);
        }
        self.healths().iter().map(|(what, health)| health.check(what)).fold(CheckResult::Fine, CheckResult::and)
    }

    /// The edge and its views, once both are up to date. They stay available while brokers are unreachable.
    ///
    /// # Errors
    /// Why they are not up to date.
    pub fn running(&self) -> Result<(&Edge<D, S>, &V), String> {
        let Some(open) = self.running.get() else {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(failure.unwrap_or_else(|| "connecting".to_owned()));
        };
        for (what, health) in self.healths() {
            if let Some(reason) = health.failed {
                return Err(format!("cannot read {what}: {reason}"));
            }
            if !health.caught_up {
                return Err(format!("still reading {what}"));
            }
        }
        Ok((&open.edge, &open.views))
    }

    /// The views, whether or not they are up to date; `None` until they are started.
    #[must_use]
    pub fn views(&self) -> Option<&V> {
        self.running.get().map(|open| &open.views)
    }

    fn healths(&self) -> Vec<(&'static str, ViewHealth)> {
        let Some(open) = self.running.get() else { return Vec::new() };
        let mut healths = vec![("earlier answers", open.edge.health())];
        healths.extend((self.health)(&open.views));
        healths
    }
}

impl<D: Decider, S: Clone + Send + Sync + 'static, V> RunningEdge<D, S, V> {
    fn start(
        config: &Config,
        publisher: Publisher,
        readers: Readers,
        summarise: fn(&D::Event) -> Option<S>,
        views: impl FnOnce(&Config, Readers) -> Result<V, ViewError>,
    ) -> Result<Self, ViewError> {
        Ok(Self { views: views(config, readers.clone())?, edge: Edge::start(config, publisher, readers, summarise)? })
    }
}
