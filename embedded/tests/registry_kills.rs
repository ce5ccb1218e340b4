//! Kills a registry (-9) while clients register: every acknowledged schema survives under its id.
//!
//! It has its own `main`: called with `serve DIRECTORY`, the same program is the registry that gets killed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use embedded::registry::{Level, Registry, RegistryConfig};
use serde_json::{Value, json};

const ROUNDS: usize = 8;
const CLIENTS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(20);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", directory] => runtime.block_on(serve(Path::new(directory))),
        _ => runtime.block_on(acknowledged_schemas_survive_kills()),
    }
}

async fn serve(directory: &Path) {
    let registry = Registry::start(RegistryConfig {
        data_dir: Some(directory.join("data")),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        default_level: Level::None,
        fsync: true,
    })
    .await
    .unwrap();
    // Written under another name and renamed, so that the parent never reads a partial address.
    fs::write(directory.join("address.new"), registry.url()).unwrap();
    fs::rename(directory.join("address.new"), directory.join("address")).unwrap();
    std::future::pending::<()>().await;
}

/// The acknowledged registrations: schema id by subject and record name.
type AcknowledgedIds = Arc<Mutex<HashMap<(String, String), u64>>>;

async fn acknowledged_schemas_survive_kills() {
    let directory = tempfile::tempdir().unwrap();
    let acknowledged = AcknowledgedIds::default();
    for round in 0..ROUNDS {
        let (child, url) = start(directory.path()).await;
        let mut child = KillOnDrop(child);
        check(&url, &acknowledged).await;
        let done = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                tokio::spawn(register(url.clone(), round, client, Arc::clone(&acknowledged), Arc::clone(&done)))
            })
            .collect();
        // Each round kills after another number of requests, with further requests in flight.
        let enough = 10 + round * 7;
        wait_for(|| done.load(Ordering::Relaxed) >= enough).await;
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        for client in clients {
            tokio::time::timeout(DEADLINE, client).await.unwrap().unwrap();
        }
    }
    let (child, url) = start(directory.path()).await;
    let _child = KillOnDrop(child);
    check(&url, &acknowledged).await;
    assert!(acknowledged.lock().unwrap().len() > ROUNDS * 10);
}

/// Kills the process even if the test fails.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            self.0.wait().unwrap();
        }
    }
}

async fn start(directory: &Path) -> (Child, String) {
    let address = directory.join("address");
    if address.exists() {
        fs::remove_file(&address).unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap()).arg("serve").arg(directory).spawn().unwrap();
    wait_for(|| address.exists()).await;
    (child, fs::read_to_string(&address).unwrap())
}

async fn wait_for(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
}

/// Registers one schema after the other until the registry is killed. Subjects share some schemas.
async fn register(url: String, round: usize, client: usize, acknowledged: AcknowledgedIds, done: Arc<AtomicUsize>) {
    let http = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
    for number in 0.. {
        let subject = format!("s{client}");
        let name = format!("R{round}_{number}");
        let schema = json!({ "type": "record", "name": name, "fields": [] }).to_string();
        let request = http.post(format!("{url}/subjects/{subject}/versions")).json(&json!({ "schema": schema }));
        let Ok(response) = request.send().await else { return };
        let Ok(response_body) = response.json::<Value>().await else { return };
        let id = response_body["id"].as_u64().unwrap_or_else(|| panic!("{response_body}"));
        acknowledged.lock().unwrap().insert((subject, name), id);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn check(url: &str, acknowledged: &AcknowledgedIds) {
    let schemas: Vec<Value> = reqwest::get(format!("{url}/schemas")).await.unwrap().json().await.unwrap();
    let mut found = HashMap::new();
    let mut names_by_id = HashMap::new();
    for schema in &schemas {
        let text: Value = serde_json::from_str(schema["schema"].as_str().unwrap()).unwrap();
        let (name, id) = (text["name"].as_str().unwrap().to_owned(), schema["id"].as_u64().unwrap());
        let known = names_by_id.entry(id).or_insert_with(|| name.clone());
        assert_eq!(*known, name, "id {id} has two schemas");
        found.insert((schema["subject"].as_str().unwrap().to_owned(), name), id);
    }
    for (key, id) in &*acknowledged.lock().unwrap() {
        assert_eq!(found.get(key), Some(id), "{key:?} was acknowledged");
    }
}
