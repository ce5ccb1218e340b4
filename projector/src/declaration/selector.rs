//! Event selectors: `owner.Record`, or `owner.Record[field=VALUE]` where the name alone is not specific enough.
//!
//! A name matches every CloudEvents type that equals it or ends with it after a dot, so a declaration does not depend on the
//! name of the system.

/// An event as a declaration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSelector {
    /// The type, or its last dotted parts.
    pub name: String,
    /// The required value of a field of the body, if the name alone is not specific enough.
    pub condition: Option<FieldCondition>,
}

/// A field of the body and its required value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldCondition {
    /// A dotted path into the body.
    pub path: String,
    /// The required value.
    pub value: String,
}

impl EventSelector {
    /// Parses `Name` or `Name[path=value]`.
    ///
    /// # Errors
    /// The problem as text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, condition) = match text.split_once('[') {
            None => (text, None),
            Some((name, rest)) => {
                let Some(inner) = rest.strip_suffix(']') else {
                    return Err(format!("{text:?} opens a [condition] and does not close it"));
                };
                let Some((path, value)) = inner.split_once('=') else {
                    return Err(format!("the condition of {text:?} is not written [field=VALUE]"));
                };
                check_path(path.trim())?;
                if value.trim().is_empty() {
                    return Err(format!("the condition of {text:?} has no value"));
                }
                (name, Some(FieldCondition { path: path.trim().to_owned(), value: value.trim().to_owned() }))
            }
        };
        check_path(name.trim())?;
        Ok(Self { name: name.trim().to_owned(), condition })
    }

    /// True if an event of this type may match.
    #[must_use]
    pub fn matches(&self, event: &str) -> bool {
        event.strip_suffix(&self.name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    }

    /// True if this selector selects everything that `other` selects.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.name == self.name && (self.condition.is_none() || self.condition == other.condition)
    }

    /// True if one event may match both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl std::fmt::Display for EventSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.condition {
            None => f.write_str(&self.name),
            Some(condition) => write!(f, "{}[{}={}]", self.name, condition.path, condition.value),
        }
    }
}

/// Names and paths are dotted identifiers.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let fine = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '/')
    };
    if path.split('.').all(fine) { Ok(()) } else { Err(format!("{path:?} is not a dotted name")) }
}
