//! Carries a fault out: strikes, lets it last, heals.

use std::time::{Duration, Instant};

use anyhow::bail;
use dacapo::draws::Draws;

use crate::{
    fleet::Member,
    plan::{Fault, Instance, Kind, Target},
    proxy::Line,
    stage::Stage,
};

/// How long an instance may take to stop when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// When it struck, and when it was over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Struck {
    pub(crate) at: Instant,
    /// By the clock that records are stamped with.
    pub(crate) at_ms: i64,
}

impl Struck {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), at_ms: runtime::clock::now_ms() }
    }
}

impl Stage {
    /// Strikes and heals. `struck` is told the moment of the blow.
    pub(crate) async fn carry_out(
        &self,
        fault: &Fault,
        seed: u64,
        struck: impl FnOnce(Struck) + Send,
    ) -> anyhow::Result<()> {
        let lasts = Duration::from_millis(fault.lasts_ms);
        match &fault.target {
            Target::One(instance) => self.strike_one(fault.kind, instance, lasts, seed, struck).await,
            Target::Each(instances) => {
                struck(Struck::now());
                self.roll(instances).await
            }
            Target::All => self.strike_all(fault.kind, lasts, struck).await,
        }
    }

    async fn strike_one(
        &self,
        kind: Kind,
        instance: &Instance,
        lasts: Duration,
        seed: u64,
        struck: impl FnOnce(Struck) + Send,
    ) -> anyhow::Result<()> {
        match kind {
            Kind::Added => {
                struck(Struck::now());
                return self.fleet.add(instance).await;
            }
            Kind::Retired => {
                struck(Struck::now());
                return self.fleet.retire(instance, STOP_PATIENCE).await;
            }
            _ => {}
        }
        let member = self.fleet.member(instance)?;
        match kind {
            Kind::Freeze => {
                let process = member.process().await;
                struck(Struck::now());
                process.freeze()?;
                tokio::time::sleep(lasts).await;
                process.thaw()
            }
            Kind::Kill | Kind::StoreDeleted | Kind::StoreDamaged => kill(&member, kind, lasts, seed, struck).await,
            Kind::Cut | Kind::Stall | Kind::Deaf | Kind::Nameless => {
                struck(Struck::now());
                member.line(match kind {
                    Kind::Stall => Line::Frozen,
                    Kind::Deaf => Line::Deaf,
                    _ => Line::Cut,
                });
                if kind == Kind::Nameless {
                    // Whoever connects again asks which brokers there are.
                    member.line(Line::Nameless);
                }
                tokio::time::sleep(lasts).await;
                if kind == Kind::Deaf {
                    // What was answered meanwhile is lost: nobody will ever know whether it was done.
                    member.line(Line::Cut);
                }
                member.line(Line::Open);
                Ok(())
            }
            other => bail!("{other} strikes no single instance"),
        }
    }

    async fn strike_all(&self, kind: Kind, lasts: Duration, struck: impl FnOnce(Struck) + Send) -> anyhow::Result<()> {
        if kind == Kind::Outside {
            let mut outside = self.outside.lock().await;
            struck(Struck::now());
            outside.kill()?;
            tokio::time::sleep(lasts).await;
            return outside.start(&self.settings.executable);
        }
        let mut ground = self.ground.lock().await;
        struck(Struck::now());
        match kind {
            Kind::BrokerKill => {
                ground.kill_broker().await?;
                tokio::time::sleep(lasts).await;
                ground.start_broker().await
            }
            Kind::BrokerFreeze => {
                ground.freeze_broker(true).await?;
                tokio::time::sleep(lasts).await;
                ground.freeze_broker(false).await
            }
            Kind::Registry => {
                ground.registry_is_gone(true).await?;
                tokio::time::sleep(lasts).await;
                ground.registry_is_gone(false).await
            }
            other => bail!("{other} strikes not everybody"),
        }
    }

    async fn roll(&self, instances: &[Instance]) -> anyhow::Result<()> {
        for instance in instances {
            let member = self.fleet.member(instance)?;
            let mut process = member.process().await;
            process.stop(STOP_PATIENCE).await?;
            member.start(&mut process)?;
            drop(process);
            member.wait_until_ready(STOP_PATIENCE).await?;
        }
        Ok(())
    }
}

async fn kill(
    member: &Member,
    kind: Kind,
    lasts: Duration,
    seed: u64,
    struck: impl FnOnce(Struck) + Send,
) -> anyhow::Result<()> {
    let mut process = member.process().await;
    struck(Struck::now());
    process.kill()?;
    match kind {
        Kind::StoreDeleted => member.delete_store()?,
        Kind::StoreDamaged => member.damage_store(&mut Draws::new(seed, u64::MAX))?,
        _ => {}
    }
    tokio::time::sleep(lasts).await;
    member.start(&mut process)
}
