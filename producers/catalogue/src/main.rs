//! Catalogue as a program of its own.

use std::process::ExitCode;

use runtime::NoSettings;

fn main() -> ExitCode {
    runtime::service::run("catalogue", |config, _: NoSettings| async move { Ok(catalogue::service(config).await?) })
}
