//! The instances of the services: each is a process with its own data folder, HTTP address and proxy to the broker.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dacapo::rng::SeededRng;
use tokio::sync::MutexGuard;

use crate::{
    plan::Instance,
    process::{Process, free_port},
    proxy::{Proxy, ProxyMode, ProxyTarget},
};

/// The interval between two checks of an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The metric of the records that a service has sent.
const SENT_METRIC: &str = "messaging_client_sent_messages";
/// How many bytes are overwritten at once when a store is damaged, and how often in each file.
const DAMAGE: (usize, usize) = (64, 4);

/// The settings of every instance.
#[derive(Debug, Clone)]
pub struct InstanceSettings {
    /// This executable.
    pub executable: PathBuf,
    /// The folder of data and logs.
    pub folder: PathBuf,
    /// The system's name.
    pub system: String,
    /// The broker.
    pub kafka: SocketAddr,
    /// The registry.
    pub registry_url: String,
    /// The stubs of the gateway, picking and the courier.
    pub stubs_url: String,
    /// How long an unresponsive group member keeps its partitions, in milliseconds.
    pub session_ms: u64,
}

/// One instance and its process.
#[derive(Debug)]
pub struct RunningInstance {
    /// The instance.
    pub instance: Instance,
    process: tokio::sync::Mutex<Process>,
    proxy: Proxy,
    http: SocketAddr,
    data: PathBuf,
    executable: PathBuf,
}

/// All instances that should run.
#[derive(Debug)]
pub struct Instances {
    settings: InstanceSettings,
    config: PathBuf,
    running: Mutex<BTreeMap<Instance, Arc<RunningInstance>>>,
}

