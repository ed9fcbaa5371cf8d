//! WebSockets (RFC 6455) of XMPP clients (RFC 7395): handshake and frames. What a connection does with them is in
//! [`client`](crate::client).
//!
//! Headers of frames and the handshake's key are read and written by the crate `tungstenite`. Its connections hold buffers
//! of their own for as long as they live (128 kB unless told otherwise), so only what holds nothing is used of it.

pub mod frame;
pub mod handshake;

pub use frame::{Frame, FrameKind, Violation};
pub use handshake::{Offer, OfferError};
