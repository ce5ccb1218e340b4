//! Frame check: whether the lengths that a request announces fit its bytes.
//!
//! The codec trusts the length of a list and reserves memory for it before it reads the first item, so a frame of twenty bytes
//! could reserve gigabytes. Every frame is checked here first: a list must contain as many items as it announces. Owns the
//! layout of the requests in `dispatch`'s table.

use FieldLayout::{Blob, Fixed, List, Text};
use kafka_protocol::messages::ApiKey;

/// A field and the versions that contain it.
struct FieldSpec {
    from: i16,
    to: i16,
    layout: FieldLayout,
}

enum FieldLayout {
    /// This number of bytes.
    Fixed(usize),
    /// A string, possibly null.
    Text,
    /// Bytes, possibly null.
    Blob,
    /// Items with these fields. The flag is set for structures, which carry tagged fields in flexible versions.
    List(&'static [FieldSpec], bool),
}

const fn all(layout: FieldLayout) -> FieldSpec {
    FieldSpec { from: 0, to: i16::MAX, layout }
}

const fn since(from: i16, layout: FieldLayout) -> FieldSpec {
    FieldSpec { from, to: i16::MAX, layout }
}

const fn until(to: i16, layout: FieldLayout) -> FieldSpec {
    FieldSpec { from: 0, to, layout }
}

const fn between(from: i16, to: i16, layout: FieldLayout) -> FieldSpec {
    FieldSpec { from, to, layout }
}

/// The fields of each request body in wire order, without the tagged ones.
const REQUESTS: &[(ApiKey, &[FieldSpec])] = &[
    (
        ApiKey::Produce,
        &[
            all(Text),
            all(Fixed(2)),
            all(Fixed(4)),
            all(List(&[all(Text), all(List(&[all(Fixed(4)), all(Blob)], true))], true)),
        ],
    ),
    (
        ApiKey::Fetch,
        &[
            until(14, Fixed(4)),
            all(Fixed(4)),
            all(Fixed(4)),
            all(Fixed(4)),
            all(Fixed(1)),
            since(7, Fixed(4)),
            since(7, Fixed(4)),
            all(List(
                &[
                    until(12, Text),
                    since(13, Fixed(16)),
                    all(List(
                        &[
                            all(Fixed(4)),
                            since(9, Fixed(4)),
                            all(Fixed(8)),
                            since(12, Fixed(4)),
                            since(5, Fixed(8)),
                            all(Fixed(4)),
                        ],
                        true,
                    )),
                ],
                true,
            )),
            since(
                7,
                List(&[between(7, 12, Text), since(13, Fixed(16)), since(7, List(&[all(Fixed(4))], false))], true),
            ),
            since(11, Text),
        ],
    ),
    (
        ApiKey::ListOffsets,
        &[
            all(Fixed(4)),
            since(2, Fixed(1)),
            all(List(&[all(Text), all(List(&[all(Fixed(4)), since(4, Fixed(4)), all(Fixed(8))], true))], true)),
            since(10, Fixed(4)),
        ],
    ),
    (
        ApiKey::Metadata,
        &[
            all(List(&[since(10, Fixed(16)), all(Text)], true)),
            since(4, Fixed(1)),
            between(8, 10, Fixed(1)),
            since(8, Fixed(1)),
        ],
    ),
    (
        ApiKey::OffsetCommit,
        &[
            all(Text),
            all(Fixed(4)),
            all(Text),
            since(7, Text),
            until(4, Fixed(8)),
            all(List(
                &[all(Text), all(List(&[all(Fixed(4)), all(Fixed(8)), since(6, Fixed(4)), all(Text)], true))],
                true,
            )),
        ],
    ),
    (
        ApiKey::OffsetFetch,
        &[
            until(7, Text),
            until(7, List(&[until(7, Text), until(7, List(&[all(Fixed(4))], false))], true)),
            since(
                8,
                List(
                    &[
                        since(8, Text),
                        since(9, Text),
                        since(9, Fixed(4)),
                        since(8, List(&[since(8, Text), since(8, List(&[all(Fixed(4))], false))], true)),
                    ],
                    true,
                ),
            ),
            since(7, Fixed(1)),
        ],
    ),
    (ApiKey::FindCoordinator, &[until(3, Text), since(1, Fixed(1)), since(4, List(&[all(Text)], false))]),
    (
        ApiKey::JoinGroup,
        &[
            all(Text),
            all(Fixed(4)),
            since(1, Fixed(4)),
            all(Text),
            since(5, Text),
            all(Text),
            all(List(&[all(Text), all(Blob)], true)),
            since(8, Text),
        ],
    ),
    (ApiKey::Heartbeat, &[all(Text), all(Fixed(4)), all(Text), since(3, Text)]),
    (
        ApiKey::LeaveGroup,
        &[all(Text), until(2, Text), since(3, List(&[since(3, Text), since(3, Text), since(5, Text)], true))],
    ),
    (
        ApiKey::SyncGroup,
        &[
            all(Text),
            all(Fixed(4)),
            all(Text),
            since(3, Text),
            since(5, Text),
            since(5, Text),
            all(List(&[all(Text), all(Blob)], true)),
        ],
    ),
    (ApiKey::DescribeGroups, &[all(List(&[all(Text)], false)), since(3, Fixed(1))]),
    (ApiKey::ListGroups, &[since(4, List(&[all(Text)], false)), since(5, List(&[all(Text)], false))]),
    (ApiKey::ApiVersions, &[since(3, Text), since(3, Text)]),
    (
        ApiKey::CreateTopics,
        &[
            all(List(
                &[
                    all(Text),
                    all(Fixed(4)),
                    all(Fixed(2)),
                    all(List(&[all(Fixed(4)), all(List(&[all(Fixed(4))], false))], true)),
                    all(List(&[all(Text), all(Text)], true)),
                ],
                true,
            )),
            all(Fixed(4)),
            all(Fixed(1)),
        ],
    ),
    (
        ApiKey::DeleteTopics,
        &[
            since(6, List(&[since(6, Text), since(6, Fixed(16))], true)),
            until(5, List(&[all(Text)], false)),
            all(Fixed(4)),
        ],
    ),
    (
        ApiKey::DeleteRecords,
        &[all(List(&[all(Text), all(List(&[all(Fixed(4)), all(Fixed(8))], true))], true)), all(Fixed(4))],
    ),
    (ApiKey::InitProducerId, &[all(Text), all(Fixed(4)), since(3, Fixed(8)), since(3, Fixed(2))]),
    (
        ApiKey::OffsetForLeaderEpoch,
        &[
            since(3, Fixed(4)),
            all(List(&[all(Text), all(List(&[all(Fixed(4)), all(Fixed(4)), all(Fixed(4))], true))], true)),
        ],
    ),
    (
        ApiKey::AddPartitionsToTxn,
        &[all(Text), all(Fixed(8)), all(Fixed(2)), all(List(&[all(Text), all(List(&[all(Fixed(4))], false))], true))],
    ),
    (ApiKey::AddOffsetsToTxn, &[all(Text), all(Fixed(8)), all(Fixed(2)), all(Text)]),
    (ApiKey::EndTxn, &[all(Text), all(Fixed(8)), all(Fixed(2)), all(Fixed(1))]),
    (
        ApiKey::TxnOffsetCommit,
        &[
            all(Text),
            all(Text),
            all(Fixed(8)),
            all(Fixed(2)),
            since(3, Fixed(4)),
            since(3, Text),
            since(3, Text),
            all(List(
                &[all(Text), all(List(&[all(Fixed(4)), all(Fixed(8)), since(2, Fixed(4)), all(Text)], true))],
                true,
            )),
        ],
    ),
    (
        ApiKey::DescribeConfigs,
        &[
            all(List(&[all(Fixed(1)), all(Text), all(List(&[all(Text)], false))], true)),
            all(Fixed(1)),
            since(3, Fixed(1)),
        ],
    ),
    (
        ApiKey::AlterConfigs,
        &[all(List(&[all(Fixed(1)), all(Text), all(List(&[all(Text), all(Text)], true))], true)), all(Fixed(1))],
    ),
    (ApiKey::DescribeLogDirs, &[all(List(&[all(Text), all(List(&[all(Fixed(4))], false))], true))]),
    (
        ApiKey::CreatePartitions,
        &[
            all(List(&[all(Text), all(Fixed(4)), all(List(&[all(List(&[all(Fixed(4))], false))], true))], true)),
            all(Fixed(4)),
            all(Fixed(1)),
        ],
    ),
    (ApiKey::DeleteGroups, &[all(List(&[all(Text)], false))]),
    (
        ApiKey::IncrementalAlterConfigs,
        &[
            all(List(&[all(Fixed(1)), all(Text), all(List(&[all(Text), all(Fixed(1)), all(Text)], true))], true)),
            all(Fixed(1)),
        ],
    ),
    (ApiKey::OffsetDelete, &[all(Text), all(List(&[all(Text), all(List(&[all(Fixed(4))], true))], true))]),
    (ApiKey::DescribeCluster, &[all(Fixed(1)), since(1, Fixed(1))]),
    (ApiKey::DescribeProducers, &[all(List(&[all(Text), all(List(&[all(Fixed(4))], false))], true))]),
    (ApiKey::DescribeTransactions, &[all(List(&[all(Text)], false))]),
    (
        ApiKey::ListTransactions,
        &[all(List(&[all(Text)], false)), all(List(&[all(Fixed(8))], false)), since(1, Fixed(8))],
    ),
];

/// Whether the body contains everything that a request of this kind and version announces. Bytes after it are ignored.
pub(crate) fn fits(api: ApiKey, version: i16, body: &[u8]) -> bool {
    let Some((_, fields)) = REQUESTS.iter().find(|(known, _)| *known == api) else { return false };
    let flexible = api.request_header_version(version) >= 2;
    let mut cursor = FrameCursor { rest: body, version, flexible };
    cursor.structure(fields, true).is_some()
}

struct FrameCursor<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
}

