//! The recommendations as a program of its own.

use std::process::ExitCode;

use runtime::NoSettings;

fn main() -> ExitCode {
    runtime::service::run(recommendations::NAME, |config, _: NoSettings| async move {
        Ok(recommendations::service(config).await?)
    })
}
