//! The topology of `docker-compose.yml` as plain processes: the same commands and settings, with local addresses and folders. On the
//! Apache Kafka that the environment names, else on the embedded broker.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    checks::{Files, Process},
    compose::{Compose, Dockerfile},
    support::{Http, Infrastructure, PATIENCE, Setup, Signal, infrastructure, pair::Pair, signal, wait_for_exit},
};

/// The containers of our image, as processes.
struct Processes {
    setup: Setup,
    http: Http,
    /// Texts of the files, and their replacements here.
    here: Vec<(String, String)>,
    /// In an order in which they may be started.
    containers: Vec<(String, Process)>,
    running: BTreeMap<String, Running>,
    /// The broker and the registry, if the test runs them itself.
    _pair: Option<Pair>,
}

struct Running {
    child: Child,
    /// Its address, as `http://HOST:PORT`.
    address: String,
}

impl Processes {
    fn new() -> Self {
        let files = Files::read();
        let (compose, dockerfile) = (Compose::parse(&files.compose).unwrap(), Dockerfile::parse(&files.dockerfile));
        let infrastructure = infrastructure();
        let (pair, bootstrap, registry) = match &infrastructure {
            Infrastructure::Apache { bootstrap, registry } => (None, bootstrap.clone(), registry.clone()),
            Infrastructure::Embedded => {
                let pair = Pair::start();
                let (bootstrap, registry) = (pair.bootstrap(), pair.registry());
                (Some(pair), bootstrap, registry)
            }
        };
        let containers: Vec<(String, Process)> = compose
            .ours()
            .into_iter()
            .map(|(name, container)| (name.to_owned(), Process::new(container, &dockerfile)))
            .collect();
        let of_containers = |variable: &str| {
            containers.iter().find_map(|(_, process)| process.environment.get(variable).cloned()).unwrap()
        };
        let here = vec![
            (of_containers("KAFKA_BOOTSTRAP_SERVERS"), bootstrap),
            (of_containers("SCHEMA_REGISTRY_URL"), registry),
        ];
        let setup = Setup::new(&infrastructure);
        Self { setup, http: Http::new(), here, containers, running: BTreeMap::new(), _pair: pair }
    }

    /// A text of the files with the replacements for this container.
    fn filled(&self, container: &str, text: &str) -> String {
        let mut text = self.here.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        for (other, running) in &self.running {
            let url = format!("http://{other}:");
            if let Some(at) = text.find(&url) {
                assert!(
                    text[at + url.len()..].chars().all(|c| c.is_ascii_digit()),
                    "{text} is no more than an address"
                );
                text.replace_range(at.., &running.address);
            }
        }
        if text.starts_with("0.0.0.0:") {
            return "127.0.0.1:0".to_owned();
        }
        match text.strip_prefix("/data") {
            Some(rest) => format!("{}{rest}", self.folder(container).display()),
            None => text,
        }
    }

    fn folder(&self, container: &str) -> std::path::PathBuf {
        self.setup.data().join(container)
    }

    fn command(&self, container: &str) -> Command {
        let (_, process) = self.containers.iter().find(|(name, _)| name == container).unwrap();
        let mut command = self.setup.command();
        command.args(process.command.iter().map(|word| self.filled(container, word)));
        for (variable, value) in process.of_image.iter().chain(&process.environment) {
            command.env(variable, self.filled(container, value));
        }
        let folder = self.folder(container);
        fs::create_dir_all(&folder).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        command.env("DACAPO_SYSTEM", self.setup.system()).current_dir(folder).stderr(log);
        command
    }

    /// Starts a container's process, and waits until it prints its address.
    fn start(&mut self, container: &str) {
        let mut child = self.command(container).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(at) = line.find("http://") else { panic!("{container} does not listen\n{}", self.log(container)) };
        let running = Running { child, address: line[at..].trim().to_owned() };
        self.running.insert(container.to_owned(), running);
    }

    /// Starts all processes in their order, and waits until the health check of every container succeeds.
    fn start_all(&mut self) {
        let all: Vec<(String, bool)> =
            self.containers.iter().map(|(name, process)| (name.clone(), process.runs() == "prepare")).collect();
        for (name, is_one_shot) in &all {
            if *is_one_shot {
                let output = self.command(name).output().unwrap();
                assert!(output.status.success(), "{name}: {}\n{}", output.status, self.log(name));
            } else {
                self.start(name);
            }
        }
        for (name, _) in all.iter().filter(|(_, is_one_shot)| !is_one_shot) {
            self.wait_until_healthy(name);
        }
    }

    #[track_caller]
    fn wait_until_healthy(&self, container: &str) {
        let (_, process) = self.containers.iter().find(|(name, _)| name == container).unwrap();
        let address = &self.running[container].address;
        let check: Vec<String> = process
            .health_check
            .iter()
            .map(|word| match word.strip_prefix("http://127.0.0.1:") {
                Some(rest) => format!("{address}/{}", rest.split_once('/').unwrap().1),
                None => word.clone(),
            })
            .collect();
        self.wait_for(container, "a successful health check", || {
            let output = self.setup.command().args(&check[1..]).output().unwrap();
            output.status.success()
        });
    }

    #[track_caller]
    fn wait_for(&self, container: &str, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "{container}: waited in vain until {what}\n{}", self.logs());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn url(&self, container: &str) -> &str {
        &self.running[container].address
    }

