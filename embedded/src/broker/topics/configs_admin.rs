//! Requests that describe and change settings. Topic settings can change; the broker's own are fixed while it runs.

use super::admin::{SOURCE_DEFAULT, SOURCE_TOPIC};
use super::configs::{self, ConfigType, Configs, TopicSetting};
use super::{Topic, TopicChangeError};
use crate::broker::config::Fsync;
use crate::broker::context::RequestContext;
use crate::broker::{BrokerState, NODE_ID, text};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
    incremental_alter_configs_request, incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;

/// Resource types that have settings.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SOURCE_STATIC: i8 = 4;

pub(crate) fn describe(context: &RequestContext<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request
        .resources
        .into_iter()
        .map(|requested| {
            let described = describe_one(context, &requested, request.include_synonyms, request.include_documentation);
            let result = DescribeConfigsResult::default()
                .with_resource_type(requested.resource_type)
                .with_resource_name(requested.resource_name);
            match described {
                Ok(configs) => result.with_configs(configs),
                Err(refusal) => {
                    result.with_error_code(refusal.error.code()).with_error_message(Some(text(&refusal.text)))
                }
            }
        })
        .collect();
    DescribeConfigsResponse::default().with_results(results)
}

fn describe_one(
    context: &RequestContext<'_>,
    requested: &DescribeConfigsResource,
    synonyms: bool,
    documentation: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, TopicChangeError> {
    let wanted = |name: &str| {
        requested.configuration_keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
    };
    match requested.resource_type {
        TOPIC => {
            let map = context.shared().topics.snapshot();
            let topic = map.get(&requested.resource_name).ok_or_else(|| unknown_topic(&requested.resource_name))?;
            Ok(configs::SETTINGS
                .iter()
                .filter(|setting| wanted(setting.name))
                .map(|setting| describe_setting(topic, setting, synonyms, documentation))
                .collect())
        }
        BROKER if matches!(requested.resource_name.as_str(), "") => Ok(Vec::new()),
        BROKER if requested.resource_name.parse() == Ok(NODE_ID) => Ok(broker_settings(context.shared())
            .into_iter()
            .filter(|(name, _, _)| wanted(name))
            .map(|(name, value, kind)| {
                DescribeConfigsResourceResult::default()
                    .with_name(name.into())
                    .with_value(Some(text(&value)))
                    .with_read_only(true)
                    .with_config_source(SOURCE_STATIC)
                    .with_config_type(kind as i8)
            })
            .collect()),
        BROKER => {
            Err(TopicChangeError::new(ResponseError::InvalidRequest, format!("the only broker has the id {NODE_ID}")))
        }
        other => Err(TopicChangeError::new(
            ResponseError::InvalidRequest,
            format!("resources of type {other} have no settings here"),
        )),
    }
}

fn unknown_topic(name: &str) -> TopicChangeError {
    TopicChangeError::new(ResponseError::UnknownTopicOrPartition, format!("topic {name} does not exist"))
}

fn describe_setting(
    topic: &Topic,
    setting: &TopicSetting,
    synonyms: bool,
    documentation: bool,
) -> DescribeConfigsResourceResult {
    let own = topic.configs.get(setting.name);
    let synonym = |value: &str, source| {
        DescribeConfigsSynonym::default()
            .with_name(setting.name.into())
            .with_value(Some(text(value)))
            .with_source(source)
    };
    let mut known_as = Vec::new();
    if synonyms {
        known_as.extend(own.map(|value| synonym(value, SOURCE_TOPIC)));
        known_as.push(synonym(setting.default, SOURCE_DEFAULT));
    }
    DescribeConfigsResourceResult::default()
        .with_name(setting.name.into())
        .with_value(Some(text(configs::effective(&topic.configs, setting))))
        .with_config_source(if own.is_some() { SOURCE_TOPIC } else { SOURCE_DEFAULT })
        .with_config_type(setting.kind as i8)
        .with_synonyms(known_as)
        .with_documentation(documentation.then(|| setting.about.into()))
}

/// The broker's own settings under Kafka's names.
fn broker_settings(shared: &BrokerState) -> Vec<(&'static str, String, ConfigType)> {
    let config = &shared.config;
    let limits = &config.limits;
    let flush_ms = match config.fsync {
        Fsync::Never => i64::MAX,
        Fsync::Interval(ms) => i64::try_from(ms).unwrap_or(i64::MAX),
        Fsync::Always => 0,
    };
    vec![
        ("auto.create.topics.enable", config.auto_create_topics.to_string(), ConfigType::Boolean),
        ("broker.id", NODE_ID.to_string(), ConfigType::Int),
        ("default.replication.factor", "1".to_owned(), ConfigType::Int),
        ("group.initial.rebalance.delay.ms", config.initial_rebalance_delay.as_millis().to_string(), ConfigType::Int),
        ("group.max.session.timeout.ms", limits.session_timeout_max.as_millis().to_string(), ConfigType::Int),
        ("group.max.size", limits.group_members_max.to_string(), ConfigType::Int),
        ("group.min.session.timeout.ms", limits.session_timeout_min.as_millis().to_string(), ConfigType::Int),
        ("log.flush.interval.ms", flush_ms.to_string(), ConfigType::Long),
        ("max.connections", limits.connections_max.to_string(), ConfigType::Int),
        ("num.partitions", config.default_partitions.to_string(), ConfigType::Int),
        ("socket.request.max.bytes", limits.request_bytes_max.to_string(), ConfigType::Int),
        ("transaction.max.timeout.ms", limits.transaction_timeout_max.as_millis().to_string(), ConfigType::Int),
    ]
}

/// Replaces all settings of a topic by those in the request.
pub(crate) fn alter(context: &RequestContext<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let responses = request
        .resources
        .into_iter()
        .map(|requested| {
            let mut fresh = Configs::new();
            let listed = requested
                .configs
                .iter()
                .try_for_each(|config| set(&mut fresh, &config.name, config.value.as_ref().map(StrBytes::as_str)));
            let altered = listed
                .and_then(|()| alterable(context, requested.resource_type, &requested.resource_name).map(|_| ()))
                .and_then(|()| store(context, &requested.resource_name, fresh, request.validate_only));
            let (code, message) = outcome(altered);
            alter_configs_response::AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(requested.resource_type)
                .with_resource_name(requested.resource_name)
        })
        .collect();
    AlterConfigsResponse::default().with_responses(responses)
}

/// Changes the settings in the request and keeps the others.
pub(crate) fn alter_incrementally(
    context: &RequestContext<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let responses = request
        .resources
        .into_iter()
        .map(|requested| {
            let altered =
                alterable(context, requested.resource_type, &requested.resource_name).and_then(|mut configs| {
                    requested.configs.iter().try_for_each(|config| change(&mut configs, config))?;
                    store(context, &requested.resource_name, configs, request.validate_only)
                });
            let (code, message) = outcome(altered);
            incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(requested.resource_type)
                .with_resource_name(requested.resource_name)
        })
        .collect();
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn outcome(altered: Result<(), TopicChangeError>) -> (i16, Option<StrBytes>) {
    match altered {
        Ok(()) => (0, None),
        Err(refusal) => (refusal.error.code(), Some(text(&refusal.text))),
    }
}

/// The current settings of a resource that may be changed.
fn alterable(context: &RequestContext<'_>, resource_type: i8, name: &str) -> Result<Configs, TopicChangeError> {
    if resource_type != TOPIC {
        let text = "only topics can be changed while the broker runs";
        return Err(TopicChangeError::new(ResponseError::InvalidRequest, text));
    }
    context.shared().topics.snapshot().get(name).map(|topic| topic.configs.clone()).ok_or_else(|| unknown_topic(name))
}

fn store(
    context: &RequestContext<'_>,
    name: &str,
    configs: Configs,
    validate_only: bool,
) -> Result<(), TopicChangeError> {
    if validate_only { Ok(()) } else { context.shared().topics.set_configs(name, configs) }
}

fn set(configs: &mut Configs, name: &str, value: Option<&str>) -> Result<(), TopicChangeError> {
    let Some(value) = value else {
        configs.remove(name);
        return Ok(());
    };
    configs::check(name, value).map_err(|reason| TopicChangeError::new(ResponseError::InvalidConfig, reason))?;
    configs.insert(name.to_owned(), value.to_owned());
    Ok(())
}

fn change(
    configs: &mut Configs,
    config: &incremental_alter_configs_request::AlterableConfig,
) -> Result<(), TopicChangeError> {
    let name = config.name.as_str();
    let invalid = |reason: String| TopicChangeError::new(ResponseError::InvalidConfig, reason);
    let setting = configs::setting(name).ok_or_else(|| invalid(format!("unknown topic setting {name}")))?;
    let value = config.value.as_ref().map(StrBytes::as_str).unwrap_or_default();
    match config.config_operation {
        0 => set(configs, name, Some(value)),
        1 => set(configs, name, None),
        operation @ (2 | 3) if setting.kind == ConfigType::List => {
            let mut items: Vec<&str> =
                configs::effective(configs, setting).split(',').filter(|item| !item.is_empty()).collect();
            items.retain(|item| *item != value);
            if operation == 2 {
                items.push(value);
            }
            let list = items.join(",");
            set(configs, name, Some(&list))
        }
        2 | 3 => Err(invalid(format!("{name} is not a list"))),
        other => Err(TopicChangeError::new(ResponseError::InvalidRequest, format!("unknown operation {other}"))),
    }
}