impl Instances {
    /// No instances yet.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(settings: InstanceSettings) -> anyhow::Result<Self> {
        let config = settings.folder.join("dacapo.toml");
        let session = settings.session_ms;
        // Every wait for a broker is as short as a session, so that an instance recovers soon after a fault.
        let text =
            format!("[timeouts]\nsession = {session}\ntransaction = {session}\nrequest = {session}\nanswer = 3000\n");
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self { settings, config, running: Mutex::default() })
    }

    /// Starts an instance.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn add(&self, instance: &Instance) -> anyhow::Result<()> {
        let InstanceSettings { executable, folder, kafka, .. } = &self.settings;
        let proxy = Proxy::start(*kafka, ProxyTarget::Kafka).await.context("cannot start a proxy")?;
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let name = format!("{}-{}", instance.service, instance.number);
        let data = folder.join("data").join(&name);
        let args = self.args(instance, &proxy, http, &data);
        let mut process = Process::new(name, instance.service, args, folder);
        process.start(executable)?;
        let running = RunningInstance {
            instance: instance.clone(),
            process: process.into(),
            proxy,
            http,
            data,
            executable: executable.clone(),
        };
        self.lock().insert(instance.clone(), Arc::new(running));
        Ok(())
    }

    fn args(&self, instance: &Instance, proxy: &Proxy, http: SocketAddr, data: &Path) -> Vec<OsString> {
        let InstanceSettings { folder, system, registry_url, stubs_url, .. } = &self.settings;
        let mut args: Vec<OsString> = Vec::new();
        let mut flag = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            args.extend([name.into(), value.as_ref().to_owned()]);
        };
        flag("--config", &self.config);
        flag("--system", system);
        flag("--bootstrap", &proxy.address().to_string());
        flag("--registry", registry_url);
        flag("--listen", &http.to_string());
        flag("--data", &data);
        if instance.is_named {
            flag("--instance", &format!("i{}", instance.number));
        }
        match instance.service {
            "warehouse" => {
                flag("--picking-url", stubs_url);
                flag("--courier-url", stubs_url);
                flag("--courier-deadline-ms", &"8000");
                flag("--dispatch-pause-ms", &"200");
            }
            "payment" => {
                flag("--gateway-url", stubs_url);
                flag("--charge-deadline-ms", &"8000");
            }
            // All instances share the folder: a mail that is sent again overwrites the same file.
            "notifications" => flag("--mail-folder", &folder.join("mail")),
            _ => {}
        }
        args
    }

    /// Stops an instance (SIGTERM) and removes it.
    ///
    /// # Errors
    /// It does not stop in time, or not with success.
    pub async fn remove(&self, instance: &Instance, patience: Duration) -> anyhow::Result<()> {
        let running = self.lock().remove(instance);
        match running {
            Some(running) => running.process().await.stop(patience).await,
            None => bail!("{instance} does not run"),
        }
    }

    /// One instance.
    ///
    /// # Errors
    /// The instance does not run.
    pub fn get(&self, instance: &Instance) -> anyhow::Result<Arc<RunningInstance>> {
        self.lock().get(instance).map(Arc::clone).with_context(|| format!("{instance} does not run"))
    }

    /// All instances.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<RunningInstance>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// The HTTP addresses of the instances of a service.
    #[must_use]
    pub fn urls(&self, service: &str) -> Vec<String> {
        let all = self.all();
        let of_service = all.iter().filter(|running| running.instance.service == service);
        of_service.map(|running| running.url()).collect()
    }

    /// Waits until every instance is ready.
    ///
    /// # Errors
    /// An instance is not ready in time; the message has its last response.
    pub async fn wait_until_ready(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        for running in self.all() {
            running.wait_until_ready(deadline.saturating_duration_since(Instant::now())).await?;
        }
        Ok(())
    }

    /// The instances that exited unexpectedly.
    pub fn exited(&self) -> Vec<String> {
        let exited =
            |running: Arc<RunningInstance>| running.process.try_lock().ok().and_then(|mut process| process.exited());
        self.all().into_iter().filter_map(exited).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Instance, Arc<RunningInstance>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningInstance {
    /// The process, locked for one fault at a time.
    pub async fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().await
    }

    /// Starts the process again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, process: &mut Process) -> anyhow::Result<()> {
        process.start(&self.executable)
    }

    /// The proxy between it and the broker.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Sets the mode of the proxy between it and the broker.
    pub fn set_connections(&self, mode: ProxyMode) {
        self.proxy.set(mode);
    }

    /// Its HTTP address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It is not ready in time; the message has its last response.
    pub async fn wait_until_ready(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let readiness = self.readiness().await;
            if readiness.is_ok() {
                return readiness;
            }
            if Instant::now() >= deadline {
                return readiness.with_context(|| format!("{} is not ready after {patience:?}", self.instance));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// How many records this process has sent in transactions, from its metrics. 0 while it does not answer.
    pub async fn sent(&self) -> u64 {
        let response = async {
            let request = reqwest::Client::new().get(format!("{}/metrics", self.url()));
            request.timeout(Duration::from_secs(5)).send().await?.text().await
        };
        let text = response.await.unwrap_or_default();
        let of_metric = text.lines().filter(|line| line.starts_with(SENT_METRIC));
        of_metric.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    async fn readiness(&self) -> anyhow::Result<()> {
        let response = reqwest::Client::new()
            .get(format!("{}/readyz", self.url()))
            .timeout(Duration::from_secs(5))
            .send()
            .await
            .context("its HTTP API does not answer")?;
        if response.status().is_success() {
            return Ok(());
        }
        bail!("it responds: {}", response.text().await.unwrap_or_default().trim())
    }

    /// Deletes its local store.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn delete_store(&self) -> anyhow::Result<()> {
        let store = self.data.join("stores");
        match fs::remove_dir_all(&store) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete {}", store.display()))
            }
            _ => Ok(()),
        }
    }

    /// Overwrites random bytes of each file of its local store.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn damage_store(&self, rng: &mut SeededRng) -> anyhow::Result<()> {
        let mut folders = vec![self.data.join("stores")];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    damage(&path, rng).with_context(|| format!("cannot damage {}", path.display()))?;
                }
            }
        }
        Ok(())
    }
}

fn damage(path: &Path, rng: &mut SeededRng) -> std::io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    let size = file.metadata()?.len();
    for _ in 0..DAMAGE.1.min(usize::try_from(size).unwrap_or(usize::MAX)) {
        let noise: Vec<u8> = (0..DAMAGE.0).map(|_| u8::try_from(rng.below(256)).unwrap_or_default()).collect();
        let at = rng.below(size);
        let most = noise.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
        file.write_all_at(&noise[..most], at)?;
    }
    Ok(())
}
