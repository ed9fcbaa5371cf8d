//! What travels on a virtual connection of kind XMPP: in each direction a stream of messages, cut into data frames
//! wherever that is convenient.
//!
//! ```text
//! message:  length (4, big-endian, not 0)  text of so many bytes
//! fault:    0 (4)  code (1)                 only from the connection manager, and nothing follows it
//! ```
//!
//! A message is one complete text message of a WebSocket (RFC 7395, 3.2). A fault says in its place among the messages
//! why the client is not read any more.

/// Bytes before the text of a message.
pub const MESSAGE_HEADER: usize = 4;

/// Bytes of a fault.
pub const FAULT_LEN: usize = 5;

/// Why the connection manager reads a client no more. ejabberd ends the stream with the matching stream error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A message is longer than allowed.
    TooBig,
    /// A message is not of text.
    Binary,
    /// A text is not UTF-8.
    Encoding,
    /// A message was begun and not completed in time.
    Timeout,
    /// What the client sent is not the WebSocket protocol.
    Protocol,
}

impl Fault {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::TooBig => 1,
            Self::Binary => 2,
            Self::Encoding => 3,
            Self::Timeout => 4,
            Self::Protocol => 5,
        }
    }

    /// From the number on the wire; one that this version does not know is read as the general one.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::TooBig,
            2 => Self::Binary,
            3 => Self::Encoding,
            4 => Self::Timeout,
            _ => Self::Protocol,
        }
    }

    /// The five bytes.
    #[must_use]
    pub const fn encode(self) -> [u8; FAULT_LEN] {
        [0, 0, 0, 0, self.code()]
    }
}

/// What stands before the text of a message.
#[must_use]
pub const fn header(length: u32) -> [u8; MESSAGE_HEADER] {
    length.to_be_bytes()
}

/// What begins at the start of some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A message; its text has so many bytes, which are still to come.
    Message(u32),
    /// A fault.
    Fault(Fault),
}

impl Head {
    /// Reads what begins at the start of `input`; `None`: it is too short to tell.
    #[must_use]
    pub fn parse(input: &[u8]) -> Option<Self> {
        match (input.split_first_chunk::<MESSAGE_HEADER>()?, input.get(MESSAGE_HEADER)) {
            (([0, 0, 0, 0], _), None) => None,
            (([0, 0, 0, 0], _), Some(&code)) => Some(Self::Fault(Fault::from_code(code))),
            ((length, _), _) => Some(Self::Message(u32::from_be_bytes(*length))),
        }
    }
}

/// A part of a stream of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A message begins, with a text of so many bytes.
    Begin(u32),
    /// The next bytes of its text, at least one.
    Text {
        /// The bytes.
        bytes: &'a [u8],
        /// They are the last ones.
        last: bool,
    },
    /// A fault: nothing is to follow.
    Fault(Fault),
}

/// Reads a stream of messages as it comes, without holding more than a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reader {
    header: [u8; MESSAGE_HEADER],
    /// Bytes of `header` that are there.
    have: u8,
    /// Bytes of the current text that are still to come.
    left: u32,
}

impl Reader {
    /// Whether nothing of a message was read that is not complete.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// The next part of `input`, which is cut by what was read. `None`: all of it was read.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Part<'a>> {
        if self.left > 0 {
            return self.text(input);
        }
        while usize::from(self.have) < MESSAGE_HEADER {
            let (byte, rest) = input.split_first()?;
            self.header[usize::from(self.have)] = *byte;
            self.have += 1;
            *input = rest;
        }
        let length = u32::from_be_bytes(self.header);
        if length > 0 {
            (self.have, self.left) = (0, length);
            return Some(Part::Begin(length));
        }
        let (code, rest) = input.split_first()?;
        self.have = 0;
        *input = rest;
        Some(Part::Fault(Fault::from_code(*code)))
    }

    fn text<'a>(&mut self, input: &mut &'a [u8]) -> Option<Part<'a>> {
        if input.is_empty() {
            return None;
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let (bytes, rest) = input.split_at(count);
        *input = rest;
        self.left -= count as u32; // count <= left
        Some(Part::Text { bytes, last: self.left == 0 })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"\0\0\0\x03abc\0\0\0\x01d\0\0\0\0\x02";

    /// What is read of the stream, with the texts joined.
    fn read(pieces: &[&[u8]]) -> (Vec<String>, Reader) {
        let (mut reader, mut said, mut text) = (Reader::default(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut input = *piece;
            while let Some(part) = reader.next(&mut input) {
                match part {
                    Part::Begin(length) => said.push(format!("{length}")),
                    Part::Text { bytes, last } => {
                        assert!(!bytes.is_empty());
                        text.extend_from_slice(bytes);
                        if last {
                            said.push(String::from_utf8(std::mem::take(&mut text)).unwrap());
                        }
                    }
                    Part::Fault(fault) => said.push(format!("{fault:?}")),
                }
            }
            assert!(input.is_empty());
        }
        (said, reader)
    }

    #[test]
    fn a_stream_reads_the_same_wherever_it_is_cut() {
        for cut in 0..=STREAM.len() {
            for second in cut..=STREAM.len() {
                let (said, reader) = read(&[&STREAM[..cut], &STREAM[cut..second], &STREAM[second..]]);
                assert_eq!(said, ["3", "abc", "1", "d", "Binary"]);
                assert!(reader.is_between());
            }
        }
    }

    #[test]
    fn an_unfinished_message_is_told_from_none() {
        let ends: Vec<usize> =
            (0..=STREAM.len()).filter(|end| read(&[&STREAM[..*end]]).1.is_between()).collect();
        assert_eq!(ends, [0, 7, 12, 17]);
    }

    #[test]
    fn a_head_is_read_as_soon_as_it_is_there() {
        assert_eq!(Head::parse(b""), None);
        assert_eq!(Head::parse(b"\0\0\0"), None);
        assert_eq!(Head::parse(b"\0\0\0\0"), None);
        assert_eq!(Head::parse(b"\0\0\x01\0"), Some(Head::Message(256)));
        for fault in [Fault::TooBig, Fault::Binary, Fault::Encoding, Fault::Timeout, Fault::Protocol] {
            assert_eq!(Head::parse(&fault.encode()), Some(Head::Fault(fault)));
        }
        assert_eq!(Head::parse(b"\0\0\0\0\xff"), Some(Head::Fault(Fault::Protocol)));
    }
}
