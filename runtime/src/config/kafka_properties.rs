//! The `[kafka]` table: which librdkafka properties a configuration may set, and which of them are secret.

use std::collections::BTreeMap;

use super::{ConfigError, Secret};

/// Properties that make librdkafka load code or run commands.
const CODE_LOADING: &[&str] = &["plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location"];

/// Properties that the runtime's guarantees depend on. `kafka::client` sets each, with its reason.
const RESERVED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.poll.interval.ms",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
    "retries",
    "session.timeout.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

pub(super) fn checked(given: &BTreeMap<String, toml::Value>) -> Result<BTreeMap<String, Secret>, ConfigError> {
    let mut properties = BTreeMap::new();
    for (name, value) in given {
        let setting = format!("kafka.{name}");
        if CODE_LOADING.contains(&name.as_str()) {
            return Err(ConfigError::invalid(
                setting,
                "is not allowed: it makes the client load code or run a command",
            ));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(ConfigError::invalid(
                setting,
                "is not allowed: the guarantees depend on it, so the runtime sets it",
            ));
        }
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Float(number) => number.to_string(),
            _ => {
                return Err(ConfigError::invalid(
                    setting,
                    "must be text, a number or a boolean; quote the name's dots",
                ));
            }
        };
        properties.insert(name.clone(), Secret(value));
    }
    Ok(properties)
}

pub(super) fn is_secret(name: &str) -> bool {
    ["password", "secret", "token", "key.pem", "username", "oauthbearer.config"].iter().any(|part| name.contains(part))
}
