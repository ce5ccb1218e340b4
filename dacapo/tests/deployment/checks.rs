//! Checks `docker-compose.yml` and `Dockerfile` against the programs: commands and flags, settings, names, and the versions that
//! `scripts/kafka.sh` tests with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use clap::{CommandFactory as _, FromArgMatches as _};
use dacapo::{cli::Cli, musiccorp, service};
use runtime::config::{Args, Config, Timeouts};

use crate::compose::{Compose, Container, Dockerfile, exec_form};

/// Variables that every process reads beside its settings.
const LOG_VARIABLES: [&str; 2] = ["RUST_LOG", "LOG_FORMAT"];

/// Both files, and the files of the tree that they must agree with.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) compose: String,
    pub(crate) dockerfile: String,
    pub(crate) manifest: String,
    pub(crate) kafka_script: String,
}

impl Files {
    /// The files of this tree.
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        Self {
            compose: read("docker-compose.yml"),
            dockerfile: read("Dockerfile"),
            manifest: read("Cargo.toml"),
            kafka_script: read("scripts/kafka.sh"),
        }
    }

    /// Everything that is wrong with the files.
    pub(crate) fn faults(&self) -> Vec<String> {
        let compose = match Compose::parse(&self.compose) {
            Ok(compose) => compose,
            Err(reason) => return vec![format!("docker-compose.yml is {reason}")],
        };
        let dockerfile = Dockerfile::parse(&self.dockerfile);
        let mut faults = Faults::default();
        self.image(&dockerfile, &mut faults);
        self.infrastructure(&compose, &mut faults);
        services(&compose, &mut faults);
        wiring(&compose, &mut faults);
        for (name, container) in compose.ours() {
            process(name, &Process::new(container, &dockerfile), &compose, &mut faults);
            hardening(name, container, &mut faults);
            let image = format!("dacapo:{}", self.manifest_value("version"));
            faults.unless(container.image == image, || format!("{name}: the image {} is not {image}", container.image));
        }
        faults.0
    }

    fn manifest_value(&self, key: &str) -> String {
        let manifest: toml::Table = toml::from_str(&self.manifest).unwrap();
        manifest["workspace"]["package"][key].as_str().unwrap().to_owned()
    }

    fn script_value(&self, name: &str) -> &str {
        let line = self.kafka_script.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("scripts/kafka.sh sets no {name}"))
    }

    /// The image is slim, runs as an unprivileged user, and starts the built program.
    fn image(&self, dockerfile: &Dockerfile, faults: &mut Faults) {
        let from: Vec<&str> = dockerfile.all("FROM");
        let [build, slim] = from.as_slice() else {
            return faults.add(format!("the Dockerfile has {} stages, not one to build and one to run", from.len()));
        };
        let build_image = build.split(' ').next().unwrap_or_default();
        for image in [build_image, slim] {
            faults.unless(is_pinned(image), || format!("the image {image} is not pinned to a version"));
        }
        let rust = format!("rust:{}", self.manifest_value("rust-version"));
        faults.unless(build_image.starts_with(&rust), || format!("{build_image} is not {rust}"));
        let debian = slim.strip_prefix("debian:").and_then(|tag| tag.split('-').next()).unwrap_or_default();
        faults.unless(!debian.is_empty() && slim.ends_with("-slim"), || format!("{slim} is not a slim Debian"));
        faults.unless(build_image.ends_with(&format!("-{debian}")), || {
            format!("{build_image} and {slim} have different C libraries")
        });
        let last = dockerfile.last_stage();
        let user = last.all("USER").last().copied().unwrap_or("root");
        let is_nobody = user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id >= 1_000));
        faults.unless(is_nobody, || format!("the image runs as {user:?}, not as a numeric unprivileged user"));
        let entry: Vec<Vec<String>> = last.all("ENTRYPOINT").into_iter().map(exec_form).collect();
        faults.unless(entry == [["dacapo"]], || format!("the entry point is {entry:?}, not dacapo"));
        let copied = last.all("COPY").contains(&"--from=build /src/target/release/dacapo /usr/local/bin/dacapo");
        faults.unless(copied && build.ends_with(" AS build"), || {
            "the image does not contain the built dacapo".to_owned()
        });
        let builds =
            dockerfile.all("RUN").iter().any(|run| run.contains("cargo build --release --locked --package dacapo"));
        faults.unless(builds, || "the build stage does not build dacapo with the lock file".to_owned());
        let listen = dockerfile.environment().get("DACAPO_LISTEN").cloned().unwrap_or_default();
        let exposed = last.all("EXPOSE");
        faults.unless(exposed.len() == 1 && exposed[0] == port_of(&listen), || {
            format!("the image exposes {exposed:?} and listens at {listen:?}")
        });
        if let Some(data) = dockerfile.environment().get("DACAPO_DATA") {
            let made = format!("--owner={0} --group={0} {data}", user.split(':').next().unwrap_or_default());
            faults.unless(last.all("RUN").iter().any(|run| run.ends_with(&made)), || {
                format!("the image's user cannot write to {data}")
            });
        }
    }

    /// Kafka and registry are the ones that the tests run on, and are configured for transactions on one node.
    fn infrastructure(&self, compose: &Compose, faults: &mut Faults) {
        let (kafka, registry) = (&compose.services["kafka"], &compose.services["registry"]);
        let tested = format!("apache/kafka:{}", self.script_value("KAFKA_VERSION"));
        faults.unless(kafka.image == tested, || format!("kafka is {}, and the tests run on {tested}", kafka.image));
        let tested = format!("apicurio/apicurio-registry-kafkasql:{}", self.script_value("REGISTRY_VERSION"));
        faults.unless(registry.image == tested, || format!("the registry is {}, not {tested}", registry.image));
        let same = ["process.roles", "auto.create.topics.enable"];
        for property in self.kafka_script.lines().filter(|line| line.contains('=') && !line.contains([' ', '$'])) {
            let (name, value) = property.split_once('=').unwrap_or_default();
            let is_of_one_node = name.ends_with(".replication.factor") || name.ends_with(".min.isr");
            if !is_of_one_node && !same.contains(&name) {
                continue;
            }
            let variable = format!("KAFKA_{}", name.to_uppercase().replace('.', "_"));
            let given = kafka.environment.get(&variable).map(|given| sorted(given));
            faults.unless(given == Some(sorted(value)), || format!("kafka: {variable} is {given:?}, not {value}"));
        }
        let logs = kafka.environment.get("KAFKA_LOG_DIRS").cloned().unwrap_or_default();
        faults.unless(kafka.volumes == [format!("kafka:{logs}")], || format!("kafka keeps {logs:?} in no volume"));
        faults.unless(kafka.healthcheck.is_some(), || "kafka has no health check".to_owned());
        listeners(kafka, faults);
        let (path, _) = self.kafka_script.split_once("/ccompat/v7").expect("the script names the registry's path");
        let path = format!("{}/ccompat/v7", &path[path.rfind("/apis").expect("the path begins with /apis")..]);
        let port = registry.environment.get("QUARKUS_HTTP_PORT").cloned().unwrap_or_default();
        let url = format!("http://registry:{port}{path}");
        for (name, container) in compose.ours() {
            for (variable, right) in [("SCHEMA_REGISTRY_URL", url.as_str()), ("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")]
            {
                let given = container.environment.get(variable);
                faults.unless(given.is_none_or(|given| given == right), || {
                    format!("{name}: {variable} is {given:?}, not {right}")
                });
            }
        }
        let bootstrap = registry.environment.get("KAFKA_BOOTSTRAP_SERVERS").map(String::as_str);
        faults.unless(bootstrap == Some("kafka:9092"), || "the registry does not keep its schemas in kafka".to_owned());
    }
}

