//! Finds the word that a person probably meant.

/// The candidate closest to `word`, if it is close enough to be worth a hint.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A longer word is truncated, because the distance is quadratic in the length and words are external input.
    let word: Vec<char> = word.chars().take(MAX_CHARS).collect();
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 2).max(1))
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "x"?`, or nothing.
pub(crate) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}

const MAX_CHARS: usize = 64;

/// Edits between two words (Levenshtein).
fn distance(left: &[char], right: &str) -> usize {
    let mut row: Vec<usize> = (0..=left.len()).collect();
    for (line, there) in right.chars().take(MAX_CHARS).enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, here) in left.iter().enumerate() {
            let replaced = diagonal + usize::from(*here != there);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[left.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_word_and_nonsense_finds_none() {
        assert_eq!(nearest("stat", ["state", "step", "owner"]), Some("state"));
        assert_eq!(nearest("resreve", ["place", "reserve"]), Some("reserve"));
        assert_eq!(nearest("zzzzzzzz", ["state", "step"]), None);
        assert_eq!(hint("stete", ["state"]), "; did you mean \"state\"?");
    }
}
