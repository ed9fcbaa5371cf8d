//! How the two ends of a link prove to each other that they know the same secret. `docs/protocol.md`, "auth".
//!
//! ```text
//!   ECM                                   ejabberd
//!    │ hello, challenge(nonce) ──▶ ◀── hello, challenge(nonce)
//!    │ proof ─────────────────────────────▶ │ checked first: a stranger gets nothing to guess from
//!    │ ◀───────────────────────────── proof │
//! ```
//!
//! A proof is HMAC-SHA256 over both hellos and both nonces, under a key of its direction: neither a proof of another
//! link nor the other end's own one fits. It does not protect what follows: that is TLS's part.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::decoder::Decoder;
use super::frame::{ErrorCode, Frame};
use super::hello::{Hello, Role};
use crate::limits::{MAX_SECRET, MIN_SECRET};

/// Bytes of a nonce: as many as of the proof, so that none repeats.
pub const NONCE: usize = 32;

const PROOF: usize = 32;
const CHALLENGE_STEP: u8 = 1;
const PROOF_STEP: u8 = 2;
const LABEL: &[u8] = b"Megaphone link 1 proof";
const ECM_KEY: &[u8] = b"Megaphone link 1 key of the ECM";
const EJABBERD_KEY: &[u8] = b"Megaphone link 1 key of ejabberd";

/// What both ends know and nobody else. It shows itself in no debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

/// Why bytes cannot be a secret: how many there are. [`MIN_SECRET`] to [`MAX_SECRET`] are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretLength(pub usize);

impl Secret {
    /// Takes the bytes as they are.
    ///
    /// # Errors
    /// [`SecretLength`].
    pub fn new(bytes: &[u8]) -> Result<Self, SecretLength> {
        if (MIN_SECRET..=MAX_SECRET).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(SecretLength(bytes.len()))
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl fmt::Display for SecretLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a secret has {MIN_SECRET} to {MAX_SECRET} bytes, not {}", self.0)
    }
}

impl core::error::Error for SecretLength {}

/// What one end needs to authenticate a link: the secret, and a nonce that was never used before.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The same at both ends.
    pub secret: Secret,
    /// From the system's generator of random numbers, for this link alone.
    pub nonce: [u8; NONCE],
}

/// Why a link is not opened. The text is for both ends: it says nothing about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// Both ends have the same role.
    Role(Role),
    /// The other end has no secret, this one has.
    Missing(Role),
    /// The other end has a secret, this one has none.
    Unknown(Role),
    /// The other end does not know the secret.
    Wrong(Role),
    /// An auth frame of another shape, or out of order.
    Order,
}

impl AuthError {
    /// The code for the error frame.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Role(_) | Self::Order => ErrorCode::Protocol,
            Self::Missing(_) | Self::Unknown(_) | Self::Wrong(_) => ErrorCode::Auth,
        }
    }
}

const fn name(role: Role) -> &'static str {
    match role {
        Role::Ecm => "the connection manager",
        Role::Ejabberd => "ejabberd",
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Role(Role::Ecm) => f.write_str("both ends of the link are connection managers"),
            Self::Role(Role::Ejabberd) => f.write_str("both ends of the link are ejabberd"),
            Self::Missing(role) => {
                write!(f, "{} demands a secret, and the other end gave none", name(role))
            }
            Self::Unknown(role) => {
                write!(f, "the other end demands a secret, and {} was given none", name(role))
            }
            Self::Wrong(role) => {
                write!(f, "the other end of the link has another secret than {}", name(role))
            }
            Self::Order => f.write_str("auth frame where the protocol does not allow it"),
        }
    }
}

impl core::error::Error for AuthError {}

/// The opening of a link, from either end: hello, and authentication when this end has a secret.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    /// The payload of our hello.
    hello: Vec<u8>,
    /// Our first frames.
    greeting: Vec<u8>,
    credentials: Option<Credentials>,
    /// The other end's, once it is there.
    peer_hello: Option<Vec<u8>>,
    peer_nonce: Option<[u8; NONCE]>,
    peer_window: u32,
}

impl Handshake {
    /// A handshake that begins with `hello`, whose feature bit for authentication is set here.
    #[must_use]
    pub fn new(mut hello: Hello<'_>, credentials: Option<Credentials>) -> Self {
        if credentials.is_some() {
            hello.features |= Hello::AUTH;
        }
        let (role, mut payload, mut greeting) = (hello.role, Vec::new(), Vec::new());
        hello.encode(&mut payload);
        Frame::Hello(hello).encode(&mut greeting);
        if let Some(credentials) = &credentials {
            auth_frame(CHALLENGE_STEP, &credentials.nonce, &mut greeting);
        }
        Self {
            role,
            hello: payload,
            greeting,
            credentials,
            peer_hello: None,
            peer_nonce: None,
            peer_window: 0,
        }
    }

