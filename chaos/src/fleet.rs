//! The instances of the services: each a process with a data folder, an HTTP address and a proxy of its own to the broker.

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
use dacapo::draws::Draws;
use tokio::sync::MutexGuard;

use crate::{
    plan::Instance,
    process::{Process, free_port},
    proxy::{Behind, Line, Proxy},
};

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The metric of what a service sent, as it is called where metrics are read.
const SENT: &str = "messaging_client_sent_messages";
/// How many bytes of a damaged store are overwritten at a place, and at how many places of each file.
const DAMAGE: (usize, usize) = (64, 4);

/// What every instance is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This executable.
    pub executable: PathBuf,
    /// Where data and logs lie.
    pub folder: PathBuf,
    /// The system's name.
    pub system: String,
    /// The broker.
    pub kafka: SocketAddr,
    /// The registry.
    pub registry_url: String,
    /// The gateway, the floor and the courier.
    pub outside_url: String,
    /// How long a silent member keeps its partitions, in milliseconds.
    pub session_ms: u64,
}

/// One instance.
#[derive(Debug)]
pub struct Member {
    /// Which.
    pub instance: Instance,
    process: tokio::sync::Mutex<Process>,
    door: Proxy,
    http: SocketAddr,
    data: PathBuf,
    executable: PathBuf,
}

/// All instances that are meant to run.
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    config: PathBuf,
    members: Mutex<BTreeMap<Instance, Arc<Member>>>,
}

impl Fleet {
    /// A fleet without instances.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let config = settings.folder.join("dacapo.toml");
        let session = settings.session_ms;
        // Everything that waits for a broker gives up as soon as a session ends, so that a fault is over when it is over.
        let text =
            format!("[timeouts]\nsession = {session}\ntransaction = {session}\nrequest = {session}\nanswer = 3000\n");
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self { settings, config, members: Mutex::default() })
    }

    /// Starts an instance.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn add(&self, instance: &Instance) -> anyhow::Result<()> {
        let Settings { executable, folder, kafka, .. } = &self.settings;
        let door = Proxy::start(*kafka, Behind::Kafka).await.context("cannot start a proxy")?;
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let name = format!("{}-{}", instance.service, instance.number);
        let data = folder.join("data").join(&name);
        let args = self.args(instance, &door, http, &data);
        let mut process = Process::new(name, instance.service, args, folder);
        process.start(executable)?;
        let member = Member {
            instance: instance.clone(),
            process: process.into(),
            door,
            http,
            data,
            executable: executable.clone(),
        };
        self.lock().insert(instance.clone(), Arc::new(member));
        Ok(())
    }

    fn args(&self, instance: &Instance, door: &Proxy, http: SocketAddr, data: &Path) -> Vec<OsString> {
        let Settings { folder, system, registry_url, outside_url, .. } = &self.settings;
        let mut args: Vec<OsString> = Vec::new();
        let mut flag = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            args.extend([name.into(), value.as_ref().to_owned()]);
        };
        flag("--config", &self.config);
        flag("--system", system);
        flag("--bootstrap", &door.address().to_string());
        flag("--registry", registry_url);
        flag("--listen", &http.to_string());
        flag("--data", &data);
        if instance.is_named {
            flag("--instance", &format!("i{}", instance.number));
        }
        match instance.service {
            "warehouse" => {
                flag("--picking-url", outside_url);
                flag("--courier-url", outside_url);
                flag("--courier-deadline-ms", &"8000");
                flag("--dispatch-pause-ms", &"200");
            }
            "payment" => {
                flag("--gateway-url", outside_url);
                flag("--charge-deadline-ms", &"8000");
            }
            // A folder that all instances share: whoever sends a mail again overwrites the same file.
            "notifications" => flag("--mail-folder", &folder.join("mail")),
            _ => {}
        }
        args
    }

    /// Stops an instance (SIGTERM) for good.
    ///
    /// # Errors
    /// It does not stop as it should.
    pub async fn retire(&self, instance: &Instance, patience: Duration) -> anyhow::Result<()> {
        let member = self.lock().remove(instance);
        match member {
            Some(member) => member.process().await.stop(patience).await,
            None => bail!("{instance} is not there"),
        }
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn member(&self, instance: &Instance) -> anyhow::Result<Arc<Member>> {
        self.lock().get(instance).map(Arc::clone).with_context(|| format!("{instance} is not there"))
    }

    /// All of them.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// Where the instances of a service serve HTTP.
    #[must_use]
    pub fn urls(&self, service: &str) -> Vec<String> {
        let members = self.members();
        let of_service = members.iter().filter(|member| member.instance.service == service);
        of_service.map(|member| member.url()).collect()
    }

    /// Waits until every instance says that it is ready.
    ///
    /// # Errors
    /// One does not in time; the text says what it says instead.
    pub async fn wait_until_ready(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        for member in self.members() {
            member.wait_until_ready(deadline.saturating_duration_since(Instant::now())).await?;
        }
        Ok(())
    }

    /// What ended by itself.
    pub fn ended(&self) -> Vec<String> {
        let ended = |member: Arc<Member>| member.process.try_lock().ok().and_then(|mut process| process.ended());
        self.members().into_iter().filter_map(ended).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Instance, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Its process, for one fault at a time.
    pub async fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().await
    }

    /// Starts its process again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, process: &mut Process) -> anyhow::Result<()> {
        process.start(&self.executable)
    }

    /// The proxy between it and the broker.
    #[must_use]
    pub fn door(&self) -> &Proxy {
        &self.door
    }

    /// Sets the line between it and the broker.
    pub fn line(&self, line: Line) {
        self.door.set(line);
    }

    /// Where it serves HTTP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It does not in time; the text says what it says instead.
    pub async fn wait_until_ready(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.readiness().await;
            if answer.is_ok() {
                return answer;
            }
            if Instant::now() >= deadline {
                return answer.with_context(|| format!("{} is not ready after {patience:?}", self.instance));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many records it has sent in transactions in this life, as its metrics tell. 0 while it does not answer.
    pub async fn sent(&self) -> u64 {
        let asked = async {
            let request = reqwest::Client::new().get(format!("{}/metrics", self.url()));
            request.timeout(Duration::from_secs(5)).send().await?.text().await
        };
        let text = asked.await.unwrap_or_default();
        let of_metric = text.lines().filter(|line| line.starts_with(SENT));
        of_metric.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    async fn readiness(&self) -> anyhow::Result<()> {
        let response = reqwest::Client::new()
            .get(format!("{}/readyz", self.url()))
            .timeout(Duration::from_secs(5))
            .send()
            .await
            .context("its HTTP side does not answer")?;
        if response.status().is_success() {
            return Ok(());
        }
        bail!("it says: {}", response.text().await.unwrap_or_default().trim())
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

    /// Overwrites some bytes of each file of its local store. Which is drawn.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn damage_store(&self, draws: &mut Draws) -> anyhow::Result<()> {
        let mut folders = vec![self.data.join("stores")];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    damage(&path, draws).with_context(|| format!("cannot damage {}", path.display()))?;
                }
            }
        }
        Ok(())
    }
}

fn damage(path: &Path, draws: &mut Draws) -> std::io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    let size = file.metadata()?.len();
    for _ in 0..DAMAGE.1.min(usize::try_from(size).unwrap_or(usize::MAX)) {
        let noise: Vec<u8> = (0..DAMAGE.0).map(|_| u8::try_from(draws.below(256)).unwrap_or_default()).collect();
        let at = draws.below(size);
        let most = noise.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
        file.write_all_at(&noise[..most], at)?;
    }
    Ok(())
}
