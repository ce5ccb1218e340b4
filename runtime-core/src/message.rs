//! Avro records as Rust types: which records a service writes, and which it understands.
//!
//! A service declares two kinds of enums. [`produces!`](crate::produces) lists the records that it writes (events on its own topic,
//! commands to its own inbox), each with the schema version of its struct. [`consumes!`](crate::consumes) lists the records that it
//! reads: the struct has only the fields that it uses, and the bytes are read with the writer's schema (tolerant reader).
//! This module knows names and serde; `codec` has bytes and schema ids.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use crate::datum::{CodecError, RecordReader, RecordWriter};

/// The kind of topic that a record is on. A service has an events topic and an inbox; a projection may have a state topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// `musiccorp.<owner>.events`: written only by its owner, and kept for ever.
    Events,
    /// `musiccorp.<owner>.inbox`: read only by its owner.
    Inbox,
    /// `musiccorp.<owner>.state`: the latest record of each key, written only by its owner, and compacted.
    State,
}

impl Channel {
    /// Its name, in topics and in the folders of the schemas.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Inbox => "inbox",
            Self::State => "state",
        }
    }

    /// The channel with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Events, Self::Inbox, Self::State].into_iter().find(|channel| channel.name() == name)
    }
}

/// One Avro record type: its owner, its channel and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType {
    /// The service that owns the schema, as its folder under `schemas/` is named (`order-processor`).
    pub owner: &'static str,
    /// The kind of topic that it is on.
    pub channel: Channel,
    /// The record's short name (`OrderPlaced`). Also the name of the Rust struct.
    pub name: &'static str,
    /// The schema that is compiled into the writer; `None` for records that are only read.
    pub schema: Option<&'static str>,
}

impl RecordType {
    /// The Avro full name in a system, which is also the registry subject and the CloudEvents type:
    /// `com.musiccorp.order_processor.OrderPlaced` for the system `musiccorp`.
    #[must_use]
    pub fn full_name(&self, system: &str) -> String {
        format!("com.{system}.{}.{}", self.owner.replace('-', "_"), self.name)
    }

    /// Its topic in a system: `musiccorp.order-processor.events`. Inbox records of the owner `runtime` are on the inbox of the
    /// service that consumes them.
    #[must_use]
    pub fn topic(&self, system: &str) -> String {
        topic(system, self.owner, self.channel)
    }
}

/// The topic of a service: `<system>.<service>.<events|inbox|state>`.
#[must_use]
pub fn topic(system: &str, service: &str, channel: Channel) -> String {
    format!("{system}.{service}.{}", channel.name())
}

/// The suffix of the topics of parked records.
pub const PARKED: &str = ".parked";

/// The topic of a service's parked records: `<system>.<service>.parked`.
#[must_use]
pub fn parked_topic(system: &str, service: &str) -> String {
    format!("{system}.{service}{PARKED}")
}

/// An enum with one newtype variant for each record type. [`produces!`](crate::produces) and [`consumes!`](crate::consumes)
/// implement it; do not implement it by hand.
pub trait Message: Debug + Clone + PartialEq + Sized + Send + Sync + 'static {
    /// The record types of the enum, in the order of their declaration.
    const RECORDS: &'static [RecordType];

    /// The record type of this value.
    fn record(&self) -> &'static RecordType;

    /// Reads the body of a record with the short name `name`. Returns `Ok(None)` if the enum has no such record type.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes do not fit the writer's schema, or the struct does not fit the record.
    fn read(name: &str, record: &RecordReader<'_>) -> Result<Option<Self>, CodecError>;

    /// Writes the body with the compiled schema. Only enums that are [`Written`] do this.
    ///
    /// # Errors
    /// [`CodecError`] if the struct does not fit its schema.
    fn write(&self, record: &mut RecordWriter<'_>) -> Result<(), CodecError>;
}

/// A [`Message`] whose record types all have the schema that they are written with.
pub trait Written: Message {}

/// A body that can be both written and read.
pub trait Body: Serialize + DeserializeOwned {}
impl<T: Serialize + DeserializeOwned> Body for T {}

/// The commands of a service without commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCommand {}

impl Message for NoCommand {
    const RECORDS: &'static [RecordType] = &[];

    fn record(&self) -> &'static RecordType {
        match *self {}
    }

    fn read(_: &str, _: &RecordReader<'_>) -> Result<Option<Self>, CodecError> {
        Ok(None)
    }

    fn write(&self, _: &mut RecordWriter<'_>) -> Result<(), CodecError> {
        match *self {}
    }
}

impl Written for NoCommand {}

