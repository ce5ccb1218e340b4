//! `dacapo health`: asks a process how it is. For health checks in images that have nothing else to ask with.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::output;

/// Flags of `dacapo health`.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// What to ask: `http://HOST:PORT/readyz`, or `/livez`
    #[arg(value_name = "URL")]
    url: String,
    /// How long the answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

/// Asks, and shows the answer.
///
/// # Errors
/// There is no answer in time, or it is that the process is not well.
pub async fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let url = &args.url;
    // Straight to the process: a proxy's health is not asked for.
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(args.timeout)).build()?;
    let response = client.get(url).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    let body = response.text().await.with_context(|| format!("{url} does not finish its answer"))?;
    if !status.is_success() {
        bail!("{url} answers {status}: {}", body.trim_end());
    }
    output::line(body.trim_end())?;
    Ok(())
}
