//! BOSH (XEP-0124 1.11) and XMPP over it (XEP-0206 1.4), the side of the server: one state machine a session, and the table
//! of them.
//!
//! ```text
//! HTTP request ── Request::parse ──▶ Session::request ──▶ elements for the client session (Session::activate)
//!                                        │
//!              what it sends ── Session::send ──▶ Answer to the oldest request that is held
//! ```
//!
//! A [`Session`] knows neither connections nor processes: who waits for an answer is a ticket of the caller's. It has no
//! clock: each call is given the milliseconds since some moment, and [`Session::deadline`] says when it wants to be called again.
//!
//! * `sid`: names of sessions
//! * `request`: the attributes of a `<body/>`
//! * `answer`: the texts of answers
//! * `outbox`: what was sent and is not answered with yet
//! * `session`: the machine
//! * `pending`: how many have not logged in
//! * `sessions`: all of them, with their timers

mod answer;
mod outbox;
mod pending;
mod request;
mod session;
mod sessions;
mod sid;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use answer::{Condition, EMPTY, terminated};
pub use outbox::Item;
pub use request::{Request, RequestError, Version};
pub use session::{Activated, Begin, Effect, Effects, Inbound, Session, Settings};
pub use sessions::{Ended, Entry, Sessions, SocketId};
pub use sid::Sid;

/// The version of XEP-0124 that this is.
pub const BOSH_VERSION: Version = Version { major: 1, minor: 11 };

/// The namespace of `<body/>`.
pub const NAMESPACE: &str = "http://jabber.org/protocol/httpbind";
