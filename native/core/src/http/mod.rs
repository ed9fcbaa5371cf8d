//! Framing of HTTP/1.1 requests: where a head ends, what it asks of the connection, how its body is delimited.
//!
//! Everything here is strict (RFC 9112): what two parsers could read differently is refused, never repaired, so that
//! the connection manager and the node can never disagree about where a request ends.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`head`] | finds and checks one request head |
//! | [`rewrite`] | writes a checked head anew, for the node |
//! | [`chunked`] | incremental decoder of chunked bodies |
//! | [`response`] | the answers that the connection manager gives itself |

pub mod chunked;
pub mod head;
pub mod response;
pub mod rewrite;

pub use head::{Body, Head, HeadError, HeadLimits, parse, parse_within};
