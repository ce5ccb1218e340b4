//! Customers as a program of its own.

use std::process::ExitCode;

use runtime::NoSettings;

fn main() -> ExitCode {
    runtime::service::run("customers", |config, _: NoSettings| async move { Ok(customers::service(config).await?) })
}
