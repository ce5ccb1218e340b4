//! The projector's tests, in one binary: declarations, the fold, the HTTP interface, verification.

mod declaration;
mod fold;
mod http;
mod support;
mod verify;
