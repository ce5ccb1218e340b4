//! The balance check: reads the topics alone and finds what does not add up. It shares no code with the deciders, so that it
//! cannot share their mistakes.

mod books;
mod reads;

pub use books::{Balance, Ends, Finding, Rule, Stock};

#[cfg(test)]
mod books_tests;
