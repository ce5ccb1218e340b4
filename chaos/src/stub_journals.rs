//! What the stubs did, from their journals: one outcome per key, and the same outcome that the services recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context;
use serde_json::Value;

/// The journals, and the outcome that a service records for each kind of entry.
const GATEWAY: (&str, &[(&str, &str)]) = (
    "gateway-ledger.ndjson",
    &[
        ("captured", "captured"),
        ("declined", "declined"),
        ("voided", "voided"),
        ("refunded", "refunded"),
        ("refund_refused", "refused"),
    ],
);
const COURIER: (&str, &[(&str, &str)]) =
    ("courier-book.ndjson", &[("taken", "dispatched"), ("refused", "refused"), ("withdrawn", "withdrawn")]);

/// The outcomes in the journals of the stubs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StubJournals {
    outcomes: BTreeMap<String, BTreeSet<String>>,
    /// Captured minus refunded, in minor units, by currency.
    pub(crate) kept_minor: BTreeMap<String, i64>,
}

impl StubJournals {
    /// Reads the journals in a folder. A journal that does not exist is empty.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut journals = Self::default();
        for (file, words) in [GATEWAY, COURIER] {
            let path = folder.join(file);
            let text = fs::read_to_string(&path).unwrap_or_default();
            for line in text.lines() {
                let entry = serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?;
                journals.add(&entry, words);
            }
        }
        Ok(journals)
    }

    fn add(&mut self, entry: &Value, words: &[(&str, &str)]) {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let word = words.iter().find(|(entry, _)| *entry == text("entry")).map_or("unknown", |(_, word)| word);
        self.outcomes.entry(text("key").to_owned()).or_default().insert(word.to_owned());
        let amount = entry["amount_minor"].as_i64().unwrap_or_default();
        match word {
            "captured" => *self.kept_minor.entry(text("currency").to_owned()).or_default() += amount,
            "refunded" => *self.kept_minor.entry(text("currency").to_owned()).or_default() -= amount,
            _ => {}
        }
    }

    /// How many keys the stubs acted under.
    pub(crate) fn keys(&self) -> usize {
        self.outcomes.len()
    }

    /// Keys with more than one outcome, or with another outcome than the services recorded.
    pub(crate) fn contradictions(&self, recorded: &BTreeMap<String, BTreeSet<&'static str>>) -> Vec<String> {
        let twice = self.outcomes.iter().filter(|(_, outcomes)| outcomes.len() > 1);
        let done = twice.map(|(key, outcomes)| format!("{key} has two outcomes at the stub: {outcomes:?}"));
        let recorded = recorded.iter().filter_map(|(key, recorded)| {
            let done = self.outcomes.get(key);
            // Picking keeps no journal.
            let is_known = key.starts_with("pick-") || done.is_some();
            let agrees = done.is_none_or(|done| recorded.iter().all(|outcome| done.contains(*outcome)));
            let fault = if recorded.len() > 1 {
                format!("has two recorded outcomes: {recorded:?}")
            } else if !is_known {
                format!("has the recorded outcome {recorded:?}, and the stub did nothing")
            } else if !agrees {
                format!("has the recorded outcome {recorded:?}, and the stub did {done:?}")
            } else {
                return None;
            };
            Some(format!("{key} {fault}"))
        });
        done.chain(recorded).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn journals(entries: &[Value]) -> StubJournals {
        let mut journals = StubJournals::default();
        entries.iter().for_each(|entry| journals.add(entry, GATEWAY.1));
        journals
    }

    fn recorded(key: &str, outcomes: &[&'static str]) -> BTreeMap<String, BTreeSet<&'static str>> {
        BTreeMap::from([(key.to_owned(), outcomes.iter().copied().collect())])
    }

    #[test]
    fn a_key_with_two_outcomes_or_with_another_outcome_than_recorded_is_found() {
        let captured = json!({ "entry": "captured", "key": "k", "amount_minor": 500, "currency": "EUR" });
        let one = journals(std::slice::from_ref(&captured));
        assert_eq!(one.kept_minor["EUR"], 500);
        assert!(one.contradictions(&recorded("k", &["captured"])).is_empty());
        assert_eq!(one.contradictions(&recorded("k", &["voided"])).len(), 1);
        assert_eq!(one.contradictions(&recorded("k", &["captured", "voided"])).len(), 1);
        assert_eq!(one.contradictions(&recorded("other", &["captured"])).len(), 1);
        assert!(one.contradictions(&recorded("pick-1", &["packaged"])).is_empty(), "picking keeps no journal");
        let two = journals(&[captured, json!({ "entry": "voided", "key": "k" })]);
        assert_eq!(two.contradictions(&BTreeMap::new()).len(), 1);
    }
}
