//! Topic settings: names, valid values and defaults.
//!
//! Owns the table and its checks. A value that this broker cannot apply is refused rather than stored and ignored.

use crate::broker::log::LogSettings;
use std::collections::BTreeMap;

/// The settings that were set for one topic.
pub(crate) type Configs = BTreeMap<String, String>;

/// The protocol's numbers for types of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigType {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// One known setting.
#[derive(Debug)]
pub(crate) struct TopicSetting {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: ConfigType,
    /// The only valid values; empty if every value of the type from `min` up is valid.
    pub only: &'static [&'static str],
    pub min: i64,
    pub about: &'static str,
}

const fn number(
    name: &'static str,
    default: &'static str,
    kind: ConfigType,
    min: i64,
    about: &'static str,
) -> TopicSetting {
    TopicSetting { name, default, kind, only: &[], min, about }
}

const fn choice(
    name: &'static str,
    default: &'static str,
    kind: ConfigType,
    only: &'static [&'static str],
    about: &'static str,
) -> TopicSetting {
    TopicSetting { name, default, kind, only, min: 0, about }
}

pub(crate) const SETTINGS: &[TopicSetting] = &[
    choice(
        "cleanup.policy",
        "delete",
        ConfigType::List,
        &["delete", "compact", "compact,delete", "delete,compact", ""],
        "what happens to old records; compaction is accepted and keeps everything",
    ),
    choice(
        "compression.type",
        "producer",
        ConfigType::String,
        &["producer"],
        "batches are kept as producers sent them",
    ),
    number("delete.retention.ms", "86400000", ConfigType::Long, 0, "how long a compacted topic keeps deletions"),
    number("file.delete.delay.ms", "60000", ConfigType::Long, 0, "files are removed at once"),
    number("flush.messages", "9223372036854775807", ConfigType::Long, 1, "the broker's sync policy decides"),
    number("flush.ms", "9223372036854775807", ConfigType::Long, 0, "the broker's sync policy decides"),
    number("index.interval.bytes", "4096", ConfigType::Int, 0, "the index lives in memory"),
    number(
        "max.compaction.lag.ms",
        "9223372036854775807",
        ConfigType::Long,
        1,
        "not used: compaction keeps everything",
    ),
    number("max.message.bytes", "1048588", ConfigType::Int, 0, "largest record batch"),
    number(
        "message.timestamp.after.max.ms",
        "3600000",
        ConfigType::Long,
        0,
        "how far ahead of the broker's clock a producer's timestamp may be",
    ),
    number(
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        ConfigType::Long,
        0,
        "how far behind the broker's clock a producer's timestamp may be",
    ),
    choice(
        "message.timestamp.type",
        "CreateTime",
        ConfigType::String,
        &["CreateTime", "LogAppendTime"],
        "whether the producer's or the broker's clock stamps records",
    ),
    number("min.cleanable.dirty.ratio", "0.5", ConfigType::Double, 0, "not used: compaction keeps everything"),
    number("min.compaction.lag.ms", "0", ConfigType::Long, 0, "not used: compaction keeps everything"),
    number(
        "min.insync.replicas",
        "1",
        ConfigType::Int,
        1,
        "one node is one replica: a larger number is kept and has no effect",
    ),
    choice("preallocate", "false", ConfigType::Boolean, &["false"], "files grow as records come"),
    number("retention.bytes", "-1", ConfigType::Long, -1, "closed segments beyond this size are removed; -1 keeps all"),
    number(
        "retention.ms",
        "604800000",
        ConfigType::Long,
        -1,
        "closed segments older than this are removed; -1 keeps all",
    ),
    number("segment.bytes", "1073741824", ConfigType::Int, 1024, "size at which a segment is closed"),
    number("segment.index.bytes", "10485760", ConfigType::Int, 4, "the index lives in memory"),
    number("segment.jitter.ms", "0", ConfigType::Long, 0, "not used"),
    number("segment.ms", "604800000", ConfigType::Long, 1, "age at which a segment is closed"),
    choice(
        "unclean.leader.election.enable",
        "false",
        ConfigType::Boolean,
        &["false", "true"],
        "a single node has no leader election",
    ),
];

pub(crate) fn setting(name: &str) -> Option<&'static TopicSetting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Checks one value; the error is the message for the client.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    let setting = setting(name).ok_or_else(|| format!("unknown topic setting {name}"))?;
    let wrong = |why: &str| Err(format!("invalid value {value:?} for {name}: {why}"));
    if !setting.only.is_empty() {
        let plain: String = value.chars().filter(|c| !c.is_whitespace()).collect();
        return if setting.only.contains(&plain.as_str()) {
            Ok(())
        } else {
            wrong(&format!("this broker accepts one of {:?}", setting.only))
        };
    }
    if setting.kind == ConfigType::Double {
        return match value.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
            _ => wrong("a number from 0 to 1 is needed"),
        };
    }
    let max = if setting.kind == ConfigType::Int { i64::from(i32::MAX) } else { i64::MAX };
    match value.parse::<i64>() {
        Ok(number) if number >= setting.min && number <= max => Ok(()),
        _ => wrong(&format!("a whole number from {} to {max} is needed", setting.min)),
    }
}

/// The effective value.
pub(crate) fn effective<'a>(configs: &'a Configs, setting: &TopicSetting) -> &'a str {
    configs.get(setting.name).map_or(setting.default, String::as_str)
}

/// The log settings that follow from a topic's settings.
pub(crate) fn log_settings(configs: &Configs) -> LogSettings {
    let text = |name: &str| setting(name).map_or("", |setting| effective(configs, setting));
    let number = |name: &str| text(name).parse::<i64>().unwrap_or(i64::MAX);
    let policy = text("cleanup.policy");
    LogSettings {
        segment_bytes: u64::try_from(number("segment.bytes")).unwrap_or(u64::MAX),
        segment_ms: number("segment.ms"),
        max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(usize::MAX),
        retention_ms: Some(number("retention.ms")).filter(|keep| *keep >= 0),
        retention_bytes: u64::try_from(number("retention.bytes")).ok(),
        delete: policy.contains("delete"),
        compact: policy.contains("compact"),
        stamp_on_arrival: text("message.timestamp.type") == "LogAppendTime",
        timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
        producer_idle_ms: 24 * 60 * 60 * 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_legal_value() {
        for setting in SETTINGS {
            assert_eq!(check(setting.name, setting.default), Ok(()), "{}", setting.name);
        }
    }

    #[test]
    fn unknown_names_and_values_are_refused_with_a_reason() {
        assert!(check("retention.msec", "1").unwrap_err().contains("unknown"));
        assert!(check("retention.ms", "soon").unwrap_err().contains("whole number"));
        assert!(check("retention.ms", "-2").is_err());
        assert!(check("message.timestamp.type", "Sundial").is_err());
        assert!(check("compression.type", "gzip").is_err());
    }

    #[test]
    fn a_retention_of_minus_one_keeps_records_for_ever() {
        let configs = Configs::from([("retention.ms".to_owned(), "-1".to_owned())]);
        assert_eq!(log_settings(&configs).retention_ms, None);
        assert_eq!(log_settings(&Configs::new()).retention_ms, Some(604_800_000));
    }
}
