//! A declaration file as it is written: the TOML keys, and nothing of their meaning.
//!
//! Every value that a check may complain about keeps its place in the file, so that a complaint names a line.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// A text with its place in the file.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: Text,
    pub(super) title: Text,
    pub(super) start: Spanned<Vec<Text>>,
    #[serde(default)]
    pub(super) topics: Vec<Text>,
    #[serde(default)]
    pub(super) sequences: bool,
    #[serde(default)]
    pub(super) correlation: Correlation,
    pub(super) owners: BTreeMap<Text, Text>,
    #[serde(rename = "step")]
    pub(super) steps: Vec<Step>,
    pub(super) cancel: Option<Cancel>,
    #[serde(default, rename = "compensation")]
    pub(super) compensations: Vec<Compensation>,
    #[serde(default)]
    pub(super) exclusive: Vec<Spanned<Vec<Text>>>,
    #[serde(rename = "outcome")]
    pub(super) outcomes: Vec<Outcome>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Correlation {
    pub(super) header: Option<Text>,
    #[serde(default)]
    pub(super) fields: BTreeMap<Text, Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) id: Text,
    pub(super) title: Text,
    pub(super) owner: Text,
    #[serde(default)]
    pub(super) after: Vec<Text>,
    #[serde(default)]
    pub(super) reached_by: Vec<Text>,
    pub(super) completed_by: Spanned<Vec<Text>>,
    #[serde(default)]
    pub(super) failed_by: Vec<Text>,
    #[serde(default)]
    pub(super) undone_by: Vec<Text>,
    #[serde(default)]
    pub(super) attention: bool,
    pub(super) deadline: Text,
    pub(super) waiting: Option<Text>,
    pub(super) failed: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancel {
    pub(super) id: Text,
    pub(super) title: Text,
    pub(super) owner: Text,
    pub(super) completed_by: Spanned<Vec<Text>>,
    pub(super) deadline: Text,
    pub(super) waiting: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Compensation {
    pub(super) id: Text,
    pub(super) title: Text,
    pub(super) owner: Text,
    #[serde(default)]
    pub(super) reached_by: Vec<Text>,
    pub(super) completed_by: Spanned<Vec<Text>>,
    #[serde(default)]
    pub(super) failed_by: Vec<Text>,
    pub(super) deadline: Text,
    pub(super) waiting: Option<Text>,
    pub(super) failed: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outcome {
    pub(super) name: Text,
    pub(super) kind: Text,
    pub(super) when: Spanned<Vec<Text>>,
    #[serde(default)]
    pub(super) settled_by: Vec<Text>,
    pub(super) sentence: Text,
}
