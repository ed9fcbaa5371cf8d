//! Chat users for measurements: each logs in over BOSH, WebSocket or TCP and stays, and all of them may send messages
//! to each other. One thread drives many of them; [`engine::Engine`] is the place to begin reading.

#![forbid(unsafe_code)]

pub mod bosh;
pub mod connection;
pub mod engine;
pub mod http;
pub mod order;
pub mod scram;
pub mod session;
pub mod talk;
pub mod transport;
pub mod user;
pub mod websocket;
pub mod xml;
