//! Loyalty as a program of its own.

use std::process::ExitCode;

use runtime::NoSettings;

fn main() -> ExitCode {
    runtime::service::run("loyalty", |config, _: NoSettings| async move { Ok(loyalty::service(config).await?) })
}