/// Declares the records that a service writes, each with the schema version of its struct.
///
/// The macro compiles in the schema `<folder>/<owner>/<channel>/<Record>/v<version>.avsc`. The folder is relative to the crate's
/// own `Cargo.toml`.
///
/// ```
/// use runtime_core::message::Message;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct LoyaltyAccountOpened {
///     customer_id: String,
///     occurred_at: i64,
/// }
///
/// runtime_core::produces! {
///     /// The events of the loyalty service.
///     enum Event in "../schemas" {
///         events of "loyalty" { LoyaltyAccountOpened = 1 }
///     }
/// }
///
/// let record = Event::RECORDS[0];
/// assert_eq!(record.topic("musiccorp"), "musiccorp.loyalty.events");
/// assert_eq!(record.full_name("musiccorp"), "com.musiccorp.loyalty.LoyaltyAccountOpened");
/// assert!(record.schema.is_some_and(|schema| schema.contains("A customer can collect points.")));
/// ```
#[macro_export]
macro_rules! produces {
    ($(#[$meta:meta])* $vis:vis enum $Enum:ident in $schemas:literal {
        $( $channel:ident of $owner:literal { $( $Name:ident = $version:literal ),* $(,)? } )*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis enum $Enum { $($( #[doc = concat!("`", stringify!($Name), "` v", $version, " of ", $owner, ".")] $Name($Name), )*)* }

        $crate::__message! {
            $Enum { $($( $Name, $channel, $owner, Some(include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/", $schemas, "/", $owner, "/", stringify!($channel), "/", stringify!($Name), "/v", $version, ".avsc"
            ))), writes; )*)* }
        }

        impl $crate::message::Written for $Enum {}
    };
}

/// Declares the records that a service reads. The structs have only the fields that it uses.
///
/// ```
/// use runtime_core::{decider::TimerFired, message::Message};
/// use serde::{Deserialize, Serialize};
///
/// /// The record has more fields; this service uses one.
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct OrderPlaced {
///     order_id: String,
/// }
///
/// runtime_core::consumes! {
///     /// The input of the payment service.
///     enum Input {
///         events of "order-processor" { OrderPlaced }
///         inbox of "runtime" { TimerFired }
///     }
/// }
///
/// let input = Input::from(OrderPlaced { order_id: "o-1".to_owned() });
/// assert_eq!(input.record().topic("musiccorp"), "musiccorp.order-processor.events");
/// assert_eq!(input.record().schema, None);
/// ```
#[macro_export]
macro_rules! consumes {
    ($(#[$meta:meta])* $vis:vis enum $Enum:ident {
        $( $channel:ident of $owner:literal { $( $Name:ident ),* $(,)? } )*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis enum $Enum { $($( #[doc = concat!("`", stringify!($Name), "` of ", $owner, ".")] $Name($Name), )*)* }

        $crate::__message! { $Enum { $($( $Name, $channel, $owner, None, reads; )*)* } }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __message {
    ($Enum:ident { $( $Name:ident, $channel:ident, $owner:literal, $schema:expr, $direction:ident; )* }) => {
        impl $crate::message::Message for $Enum {
            const RECORDS: &'static [$crate::message::RecordType] = &[ $(
                $crate::message::RecordType {
                    owner: $owner,
                    channel: $crate::__channel!($channel),
                    name: stringify!($Name),
                    schema: $schema,
                },
            )* ];

            fn record(&self) -> &'static $crate::message::RecordType {
                let name = match self { $( Self::$Name(_) => stringify!($Name), )* };
                $crate::message::find(Self::RECORDS, name)
            }

            fn read(
                name: &str,
                record: &$crate::datum::RecordReader<'_>,
            ) -> Result<Option<Self>, $crate::datum::CodecError> {
                match name {
                    $( stringify!($Name) => record.read::<$Name>().map(|body| Some(Self::$Name(body))), )*
                    _ => Ok(None),
                }
            }

            fn write(
                &self,
                record: &mut $crate::datum::RecordWriter<'_>,
            ) -> Result<(), $crate::datum::CodecError> {
                match self { $( Self::$Name(body) => $crate::__write!($direction, record, body), )* }
            }
        }

        $( impl From<$Name> for $Enum {
            fn from(body: $Name) -> Self {
                Self::$Name(body)
            }
        } )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __channel {
    (events) => {
        $crate::message::Channel::Events
    };
    (inbox) => {
        $crate::message::Channel::Inbox
    };
    (state) => {
        $crate::message::Channel::State
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __write {
    (writes, $record:ident, $body:ident) => {
        $record.write($body)
    };
    (reads, $record:ident, $body:ident) => {{
        let _ = $body;
        $record.refuse()
    }};
}

/// Finds a record type by its short name. The macros call it only with names that they put into `records`.
#[doc(hidden)]
#[must_use]
pub fn find(records: &'static [RecordType], name: &str) -> &'static RecordType {
    records.iter().find(|record| record.name == name).expect("every variant's record is in its own enum's table")
}
