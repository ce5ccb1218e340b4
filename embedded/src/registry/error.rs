//! The registry's errors, with the error codes that Confluent's clients evaluate.
//!
//! Of HTTP it knows only the status codes.

use avro_compat::UnknownLevel;

/// A refused call.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryApiError {
    #[error("Subject '{0}' not found.")]
    SubjectNotFound(String),
    #[error("Version {0} not found.")]
    VersionNotFound(u32),
    #[error("Schema not found")]
    SchemaNotFound,
    #[error("Schema {0} not found")]
    IdNotFound(String),
    #[error("Subject '{0}' was soft deleted. Set permanent=true to delete permanently")]
    SubjectSoftDeleted(String),
    #[error("Subject '{0}' was not deleted first before being permanently deleted")]
    SubjectNotSoftDeleted(String),
    #[error("Subject '{0}' Version {1} was soft deleted. Set permanent=true to delete permanently")]
    VersionSoftDeleted(String, u32),
    #[error("Subject '{0}' Version {1} was not deleted first before being permanently deleted")]
    VersionNotSoftDeleted(String, u32),
    #[error("Subject '{0}' does not have subject-level compatibility configured")]
    LevelNotConfigured(String),
    #[error("Subject '{0}' does not have subject-level mode configured")]
    ModeNotConfigured(String),
    #[error("{0}")]
    Incompatible(String),
    #[error("Invalid schema: {0}")]
    InvalidSchema(String),
    #[error(
        "The specified version '{0}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
    )]
    InvalidVersion(String),
    #[error("Invalid compatibility level: {0}")]
    InvalidLevel(#[from] UnknownLevel),
    #[error("Invalid mode: this registry knows READWRITE and READONLY")]
    InvalidMode,
    #[error("{0}")]
    NotPermitted(String),
    #[error("The specified subject '{0}' is not a valid subject: it is empty, too long, or has control characters")]
    InvalidSubject(String),
    #[error("The body is not the JSON that this call takes: {0}")]
    MalformedBody(String),
    #[error("Content type '{0}' is not understood: send application/vnd.schemaregistry.v1+json or application/json")]
    UnsupportedMediaType(String),
    #[error("The change could not be stored: {0}")]
    Store(String),
}

impl RegistryApiError {
    /// The `error_code` of the response.
    pub(super) fn code(&self) -> u32 {
        match self {
            Self::SubjectNotFound(_) => 40401,
            Self::VersionNotFound(_) => 40402,
            Self::SchemaNotFound | Self::IdNotFound(_) => 40403,
            Self::SubjectSoftDeleted(_) => 40404,
            Self::SubjectNotSoftDeleted(_) => 40405,
            Self::VersionSoftDeleted(..) => 40406,
            Self::VersionNotSoftDeleted(..) => 40407,
            Self::LevelNotConfigured(_) => 40408,
            Self::ModeNotConfigured(_) => 40409,
            // All client versions know this code; newer registries send 40901.
            Self::Incompatible(_) => 409,
            Self::InvalidSchema(_) => 42201,
            Self::InvalidVersion(_) => 42202,
            Self::InvalidLevel(_) => 42203,
            Self::InvalidMode => 42204,
            Self::NotPermitted(_) => 42205,
            Self::InvalidSubject(_) => 42208,
            Self::MalformedBody(_) => 400,
            Self::UnsupportedMediaType(_) => 415,
            Self::Store(_) => 50001,
        }
    }

    /// The HTTP status: the first three digits of the code.
    pub(super) fn status(&self) -> u16 {
        let code = self.code();
        // Codes have three or five digits, so the result is always below 1000.
        u16::try_from(if code >= 10_000 { code / 100 } else { code }).unwrap_or(500)
    }
}
