//! The registry's file: a restart restores all changes, an incomplete write is truncated, and damage is an error.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use embedded::registry::{Level, Registry, RegistryConfig, RegistryStartError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn start(directory: &Path) -> Result<Registry, RegistryStartError> {
    Registry::start(RegistryConfig {
        data_dir: Some(directory.to_owned()),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        default_level: Level::Backward,
        fsync: true,
    })
    .await
}

async fn call(registry: &Registry, method: reqwest::Method, path: &str, body: Value) -> Value {
    let request = reqwest::Client::new().request(method, format!("{}{path}", registry.url())).json(&body);
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
    response.json().await.unwrap()
}

async fn register(registry: &Registry, subject: &str, name: &str) -> Value {
    let schema = json!({ "type": "record", "name": name, "fields": [] }).to_string();
    let path = format!("/subjects/{subject}/versions");
    call(registry, reqwest::Method::POST, &path, json!({ "schema": schema })).await["id"].clone()
}

/// Everything a client can read.
async fn visible_state(registry: &Registry) -> Vec<Value> {
    let mut visible_state = Vec::new();
    for path in
        ["/subjects?deleted=true", "/schemas?deleted=true", "/schemas", "/config", "/config/a", "/mode", "/mode/b"]
    {
        let response = reqwest::get(format!("{}{path}", registry.url())).await.unwrap();
        visible_state.push(response.json().await.unwrap());
    }
    visible_state
}

/// One of each kind of change.
async fn fill(registry: &Registry) {
    use reqwest::Method;
    call(registry, Method::PUT, "/config", json!({ "compatibility": "NONE" })).await;
    for (subject, name) in [("a", "A1"), ("a", "A2"), ("b", "A1"), ("b", "B2"), ("c", "C1"), ("d", "D1")] {
        register(registry, subject, name).await;
    }
    call(registry, Method::PUT, "/config/a", json!({ "compatibility": "FULL_TRANSITIVE" })).await;
    call(registry, Method::PUT, "/mode/b", json!({ "mode": "READONLY" })).await;
    call(registry, Method::DELETE, "/subjects/a/versions/1", json!({})).await;
    call(registry, Method::DELETE, "/subjects/c", json!({})).await;
    call(registry, Method::DELETE, "/subjects/d", json!({})).await;
    call(registry, Method::DELETE, "/subjects/d?permanent=true", json!({})).await;
}

#[tokio::test]
async fn a_restart_restores_everything() {
    let directory = tempfile::tempdir().unwrap();
    let registry = start(directory.path()).await.unwrap();
    fill(&registry).await;
    let before = visible_state(&registry).await;
    registry.stop().await;
    let registry = start(directory.path()).await.unwrap();
    assert_eq!(visible_state(&registry).await, before);
    // D1's id is never assigned to another schema, and D1 receives it again.
    assert_eq!(register(&registry, "e", "E1").await, 6);
    assert_eq!(register(&registry, "e", "D1").await, 5);
    registry.stop().await;
}

#[tokio::test]
async fn an_incomplete_line_at_the_end_is_truncated_and_writing_continues() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.log");
    let registry = start(directory.path()).await.unwrap();
    fill(&registry).await;
    let before = visible_state(&registry).await;
    registry.stop().await;
    let whole = fs::read(&file).unwrap();
    let registry = start(directory.path()).await.unwrap();
    register(&registry, "z", "Z1").await;
    registry.stop().await;
    let longer = fs::read(&file).unwrap();
    assert!(longer.len() > whole.len());
    for length in whole.len()..longer.len() {
        fs::write(&file, &longer[..length]).unwrap();
        let registry = start(directory.path()).await.unwrap();
        assert_eq!(fs::read(&file).unwrap(), whole, "truncated at {length}");
        if length == longer.len() - 1 {
            assert_eq!(visible_state(&registry).await, before);
            register(&registry, "z", "Z1").await;
            assert_eq!(fs::read(&file).unwrap(), longer);
        }
        registry.stop().await;
    }
}

#[tokio::test]
async fn an_incomplete_first_line_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.log");
    start(directory.path()).await.unwrap().stop().await;
    let header = fs::read(&file).unwrap();
    for length in 0..header.len() {
        fs::write(&file, &header[..length]).unwrap();
        start(directory.path()).await.unwrap().stop().await;
        assert_eq!(fs::read(&file).unwrap(), header, "truncated at {length}");
    }
}

#[tokio::test]
async fn damage_before_the_end_is_an_error_that_names_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.log");
    let registry = start(directory.path()).await.unwrap();
    fill(&registry).await;
    registry.stop().await;
    let mut bytes = fs::read(&file).unwrap();
    let third_line = bytes.split_inclusive(|byte| *byte == b'\n').take(2).map(<[u8]>::len).sum::<usize>();
    bytes[third_line + 20] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = start(directory.path()).await.unwrap_err().to_string();
    assert!(error.contains("damaged at line 3") && error.contains("registry.log"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "a damaged file is not modified");

    fs::write(&file, "something else entirely, and longer than any first line of ours could possibly be\n").unwrap();
    let error = start(directory.path()).await.unwrap_err().to_string();
    assert!(error.contains("no registry file"), "{error}");
}

#[tokio::test]
async fn a_second_registry_on_a_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let registry = start(directory.path()).await.unwrap();
    let error = start(directory.path()).await.unwrap_err().to_string();
    assert!(error.contains("in use by another registry"), "{error}");
    registry.stop().await;
    start(directory.path()).await.unwrap().stop().await;
}

/// A client that keeps its connection open, and one that never completes its request.
async fn lingering(registry: &Registry) -> [TcpStream; 2] {
    let mut idle = TcpStream::connect(registry.addr()).await.unwrap();
    idle.write_all(b"GET /subjects HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut response_body = [0; 12];
    idle.read_exact(&mut response_body).await.unwrap();
    assert_eq!(&response_body, b"HTTP/1.1 200");
    let mut slow = TcpStream::connect(registry.addr()).await.unwrap();
    let head = b"POST /subjects/s/versions HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{";
    slow.write_all(head).await.unwrap();
    [idle, slow]
}

#[tokio::test]
async fn lingering_clients_delay_neither_a_stop_nor_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let registry = start(directory.path()).await.unwrap();
    let clients = lingering(&registry).await;
    tokio::time::timeout(Duration::from_secs(5), registry.stop()).await.unwrap();
    let registry = start(directory.path()).await.unwrap();
    let more_clients = lingering(&registry).await;
    drop(registry);
    start(directory.path()).await.unwrap().stop().await;
    drop((clients, more_clients));
}

#[tokio::test]
async fn the_error_for_a_taken_address_names_it() {
    let taken = start(tempfile::tempdir().unwrap().path()).await.unwrap();
    let config = RegistryConfig { data_dir: None, listen: taken.addr(), default_level: Level::None, fsync: false };
    let error = Registry::start(config).await.unwrap_err().to_string();
    assert!(error.contains(&taken.addr().to_string()), "{error}");
    taken.stop().await;
}
