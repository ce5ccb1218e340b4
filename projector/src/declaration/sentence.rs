//! Sentence templates: `Paid; waiting for {owner} to package`.

/// A sentence with placeholders, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentenceTemplate(Vec<TemplatePart>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Placeholder(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Id,
    Owner,
    Step,
    Since,
}

/// The placeholders of a sentence, by their names.
const PLACEHOLDERS: [(&str, Placeholder); 4] = [
    ("id", Placeholder::Id),
    ("owner", Placeholder::Owner),
    ("step", Placeholder::Step),
    ("since", Placeholder::Since),
];

/// The values of the placeholders.
#[derive(Debug, Clone, Copy, Default)]
pub struct SentenceValues<'a> {
    /// The saga's id.
    pub id: &'a str,
    /// The owner of the step.
    pub owner: &'a str,
    /// The step's title.
    pub step: &'a str,
    /// Since when it is owed.
    pub since: &'a str,
}

impl SentenceTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// An unknown placeholder, or an unmatched brace.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let Some(close) = rest[open..].find('}').filter(|length| *length > 0) else {
                return Err(format!("the sentence {text:?} has an unmatched brace"));
            };
            let name = &rest[open + 1..open + close];
            let Some((_, placeholder)) = PLACEHOLDERS.iter().find(|(known, _)| *known == name) else {
                let hint = crate::nearest::hint(name, PLACEHOLDERS.iter().map(|(known, _)| *known));
                return Err(format!(
                    "the sentence {text:?} has the unknown placeholder {{{name}}} ({{id}}, {{owner}}, {{step}} and {{since}} are known){hint}"
                ));
            };
            parts.push(TemplatePart::Text(rest[..open].to_owned()));
            parts.push(TemplatePart::Placeholder(*placeholder));
            rest = &rest[open + close + 1..];
        }
        parts.push(TemplatePart::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Fills the placeholders.
    #[must_use]
    pub fn fill(&self, values: &SentenceValues<'_>) -> String {
        self.0
            .iter()
            .map(|part| match part {
                TemplatePart::Text(text) => text.as_str(),
                TemplatePart::Placeholder(Placeholder::Id) => values.id,
                TemplatePart::Placeholder(Placeholder::Owner) => values.owner,
                TemplatePart::Placeholder(Placeholder::Step) => values.step,
                TemplatePart::Placeholder(Placeholder::Since) => values.since,
            })
            .collect()
    }
}
