//! Sentences with placeholders: `Paid; waiting for {owner} to package`.

/// A sentence whose placeholders were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Word(Word),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Id,
    Owner,
    Step,
    Since,
}

/// The placeholders a sentence may have, as they are written.
const WORDS: [(&str, Word); 4] =
    [("id", Word::Id), ("owner", Word::Owner), ("step", Word::Step), ("since", Word::Since)];

/// What the placeholders stand for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Words<'a> {
    /// The saga's id.
    pub id: &'a str,
    /// Who owes the step.
    pub owner: &'a str,
    /// The step's title.
    pub step: &'a str,
    /// Since when it is owed.
    pub since: &'a str,
}

impl Sentence {
    /// Parses a sentence.
    ///
    /// # Errors
    /// An unknown placeholder, or a brace without its partner.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let Some(close) = rest[open..].find('}').filter(|length| *length > 0) else {
                return Err(format!("the sentence {text:?} has a brace without its partner"));
            };
            let name = &rest[open + 1..open + close];
            let Some((_, word)) = WORDS.iter().find(|(known, _)| *known == name) else {
                let hint = crate::nearest::hint(name, WORDS.iter().map(|(known, _)| *known));
                return Err(format!(
                    "the sentence {text:?} has the unknown placeholder {{{name}}} ({{id}}, {{owner}}, {{step}} and {{since}} are known){hint}"
                ));
            };
            parts.push(Part::Text(rest[..open].to_owned()));
            parts.push(Part::Word(*word));
            rest = &rest[open + close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The sentence with its placeholders filled.
    #[must_use]
    pub fn fill(&self, words: &Words<'_>) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Word(Word::Id) => words.id,
                Part::Word(Word::Owner) => words.owner,
                Part::Word(Word::Step) => words.step,
                Part::Word(Word::Since) => words.since,
            })
            .collect()
    }
}
