//! Injects a fault: starts it, lets it last, ends it.

use std::time::{Duration, Instant};

use anyhow::bail;
use dacapo::rng::SeededRng;

use crate::{
    environment::Environment,
    instances::RunningInstance,
    plan::{Fault, FaultKind, FaultTarget, Instance},
    proxy::ProxyMode,
};

/// How long an instance may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// When a fault began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaultStart {
    pub(crate) at: Instant,
    /// The same moment by the clock of record timestamps.
    pub(crate) at_ms: i64,
}

impl FaultStart {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), at_ms: runtime::clock::now_ms() }
    }
}

impl Environment {
    /// Injects a fault and ends it. Calls `started` when the fault begins.
    pub(crate) async fn inject_fault(
        &self,
        fault: &Fault,
        seed: u64,
        started: impl FnOnce(FaultStart) + Send,
    ) -> anyhow::Result<()> {
        let lasts = Duration::from_millis(fault.lasts_ms);
        match &fault.target {
            FaultTarget::One(instance) => self.inject_into_one(fault.kind, instance, lasts, seed, started).await,
            FaultTarget::Each(instances) => {
                started(FaultStart::now());
                self.rolling_restart(instances).await
            }
            FaultTarget::All => self.inject_into_all(fault.kind, lasts, started).await,
        }
    }

    async fn inject_into_one(
        &self,
        kind: FaultKind,
        instance: &Instance,
        lasts: Duration,
        seed: u64,
        started: impl FnOnce(FaultStart) + Send,
    ) -> anyhow::Result<()> {
        match kind {
            FaultKind::Added => {
                started(FaultStart::now());
                return self.instances.add(instance).await;
            }
            FaultKind::Removed => {
                started(FaultStart::now());
                return self.instances.remove(instance, STOP_PATIENCE).await;
            }
            _ => {}
        }
        let running = self.instances.get(instance)?;
        match kind {
            FaultKind::Freeze => {
                let process = running.process().await;
                started(FaultStart::now());
                process.freeze()?;
                tokio::time::sleep(lasts).await;
                process.thaw()
            }
            FaultKind::Kill | FaultKind::StoreDeleted | FaultKind::StoreDamaged => {
                kill(&running, kind, lasts, seed, started).await
            }
            FaultKind::Disconnect | FaultKind::Stall | FaultKind::ResponsesLost | FaultKind::NoBrokers => {
                started(FaultStart::now());
                disturb_connections(&running, kind, lasts).await;
                Ok(())
            }
            other => bail!("{other} does not apply to a single instance"),
        }
    }

    async fn inject_into_all(
        &self,
        kind: FaultKind,
        lasts: Duration,
        started: impl FnOnce(FaultStart) + Send,
    ) -> anyhow::Result<()> {
        if kind == FaultKind::StubsDown {
            let mut stubs = self.stubs.lock().await;
            started(FaultStart::now());
            stubs.kill()?;
            tokio::time::sleep(lasts).await;
            return stubs.start(&self.settings.executable);
        }
        let mut infrastructure = self.infrastructure.lock().await;
        started(FaultStart::now());
        match kind {
            FaultKind::BrokerKill => {
                infrastructure.kill_broker().await?;
                tokio::time::sleep(lasts).await;
                infrastructure.start_broker().await
            }
            FaultKind::BrokerFreeze => {
                infrastructure.freeze_broker(true).await?;
                tokio::time::sleep(lasts).await;
                infrastructure.freeze_broker(false).await
            }
            FaultKind::RegistryDown => {
                infrastructure.stop_registry().await?;
                tokio::time::sleep(lasts).await;
                infrastructure.start_registry().await
            }
            other => bail!("{other} does not apply to all instances"),
        }
    }

    async fn rolling_restart(&self, instances: &[Instance]) -> anyhow::Result<()> {
        for instance in instances {
            let running = self.instances.get(instance)?;
            let mut process = running.process().await;
            process.stop(STOP_PATIENCE).await?;
            running.start(&mut process)?;
            drop(process);
            running.wait_until_ready(STOP_PATIENCE).await?;
        }
        Ok(())
    }
}

/// Puts the proxy of an instance through the modes of a fault.
async fn disturb_connections(running: &RunningInstance, kind: FaultKind, lasts: Duration) {
    use ProxyMode::{Disconnected, Frozen, NoBrokers, Open, ResponsesHeld};
    let (during, at_end): (&[ProxyMode], &[ProxyMode]) = match kind {
        FaultKind::Stall => (&[Frozen], &[Open]),
        // The held responses are dropped: the client never learns the results of its requests.
        FaultKind::ResponsesLost => (&[ResponsesHeld], &[Disconnected, Open]),
        // A client requests the list of brokers when it connects again.
        FaultKind::NoBrokers => (&[Disconnected, NoBrokers], &[Open]),
        _ => (&[Disconnected], &[Open]),
    };
    during.iter().for_each(|mode| running.set_connections(*mode));
    tokio::time::sleep(lasts).await;
    at_end.iter().for_each(|mode| running.set_connections(*mode));
}

async fn kill(
    running: &RunningInstance,
    kind: FaultKind,
    lasts: Duration,
    seed: u64,
    started: impl FnOnce(FaultStart) + Send,
) -> anyhow::Result<()> {
    let mut process = running.process().await;
    started(FaultStart::now());
    process.kill()?;
    match kind {
        FaultKind::StoreDeleted => running.delete_store()?,
        FaultKind::StoreDamaged => running.damage_store(&mut SeededRng::new(seed, u64::MAX))?,
        _ => {}
    }
    tokio::time::sleep(lasts).await;
    running.start(&mut process)
}
