//! Pure logic of Megaphone: bytes and the present time in, events and bytes out.
//!
//! Nothing in this crate does I/O, reads a clock or knows the BEAM; the NIF (`megaphone-nif`) and the connection
//! manager (`megaphone-ecm`) are thin shells around it.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`limits`] | every named limit, with its default and reason |
//! | [`bosh`] | BOSH sessions |
//! | [`link`] | the link protocol: frames, hello, incremental decoder |
//! | [`http`] | framing of HTTP/1.1 requests: heads, bodies, rewriting |
//! | [`client`] | one client connection of the connection manager, as a state machine |
//! | [`packet`] | HTTP packets as `erlang:decode_packet/3` has them |
//! | [`peer`] | who a client is: networks, PROXY protocol, forwarded addresses, limits for each address |
//! | [`table`] | the sharded connection table behind the NIF |

#![forbid(unsafe_code)]

pub mod bosh;
pub mod client;
mod cursor;
pub mod http;
pub mod limits;
pub mod link;
pub mod packet;
pub mod peer;
mod slab;
mod stirred;
mod sync;
pub mod table;
pub mod websocket;
pub mod xml;
