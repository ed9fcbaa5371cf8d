//! The link protocol: one implementation for both ends. `docs/protocol.md` describes it byte by byte.
//!
//! * [`frame`]: the frames, their encoding and checked parsing
//! * [`hello`]: the opening of a link: version, role, window
//! * [`auth`]: how both ends prove that they know the same secret
//! * [`decoder`]: splits a byte stream, cut anywhere, into frames
//! * [`messages`]: what travels on connections of kind XMPP

pub mod auth;
pub mod decoder;
pub mod frame;
pub mod hello;
pub mod messages;

pub use auth::{AuthError, Credentials, Handshake, Secret};
pub use decoder::Decoder;
pub use frame::{CloseReason, ErrorCode, Frame, FrameError, Kind, Open, ReadyMode};
pub use hello::{Hello, Role, VERSION};

/// Bytes of a frame before its payload: length (4), type (1), connection id (8).
pub const HEADER: usize = 13;

/// Bytes that the length field counts besides the payload: type and connection id.
pub const LENGTH_OVERHEAD: usize = 9;
