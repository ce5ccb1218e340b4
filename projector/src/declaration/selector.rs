//! How a declaration names an event: `owner.Record`, or `owner.Record[field=VALUE]` where the name alone does not tell enough.
//!
//! A name stands for every CloudEvents type that equals it or ends with it after a dot, so a declaration does not depend on the
//! name of the system it is used in.

/// One event as a declaration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The type, or its last dotted parts.
    pub name: String,
    /// The value that a field of the body must have, if the name alone is not enough.
    pub condition: Option<Condition>,
}

/// A field of the body and the value asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// A dotted path into the body.
    pub path: String,
    /// The text the field must have.
    pub value: String,
}

impl Selector {
    /// Parses `Name` or `Name[path=value]`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
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
                    return Err(format!("the condition of {text:?} compares with nothing"));
                }
                (name, Some(Condition { path: path.trim().to_owned(), value: value.trim().to_owned() }))
            }
        };
        check_path(name.trim())?;
        Ok(Self { name: name.trim().to_owned(), condition })
    }

    /// Whether an event of this type can be meant.
    #[must_use]
    pub fn names(&self, event: &str) -> bool {
        event.strip_suffix(&self.name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    }

    /// Whether everything that `other` selects is selected by this one too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.name == self.name && (self.condition.is_none() || self.condition == other.condition)
    }

    /// Whether one event can be both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl std::fmt::Display for Selector {
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
