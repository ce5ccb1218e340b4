//! A plan shows what a registry lacks, and executing it leaves nothing to do: with the embedded registry, and also with the registry
//! at `DACAPO_TEST_REGISTRY` if that is set.

use std::net::{Ipv4Addr, SocketAddr};

use embedded::registry::{Level, RegistryConfig};
use runtime::{
    config::Config,
    registry::RegistryClient,
    schemas::{
        PlannedAction, RegistryChange, SchemaCatalog, apply, plan,
        plan::{ApplyError, LEVEL},
    },
};
use serde_json::json;

struct Target {
    registry: RegistryClient,
    /// Keeps the embedded registry running, if this target is the embedded one.
    _running: Option<(embedded::registry::Registry, tokio::runtime::Runtime)>,
    /// A unique system, so that the test may run many times on one registry.
    system: String,
}

fn targets() -> Vec<Target> {
    let system = format!("t{}", uuid::Uuid::now_v7().simple());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let running = runtime.block_on(embedded::registry::Registry::start(RegistryConfig {
        data_dir: None,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        default_level: Level::Backward,
        fsync: false,
    }));
    let running = running.expect("the embedded registry starts");
    let embedded = client(&running.url());
    let mut targets = vec![Target { registry: embedded, _running: Some((running, runtime)), system: system.clone() }];
    if let Ok(url) = std::env::var("DACAPO_TEST_REGISTRY") {
        targets.push(Target { registry: client(&url), _running: None, system });
    }
    targets
}

fn client(url: &str) -> RegistryClient {
    let config = Config { registry_url: url.to_owned(), ..Config::for_tests() };
    RegistryClient::new(&config).expect("a client")
}

fn schema(name: &str, added: &str) -> String {
    format!(
        r#"{{ "type": "record", "namespace": "com.musiccorp.order_desk", "name": "{name}", "doc": "D.",
             "fields": [ {{ "name": "id", "type": "string", "doc": "D." }}{added} ] }}"#
    )
}

fn contract(files: &[(&str, String)]) -> SchemaCatalog {
    SchemaCatalog::from_files(files.iter().map(|(path, text)| (*path, text.as_str()))).expect("the contract parses")
}

const TAKEN_V1: &str = "order-desk/events/OrderTaken/v1.avsc";
const TAKEN_V2: &str = "order-desk/events/OrderTaken/v2.avsc";
const LEFT_V1: &str = "order-desk/inbox/LeaveOrder/v1.avsc";
const NOTE: &str = r#", { "name": "note", "type": "string", "default": "", "doc": "D." }"#;
const REQUIRED: &str = r#", { "name": "note", "type": "string", "doc": "D." }"#;

/// The changes as short texts, without schemas and ids.
fn acts(changes: &[RegistryChange]) -> Vec<(&str, String)> {
    let act = |change: &RegistryChange| match &change.action {
        PlannedAction::SetLevel { to, .. } => format!("level {to}"),
        PlannedAction::NewSubject { version, .. } => format!("new subject v{version}"),
        PlannedAction::NewVersion { version, .. } => format!("new version v{version}"),
        PlannedAction::AlreadyThere { version, .. } => format!("there v{version}"),
        PlannedAction::Refused { version, .. } => format!("refused v{version}"),
    };
    changes.iter().map(|change| (change.subject.rsplit('.').next().unwrap_or_default(), act(change))).collect()
}

#[track_caller]
fn expect(changes: &[RegistryChange], expected: &[(&str, &str)]) {
    let expected: Vec<(&str, String)> = expected.iter().map(|(subject, act)| (*subject, (*act).to_owned())).collect();
    assert_eq!(acts(changes), expected);
}