fn sorted(list: &str) -> BTreeSet<&str> {
    list.split(',').collect()
}

/// Kafka listens at every address that it advertises, and advertises the address that the containers use.
fn listeners(kafka: &Container, faults: &mut Faults) {
    let list = |variable: &str| -> BTreeMap<String, String> {
        let listed = kafka.environment.get(variable).map(String::as_str).unwrap_or_default();
        let pairs = listed.split(',').filter_map(|listener| listener.split_once("://"));
        pairs.map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
    };
    let (listens, advertised) = (list("KAFKA_LISTENERS"), list("KAFKA_ADVERTISED_LISTENERS"));
    for (name, address) in &advertised {
        let at = listens.get(name).map(String::as_str).unwrap_or_default();
        faults.unless(!at.is_empty() && port_of(at) == port_of(address), || {
            format!("kafka advertises {name} at {address} and listens at {at:?}")
        });
    }
    let inside = advertised.get("PLAINTEXT").map(String::as_str);
    faults.unless(inside == Some("kafka:9092"), || format!("kafka gives containers the address {inside:?}"));
    let outside = advertised.get("HOST").map(String::as_str).unwrap_or_default();
    let published = format!("127.0.0.1:{0}:{0}", port_of(outside));
    faults
        .unless(kafka.ports == [published], || format!("kafka advertises {outside:?} and publishes {:?}", kafka.ports));
}

