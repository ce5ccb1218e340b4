//! Where the parts of a running system listen: written by `up` into its data folder, read by every other command.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The addresses of a running system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The system's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Kafka bootstrap address.
    pub kafka: String,
    /// Schema registry.
    pub registry: String,
    /// The projector's HTTP API.
    pub projector: String,
    /// The simulated outside world, if this process runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<String>,
    /// Every service's HTTP address; of one with several instances, that of one of them.
    pub services: BTreeMap<String, String>,
    /// The HTTP addresses of the instances of each service that runs as processes of its own, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<String, BTreeMap<String, String>>,
}

impl Endpoints {
    const FILE: &str = "endpoints.json";

    /// The file's path in a data folder.
    #[must_use]
    pub fn path(data: &Path) -> PathBuf {
        data.join(Self::FILE)
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let path = Self::path(data);
        let beside = path.with_extension("json.new");
        std::fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(beside, path)
    }

    /// What the last `up` in this folder wrote; `None` if none ever did.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub fn read(data: &Path) -> io::Result<Option<Self>> {
        let path = Self::path(data);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let why = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()));
        serde_json::from_slice(&text).map(Some).map_err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), None);
        let endpoints = Endpoints { kafka: "127.0.0.1:9092".to_owned(), ..Endpoints::default() };
        endpoints.write(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), Some(endpoints));
        std::fs::write(Endpoints::path(folder.path()), "{").unwrap();
        assert!(Endpoints::read(folder.path()).unwrap_err().to_string().contains("endpoints.json"));
    }
}
