//! A broker for Kafka's own tools: `cargo run -p dacapo-embedded --example broker -- 127.0.0.1:9092 [DIRECTORY]`.
//!
//! Prints its bootstrap address and runs until it is interrupted. Without a directory it keeps no data.

use anyhow::Context;
use embedded::broker::{Broker, BrokerConfig};
use std::path::PathBuf;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is the output of this program")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let config = BrokerConfig {
        listen: listen.parse().with_context(|| format!("{listen} is not an address and a port"))?,
        data_dir: arguments.next().map(PathBuf::from),
        ..BrokerConfig::default()
    };
    let broker = Broker::start(config)?;
    println!("{}", broker.bootstrap());
    tokio::signal::ctrl_c().await?;
    broker.stop().await;
    Ok(())
}
