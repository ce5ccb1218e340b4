//! The payment as a program of its own.

use std::process::ExitCode;

use payment::effects::{Gateway, Settings};

fn main() -> ExitCode {
    runtime::service::run("payment", |config, settings: Settings| async move {
        Ok(payment::service(config, Gateway::of(&settings)?).await?)
    })
}