impl FrameCursor<'_> {
    fn structure(&mut self, fields: &[FieldSpec], tagged: bool) -> Option<()> {
        for field in fields {
            if (field.from..=field.to).contains(&self.version) {
                self.value(&field.layout)?;
            }
        }
        if tagged && self.flexible { self.tagged_fields() } else { Some(()) }
    }

    fn value(&mut self, layout: &FieldLayout) -> Option<()> {
        match layout {
            Fixed(size) => self.skip(*size),
            Text => {
                let length = if self.flexible { self.compact_length()? } else { i64::from(self.int16()?) };
                self.skip_nullable(length)
            }
            Blob => {
                let length = if self.flexible { self.compact_length()? } else { i64::from(self.int32()?) };
                self.skip_nullable(length)
            }
            List(fields, structures) => {
                let count = if self.flexible { self.compact_length()? } else { i64::from(self.int32()?) };
                if count < -1 || usize::try_from(count).is_ok_and(|count| count > self.rest.len()) {
                    return None;
                }
                (0..count.max(0)).try_for_each(|_| self.structure(fields, *structures))
            }
        }
    }

    fn tagged_fields(&mut self) -> Option<()> {
        for _ in 0..self.unsigned()? {
            self.unsigned()?;
            let size = self.unsigned()?;
            self.skip(usize::try_from(size).ok()?)?;
        }
        Some(())
    }

    fn skip(&mut self, size: usize) -> Option<()> {
        self.rest = self.rest.get(size..)?;
        Some(())
    }

    /// -1 is null.
    fn skip_nullable(&mut self, length: i64) -> Option<()> {
        match length {
            -1 => Some(()),
            length => self.skip(usize::try_from(length).ok()?),
        }
    }

    fn int16(&mut self) -> Option<i16> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(i16::from_be_bytes(*head))
    }

    fn int32(&mut self) -> Option<i32> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(i32::from_be_bytes(*head))
    }

    /// Flexible versions encode a length as its value plus one; zero means null.
    fn compact_length(&mut self) -> Option<i64> {
        Some(i64::from(self.unsigned()?) - 1)
    }

    fn unsigned(&mut self) -> Option<u32> {
        let mut value: u32 = 0;
        for shift in (0..35).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let bits = u32::from(byte & 0x7f);
            value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_must_contain_the_items_it_announces() {
        assert!(fits(ApiKey::Metadata, 1, &[0, 0, 0, 1, 0, 1, b'a']));
        assert!(fits(ApiKey::Metadata, 1, &[0xff, 0xff, 0xff, 0xff]));
        assert!(!fits(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes()));
        assert!(!fits(ApiKey::Metadata, 1, &[0, 0, 0, 2, 0, 1, b'a']));
        assert!(!fits(ApiKey::Metadata, 1, &[0xff, 0xff, 0xff, 0xfe]));
        assert!(!fits(ApiKey::Metadata, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]));
    }

    #[test]
    fn missing_bytes_are_refused_and_extra_bytes_are_ignored() {
        assert!(fits(ApiKey::Metadata, 1, &[0, 0, 0, 0, 9]));
        assert!(fits(ApiKey::Metadata, 9, &[1, 1, 0, 0, 0]));
        assert!(!fits(ApiKey::Metadata, 9, &[1, 1, 0, 0]));
        assert!(fits(ApiKey::Metadata, 9, &[1, 1, 0, 0, 1, 7, 2, 0, 0]), "an unknown tagged field is ignored");
    }

    #[test]
    fn a_varint_with_too_many_bytes_is_refused() {
        let mut cursor = FrameCursor { rest: &[0xff, 0xff, 0xff, 0xff, 0x7f], version: 9, flexible: true };
        assert_eq!(cursor.unsigned(), None);
        let mut cursor = FrameCursor { rest: &[0xff, 0xff, 0xff, 0xff, 0x0f], version: 9, flexible: true };
        assert_eq!(cursor.unsigned(), Some(u32::MAX));
    }
}
