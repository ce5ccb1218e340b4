//! The order-processor as a program of its own.

use std::process::ExitCode;

use order_processor::edge::Edge;
use runtime::NoSettings;

fn main() -> ExitCode {
    runtime::service::run("order-processor", |config, _: NoSettings| async move {
        let edge = Edge::start(&config);
        Ok(order_processor::service(config, edge).await?)
    })
}
