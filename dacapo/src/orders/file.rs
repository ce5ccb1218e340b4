//! Orders from a file of newline-delimited JSON. A bad line is reported with its number, and the other lines are read.

use std::{
    io::{self, BufRead},
    str,
};

use serde_json::Value;
use uuid::Uuid;

use super::Order;

/// One line of the file.
#[derive(Debug, PartialEq)]
pub struct InputLine {
    /// Its number, from 1.
    pub number: u64,
    /// The order, or why the line is not an order.
    pub order: Result<Order, String>,
}

/// The lines of a file, read one at a time. Empty lines are skipped.
#[derive(Debug)]
pub struct InputLines<R> {
    reader: R,
    digest: String,
    number: u64,
}

impl<R: BufRead> InputLines<R> {
    /// A longer line is refused without being kept.
    pub const MAX_BYTES: usize = 1024 * 1024;

    /// The lines of a source. An order without a `key` gets `<digest>:<line number>`.
    pub fn new(reader: R, digest: String) -> Self {
        Self { reader, digest, number: 0 }
    }

    /// The next line that is not empty; `None` at the end.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<InputLine>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let whole = read_bounded_line(&mut self.reader, &mut bytes, Self::MAX_BYTES)?;
            if bytes.is_empty() && whole == LineRead::End {
                return Ok(None);
            }
            self.number += 1;
            if whole == LineRead::TooLong {
                let order = Err(format!("the line is longer than {} bytes", Self::MAX_BYTES));
                return Ok(Some(InputLine { number: self.number, order }));
            }
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                let order = parse(&bytes, || format!("{}:{}", self.digest, self.number));
                return Ok(Some(InputLine { number: self.number, order }));
            }
        }
    }
}

/// A digest of a file's content, the same at every path: the prefix of the keys of its lines.
pub fn digest(content: &[u8]) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, content).simple().to_string()
}

#[derive(PartialEq)]
enum LineRead {
    Whole,
    TooLong,
    End,
}

/// Reads up to the next line feed, and skips the rest of a line that is too long.
fn read_bounded_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>, max_bytes: usize) -> io::Result<LineRead> {
    let mut too_long = false;
    loop {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            return Ok(if too_long { LineRead::TooLong } else { LineRead::End });
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        too_long |= bytes.len() + taken > max_bytes;
        if !too_long {
            bytes.extend_from_slice(&available[..taken]);
        }
        reader.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(if too_long { LineRead::TooLong } else { LineRead::Whole });
        }
    }
}

fn parse(bytes: &[u8], default_key: impl FnOnce() -> String) -> Result<Order, String> {
    let text = str::from_utf8(bytes).map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))?;
    let mut body: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let Some(fields) = body.as_object_mut() else {
        return Err("an order is a JSON object".to_owned());
    };
    let key = match fields.remove("key") {
        None => default_key(),
        Some(Value::String(key)) if !key.is_empty() && key.len() <= 200 => key,
        Some(other) => return Err(format!("`key` must be a text of 1 to 200 bytes, not {other}")),
    };
    let cancel = match fields.remove("cancel") {
        None => false,
        Some(Value::Bool(cancel)) => cancel,
        Some(other) => return Err(format!("`cancel` must be true or false, not {other}")),
    };
    Ok(Order { key, body, cancel })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(content: &[u8]) -> Vec<InputLine> {
        let mut lines = InputLines::new(content, "digest".to_owned());
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn an_order_without_a_key_gets_the_file_digest_and_the_line_number() {
        let orders: Vec<Order> = lines(b"{\"key\":\"k\",\"a\":1}\n\n{\"a\":2,\"cancel\":true}")
            .into_iter()
            .map(|line| line.order.unwrap())
            .collect();
        let body = serde_json::json!({ "a": 1 });
        assert_eq!(orders[0], Order { key: "k".to_owned(), body, cancel: false });
        assert_eq!((orders[1].key.as_str(), orders[1].cancel), ("digest:3", true));
        assert_eq!(orders[1].body, serde_json::json!({ "a": 2 }));
    }

    #[test]
    fn a_bad_line_is_reported_and_the_other_lines_are_read() {
        let read = lines(b"{\"a\":\n[1]\n{\"key\":7}\n\"\xff\"\n{\"a\":1}\n{\"cancel\":1}\n");
        let results: Vec<(u64, bool)> = read.iter().map(|line| (line.number, line.order.is_ok())).collect();
        assert_eq!(results, [(1, false), (2, false), (3, false), (4, false), (5, true), (6, false)]);
        assert!(read[0].order.as_ref().unwrap_err().contains("EOF while parsing"));
        assert!(read[3].order.as_ref().unwrap_err().contains("byte 2 is not UTF-8"));
    }

    #[test]
    fn an_overlong_line_is_refused_without_being_kept() {
        let content = [vec![b' '; InputLines::<&[u8]>::MAX_BYTES + 1], b"\n{}\n".to_vec()].concat();
        let read = lines(&content);
        assert!(read[0].order.as_ref().unwrap_err().contains("longer than"));
        assert_eq!(read[1].number, 2);
        assert!(read[1].order.is_ok());
    }
}
