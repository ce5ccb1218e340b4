//! Which services `up` runs as processes of their own, and how each of those is started: `--instances warehouse=3`.
//!
//! What keeps them running is `children`.

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
use serde::Serialize;
use serde_json::Value;
use tokio::process::Command;

use super::services::Settings;
use crate::service;

/// The most instances of one service: a mistyped number should not take the machine.
const MOST: u16 = 32;

/// So many instances of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instances {
    /// The service.
    service: &'static str,
    /// How many.
    count: u16,
}

impl FromStr for Instances {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, count)) = text.split_once('=') else {
            return Err("expected SERVICE=N, such as warehouse=3".to_owned());
        };
        if name == PROJECTOR {
            return Err("the projector runs in this process, which asks it how the sagas stand".to_owned());
        }
        let names = || service::names().into_iter().filter(|service| *service != PROJECTOR);
        let Some(service) = names().find(|service| *service == name) else {
            let names: Vec<&str> = names().collect();
            return Err(format!("there is no service {name:?}; the services are {}", names.join(", ")));
        };
        match count.parse() {
            Ok(count @ 1..=MOST) => Ok(Self { service, count }),
            _ => Err(format!("{count:?} is no number of instances; expected 1 to {MOST}")),
        }
    }
}

/// The service that is no service of the choreography.
const PROJECTOR: &str = "projector";

/// The services of these instances.
///
/// # Errors
/// One is named twice.
pub(super) fn services_of(instances: &[Instances]) -> anyhow::Result<BTreeSet<&'static str>> {
    let mut services = BTreeSet::new();
    for Instances { service, .. } in instances {
        if !services.insert(*service) {
            bail!("--instances names {service} twice");
        }
    }
    Ok(services)
}

/// One instance of a service: what it is called, and how its process is started.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// The service.
    pub(super) service: &'static str,
    /// Its stable name, which its output is marked with: `warehouse-2`.
    pub(super) name: String,
    executable: PathBuf,
    flags: Vec<String>,
    /// What must not be seen in a list of processes.
    secrets: Vec<(&'static str, String)>,
    /// What the environment of this process would set.
    unset: Vec<String>,
    host: std::net::IpAddr,
}

impl Instance {
    /// Every instance that was asked for.
    ///
    /// # Errors
    /// This program's own file is not known.
    pub(super) fn all(
        instances: &[Instances],
        config: &Config,
        file: Option<&Path>,
        settings: &Settings,
        data: Option<&Path>,
        host: std::net::IpAddr,
    ) -> anyhow::Result<Vec<Self>> {
        let executable = std::env::current_exe().context("cannot tell where this program's file is")?;
        let mut all = Vec::new();
        for Instances { service, count } in instances {
            let own = settings.flags_of(service)?;
            let programs = service::programs().into_iter();
            let command =
                programs.filter(|program| program.name() == *service).map(|program| Program::command(&program));
            let unset: Vec<String> =
                command.flat_map(|command| command.get_arguments().filter_map(env_of).collect::<Vec<_>>()).collect();
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
                let (executable, unset) = (executable.clone(), unset.clone());
                all.push(Self { service, name, executable, flags, secrets: secrets(config), unset, host });
            }
        }
        Ok(all)
    }

    /// The command that starts it, at this address or at a free port of its host.
    pub(super) fn command(&self, address: Option<SocketAddr>) -> Command {
        let listen = address.unwrap_or_else(|| SocketAddr::new(self.host, 0));
        let mut command = Command::new(&self.executable);
        for variable in &self.unset {
            command.env_remove(variable);
        }
        // As quiet as this process, and as legible, unless somebody says otherwise.
        for (variable, value) in [("RUST_LOG", "warn"), ("LOG_FORMAT", "human")] {
            if std::env::var_os(variable).is_none() {
                command.env(variable, value);
            }
        }
        command.envs(self.secrets.iter().cloned());
        command.args(["service", self.service, "--until-stdin-ends"]).args(&self.flags);
        command.args(["--listen", &listen.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is this process's to hear. It then asks its children.
        command.process_group(0);
        command
    }
}

fn env_of(arg: &clap::Arg) -> Option<String> {
    Some(arg.get_env()?.to_string_lossy().into_owned())
}

/// The registry's address goes with its credentials.
fn secrets(config: &Config) -> Vec<(&'static str, String)> {
    let mut secrets = vec![("SCHEMA_REGISTRY_URL", config.registry_url.clone())];
    secrets.extend(config.registry_user.clone().map(|user| ("DACAPO_REGISTRY_USER", user)));
    let password = config.registry_password.as_ref().map(|password| password.expose().to_owned());
    secrets.extend(password.map(|password| ("DACAPO_REGISTRY_PASSWORD", password)));
    secrets
}

/// The flags that say what `settings` holds: a setting's field is named like its flag, with underscores.
///
/// # Errors
/// A setting is no text, number or boolean.
pub(super) fn flags(settings: &impl Serialize) -> anyhow::Result<Vec<String>> {
    let Value::Object(fields) = serde_json::to_value(settings)? else { bail!("settings must have names") };
    let mut flags = Vec::new();
    for (name, value) in fields {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Array(_) | Value::Object(_) => bail!("setting {name} is no text, number or boolean"),
        };
        flags.extend([format!("--{}", name.replace('_', "-")), text]);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_instances_names_a_service_that_there_is() {
        let warehouse: Instances = "warehouse=3".parse().unwrap();
        assert_eq!(warehouse, Instances { service: "warehouse", count: 3 });
        for (text, word) in [
            ("warehouse", "warehouse=3"),
            ("wharehouse=2", "order-processor, warehouse, payment"),
            ("warehouse=0", "expected 1 to 32"),
            ("warehouse=many", "expected 1 to 32"),
            ("projector=2", "runs in this process"),
        ] {
            let error = Instances::from_str(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(services_of(&[warehouse, warehouse]).unwrap_err().to_string().contains("warehouse twice"));
    }

    #[test]
    fn every_setting_becomes_a_flag_that_its_service_takes() {
        let settings = warehouse::effects::Settings {
            picking_url: Some("http://floor".to_owned()),
            courier_url: Some("http://courier".to_owned()),
            courier_deadline_ms: Some(1),
            dispatch_pause_ms: Some(2),
            dispatch_attempts: Some(3),
        };
        let flags = flags(&settings).unwrap();
        assert_eq!(flags.len(), 10);
        let matches =
            warehouse::program().command().try_get_matches_from([vec!["warehouse".to_owned()], flags].concat());
        let read = <warehouse::effects::Settings as clap::FromArgMatches>::from_arg_matches(&matches.unwrap()).unwrap();
        assert_eq!(read, settings);
    }
}
