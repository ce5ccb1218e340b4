//! The addresses of a running system: `up` writes them into its data folder, every other command reads them.

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
    /// The stubs of the external services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stubs: Option<String>,
    /// The HTTP address of every service; if it has several instances, the address of one of them.
    pub services: BTreeMap<String, String>,
    /// The HTTP addresses of instances that run as child processes, by service and instance name.
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

    /// Writes the file atomically.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let path = Self::path(data);
        let temporary = path.with_extension("json.new");
        std::fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(temporary, path)
    }

    /// The addresses that the last `up` in this folder wrote; `None` if there are none.
    ///
    /// # Errors
    /// The file exists and cannot be read or parsed.
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
    fn addresses_that_are_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), None);
        let endpoints = Endpoints { kafka: "127.0.0.1:9092".to_owned(), ..Endpoints::default() };
        endpoints.write(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), Some(endpoints));
        std::fs::write(Endpoints::path(folder.path()), "{").unwrap();
        assert!(Endpoints::read(folder.path()).unwrap_err().to_string().contains("endpoints.json"));
    }
}
