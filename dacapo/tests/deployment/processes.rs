//! The topology of `docker-compose.yml` as plain processes: the same commands and settings, with this machine's addresses and folders
//! in place of the containers'. On the Apache Kafka that the environment names, else on the embedded broker.

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
    support::{Ground, Http, PATIENCE, Place, Signal, ended, ground, pair::Pair, signal},
};

/// The containers of ours, as processes.
struct Processes {
    place: Place,
    http: Http,
    /// What stands in the files, and what stands in its place here.
    here: Vec<(String, String)>,
    /// In the order in which they may be started.
    containers: Vec<(String, Process)>,
    running: BTreeMap<String, Running>,
    /// The broker and the registry, if they are this test's.
    _pair: Option<Pair>,
}

struct Running {
    child: Child,
    /// Where it listens, as `http://HOST:PORT`.
    address: String,
}

impl Processes {
    fn new() -> Self {
        let files = Files::read();
        let (compose, dockerfile) = (Compose::parse(&files.compose).unwrap(), Dockerfile::parse(&files.dockerfile));
        let ground = ground();
        let (pair, bootstrap, registry) = match &ground {
            Ground::Apache { bootstrap, registry } => (None, bootstrap.clone(), registry.clone()),
            Ground::Embedded => {
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
        let place = Place::new(&ground);
        Self { place, http: Http::new(), here, containers, running: BTreeMap::new(), _pair: pair }
    }

    /// A text of the files as it is here, for this container.
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
        self.place.data().join(container)
    }

    fn command(&self, container: &str) -> Command {
        let (_, process) = self.containers.iter().find(|(name, _)| name == container).unwrap();
        let mut command = self.place.command();
        command.args(process.command.iter().map(|word| self.filled(container, word)));
        for (variable, value) in process.of_image.iter().chain(&process.environment) {
            command.env(variable, self.filled(container, value));
        }
        let folder = self.folder(container);
        fs::create_dir_all(&folder).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        command.env("DACAPO_SYSTEM", self.place.system()).current_dir(folder).stderr(log);
        command
    }

    /// Starts a container's process, and waits until it says where it listens.
    fn start(&mut self, container: &str) {
        let mut child = self.command(container).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(at) = line.find("http://") else { panic!("{container} does not listen\n{}", self.log(container)) };
        let running = Running { child, address: line[at..].trim().to_owned() };
        self.running.insert(container.to_owned(), running);
    }

    /// Starts all of them, in their order, and waits until every one says that it is well, as its container would be asked.
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
            self.wait_until_well(name);
        }
    }

    #[track_caller]
    fn wait_until_well(&self, container: &str) {
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
        self.wait_for(container, "it is well", || {
            let output = self.place.command().args(&check[1..]).output().unwrap();
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

    /// The ends of all of them: what one waits for, another may know about.
    fn logs(&self) -> String {
        let log = |(name, _): &(String, Process)| format!("--- the end of {name}'s log:\n{}\n", self.log(name));
        self.containers.iter().map(log).collect()
    }

    /// Stops a process as a container is stopped. It must end well.
    fn stop(&mut self, container: &str) {
        let Running { child, .. } = self.running.remove(container).unwrap();
        signal(child.id(), Signal::TERM);
        let status = ended(child, Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "{container}: {status:?}\n{}", self.log(container));
    }

    /// The containers that run a service.
    fn instances_of(&self, service: &str) -> Vec<String> {
        self.containers.iter().filter(|(_, process)| process.runs() == service).map(|(name, _)| name.clone()).collect()
    }

    /// A `dacapo` command on this system, by its addresses alone.
    #[track_caller]
    fn dacapo(&self, args: &[&str]) -> String {
        let (bootstrap, registry) = (&self.here[0].1, &self.here[1].1);
        self.place.ok(&[args, &["--bootstrap", bootstrap, "--registry", registry]].concat())
    }

    /// How many orders there are, and how many of them are on their way.
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

/// Places orders at one instance after the other, and reads each at another one.
fn place_orders(processes: &Processes, numbers: std::ops::Range<u32>) -> Vec<String> {
    let doors = processes.instances_of("order-processor");
    assert!(doors.len() > 1, "{doors:?}");
    let door = |number: u32| format!("{}/orders", processes.url(&doors[number as usize % doors.len()]));
    numbers
        .map(|number| {
            let (mut answer, mut refused) = ((0, Value::Null), 0);
            processes.wait_for(&doors[number as usize % doors.len()], "an order is taken", || {
                let key = format!("order {number} after {refused}");
                answer = processes.http.post(&door(number), &key, order(number));
                // The seed is on its way to this instance; what it refused, it refuses for ever.
                refused += u32::from(answer.0 == 422);
                (200..=202).contains(&answer.0)
            });
            let id = answer.1["order_id"].as_str().unwrap().to_owned();
            let elsewhere = format!("{}/{id}", door(number + 1));
            processes.wait_for(&doors[0], "the other one knows it", || processes.http.get(&elsewhere).0 == 200);
            id
        })
        .collect()
}

#[test]
fn the_topology_of_the_compose_file_runs_as_plain_processes() {
    let mut processes = Processes::new();
    let began = Instant::now();
    processes.start_all();
    eprintln!("{} processes are well after {:?}", processes.running.len(), began.elapsed());
    let first = place_orders(&processes, 0..8);
    let cancelled = format!("{}/orders/{}/cancel", processes.url("order-processor-b"), first[0]);
    assert!(processes.http.post(&cancelled, "cancel", "").0 < 500);
    // A new version comes in so: one instance after the other, with orders under way.
    let (warehouses, mut placed) = (processes.instances_of("warehouse"), 8);
    assert!(warehouses.len() > 1, "{warehouses:?}");
    for instance in warehouses {
        processes.stop(&instance);
        place_orders(&processes, placed..placed + 4);
        placed += 4;
        processes.start(&instance);
        processes.wait_until_well(&instance);
    }
    processes.wait_for("projector", "every order has ended", || {
        let (total, open) = processes.orders();
        total >= u64::from(placed) && open == 0
    });
    let audit = processes.dacapo(&["audit"]);
    assert!(audit.contains("audit: clean"), "{audit}");
    let mail = crate::support::files(&processes.folder("notifications").join("mail"), ".eml");
    assert!(!mail.is_empty(), "mail lies where the compose file says");
    assert!(Path::new(&processes.folder("warehouse-a")).join("stores").is_dir(), "stores lie on the volume");
    eprintln!("{placed} orders have ended after {:?}, and the audit is clean", began.elapsed());
    let all: Vec<String> = processes.running.keys().cloned().collect();
    // The other way round, as containers are stopped: whom somebody waits for goes last.
    for container in all.iter().rev() {
        processes.stop(container);
    }
}
