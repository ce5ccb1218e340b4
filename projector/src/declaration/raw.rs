//! The TOML keys of a declaration file, without their meaning.
//!
//! Every value that a check may reject keeps its position in the file, so that the problem names a line.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// A string with its position in the file.
pub(super) type SpannedText = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclarationFile {
    pub(super) name: SpannedText,
    pub(super) title: SpannedText,
    pub(super) start: Spanned<Vec<SpannedText>>,
    #[serde(default)]
    pub(super) topics: Vec<SpannedText>,
    #[serde(default)]
    pub(super) sequences: bool,
    #[serde(default)]
    pub(super) correlation: CorrelationTable,
    pub(super) owners: BTreeMap<SpannedText, SpannedText>,
    #[serde(rename = "step")]
    pub(super) steps: Vec<StepTable>,
    pub(super) cancel: Option<CancelTable>,
    #[serde(default, rename = "compensation")]
    pub(super) compensations: Vec<CompensationTable>,
    #[serde(default)]
    pub(super) exclusive: Vec<Spanned<Vec<SpannedText>>>,
    #[serde(rename = "outcome")]
    pub(super) outcomes: Vec<OutcomeTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CorrelationTable {
    pub(super) header: Option<SpannedText>,
    #[serde(default)]
    pub(super) fields: BTreeMap<SpannedText, SpannedText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepTable {
    pub(super) id: SpannedText,
    pub(super) title: SpannedText,
    pub(super) owner: SpannedText,
    #[serde(default)]
    pub(super) after: Vec<SpannedText>,
    #[serde(default)]
    pub(super) reached_by: Vec<SpannedText>,
    pub(super) completed_by: Spanned<Vec<SpannedText>>,
    #[serde(default)]
    pub(super) failed_by: Vec<SpannedText>,
    #[serde(default)]
    pub(super) undone_by: Vec<SpannedText>,
    #[serde(default)]
    pub(super) attention: bool,
    pub(super) deadline: SpannedText,
    pub(super) waiting: Option<SpannedText>,
    pub(super) failed: Option<SpannedText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelTable {
    pub(super) id: SpannedText,
    pub(super) title: SpannedText,
    pub(super) owner: SpannedText,
    pub(super) completed_by: Spanned<Vec<SpannedText>>,
    pub(super) deadline: SpannedText,
    pub(super) waiting: Option<SpannedText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompensationTable {
    pub(super) id: SpannedText,
    pub(super) title: SpannedText,
    pub(super) owner: SpannedText,
    #[serde(default)]
    pub(super) reached_by: Vec<SpannedText>,
    pub(super) completed_by: Spanned<Vec<SpannedText>>,
    #[serde(default)]
    pub(super) failed_by: Vec<SpannedText>,
    pub(super) deadline: SpannedText,
    pub(super) waiting: Option<SpannedText>,
    pub(super) failed: Option<SpannedText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutcomeTable {
    pub(super) name: SpannedText,
    pub(super) kind: SpannedText,
    pub(super) when: Spanned<Vec<SpannedText>>,
    #[serde(default)]
    pub(super) settled_by: Vec<SpannedText>,
    pub(super) sentence: SpannedText,
}
