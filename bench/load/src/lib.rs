//! Chat users for measurements: each logs in over BOSH, WebSocket or TCP and stays, and all of them may send messages
//! to each other or ask the server. One thread drives many of them; [`engine::Engine`] is the place to begin reading.
//! And clients that are none, [`clients::Clients`]: connections with an HTTP request now and then; and users without
//! connections, [`million`]: very many of them.

#![forbid(unsafe_code)]

pub mod bosh;
pub mod clients;
pub mod connection;
pub mod control;
pub mod engine;
pub mod http;
pub mod million;
pub mod order;
pub mod ping;
pub mod scram;
pub mod session;
pub mod talk;
pub mod tls;
pub mod transport;
pub mod user;
pub mod websocket;
pub mod xml;