/// The faults that were found.
#[derive(Debug, Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, fault: String) {
        self.0.push(fault);
    }

    fn unless(&mut self, is_right: bool, fault: impl FnOnce() -> String) {
        if !is_right {
            self.add(fault());
        }
    }
}

/// A process as a container starts it.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) command: Vec<String>,
    /// The environment of the image.
    pub(crate) of_image: BTreeMap<String, String>,
    /// The environment of the compose file.
    pub(crate) environment: BTreeMap<String, String>,
    /// The command of its health check; empty if there is none.
    pub(crate) health_check: Vec<String>,
}

impl Process {
    pub(crate) fn new(container: &Container, dockerfile: &Dockerfile) -> Self {
        let check = match &container.healthcheck {
            Some(check) if check.disable => Vec::new(),
            Some(check) => check.test.iter().skip_while(|word| *word == "CMD").cloned().collect(),
            None => dockerfile.health_check(),
        };
        Self {
            command: container.command.clone(),
            of_image: dockerfile.environment(),
            environment: container.environment.clone(),
            health_check: check,
        }
    }

    /// What it runs: the name of a service, or of another command.
    pub(crate) fn runs(&self) -> &str {
        let word = |at: usize| self.command.get(at).map(String::as_str).unwrap_or_default();
        if word(0) == "service" { word(1) } else { word(0) }
    }

    /// Its command line, with the environment as flags, parsed as the program would; adds what is wrong to `faults`.
    fn parsed(&self, faults: &mut Vec<String>) -> Option<clap::ArgMatches> {
        let mut program = Cli::command();
        let mut line = vec!["dacapo".to_owned()];
        for word in &self.command {
            let Some(below) = program.find_subcommand(word) else { break };
            (program, line) = (below.clone(), [line, vec![word.clone()]].concat());
        }
        let flag_of = |variable: &str| {
            let takes = |arg: &&clap::Arg| arg.get_env().is_some_and(|env| env == variable);
            program.get_arguments().find(takes).and_then(|arg| arg.get_long().map(|long| format!("--{long}")))
        };
        let rest = self.command[line.len() - 1..].to_vec();
        let mut flags = Vec::new();
        for (variable, value) in self.of_image.iter().chain(&self.environment) {
            match flag_of(variable) {
                // A flag takes precedence over the environment.
                Some(flag) if rest.contains(&flag) => {}
                Some(flag) => flags.push(format!("{flag}={value}")),
                None if self.of_image.contains_key(variable) || LOG_VARIABLES.contains(&variable.as_str()) => {}
                None => faults.push(format!("{variable} is no setting of `{}`", line.join(" "))),
            }
        }
        let depth = line.len() - 1;
        let parsed = Cli::command().try_get_matches_from([line, flags, rest].concat());
        // The name of a service is checked when the matches are converted.
        match parsed.and_then(|matches| Cli::from_arg_matches(&matches).map(|_| matches)) {
            Ok(matches) => (0..depth).try_fold(matches, |above, _| above.subcommand().map(|(_, below)| below.clone())),
            Err(error) => {
                faults.push(format!(
                    "{:?} is refused: {}",
                    self.command,
                    error.to_string().lines().next().unwrap_or("")
                ));
                None
            }
        }
    }

