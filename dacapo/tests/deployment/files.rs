//! The container files fit the programs, and a mistake in them is found.

use crate::checks::Files;

#[test]
fn the_compose_file_and_the_dockerfile_fit_the_programs() {
    let faults = Files::read().faults();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A text of a file, a mistake that replaces it, and a part of the expected message.
type Mistake = (&'static str, &'static str, &'static str);

const IN_COMPOSE: &[Mistake] = &[
    ("apache/kafka:4.3.1", "apache/kafka:latest", "the tests run on"),
    ("apicurio-registry-kafkasql:2.6.13.Final", "apicurio-registry-mem:2.6.13.Final", "the registry is"),
    ("image: dacapo:0.1.0", "image: dacapo", "is not dacapo:0.1.0"),
    ("[service, loyalty,", "[service, loyality,", "no container runs loyalty"),
    ("[service, loyalty,", "[service, loyality,", "is refused"),
    ("[service, loyalty, --instance, a]", "[service, loyalty, --name, a]", "is refused"),
    ("[service, loyalty, --instance, a]", "[service, loyalty]", "it has no --instance"),
    ("[service, loyalty, --instance, a]", "[service, loyalty, --instance, ../a]", "setting instance"),
    ("[service, warehouse, --instance, b]", "[service, warehouse, --instance, a]", "have one name"),
    ("[service, warehouse, --instance, b]", "[service, payment, --instance, b]", "not two warehouses"),
    ("DACAPO_GATEWAY_URL:", "DACAPO_GATWAY_URL:", "no setting of"),
    ("DACAPO_GATEWAY_URL: http://stubs", "DACAPO_GATEWAY_URL: http://gateway", "no container is called"),
    ("DACAPO_GATEWAY_URL: http://stubs:8090", "DACAPO_GATEWAY_URL: http://stubs:8080", "listens at 0.0.0.0:8090"),
    (
        "SCHEMA_REGISTRY_URL: http://registry:8081/apis/ccompat/v7",
        "SCHEMA_REGISTRY_URL: http://registry:8081",
        "not http",
    ),
    (
        "KAFKA_BOOTSTRAP_SERVERS: kafka:9092\n    SCHEMA",
        "KAFKA_BOOTSTRAP_SERVERS: kafka:29092\n    SCHEMA",
        "kafka:29092",
    ),
    ("PLAINTEXT://kafka:9092,HOST", "PLAINTEXT://localhost:9092,HOST", "gives containers the address"),
    ("PLAINTEXT://:9092,CONTROLLER", "PLAINTEXT://:9091,CONTROLLER", "and listens at"),
    ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: \"1\"", "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: \"2\"", "MIN_ISR"),
    ("KAFKA_AUTO_CREATE_TOPICS_ENABLE: \"false\"", "KAFKA_AUTO_CREATE_TOPICS_ENABLE: \"true\"", "AUTO_CREATE"),
    ("kafka:/var/lib/kafka/data\"", "kafka:/tmp\"", "in no volume"),
    ("--partitions, \"8\"", "--partitions, \"1\"", "1 partitions leave some of 2 instances"),
    ("--partitions, \"8\"", "--partitions, many", "is refused"),
    ("\"1\", --sample-data]", "\"1\"]", "nothing loads the sample data"),
    ("http://127.0.0.1:8090/readyz", "http://127.0.0.1:8080/readyz", "answers at"),
    ("[CMD, dacapo, health, \"http", "[CMD, curl, health, \"http", "its health check"),
    ("healthcheck: { disable: true }", "restart: \"no\"", "duplicate"),
    ("condition: service_completed_successfully", "condition: service_healthy", "not service_completed_successfully"),
    ("stubs: { condition: service_healthy }", "stbs: { condition: service_healthy }", "which does not exist"),
    ("stop_grace_period: 20s", "stop_grace_period: 10s", "may take 10 s"),
    ("read_only: true", "read_only: false", "needless privileges"),
    ("restart: unless-stopped\n  #", "restart: always\n  #", "restart is"),
    ("[\"warehouse-b:/data\"]", "[\"warehouse-a:/data\"]", "mounted twice"),
    ("[\"127.0.0.1:8083:8080\"]", "[\"127.0.0.1:8082:8080\"]", "published twice"),
    ("[\"127.0.0.1:8083:8080\"]", "[\"8083:8080\"]", "reachable from other hosts"),
    ("environment: &environment", "enviroment: &environment", "not understood"),
];

const IN_DOCKERFILE: &[Mistake] = &[
    ("rust:1.95.0-slim-trixie", "rust:slim-trixie", "is not pinned"),
    ("rust:1.95.0-slim-trixie", "rust:1.80.0-slim-trixie", "is not rust:1.95"),
    ("debian:trixie-20260803-slim", "debian:bookworm-20260803-slim", "different C libraries"),
    ("debian:trixie-20260803-slim", "debian:trixie-20260803", "not a slim Debian"),
    ("USER 10001:10001", "USER root", "runs as \"root\""),
    ("--owner=10001", "--owner=10002", "cannot write to /data"),
    ("[\"dacapo\"]", "dacapo", "not dacapo"),
    ("DACAPO_LISTEN=0.0.0.0:8080", "DACAPO_LISTEN=0.0.0.0:8000", "exposes"),
    ("8080/readyz", "8080/healthz", "answers at"),
    ("target/release/dacapo", "target/debug/dacapo", "does not contain the built dacapo"),
    ("--locked ", "", "with the lock file"),
];

#[test]
fn a_mistake_in_either_of_them_is_found() {
    let right = Files::read();
    let once = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from:?} is not there");
        text.replacen(from, to, 1)
    };
    let mut missed = Vec::new();
    let mut look = |wrong: &Files, from: &str, to: &str, word: &str| {
        let faults = wrong.faults();
        if !faults.iter().any(|fault| fault.contains(word)) {
            missed.push(format!("{from:?} -> {to:?}: {faults:?}"));
        }
    };
    for (from, to, word) in IN_COMPOSE {
        let wrong = Files { compose: once(&right.compose, from, to), ..right.clone() };
        look(&wrong, from, to, word);
    }
    for (from, to, word) in IN_DOCKERFILE {
        let wrong = Files { dockerfile: once(&right.dockerfile, from, to), ..right.clone() };
        look(&wrong, from, to, word);
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
