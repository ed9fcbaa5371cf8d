//! Splits the byte stream of a link into frames, whatever the pieces it arrives in.

use super::LENGTH_OVERHEAD;
use super::frame::{Frame, FrameError};
use super::hello::Hello;
use crate::limits::MAX_PAYLOAD;

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
    greeted: bool,
    failed: Option<FrameError>,
}

impl Decoder {
    /// An empty decoder that waits for hello.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
        match take(&self.buffer[self.taken..], self.greeted) {
            Ok(None) => Ok(None),
            Ok(Some((frame, used))) => {
                self.taken += used;
                self.greeted = true;
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
fn take(input: &[u8], greeted: bool) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((length, rest)) = input.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    let possible = (LENGTH_OVERHEAD..=MAX_PAYLOAD + LENGTH_OVERHEAD).contains(&(length as usize));
    // The first frame is judged by its first bytes: something that is not Megaphone at all (HTTP, TLS, XMPP) is
    // called so, at once.
    if !greeted && (!possible || rest.first().is_some_and(|kind| *kind != 1)) {
        return Err(FrameError::NotMegaphone);
    }
    if (length as usize) < LENGTH_OVERHEAD {
        return Err(FrameError::TooShort(length));
    }
    if length as usize > MAX_PAYLOAD + LENGTH_OVERHEAD {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = rest.get(..length as usize) else {
        return Ok(None);
    };
    let frame = Frame::parse(body)?;
    match frame {
        Frame::Hello(Hello { .. }) if greeted => Err(FrameError::HelloOrder("hello")),
        Frame::Auth(_) => Err(FrameError::HelloOrder("auth")),
        _ => Ok(Some((frame, 4 + length as usize))),
    }
}