    /// The address that it listens at.
    fn listens_at(&self) -> String {
        let flag = self.command.iter().position(|word| word == "--listen").and_then(|at| self.command.get(at + 1));
        let listens =
            flag.or_else(|| self.environment.get("DACAPO_LISTEN")).or_else(|| self.of_image.get("DACAPO_LISTEN"));
        listens.cloned().unwrap_or_default()
    }
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

/// Checks a process of our image: its program accepts its command and environment, and the health check uses its address.
fn process(name: &str, process: &Process, compose: &Compose, faults: &mut Faults) {
    let mut wrong = Vec::new();
    let matches = process.parsed(&mut wrong);
    if process.command.first().is_some_and(|word| word == "service")
        && let Some(matches) = matches
    {
        let config = Args::from_arg_matches(&matches).map_err(|error| error.to_string());
        let config = config.and_then(|args| Config::load(process.runs(), &args).map_err(|error| error.to_string()));
        match config {
            Ok(config) if config.instance.is_none() => wrong.push("it has no --instance".to_owned()),
            Ok(_) => {}
            Err(error) => wrong.push(error),
        }
    }
    for (variable, value) in process.environment.iter().filter(|(variable, _)| variable.ends_with("_URL")) {
        let host = value.strip_prefix("http://").and_then(|rest| rest.split([':', '/']).next()).unwrap_or_default();
        let Some(other) = compose.services.get(host) else {
            wrong.push(format!("{variable} is {value}, and no container is called {host:?}"));
            continue;
        };
        if other.build.is_some() {
            let listens_at = Process { command: other.command.clone(), ..process.clone() }.listens_at();
            if port_of(value) != port_of(&listens_at) {
                wrong.push(format!("{variable} is {value}, and {host} listens at {listens_at}"));
            }
        }
    }
    let is_long_running = process.runs() != "prepare";
    let check = &process.health_check;
    if is_long_running == check.is_empty() {
        wrong.push(format!("its health check is {check:?}"));
    }
    if is_long_running && !check.is_empty() {
        if let Err(error) = Cli::command().try_get_matches_from(check) {
            wrong.push(format!(
                "its health check {check:?} is refused: {}",
                error.to_string().lines().next().unwrap_or("")
            ));
        }
        let expected = format!("http://127.0.0.1:{}/readyz", port_of(&process.listens_at()));
        if check.iter().take(3).ne(["dacapo", "health", &expected]) {
            wrong.push(format!("its health check is {check:?}, and it answers at {expected}"));
        }
    }
    for fault in wrong {
        faults.add(format!("{name}: {fault}"));
    }
}

/// A container has no needless privileges, is not killed while it stops, and is restarted.
fn hardening(name: &str, container: &Container, faults: &mut Faults) {
    let is_one_shot = container.command.first().is_some_and(|word| word == "prepare");
    let restart = if is_one_shot { "no" } else { "unless-stopped" };
    faults.unless(container.restart == restart, || format!("{name}: restart is {:?}", container.restart));
    let seconds = |text: &str| text.strip_suffix('s').and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
    let grace = container.stop_grace_period.as_deref().map(seconds).unwrap_or(10);
    let needed = Timeouts::default().shutdown.as_secs();
    faults.unless(grace > needed, || format!("{name}: killed after {grace} s, and its stop may take {needed} s"));
    let is_hardened =
        container.read_only && container.cap_drop == ["ALL"] && container.security_opt == ["no-new-privileges:true"];
    faults.unless(is_hardened, || format!("{name}: has needless privileges"));
    for check in container.healthcheck.iter().filter(|check| !check.disable) {
        let is_timed = check.interval.is_some() && check.timeout.is_some() && check.retries.is_some();
        faults.unless(is_timed, || format!("{name}: its health check has no interval, timeout or retries"));
    }
}

/// Whether the tag names one version, which cannot move.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
    let numbers = tag.split(['.', '-']).filter(|part| part.chars().all(|c| c.is_ascii_digit()) && !part.is_empty());
    let (count, longest) = numbers.fold((0, 0), |(count, longest), part| (count + 1, longest.max(part.len())));
    // Three numbers, or a date.
    count >= 3 || longest == 8
}

