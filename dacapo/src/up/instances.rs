//! The services that `up` runs as child processes, and the command that starts each: `--instances warehouse=3`.
//!
//! `supervisor` keeps the processes running.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
};

use anyhow::{Context, bail};
use runtime::{
    Program,
    config::{Args, Config},
};
use tokio::process::Command;

use super::settings::{ServiceSettings, flags};
use crate::service;

/// The maximum number of instances of one service: a mistyped number must not overload the machine.
const MAX_INSTANCES: u16 = 32;

/// How many instances of a service to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceCount {
    /// The service.
    service: &'static str,
    /// How many.
    count: u16,
}

impl FromStr for InstanceCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, count)) = text.split_once('=') else {
            return Err("expected SERVICE=N, such as warehouse=3".to_owned());
        };
        if name == PROJECTOR {
            return Err("the projector runs in this process, which queries it for the state of the sagas".to_owned());
        }
        let names = || service::names().into_iter().filter(|service| *service != PROJECTOR);
        let Some(service) = names().find(|service| *service == name) else {
            let names: Vec<&str> = names().collect();
            return Err(format!("there is no service {name:?}; the services are {}", names.join(", ")));
        };
        match count.parse() {
            Ok(count @ 1..=MAX_INSTANCES) => Ok(Self { service, count }),
            _ => Err(format!("{count:?} is not a number of instances; expected 1 to {MAX_INSTANCES}")),
        }
    }
}

/// The projector is not a service of the choreography.
const PROJECTOR: &str = "projector";

/// The services that these flags name.
///
/// # Errors
/// A service is named twice.
pub(super) fn services_of(instances: &[InstanceCount]) -> anyhow::Result<BTreeSet<&'static str>> {
    let mut services = BTreeSet::new();
    for InstanceCount { service, .. } in instances {
        if !services.insert(*service) {
            bail!("--instances names {service} twice");
        }
    }
    Ok(services)
}

/// One instance of a service: its name, and the command that starts its process.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// The service.
    pub(super) service: &'static str,
    /// Its stable name, which prefixes its output: `warehouse-2`.
    pub(super) name: String,
    executable: PathBuf,
    flags: Vec<String>,
    /// Environment variables for values that must not appear in a list of processes.
    secrets: Vec<(&'static str, String)>,
    /// Environment variables of this process that would set the child's flags.
    unset: Vec<String>,
    host: std::net::IpAddr,
}

impl Instance {
    /// All instances of `--instances`.
    ///
    /// # Errors
    /// The path of this executable is not known, or a setting cannot be written as a flag.
    pub(super) fn all(
        instances: &[InstanceCount],
        config: &Config,
        file: Option<&Path>,
        settings: &ServiceSettings,
        data: Option<&Path>,
        host: std::net::IpAddr,
    ) -> anyhow::Result<Vec<Self>> {
        let executable = std::env::current_exe().context("cannot find the path of this executable")?;
        let mut all = Vec::new();
        for InstanceCount { service, count } in instances {
            let own = settings.flags_of(service)?;
            for number in 1..=*count {
                let name = format!("{service}-{number}");
                let common = Args {
                    system: Some(config.system.clone()),
                    bootstrap: Some(config.bootstrap.clone()),
                    instance: Some(name.clone()),
                    workers: Some(config.workers),
                    data: data.map(|data| data.join("instances").join(&name)),
                    ..Args::default()
                };
                let mut flags = flags(&common)?;
                if let Some(file) = file {
                    flags.extend(["--config".to_owned(), file.display().to_string()]);
                }
                flags.extend(own.iter().cloned());
                let (executable, secrets, unset) = (executable.clone(), secrets(config), variables_of(service));
                all.push(Self { service, name, executable, flags, secrets, unset, host });
            }
        }
        Ok(all)
    }

    /// The command that starts the process, at this address or at a free port of the host.
    pub(super) fn command(&self, address: Option<SocketAddr>) -> Command {
        let listen = address.unwrap_or_else(|| SocketAddr::new(self.host, 0));
        let mut command = Command::new(&self.executable);
        for variable in &self.unset {
            command.env_remove(variable);
        }
        // The log defaults of this process, unless the environment sets others.
        for (variable, value) in [("RUST_LOG", "warn"), ("LOG_FORMAT", "human")] {
            if std::env::var_os(variable).is_none() {
                command.env(variable, value);
            }
        }
        command.envs(self.secrets.iter().cloned());
        command.args(["service", self.service, "--until-stdin-ends"]).args(&self.flags);
        command.args(["--listen", &listen.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Only this process receives Ctrl-C; it then stops its children.
        command.process_group(0);
        command
    }
}

/// The environment variables that the program of a service reads.
fn variables_of(service: &str) -> Vec<String> {
    let variable = |arg: &clap::Arg| Some(arg.get_env()?.to_string_lossy().into_owned());
    let programs = service::programs().into_iter().filter(|program| program.name() == service);
    let commands = programs.map(|program| Program::command(&program));
    commands.flat_map(|command| command.get_arguments().filter_map(variable).collect::<Vec<_>>()).collect()
}

/// The registry's address may contain credentials, so it is passed as an environment variable as well.
fn secrets(config: &Config) -> Vec<(&'static str, String)> {
    let mut secrets = vec![("SCHEMA_REGISTRY_URL", config.registry_url.clone())];
    secrets.extend(config.registry_user.clone().map(|user| ("DACAPO_REGISTRY_USER", user)));
    let password = config.registry_password.as_ref().map(|password| password.expose().to_owned());
    secrets.extend(password.map(|password| ("DACAPO_REGISTRY_PASSWORD", password)));
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_count_names_an_existing_service() {
        let warehouse: InstanceCount = "warehouse=3".parse().unwrap();
        assert_eq!(warehouse, InstanceCount { service: "warehouse", count: 3 });
        for (text, word) in [
            ("warehouse", "warehouse=3"),
            ("wharehouse=2", "order-processor, warehouse, payment"),
            ("warehouse=0", "expected 1 to 32"),
            ("warehouse=many", "expected 1 to 32"),
            ("projector=2", "runs in this process"),
        ] {
            let error = InstanceCount::from_str(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(services_of(&[warehouse, warehouse]).unwrap_err().to_string().contains("warehouse twice"));
    }
}