    /// A decoder for what the other end sends. [`Decoder::admit`] must follow when the link is open.
    #[must_use]
    pub fn decoder(&self) -> Decoder {
        if self.credentials.is_some() { Decoder::authenticating() } else { Decoder::new() }
    }

    /// Appends what this end says first, without waiting for the other one.
    pub fn greet(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.greeting);
    }

    /// Takes the other end's hello. `Some`: the link is open, and this is the window of the other end.
    ///
    /// # Errors
    /// [`AuthError`]: the link is to be closed with an error frame that says so.
    pub fn hello(&mut self, hello: &Hello<'_>) -> Result<Option<u32>, AuthError> {
        if hello.role == self.role {
            return Err(AuthError::Role(self.role));
        }
        let mut payload = Vec::new();
        hello.encode(&mut payload);
        self.peer_hello = Some(payload);
        self.peer_window = hello.window;
        match (self.credentials.is_some(), hello.features & Hello::AUTH != 0) {
            (false, false) => Ok(Some(hello.window)),
            (true, true) => Ok(None),
            (true, false) => Err(AuthError::Missing(self.role)),
            (false, true) => Err(AuthError::Unknown(self.role)),
        }
    }

    /// Takes the payload of an auth frame; appends what this end says to it. The result is that of
    /// [`Handshake::hello`].
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn auth(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<Option<u32>, AuthError> {
        let (step, bytes) = payload.split_first().ok_or(AuthError::Order)?;
        let bytes: &[u8; PROOF] = bytes.try_into().map_err(|_| AuthError::Order)?;
        match (*step, self.peer_nonce) {
            (CHALLENGE_STEP, None) => {
                self.peer_nonce = Some(*bytes);
                if self.role == Role::Ecm {
                    self.prove(out)?;
                }
                Ok(None)
            }
            (PROOF_STEP, Some(_)) => {
                let other = if self.role == Role::Ecm { Role::Ejabberd } else { Role::Ecm };
                // Compares in constant time.
                self.proof(other)?.verify(bytes.into()).map_err(|_| AuthError::Wrong(self.role))?;
                if self.role == Role::Ejabberd {
                    self.prove(out)?;
                }
                Ok(Some(self.peer_window))
            }
            _ => Err(AuthError::Order),
        }
    }

    fn prove(&self, out: &mut Vec<u8>) -> Result<(), AuthError> {
        let proof = self.proof(self.role)?.finalize().into_bytes();
        auth_frame(PROOF_STEP, &proof, out);
        Ok(())
    }

    /// What the end with this role has to prove with, computed over everything that was said so far.
    fn proof(&self, prover: Role) -> Result<Hmac<Sha256>, AuthError> {
        let (Some(own), Some(peer_hello), Some(peer_nonce)) =
            (&self.credentials, &self.peer_hello, &self.peer_nonce)
        else {
            return Err(AuthError::Order);
        };
        let label = if prover == Role::Ecm { ECM_KEY } else { EJABBERD_KEY };
        // The secret is the message: as a key it would be filled up with zeros, and others would be its equal.
        let key = keyed(label).chain_update(&own.secret.0).finalize().into_bytes();
        let (mine, theirs) = ((&self.hello, &own.nonce), (peer_hello, peer_nonce));
        let (ecm, ejabberd) = if self.role == Role::Ecm { (mine, theirs) } else { (theirs, mine) };
        let mut mac = keyed(&key).chain_update(LABEL).chain_update([prover.code()]);
        for (hello, nonce) in [ecm, ejabberd] {
            // A hello is at most 79 bytes long.
            mac = mac.chain_update([hello.len() as u8]).chain_update(hello).chain_update(nonce);
        }
        Ok(mac)
    }
}

/// HMAC takes a key of any length.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"))
}

fn auth_frame(step: u8, bytes: &[u8], out: &mut Vec<u8>) {
    let mut payload = [0; 1 + PROOF];
    payload[0] = step;
    payload[1..].copy_from_slice(bytes);
    Frame::Auth(&payload).encode(out);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "auth_tests.rs"]
mod tests;
