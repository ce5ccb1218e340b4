//! The warehouse as a program of its own.

use std::process::ExitCode;

use warehouse::{
    Warehouse,
    effects::{FloorAndCourier, Settings},
};

fn main() -> ExitCode {
    runtime::service::run("warehouse", |config, settings: Settings| async move {
        Ok(warehouse::service(config, Warehouse::of(&settings), FloorAndCourier::of(&settings)?).await?)
    })
}
