//! What this executable is when it is started under another name: the process that a fault strikes.
//!
//! Chaos needs a dozen programs and `cargo run -p chaos` builds one, so that one is all of them, told by the name it is started
//! under (`argv[0]`, as busybox is). Each service is the very function that its own binary runs, with the same flags.
//! Every role ends when its standard input does: a chaos that dies leaves nobody behind.

use std::{io::Read, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use embedded::{
    broker::{Broker, BrokerConfig},
    registry::{Level, Registry, RegistryConfig},
};
use notifications::effects::Mailer;
use runtime::{NoSettings, service, telemetry};

/// The role of a broker.
pub const BROKER: &str = "broker";
/// The role of a schema registry.
pub const REGISTRY: &str = "registry";
/// The role of the `dacapo` command.
pub const DACAPO: &str = "dacapo";

/// Plays the role of that name to its end; `None` if it is none.
#[must_use]
pub fn play(name: &str) -> Option<ExitCode> {
    let role: fn() -> ExitCode = match name {
        "customers" => {
            || service::run("customers", |config, _: NoSettings| async { Ok(customers::service(config).await?) })
        }
        "catalogue" => {
            || service::run("catalogue", |config, _: NoSettings| async { Ok(catalogue::service(config).await?) })
        }
        "order-processor" => || {
            service::run("order-processor", |config, _: NoSettings| async {
                let edge = order_processor::edge::Edge::start(&config);
                Ok(order_processor::service(config, edge).await?)
            })
        },
        "warehouse" => || {
            service::run("warehouse", |config, settings: warehouse::effects::Settings| async move {
                let outside = warehouse::effects::FloorAndCourier::of(&settings)?;
                Ok(warehouse::service(config, warehouse::Warehouse::of(&settings), outside).await?)
            })
        },
        "payment" => || {
            service::run("payment", |config, settings: payment::effects::Settings| async move {
                let gateway = payment::effects::Gateway::of(&settings)?;
                Ok(payment::service(config, payment::Payment::of(&settings), gateway).await?)
            })
        },
        "loyalty" => || service::run("loyalty", |config, _: NoSettings| async { Ok(loyalty::service(config).await?) }),
        "notifications" => || {
            service::run("notifications", |config, settings: notifications::effects::Settings| async move {
                Ok(notifications::service(config, Mailer::of(&settings)?).await?)
            })
        },
        BROKER => || until_signal(broker),
        REGISTRY => || until_signal(registry),
        DACAPO => || block_on(async { dacapo::cli::run(dacapo::cli::Cli::parse()).await }),
        _ => return None,
    };
    end_with_standard_input();
    Some(role())
}

fn end_with_standard_input() {
    std::thread::spawn(|| {
        // The end and an error mean the same: nobody is there any more.
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
}

/// Flags of a broker or a registry of its own.
#[derive(Debug, Parser)]
struct Place {
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
}

async fn broker(place: Place) -> anyhow::Result<()> {
    let config = BrokerConfig { data_dir: Some(place.data), listen: place.listen, ..BrokerConfig::default() };
    let _broker = Broker::start(config).context("cannot start the broker")?;
    std::future::pending().await
}

async fn registry(place: Place) -> anyhow::Result<()> {
    let (data_dir, listen) = (Some(place.data), place.listen);
    let config = RegistryConfig { data_dir, listen, default_level: Level::FullTransitive, fsync: false };
    let _registry = Registry::start(config).await.context("cannot start the registry")?;
    std::future::pending().await
}

fn until_signal<Running: Future<Output = anyhow::Result<()>>>(role: fn(Place) -> Running) -> ExitCode {
    block_on(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = role(Place::parse()) => ended,
            _ = terminate.recv() => Ok(()),
        }
    })
}

fn block_on(role: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    telemetry::init_logs();
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(role));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
