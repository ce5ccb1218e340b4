//! What the outside world did, from its own journals: one outcome per key, and the same one that the services were told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context;
use serde_json::Value;

/// The journals, and what each of their entries is called in an answer.
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

/// What was really done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    outcomes: BTreeMap<String, BTreeSet<String>>,
    /// Captured minus refunded, in minor units, by currency.
    pub(crate) kept_minor: BTreeMap<String, i64>,
}

impl Done {
    /// Reads the journals in a folder. One that was never written to is empty.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut done = Self::default();
        for (file, words) in [GATEWAY, COURIER] {
            let path = folder.join(file);
            let text = fs::read_to_string(&path).unwrap_or_default();
            for line in text.lines() {
                let entry = serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?;
                done.enter(&entry, words);
            }
        }
        Ok(done)
    }

    fn enter(&mut self, entry: &Value, words: &[(&str, &str)]) {
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

    /// How many keys something was done under.
    pub(crate) fn keys(&self) -> usize {
        self.outcomes.len()
    }

    /// Keys with more than one outcome, or another one than the services were told.
    pub(crate) fn contradictions(&self, answers: &BTreeMap<String, BTreeSet<&'static str>>) -> Vec<String> {
        let twice = self.outcomes.iter().filter(|(_, outcomes)| outcomes.len() > 1);
        let done = twice.map(|(key, outcomes)| format!("{key} was done in two ways: {outcomes:?}"));
        let told = answers.iter().filter_map(|(key, told)| {
            let done = self.outcomes.get(key);
            let is_known = key.starts_with("pick-") || done.is_some();
            let agrees = done.is_none_or(|done| told.iter().all(|told| done.contains(*told)));
            let fault = if told.len() > 1 {
                format!("was answered in two ways: {told:?}")
            } else if !is_known {
                format!("was answered {told:?}, and nothing was done")
            } else if !agrees {
                format!("was answered {told:?}, and what was done is {done:?}")
            } else {
                return None;
            };
            Some(format!("{key} {fault}"))
        });
        done.chain(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn done(entries: &[Value]) -> Done {
        let mut done = Done::default();
        entries.iter().for_each(|entry| done.enter(entry, GATEWAY.1));
        done
    }

    fn told(key: &str, outcomes: &[&'static str]) -> BTreeMap<String, BTreeSet<&'static str>> {
        BTreeMap::from([(key.to_owned(), outcomes.iter().copied().collect())])
    }

    #[test]
    fn a_key_with_two_outcomes_or_another_one_than_told_is_found() {
        let captured = json!({ "entry": "captured", "key": "k", "amount_minor": 500, "currency": "EUR" });
        let one = done(std::slice::from_ref(&captured));
        assert_eq!(one.kept_minor["EUR"], 500);
        assert!(one.contradictions(&told("k", &["captured"])).is_empty());
        assert_eq!(one.contradictions(&told("k", &["voided"])).len(), 1);
        assert_eq!(one.contradictions(&told("k", &["captured", "voided"])).len(), 1);
        assert_eq!(one.contradictions(&told("other", &["captured"])).len(), 1);
        assert!(one.contradictions(&told("pick-1", &["packaged"])).is_empty(), "the floor keeps no journal");
        let two = done(&[captured, json!({ "entry": "voided", "key": "k" })]);
        assert_eq!(two.contradictions(&BTreeMap::new()).len(), 1);
    }
}
