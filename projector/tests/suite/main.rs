//! The projector's tests, in one binary: declarations, the fold, the HTTP interface, verification, and all of it on a broker.

mod declaration;
mod fold;
mod http;
mod on_kafka;
mod support;
mod verify;
