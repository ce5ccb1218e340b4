//! The settings of the services that have their own, as values and as command-line flags.

use std::path::Path;

use anyhow::bail;
use serde::Serialize;
use serde_json::Value;

use super::UpArgs;

/// The settings of the services that have their own.
#[derive(Debug)]
pub(super) struct ServiceSettings {
    pub(super) warehouse: warehouse::effects::Settings,
    pub(super) payment: payment::effects::Settings,
    pub(super) notifications: notifications::effects::Settings,
}

impl ServiceSettings {
    /// The settings that the flags of `up` choose, with these stubs and this data folder. Without a data folder no mail is kept.
    pub(super) fn new(args: &UpArgs, stubs: &str, data: Option<&Path>) -> Self {
        let stubs = || Some(stubs.to_owned());
        let mail_folder = data.map(|data| data.join("mail"));
        Self {
            warehouse: warehouse::effects::Settings {
                picking_url: stubs(),
                courier_url: stubs(),
                ..args.deadlines.warehouse()
            },
            payment: payment::effects::Settings { gateway_url: stubs(), ..args.deadlines.payment() },
            notifications: notifications::effects::Settings {
                mail_discard: Some(mail_folder.is_none()),
                mail_folder,
                ..Default::default()
            },
        }
    }

    /// The settings of one service as flags of its program.
    ///
    /// # Errors
    /// A setting cannot be written as a flag.
    pub(super) fn flags_of(&self, service: &str) -> anyhow::Result<Vec<String>> {
        match service {
            "warehouse" => flags(&self.warehouse),
            "payment" => flags(&self.payment),
            "notifications" => flags(&self.notifications),
            _ => Ok(Vec::new()),
        }
    }
}

/// The settings as flags: a flag is named like the setting's field, with hyphens instead of underscores.
///
/// # Errors
/// A setting is neither text, number nor boolean.
pub(super) fn flags(settings: &impl Serialize) -> anyhow::Result<Vec<String>> {
    let Value::Object(fields) = serde_json::to_value(settings)? else { bail!("settings must have names") };
    let mut flags = Vec::new();
    for (name, value) in fields {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Array(_) | Value::Object(_) => bail!("setting {name} is neither text, number nor boolean"),
        };
        flags.extend([format!("--{}", name.replace('_', "-")), text]);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_becomes_a_flag_that_its_service_accepts() {
        let settings = warehouse::effects::Settings {
            picking_url: Some("http://picking".to_owned()),
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
