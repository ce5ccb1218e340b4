//! The runtime of dacapo: the only crate that knows Kafka, the schema registry and the local store.
//!
//! A service is a [`decider::Decider`]. What a worker does when is decided in [`core`], without I/O; this crate executes it on
//! Kafka. It also has what else a service needs: its HTTP API, projections, a publisher, settings, health checks and telemetry.
//!
//! A whole service: the records it consumes and produces, its decider, and its program.
//!
//! ```
//! use runtime::{
//!     Decider, Decision, NoCommand, NoEffect, NoSettings, NothingToPerform, Program, Received, service,
//!     testing::{NOW_MS, Scenario, received},
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! struct CustomerRegistered {
//!     customer_id: String,
//! }
//!
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! struct LoyaltyAccountOpened {
//!     customer_id: String,
//!     occurred_at: i64,
//! }
//!
//! runtime::consumes! { enum Input { events of "customers" { CustomerRegistered } } }
//! runtime::produces! { enum Event in "../schemas" { events of "loyalty" { LoyaltyAccountOpened = 1 } } }
//!
//! /// Opens an account for every registered customer.
//! #[derive(Clone)]
//! struct Loyalty;
//!
//! impl Decider for Loyalty {
//!     const NAME: &'static str = "loyalty";
//!     type State = Option<String>;
//!     type Input = Input;
//!     type Event = Event;
//!     type Command = NoCommand;
//!     type Effect = NoEffect;
//!
//!     fn decide(&self, account: &Option<String>, input: &Received<Input>) -> Decision<Event, NoCommand> {
//!         let Input::CustomerRegistered(CustomerRegistered { customer_id }) = &input.body;
//!         match account {
//!             Some(_) => Decision::nothing(),
//!             None => Decision::event(LoyaltyAccountOpened {
//!                 customer_id: customer_id.clone(),
//!                 occurred_at: input.at_ms,
//!             }),
//!         }
//!     }
//!
//!     fn evolve(&self, _: Option<String>, event: &Event) -> Option<String> {
//!         let Event::LoyaltyAccountOpened(opened) = event;
//!         Some(opened.customer_id.clone())
//!     }
//! }
//!
//! /// A service's `main` is `program().main()`.
//! fn program() -> Program {
//!     Program::new(Loyalty::NAME, "Opens loyalty accounts", |config, _: NoSettings| async move {
//!         Ok(service::start(config, Loyalty, NothingToPerform, axum::Router::new()).await?)
//!     })
//! }
//!
//! // Its rules are tested without Kafka, and its command line without starting it.
//! let registered = received("c-1", CustomerRegistered { customer_id: "c-1".to_owned() });
//! let opened = LoyaltyAccountOpened { customer_id: "c-1".to_owned(), occurred_at: NOW_MS };
//! Scenario::of(Loyalty).when(&registered).then([opened]);
//! assert!(program().command().try_get_matches_from(["loyalty", "--workers", "2"]).is_ok());
//! ```

mod allocator;
pub mod clock;
pub mod codec;
pub mod config;
pub mod edge;
pub mod external_service;
pub mod health;
pub mod http;
pub mod kafka;
pub mod projection;
pub mod publisher;
pub mod registry;
pub mod request;
pub mod schemas;
pub mod service;
pub mod store;
pub mod table;
pub mod telemetry;
pub mod testing;
pub mod unreadable;
pub mod worker;

pub use runtime_core as core;
pub use runtime_core::{consumes, decider, envelope, message, produces};

pub use config::{Args, Config, Secret};
pub use decider::{
    Answer, Decider, Decision, Due, Effect, NoEffect, NothingToPerform, Perform, Received, TimerFired, TimestampMs,
    Unanswered,
};
pub use message::{Channel, Message, NoCommand, RecordType, Written};
pub use service::{NoSettings, Program, Running, start};
