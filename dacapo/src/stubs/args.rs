//! The flags of `dacapo stubs`, and of `dacapo up` for its stubs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;

use super::{StubFaults, Stubs, StubsConfig};
use crate::{output, signals::Signals};

/// Flags for the latency and the faults of the stubs.
#[derive(Debug, Clone, clap::Args)]
pub struct StubFaultArgs {
    /// Minimum response time of the stubs; the maximum is twice as long
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub stub_latency_ms: u64,
    /// Share of requests to the stubs that fail, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub stub_failures: f64,
    /// Share of charges that the payment gateway never answers, in percent; half of them are captured all the same
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub silent_charges: f64,
    /// Share of payments whose first refund the gateway refuses, in percent: each needs an operator's `RetryRefund`
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub refused_refunds: f64,
    /// Share of dispatch attempts that the courier refuses, in percent: of any order, and perhaps of one order several times
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub refused_parcels: f64,
}

impl StubFaultArgs {
    /// The faults that these flags set.
    ///
    /// # Errors
    /// A share is not a percentage.
    pub fn faults(&self, seed: u64) -> anyhow::Result<StubFaults> {
        let failures = self.stub_failures;
        if !(0.0..=95.0).contains(&failures) {
            anyhow::bail!(
                "--stub-failures is {failures}; expected 0 to 95 percent, so that retries succeed in the end"
            );
        }
        let share = |flag: &str, percent: f64| {
            if (0.0..=100.0).contains(&percent) {
                Ok(percent / 100.0)
            } else {
                anyhow::bail!("--{flag} is {percent}; expected 0 to 100 percent")
            }
        };
        let mut faults = StubFaults::new(Duration::from_millis(self.stub_latency_ms), failures / 100.0, seed);
        faults.silent_charges = share("silent-charges", self.silent_charges)?;
        faults.refused_refunds = share("refused-refunds", self.refused_refunds)?;
        faults.refused_parcels = share("refused-parcels", self.refused_parcels)?;
        Ok(faults)
    }
}

/// Flags of `dacapo stubs`.
#[derive(Debug, clap::Args)]
pub struct StubsArgs {
    /// Address to listen on; the services expect the stubs at the default. Port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Folder for the journals of responses [default: memory]
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    faults: StubFaultArgs,
}

/// Runs the stubs until a signal stops them.
///
/// # Errors
/// A flag makes no sense, or the address is taken.
pub async fn run(args: StubsArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let faults = args.faults.faults(0)?;
    let config = StubsConfig { listen: args.listen, data_dir: args.journal, faults };
    let stubs = Stubs::start(config).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    output::line(&format!("payment gateway, picking and courier listen on {}", stubs.url()))?;
    signals.stop_requested().await;
    Ok(stubs.stop().await?)
}
