//! The embedded broker and registry as a separate process, for tools that connect to them.
//!
//! `cargo run -p conformance --example embedded -- DATA_DIR` writes `DATA_DIR/endpoints.env` in the format of
//! `scripts/kafka.sh start`, prints it, and runs until its standard input ends. `RUST_LOG` sets the log level
//! (default: warnings).

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use embedded::broker::{Broker, BrokerConfig};
use embedded::registry::{Level, Registry, RegistryConfig};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let asked = std::env::var("RUST_LOG").ok().and_then(|asked| asked.parse::<Targets>().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    log.finish().with(filter).init();
    let data_dir = PathBuf::from(std::env::args_os().nth(1).context("usage: embedded DATA_DIR")?);
    std::fs::create_dir_all(&data_dir).with_context(|| format!("creating {}", data_dir.display()))?;
    let broker = Broker::start(BrokerConfig { data_dir: Some(data_dir.join("broker")), ..BrokerConfig::default() })
        .context("starting the broker")?;
    let registry = Registry::start(RegistryConfig {
        data_dir: Some(data_dir.join("registry")),
        listen: ([127, 0, 0, 1], 0).into(),
        default_level: Level::FullTransitive,
        fsync: false,
    })
    .await
    .context("starting the registry")?;
    let endpoints = format!("KAFKA_BOOTSTRAP={}\nREGISTRY_URL={}\n", broker.bootstrap(), registry.url());
    std::fs::write(data_dir.join("endpoints.env"), &endpoints).context("writing endpoints.env")?;
    std::io::stdout().write_all(endpoints.as_bytes())?;
    let until_end_of_input = || std::io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(until_end_of_input).await?.context("reading standard input")?;
    registry.stop().await;
    broker.stop().await;
    Ok(())
}
