//! States as bytes, for checkpoints.

use serde::{Serialize, de::DeserializeOwned};

use crate::{guard::guarded, text::printable};

/// A state cannot be serialized, or bytes cannot be deserialized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a state cannot be {direction}: {reason}")]
pub struct StateError {
    /// `serialized` or `deserialized`.
    pub direction: &'static str,
    /// Why.
    pub reason: String,
}

/// Serializes a state as MessagePack with field names. Unlike JSON it supports maps with any key; unlike positional formats it
/// supports skipped fields; and it takes a quarter of JSON's time.
///
/// # Errors
/// The state has a form that MessagePack does not support.
pub fn to_bytes<T: Serialize>(state: &T) -> Result<Vec<u8>, StateError> {
    let failed = |reason: &str| StateError { direction: "serialized", reason: printable(reason, 200).into() };
    guarded("Serialize", || rmp_serde::to_vec_named(state))
        .map_err(|why| failed(&why))?
        .map_err(|e| failed(&e.to_string()))
}

/// Deserializes the bytes of [`to_bytes`].
///
/// # Errors
/// The bytes are not of this type.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    let failed = |reason: &str| StateError { direction: "deserialized", reason: printable(reason, 200).into() };
    guarded("Deserialize", || rmp_serde::from_slice(bytes))
        .map_err(|why| failed(&why))?
        .map_err(|e| failed(&e.to_string()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn states_with_any_key_and_skipped_fields_survive_their_bytes() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct State {
            #[serde(skip_serializing_if = "Option::is_none", default)]
            skipped: Option<u8>,
            by_pair: std::collections::BTreeMap<(String, u32), i64>,
        }
        let state = State { skipped: None, by_pair: [(("a".to_owned(), 1), -5)].into() };
        let bytes = super::to_bytes(&state).expect("bytes");
        assert_eq!(super::from_bytes::<State>(&bytes).expect("a state"), state);
        assert!(super::from_bytes::<State>(b"\xff\xff").is_err());
    }
}
