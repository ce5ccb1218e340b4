//! Notifications as a program of its own.

use std::process::ExitCode;

use notifications::effects::{Mailer, Settings};

fn main() -> ExitCode {
    runtime::service::run("notifications", |config, settings: Settings| async move {
        Ok(notifications::service(config, Mailer::of(&settings)?).await?)
    })
}