/// Every service runs, with unique instance names; there are two warehouses, the stubs and the preparation.
fn services(compose: &Compose, faults: &mut Faults) {
    let mut instances: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (_, container) in compose.ours() {
        let words = &container.command;
        if words.first().is_some_and(|word| word == "service") {
            let named = words.iter().position(|word| word == "--instance").and_then(|at| words.get(at + 1)).cloned();
            instances.entry(words.get(1).map(String::as_str).unwrap_or_default()).or_default().extend(named);
        }
    }
    for service in service::names() {
        faults.unless(instances.contains_key(service), || format!("no container runs {service}"));
    }
    let count = |service: &str| instances.get(service).map(Vec::len).unwrap_or_default();
    faults.unless(count("warehouse") >= 2, || "there are not two warehouses".to_owned());
    for (service, names) in &instances {
        let different: BTreeSet<&String> = names.iter().collect();
        faults.unless(different.len() == names.len(), || format!("two instances of {service} have one name"));
    }
    let runs =
        |command: &str| compose.ours().iter().filter(|(_, c)| c.command.first().is_some_and(|w| w == command)).count();
    for command in ["prepare", "stubs"] {
        faults.unless(runs(command) == 1, || format!("{} containers run {command}", runs(command)));
    }
    let prepare =
        compose.ours().into_iter().find(|(_, container)| container.command.first().is_some_and(|w| w == "prepare"));
    let words = prepare.map(|(_, container)| container.command.clone()).unwrap_or_default();
    let number = |flag: &str| {
        let value = words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1));
        value.and_then(|value| value.parse::<usize>().ok()).unwrap_or_default()
    };
    let most = instances.values().map(Vec::len).max().unwrap_or_default();
    faults.unless(number("--partitions") >= most, || {
        format!("{} partitions leave some of {most} instances without one", number("--partitions"))
    });
    faults.unless(number("--replication") == 1, || "one broker keeps one replica".to_owned());
    faults.unless(words.iter().any(|word| word == "--sample-data"), || "nothing loads the sample data".to_owned());
}

/// Checks dependencies, volumes and ports.
fn wiring(compose: &Compose, faults: &mut Faults) {
    faults.unless(!compose.name.is_empty(), || "the project has no name".to_owned());
    let (mut mounted, mut published) = (BTreeSet::new(), BTreeSet::new());
    for (name, container) in &compose.services {
        for (other, dependency) in &container.depends_on {
            let Some(there) = compose.services.get(other) else {
                faults.add(format!("{name} waits for {other}, which does not exist"));
                continue;
            };
            let ends = there.command.first().is_some_and(|word| word == "prepare");
            let is_asked = there.healthcheck.is_some() || there.build.is_some();
            let right = match (ends, is_asked) {
                (true, _) => "service_completed_successfully",
                (false, true) => "service_healthy",
                (false, false) => "service_started",
            };
            faults.unless(dependency.condition == right, || {
                format!("{name} waits until {other} is {}, not {right}", dependency.condition)
            });
        }
        for volume in &container.volumes {
            let (source, _) = volume.split_once(':').unwrap_or((volume, ""));
            faults.unless(compose.volumes.contains_key(source), || format!("{name}: there is no volume {source}"));
            faults.unless(mounted.insert(source), || format!("{name}: the volume {source} is mounted twice"));
        }
        for port in &container.ports {
            let (host, inside) = port.rsplit_once(':').unwrap_or_default();
            faults.unless(host.starts_with("127.0.0.1:"), || format!("{name}: {port} is reachable from other hosts"));
            faults.unless(published.insert(host), || format!("{name}: {host} is published twice"));
            let is_ours = container.build.is_some();
            faults.unless(!is_ours || inside == "8080", || format!("{name}: publishes {inside}, and listens at 8080"));
        }
        let keeps = container.command.get(1).is_some_and(|service| musiccorp::SERVICES.contains(&service.as_str()));
        let (runs_service, needs) = (container.command.first().is_some_and(|word| word == "service"), "prepare");
        faults.unless(!runs_service || container.depends_on.contains_key(needs), || {
            format!("{name} waits for no topics")
        });
        faults.unless(!(runs_service && keeps) || container.volumes == [format!("{name}:/data")], || {
            format!("{name} keeps its store in {:?}", container.volumes)
        });
    }
    for volume in compose.volumes.keys() {
        faults.unless(mounted.contains(volume.as_str()), || format!("no container mounts the volume {volume}"));
    }
}
