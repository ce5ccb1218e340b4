//! `dacapo health`: requests a health endpoint. For health checks in images that have no HTTP client.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::output;

/// Flags of `dacapo health`.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// The endpoint: `http://HOST:PORT/readyz`, or `/livez`
    #[arg(value_name = "URL")]
    url: String,
    /// How long the response may take
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

/// Requests the endpoint and prints the response.
///
/// # Errors
/// There is no response in time, or the process is not healthy.
pub async fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let url = &args.url;
    // No proxy: the check is about the process itself.
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(args.timeout)).build()?;
    let response = client.get(url).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    let body = response.text().await.with_context(|| format!("the response of {url} breaks off"))?;
    if !status.is_success() {
        bail!("{url} answers {status}: {}", body.trim_end());
    }
    output::line(body.trim_end())?;
    Ok(())
}
