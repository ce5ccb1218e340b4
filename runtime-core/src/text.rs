//! Foreign text for log lines: printable text, chains of errors, and the messages of panics.

use std::{any::Any, borrow::Cow, error::Error};

/// Text shortened to `max_chars`, with control characters replaced.
#[must_use]
pub fn printable(text: &str, max_chars: usize) -> Cow<'_, str> {
    if text.chars().count() <= max_chars && !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    text.chars().take(max_chars).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>().into()
}

/// An error with its whole chain of causes, as one line for a log.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    printable(&text, 1_000).into_owned()
}

/// The message of a panic that was caught.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no reason given".to_owned());
    printable(&text, 400).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_a_log_line_is_short_and_printable() {
        assert_eq!(printable("fine", 10), "fine");
        assert_eq!(printable("a\nb\u{1b}[31m", 4), "a\u{fffd}b\u{fffd}");
    }
}