    fn log(&self, container: &str) -> String {
        let log = fs::read_to_string(self.folder(container).join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The ends of all logs: the log of one process may explain why another one waits.
    fn logs(&self) -> String {
        let log = |(name, _): &(String, Process)| format!("--- the end of {name}'s log:\n{}\n", self.log(name));
        self.containers.iter().map(log).collect()
    }

    /// Stops a process as a container is stopped. It must exit with success.
    fn stop(&mut self, container: &str) {
        let Running { child, .. } = self.running.remove(container).unwrap();
        signal(child.id(), Signal::TERM);
        let status = wait_for_exit(child, Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "{container}: {status:?}\n{}", self.log(container));
    }

    /// The containers that run a service.
    fn instances_of(&self, service: &str) -> Vec<String> {
        self.containers.iter().filter(|(_, process)| process.runs() == service).map(|(name, _)| name.clone()).collect()
    }

    /// A `dacapo` command on this system, which gets the addresses only.
    #[track_caller]
    fn dacapo(&self, args: &[&str]) -> String {
        let (bootstrap, registry) = (&self.here[0].1, &self.here[1].1);
        self.setup.ok(&[args, &["--bootstrap", bootstrap, "--registry", registry]].concat())
    }

    /// The number of orders, and how many of them are open.
    fn orders(&self) -> (u64, u64) {
        let (status, counts) = self.http.get(&format!("{}/api/v1/counts", self.url("projector")));
        assert_eq!(status, 200, "{counts}");
        let sagas = counts["sagas"].as_array().unwrap();
        let orders = sagas.iter().find(|saga| saga["saga"] == "order-fulfilment").unwrap();
        (orders["total"].as_u64().unwrap(), orders["open"].as_u64().unwrap())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for running in self.running.values_mut() {
            drop(running.child.kill());
            drop(running.child.wait());
        }
    }
}

fn order(number: u32) -> String {
    let skus = ["lp-goldberg", "lp-trout", "rare-thamos", "lp-eroica"];
    let order = json!({ "customer_id": format!("customer-{:04}", number % 200 + 1), "payment_method": "card-ok",
        "ship_to": { "street": "1 Quay", "city": "Bristol", "postcode": "BS1", "country": "GB" },
        "lines": [{ "sku": skus[number as usize % skus.len()], "quantity": 1 }] });
    order.to_string()
}

/// Places orders at alternating instances, and reads each order at another instance.
fn place_orders(processes: &Processes, numbers: std::ops::Range<u32>) -> Vec<String> {
    let instances = processes.instances_of("order-processor");
    assert!(instances.len() > 1, "{instances:?}");
    let orders_at = |number: u32| format!("{}/orders", processes.url(&instances[number as usize % instances.len()]));
    numbers
        .map(|number| {
            let (mut answer, mut refused) = ((0, Value::Null), 0);
            processes.wait_for(&instances[number as usize % instances.len()], "an accepted order", || {
                let key = format!("order {number} after {refused}");
                answer = processes.http.post(&orders_at(number), &key, order(number));
                // The instance may not have read the sample data yet. It refuses a key for ever that it has refused once.
                refused += u32::from(answer.0 == 422);
                (200..=202).contains(&answer.0)
            });
            let id = answer.1["order_id"].as_str().unwrap().to_owned();
            let elsewhere = format!("{}/{id}", orders_at(number + 1));
            processes
                .wait_for(&instances[0], "the order at the other instance", || processes.http.get(&elsewhere).0 == 200);
            id
        })
        .collect()
}

#[test]
fn the_topology_of_the_compose_file_runs_as_plain_processes() {
    let mut processes = Processes::new();
    let began = Instant::now();
    processes.start_all();
    eprintln!("{} processes are healthy after {:?}", processes.running.len(), began.elapsed());
    let first = place_orders(&processes, 0..8);
    let cancelled = format!("{}/orders/{}/cancel", processes.url("order-processor-b"), first[0]);
    assert!(processes.http.post(&cancelled, "cancel", "").0 < 500);
    // A rolling upgrade: one instance after the other, while orders are processed.
    let (warehouses, mut placed) = (processes.instances_of("warehouse"), 8);
    assert!(warehouses.len() > 1, "{warehouses:?}");
    for instance in warehouses {
        processes.stop(&instance);
        place_orders(&processes, placed..placed + 4);
        placed += 4;
        processes.start(&instance);
        processes.wait_until_healthy(&instance);
    }
    processes.wait_for("projector", "settled orders", || {
        let (total, open) = processes.orders();
        total >= u64::from(placed) && open == 0
    });
    let audit = processes.dacapo(&["audit"]);
    assert!(audit.contains("audit: clean"), "{audit}");
    let mail = crate::support::files(&processes.folder("notifications").join("mail"), ".eml");
    assert!(!mail.is_empty(), "the mail is in the folder of the compose file");
    assert!(Path::new(&processes.folder("warehouse-a")).join("stores").is_dir(), "the stores are on the volume");
    eprintln!("{placed} orders have settled after {:?}, and the audit is clean", began.elapsed());
    let all: Vec<String> = processes.running.keys().cloned().collect();
    // In reverse order, as containers are stopped: dependencies stop last.
    for container in all.iter().rev() {
        processes.stop(container);
    }
}
