//! Parses `docker-compose.yml` and `Dockerfile`. An unknown key is an error: it would be a misspelt one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A compose file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compose {
    pub(crate) name: String,
    pub(crate) services: BTreeMap<String, Container>,
    pub(crate) volumes: BTreeMap<String, Value>,
    /// Parts that other parts merge.
    #[serde(rename = "x-dacapo")]
    _dacapo: Value,
    #[serde(rename = "x-service")]
    _service: Value,
}

/// A container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Container {
    pub(crate) image: String,
    pub(crate) build: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) ports: Vec<String>,
    pub(crate) volumes: Vec<String>,
    pub(crate) depends_on: BTreeMap<String, Dependency>,
    pub(crate) healthcheck: Option<HealthCheck>,
    pub(crate) restart: String,
    pub(crate) stop_grace_period: Option<String>,
    pub(crate) read_only: bool,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) security_opt: Vec<String>,
}

/// The condition of another container that must hold first.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dependency {
    pub(crate) condition: String,
}

/// The health check of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealthCheck {
    pub(crate) test: Vec<String>,
    pub(crate) disable: bool,
    pub(crate) interval: Option<String>,
    pub(crate) timeout: Option<String>,
    pub(crate) retries: Option<u32>,
}

impl Compose {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| format!("not understood: {error}"))
    }

    /// The containers of our image, in an order in which they may be started.
    pub(crate) fn ours(&self) -> Vec<(&str, &Container)> {
        let mut left: Vec<_> = self.services.iter().filter(|(_, container)| container.build.is_some()).collect();
        let mut ours = Vec::new();
        while !left.is_empty() {
            let waiting: Vec<&String> = left.iter().map(|(name, _)| *name).collect();
            let is_free = |container: &Container| !container.depends_on.keys().any(|name| waiting.contains(&name));
            let (free, rest): (Vec<_>, Vec<_>) = left.iter().copied().partition(|(_, container)| is_free(container));
            assert!(!free.is_empty(), "{waiting:?} wait for each other");
            ours.extend(free.into_iter().map(|(name, container)| (name.as_str(), container)));
            left = rest;
        }
        ours
    }
}

/// A Dockerfile: its instructions in their order, with continued lines joined.
#[derive(Debug, Clone)]
pub(crate) struct Dockerfile {
    instructions: Vec<(String, String)>,
}

impl Dockerfile {
    pub(crate) fn parse(text: &str) -> Self {
        let joined = text.replace("\\\n", " ");
        let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let split = |line: &str| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            (word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        Self { instructions: lines.map(split).collect() }
    }

    /// The arguments of every instruction with this name.
    pub(crate) fn all(&self, word: &str) -> Vec<&str> {
        self.instructions.iter().filter(|(found, _)| found == word).map(|(_, rest)| rest.as_str()).collect()
    }

    /// The instructions of the last stage, which makes the image.
    pub(crate) fn last_stage(&self) -> Self {
        let at = self.instructions.iter().rposition(|(word, _)| word == "FROM").unwrap_or_default();
        Self { instructions: self.instructions[at..].to_vec() }
    }

    /// The environment of the image.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let last = self.last_stage();
        let pairs = last.all("ENV").into_iter().flat_map(|pairs| pairs.split(' ').collect::<Vec<_>>());
        pairs.filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }

    /// The command of the image's health check.
    pub(crate) fn health_check(&self) -> Vec<String> {
        let last = self.last_stage();
        let command = last.all("HEALTHCHECK").first().and_then(|check| check.split_once("CMD ").map(|(_, list)| list));
        command.map(exec_form).unwrap_or_default()
    }
}

/// The words of `["a", "b"]`; none for a shell line, since the image needs no shell.
pub(crate) fn exec_form(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_default()
}
