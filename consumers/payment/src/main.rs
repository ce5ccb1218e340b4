//! The payment as a program of its own.

use std::process::ExitCode;

use payment::{
    Payment,
    effects::{Gateway, Settings},
};

fn main() -> ExitCode {
    runtime::service::run("payment", |config, settings: Settings| async move {
        Ok(payment::service(config, Payment::of(&settings), Gateway::of(&settings)?).await?)
    })
}