#[test]
fn missing_schemas_are_shown_then_registered_then_present() {
    for Target { registry, _running, system } in targets() {
        let first = contract(&[(TAKEN_V1, schema("OrderTaken", "")), (LEFT_V1, schema("LeaveOrder", ""))]);
        let changes = plan(&registry, &first, &system).expect("a plan");
        let level = format!("level {LEVEL}");
        expect(
            &changes,
            &[
                ("OrderTaken", &level),
                ("OrderTaken", "new subject v1"),
                ("LeaveOrder", &level),
                ("LeaveOrder", "new subject v1"),
            ],
        );
        let subjects = registry.subjects().expect("the subjects");
        assert!(!subjects.iter().any(|subject| subject.contains(&system)), "a plan changes nothing");
        apply(&registry, &changes).expect("the plan is executed");
        let after = plan(&registry, &first, &system).expect("a plan");
        expect(&after, &[("OrderTaken", "there v1"), ("LeaveOrder", "there v1")]);
        assert!(after.iter().all(RegistryChange::is_done));

        let second = contract(&[(TAKEN_V1, schema("OrderTaken", "")), (TAKEN_V2, schema("OrderTaken", NOTE))]);
        let changes = plan(&registry, &second, &system).expect("a plan");
        expect(&changes, &[("OrderTaken", "there v1"), ("OrderTaken", "new version v2")]);
        apply(&registry, &changes).expect("the plan is executed");
        let subject = format!("com.{system}.order_desk.OrderTaken");
        assert_eq!(registry.versions(&subject).expect("the versions").len(), 2);
        // A service finds its compiled schema.
        let compiled = second.records()[0].latest().text_in(&system);
        assert!(registry.find(&subject, &compiled).expect("the compiled schema").id.is_some());
    }
}

#[test]
fn a_plan_with_a_refusal_changes_nothing() {
    for Target { registry, _running, system } in targets() {
        let first = contract(&[(TAKEN_V1, schema("OrderTaken", ""))]);
        apply(&registry, &plan(&registry, &first, &system).expect("a plan")).expect("the plan is executed");
        // The lax level would let the registry accept the change; the plan refuses it.
        let subject = format!("com.{system}.order_desk.OrderTaken");
        registry.set_compatibility(&subject, "NONE").expect("the level is set");
        let broken = contract(&[(TAKEN_V1, schema("OrderTaken", REQUIRED)), (LEFT_V1, schema("LeaveOrder", ""))]);
        let changes = plan(&registry, &broken, &system).expect("a plan");
        let level = format!("level {LEVEL}");
        expect(
            &changes,
            &[
                ("OrderTaken", &level),
                ("OrderTaken", "refused v1"),
                ("LeaveOrder", &level),
                ("LeaveOrder", "new subject v1"),
            ],
        );
        let shown = changes[1].to_string();
        assert!(shown.contains("'note'") && shown.contains("no default"), "{shown}");
        match apply(&registry, &changes) {
            Err(ApplyError::Refused(refused)) => assert_eq!(refused.len(), 1),
            other => panic!("{other:?}"),
        }
        let subjects = registry.subjects().expect("the subjects");
        assert!(!subjects.contains(&format!("com.{system}.order_desk.LeaveOrder")), "{subjects:?}");
        assert_eq!(registry.compatibility(&subject).expect("the level").as_deref(), Some("NONE"));
    }
}

#[test]
fn an_unreachable_registry_is_named() {
    let contract = contract(&[(TAKEN_V1, schema("OrderTaken", ""))]);
    let error = plan(&client("http://127.0.0.1:1"), &contract, "musiccorp").expect_err("no server listens");
    assert!(error.is_transient() && error.to_string().contains("http://127.0.0.1:1"), "{error}");
}

#[test]
fn the_schemas_compiled_into_services_are_parsed() {
    use runtime::{Channel, RecordType};
    const V1: &str = include_str!("../../schemas/order-processor/events/OrderPlaced/v1.avsc");
    let record =
        |schema| RecordType { owner: "order-processor", channel: Channel::Events, name: "OrderPlaced", schema };
    let contract = SchemaCatalog::from_records(&[record(Some(V1)), record(None), record(Some(V1))]).expect("it parses");
    assert_eq!(contract.records().len(), 1);
    let json = serde_json::from_str::<serde_json::Value>(&contract.records()[0].latest().text).expect("it is JSON");
    assert_eq!(json["name"], json!("OrderPlaced"));
    assert!(SchemaCatalog::from_records(&[record(Some("{"))]).is_err());
}
