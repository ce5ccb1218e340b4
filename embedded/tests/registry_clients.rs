//! The registry, tested with schema_registry_converter, the services' client.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};

use embedded::registry::{Level, Registry, RegistryConfig};
use schema_registry_converter::{
    async_impl::{
        avro::{AvroDecoder, AvroEncoder},
        schema_registry::{
            SrSettings, get_all_subjects, get_all_versions, get_schema_by_guid, get_schema_by_id,
            get_schema_by_subject, is_compatible_schema, perform_sr_call, post_schema,
        },
    },
    avro_common::get_supplied_schema,
    schema_registry_common::{SchemaType, SrCall, SubjectNameStrategy, SuppliedSchema},
};
use serde::{Deserialize, Serialize};

const ORDER_V1: &str = r#"{"type": "record", "namespace": "com.shop", "name": "Order", "fields": [
    {"name": "order_id", "type": "string"}]}"#;
const ORDER_V2: &str = r#"{"type": "record", "namespace": "com.shop", "name": "Order", "fields": [
    {"name": "order_id", "type": "string"}, {"name": "note", "type": "string", "default": ""}]}"#;
const ORDER_WITHOUT_DEFAULT: &str = r#"{"type": "record", "namespace": "com.shop", "name": "Order", "fields": [
    {"name": "order_id", "type": "string"}, {"name": "note", "type": "string"}]}"#;

async fn start(level: Level) -> (Registry, SrSettings) {
    let registry = Registry::start(RegistryConfig {
        data_dir: None,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        default_level: level,
        fsync: false,
    })
    .await
    .unwrap();
    let settings = SrSettings::new(registry.url());
    (registry, settings)
}

fn supplied(schema: &str) -> SuppliedSchema {
    SuppliedSchema::new(Some("com.shop.Order".to_owned()), SchemaType::Avro, schema.to_owned())
}

#[tokio::test]
async fn a_registered_schema_is_found_by_id_by_guid_and_by_subject() {
    let (registry, settings) = start(Level::FullTransitive).await;
    let subject = "com.shop.Order".to_owned();
    let first = post_schema(&settings, subject.clone(), supplied(ORDER_V1)).await.unwrap();
    let second = post_schema(&settings, subject.clone(), supplied(ORDER_V2)).await.unwrap();
    assert_eq!((first.id, second.id), (1, 2));
    let again = post_schema(&settings, subject.clone(), supplied(ORDER_V1)).await.unwrap();
    assert_eq!(again.id, first.id);

    let by_id = get_schema_by_id(first.id, &settings).await.unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&by_id.schema).unwrap(),
        serde_json::from_str::<serde_json::Value>(ORDER_V1).unwrap()
    );
    assert_eq!(by_id.schema_type, SchemaType::Avro);
    let by_guid = get_schema_by_guid(&first.guid.unwrap(), &settings).await.unwrap();
    assert_eq!(by_guid.schema, by_id.schema);
    let latest =
        get_schema_by_subject(&settings, &SubjectNameStrategy::RecordNameStrategy(subject.clone())).await.unwrap();
    assert_eq!((latest.id, latest.version), (2, Some(2)));
    assert_eq!(get_all_subjects(&settings).await.unwrap(), std::slice::from_ref(&subject));
    assert_eq!(get_all_versions(&settings, subject).await.unwrap(), [1, 2]);
    registry.stop().await;
}

#[tokio::test]
async fn a_look_up_by_text_finds_the_schema_or_reports_that_it_is_missing() {
    let (registry, settings) = start(Level::FullTransitive).await;
    let body = |schema: &str| serde_json::json!({ "schema": schema }).to_string();
    let missing = perform_sr_call(&settings, SrCall::PostForVersion("com.shop.Order", &body(ORDER_V1))).await;
    assert!(missing.unwrap_err().to_string().contains("40401"));

    post_schema(&settings, "com.shop.Order".to_owned(), supplied(ORDER_V1)).await.unwrap();
    // The same schema with other white space and attribute order.
    let rewritten =
        r#"{"fields":[{"type":{"type":"string"},"name":"order_id"}],"name":"com.shop.Order","type":"record"}"#;
    let found = perform_sr_call(&settings, SrCall::PostForVersion("com.shop.Order", &body(rewritten))).await.unwrap();
    assert_eq!((found.id, found.version), (Some(1), Some(1)));

    let other = perform_sr_call(&settings, SrCall::PostForVersion("com.shop.Order", &body(ORDER_V2))).await;
    assert!(other.unwrap_err().to_string().contains("40403"));
    registry.stop().await;
}

#[tokio::test]
async fn an_incompatible_schema_is_refused() {
    let (registry, settings) = start(Level::FullTransitive).await;
    let subject = "com.shop.Order".to_owned();
    post_schema(&settings, subject.clone(), supplied(ORDER_V1)).await.unwrap();
    assert!(is_compatible_schema(&settings, subject.clone(), supplied(ORDER_V2)).await.unwrap());
    assert!(!is_compatible_schema(&settings, subject.clone(), supplied(ORDER_WITHOUT_DEFAULT)).await.unwrap());
    let refused = post_schema(&settings, subject.clone(), supplied(ORDER_WITHOUT_DEFAULT)).await.unwrap_err();
    assert!(refused.to_string().contains("409"), "{refused}");
    assert_eq!(get_all_versions(&settings, subject).await.unwrap(), [1]);
    registry.stop().await;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    order_id: String,
    note: String,
}

#[tokio::test]
async fn the_decoder_reads_what_the_encoder_writes() {
    let (registry, settings) = start(Level::FullTransitive).await;
    let schema = apache_avro::Schema::parse_str(ORDER_V2).unwrap();
    let strategy = SubjectNameStrategy::RecordNameStrategyWithSchema(get_supplied_schema(&schema));
    let order = Order { order_id: "o-1".to_owned(), note: "leave at the door".to_owned() };
    let bytes = AvroEncoder::new(settings.clone()).encode_struct(&order, &strategy).await.unwrap();
    assert_eq!(bytes[..5], [0, 0, 0, 0, 1]);

    let decoded = AvroDecoder::new(settings).decode(Some(&bytes)).await.unwrap();
    assert_eq!(apache_avro::from_value::<Order>(&decoded.value).unwrap(), order);
    registry.stop().await;
}
