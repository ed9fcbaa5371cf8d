//! Incremental decoder of chunked bodies (RFC 9112, 7.1). Extensions and trailer fields are read over and dropped.

use std::fmt;

use crate::limits;

/// Where the decoder stands between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size of a chunk: its value so far and how many digits there were.
    Size(u64, u8),
    /// In a chunk extension, after the size.
    Extension(u64),
    /// After the CR that ends a size line.
    SizeEnd(u64),
    /// In the data of a chunk: so many bytes to come.
    Data(u64),
    /// After the data of a chunk.
    DataCr,
    DataLf,
    /// At the first byte of a trailer line.
    TrailerStart,
    /// Within a trailer line.
    Trailer,
    TrailerLf,
    /// After the CR of the last, empty line.
    LastLf,
    Done,
}

/// Decoder of one chunked body. It holds no bytes of the body.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of extensions and trailer fields so far.
    overhead: usize,
}

/// Why a chunked body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkError {
    /// Not the grammar of RFC 9112, 7.1.
    Malformed,
    /// The decoded body would be longer than its limit.
    TooLarge,
    /// Extensions or trailer fields are longer than [`limits::MAX_CHUNK_OVERHEAD`].
    Overhead,
}

impl ChunkError {
    /// The HTTP status that answers this error.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge => 413,
            Self::Overhead => 431,
        }
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed chunked body",
            Self::TooLarge => "chunked request body too large",
            Self::Overhead => "too many chunk extensions or trailer fields",
        })
    }
}

impl std::error::Error for ChunkError {}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of a body.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Size(0, 0), overhead: 0 }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes from the start of `input`, appends the body's bytes to `out`, and answers how many bytes of `input`
    /// belong to the body: all of them unless the body ends within. `out` never grows beyond `limit`.
    ///
    /// # Errors
    /// [`ChunkError`]; the decoder is of no use then.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<usize, ChunkError> {
        let mut at = 0;
        while at < input.len() && !self.is_done() {
            if let State::Data(left) = self.state {
                // As much as both the chunk and the input have; a chunk beyond usize is longer than any input.
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                out.extend_from_slice(&input[at..at + take]);
                at += take;
                let left = left - take as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
            } else {
                self.state = self.step(input[at], out.len(), limit)?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8, have: usize, limit: usize) -> Result<State, ChunkError> {
        Ok(match (self.state, byte) {
            (State::Size(_, 1..), b'\r') => State::SizeEnd(self.size()),
            (State::Size(_, 1..), b';') => State::Extension(self.size()),
            (State::Size(size, digits), _) => {
                let digit = (byte as char).to_digit(16).ok_or(ChunkError::Malformed)?;
                if digits >= MAX_DIGITS {
                    return Err(ChunkError::Malformed);
                }
                // 16 digits fit 64 bits, so the shift loses nothing.
                State::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), _) => {
                self.count(byte)?;
                State::Extension(size)
            }
            (State::SizeEnd(0), b'\n') => State::TrailerStart,
            (State::SizeEnd(size), b'\n') => {
                let room = limit.saturating_sub(have) as u64;
                if size > room {
                    return Err(ChunkError::TooLarge);
                }
                State::Data(size)
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0, 0),
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, _) => {
                self.count(byte)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(ChunkError::Malformed),
        })
    }

    fn size(&self) -> u64 {
        match self.state {
            State::Size(size, _) => size,
            _ => 0,
        }
    }

    /// Counts a byte that is dropped; control characters have no place in one.
    fn count(&mut self, byte: u8) -> Result<(), ChunkError> {
        if byte.is_ascii_control() && byte != b'\t' {
            return Err(ChunkError::Malformed);
        }
        self.overhead += 1;
        if self.overhead > limits::MAX_CHUNK_OVERHEAD {
            return Err(ChunkError::Overhead);
        }
        Ok(())
    }
}

/// Hexadecimal digits of 64 bits.
const MAX_DIGITS: u8 = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(input: &[u8], limit: usize) -> Result<(Vec<u8>, usize, bool), ChunkError> {
        let (mut decoder, mut out) = (Decoder::new(), Vec::new());
        let used = decoder.decode(input, &mut out, limit)?;
        Ok((out, used, decoder.is_done()))
    }

    #[test]
    fn decodes_chunks_extensions_and_trailers() {
        let input = b"5\r\nhello\r\n00A;x=\"y z\"\r\n0123456789\r\n0;e\r\nTrailer: x\r\nOther: y\r\n\r\nNEXT";
        let (out, used, done) = decode(input, 15).unwrap();
        assert_eq!(out, b"hello0123456789");
        assert!(done);
        assert_eq!(&input[used..], b"NEXT");
    }

    #[test]
    fn refuses_what_is_not_the_grammar() {
        for input in [
            "\r\n",
            ";x\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\rx",
            "1\r\naX",
            "1\r\na\rX",
            "1\r\na\n",
            "0\r\n\n",
            "0\r\nA: b\n",
            "0\r\nA\x00",
            "1;\x01",
            "00000000000000001",
            "1\r\n\r\n\r\n\r\n",
        ] {
            assert_eq!(decode(input.as_bytes(), 100).unwrap_err(), ChunkError::Malformed, "{input:?}");
        }
    }

    #[test]
    fn holds_the_limit() {
        for (limit, expected) in [(4, Err(ChunkError::TooLarge)), (5, Ok(())), (6, Ok(()))] {
            let got = decode(b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", limit).map(|_| ());
            assert_eq!(got, expected);
        }
        assert_eq!(decode(b"ffffffffffffffff\r\n", 100).unwrap_err(), ChunkError::TooLarge);
        for (length, refused) in [(0, false), (1, true)] {
            let text = format!("1;{}", "x".repeat(limits::MAX_CHUNK_OVERHEAD + length));
            assert_eq!(decode(text.as_bytes(), 9).is_err(), refused);
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(body in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..40) {
            let mut wire = Vec::new();
            for chunk in body.chunks(size) {
                wire.extend_from_slice(format!("{:x};a=b\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nT: x\r\n\r\n");
            for cut in 0..=wire.len() {
                let (mut decoder, mut out) = (Decoder::new(), Vec::new());
                prop_assert_eq!(decoder.decode(&wire[..cut], &mut out, 300).unwrap(), cut);
                prop_assert_eq!(decoder.is_done(), cut == wire.len());
                decoder.decode(&wire[cut..], &mut out, 300).unwrap();
                prop_assert!(decoder.is_done());
                prop_assert_eq!(&out, &body);
            }
        }

        #[test]
        fn never_panics_nor_exceeds(input in proptest::collection::vec(any::<u8>(), 0..100), limit in 0_usize..50) {
            let (mut decoder, mut out) = (Decoder::new(), Vec::new());
            let _ = decoder.decode(&input, &mut out, limit);
            prop_assert!(out.len() <= limit);
        }
    }
}
