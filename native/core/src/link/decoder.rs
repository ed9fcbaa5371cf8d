//! Splits the byte stream of a link into frames, whatever the pieces it arrives in.

use super::LENGTH_OVERHEAD;
use super::frame::frame_type::{AUTH, ERROR, HELLO};
use super::frame::{Frame, FrameError};
use super::hello::Hello;
use crate::limits::{MAX_AUTH_PAYLOAD, MAX_PAYLOAD};

/// Incremental frame decoder, one for each direction of a link.
///
/// Holds the input that has not been taken yet: at most one partial frame beyond what the caller pushed since it last
/// took everything. It also enforces that hello comes first, and once. After an error it stays at the error: a stream
/// that lost its frame borders cannot be resumed.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were already given out.
    taken: usize,
    stage: Stage,
    /// Hello is followed by authentication.
    authenticates: bool,
    failed: Option<FrameError>,
}

/// What may come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Hello,
    /// Only auth, and an error frame that says why there will be no link.
    Auth,
    /// Everything else.
    Open,
}

impl Decoder {
    /// An empty decoder that waits for hello.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty decoder that waits for hello, and then lets only authentication through until [`Decoder::admit`].
    #[must_use]
    pub fn authenticating() -> Self {
        Self { authenticates: true, ..Self::default() }
    }

    /// Authentication is done: all other frames may come from now on.
    pub fn admit(&mut self) {
        self.authenticates = false;
        self.stage = Stage::Open;
    }

    /// Takes nothing any more: the link ends because of what was taken before.
    pub fn close(&mut self) {
        self.failed = Some(FrameError::Unauthenticated);
        self.buffer = Vec::new();
        self.taken = 0;
    }

    /// Appends input. Costs a copy of it; bytes given out before are dropped here.
    pub fn push(&mut self, input: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(input);
    }

    /// The next complete frame, or `None` when more input is needed.
    ///
    /// # Errors
    /// [`FrameError`]; from then on every call returns the same one. A bad length is reported as soon as its four
    /// bytes are there, so a peer cannot make this end wait for, or allocate, a frame that will be refused.
    #[allow(clippy::should_implement_trait)] // the frame borrows from the decoder, which Iterator cannot say
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match take(&self.buffer[self.taken..], self.stage) {
            Ok(None) => Ok(None),
            Ok(Some((frame, used))) => {
                self.taken += used;
                if self.stage == Stage::Hello {
                    self.stage = if self.authenticates { Stage::Auth } else { Stage::Open };
                }
                Ok(Some(frame))
            }
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    /// Bytes held that have not been given out.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// Gives memory back when nothing is held.
    pub fn release(&mut self) {
        if self.pending() == 0 {
            self.buffer = Vec::new();
            self.taken = 0;
        }
    }
}

/// One frame from the start of `input`, and how many bytes it took.
fn take(input: &[u8], stage: Stage) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((length, rest)) = input.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    let kind = rest.first();
    check_length(length, kind, stage)?;
    let Some(body) = rest.get(..length as usize) else {
        return Ok(None);
    };
    let frame = Frame::parse(body)?;
    let allowed = match frame {
        Frame::Hello(Hello { .. }) => stage == Stage::Hello,
        Frame::Auth(_) => stage == Stage::Auth,
        _ => true,
    };
    if allowed { Ok(Some((frame, 4 + length as usize))) } else { Err(FrameError::HelloOrder(frame.name())) }
}

/// Judges a frame by its first bytes, before any of the rest is waited for.
fn check_length(length: u32, kind: Option<&u8>, stage: Stage) -> Result<(), FrameError> {
    let most = if stage == Stage::Open { MAX_PAYLOAD } else { MAX_AUTH_PAYLOAD };
    let possible = (LENGTH_OVERHEAD..=most + LENGTH_OVERHEAD).contains(&(length as usize));
    match stage {
        // Something that is not Megaphone at all (HTTP, TLS, XMPP) is called so, at once.
        Stage::Hello if !possible || kind.is_some_and(|kind| *kind != HELLO) => Err(FrameError::NotMegaphone),
        Stage::Auth if !possible || kind.is_some_and(|kind| ![HELLO, AUTH, ERROR].contains(kind)) => {
            Err(FrameError::Unauthenticated)
        }
        _ if (length as usize) < LENGTH_OVERHEAD => Err(FrameError::TooShort(length)),
        _ if !possible => Err(FrameError::TooLong(length)),
        _ => Ok(()),
    }
}
