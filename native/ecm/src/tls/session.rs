//! One TLS connection: records in and out, on top of a socket that does not block. Buffers exist only while something
//! is in them.

use std::io::{self, Write};
use std::sync::Arc;

use megaphone_core::limits;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError};
use rustls::{Error, ServerConfig};

use super::output::{encode, write_some};

/// Buffers that all sessions use in turn; empty between two calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// What was decrypted.
    pub(crate) plain: Vec<u8>,
    /// Records to be sent.
    cipher: Vec<u8>,
}

/// What only a busy session has.
#[derive(Debug, Default)]
struct Held {
    /// The beginning of a record.
    incoming: Vec<u8>,
    /// Decrypted bytes that the client's state machine did not take yet.
    plain: Vec<u8>,
    /// Records that the socket did not take.
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that were written.
    written: usize,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    /// The handshake failed: the reason is written, and what comes is dropped.
    Refused(u8),
}

/// What is to be done when the session can send.
#[derive(Clone, Copy)]
enum Then<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    CloseNotify,
}

/// The TLS state of one client connection.
pub(crate) struct Session {
    connection: UnbufferedServerConnection,
    /// Dropped whenever there is nothing in it.
    held: Option<Box<Held>>,
    /// Finds its time limit while in a handshake; 0 when that is over.
    pub(super) turn: u64,
    phase: Phase,
    /// The client has said that it sends nothing more.
    closed_by_peer: bool,
    /// rustls has reported an error, and must not be asked again.
    broken: bool,
    /// Our end of the stream is to be closed when all is written.
    ending: bool,
}

impl Session {
    pub(super) fn new(config: &Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(Arc::clone(config))?,
            held: None,
            turn: 0,
            phase: Phase::Handshake,
            closed_by_peer: false,
            broken: false,
            ending: false,
        })
    }

    /// Whether data may not be exchanged yet, or never will be.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Whether the client has ended its stream by close_notify.
    pub(crate) fn is_closed_by_peer(&self) -> bool {
        self.closed_by_peer
    }

    /// Bytes of heap memory in buffers.
    pub(crate) fn heap(&self) -> usize {
        self.held.as_ref().map_or(0, |held| {
            size_of::<Held>() + held.incoming.capacity() + held.plain.capacity() + held.outgoing.capacity()
        })
    }

    /// Bytes of records that the socket did not take.
    pub(crate) fn pending(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.outgoing.len() - held.written)
    }

    /// Bytes of an unfinished record.
    pub(crate) fn unfinished(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.incoming.len())
    }

    /// Whether there are decrypted bytes to be taken.
    pub(crate) fn has_plain(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.plain.is_empty())
    }

    /// Moves decrypted bytes, at most `most`, to the end of `to`.
    pub(crate) fn take_plain(&mut self, most: usize, to: &mut Vec<u8>) {
        if let Some(held) = &mut self.held {
            let count = held.plain.len().min(most);
            to.extend(held.plain.drain(..count));
            self.settle();
        }
    }

    /// Keeps decrypted bytes that nobody takes now.
    pub(crate) fn keep_plain(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.held().plain.extend_from_slice(bytes);
        }
    }

    /// Takes bytes from the socket. What they hold is appended to `scratch.plain`; what is to be answered is written.
    ///
    /// # Errors
    /// The client broke the protocol, or the two have nothing in common: it was sent an alert. Or the socket failed.
    /// No bytes pass any more then.
    pub(crate) fn receive(
        &mut self,
        bytes: &mut [u8],
        stream: &mut impl Write,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let mut incoming =
            self.held.as_mut().map(|held| std::mem::take(&mut held.incoming)).unwrap_or_default();
        let result = if incoming.is_empty() {
            let result = self.work(bytes, scratch, Then::Nothing);
            incoming = bytes[*result.as_ref().unwrap_or(&bytes.len())..].to_vec();
            result
        } else {
            incoming.extend_from_slice(bytes);
            let result = self.work(&mut incoming, scratch, Then::Nothing);
            incoming.drain(..*result.as_ref().unwrap_or(&incoming.len()));
            result
        };
        let too_long = incoming.len() > limits::TLS_RECORD;
        if !incoming.is_empty() && !too_long {
            self.held().incoming = incoming;
        }
        let sent = self.send(stream, scratch);
        self.settle();
        result?;
        sent.map_err(|error| Error::General(error.to_string()))?;
        if too_long {
            return Err(Error::General("a message longer than a record".to_owned()));
        }
        if self.phase == Phase::Handshake && !self.connection.is_handshaking() {
            self.phase = Phase::Open;
        }
        Ok(())
    }

    /// Encrypts and writes as much as may be: nothing while an earlier record waits, else one record at most, of which
    /// the socket may leave a part here. Answers how many bytes were accepted.
    ///
    /// # Errors
    /// The socket failed, or the keys are used up.
    pub(crate) fn write(
        &mut self,
        bytes: &[u8],
        stream: &mut impl Write,
        scratch: &mut Scratch,
    ) -> io::Result<usize> {
        if self.phase != Phase::Open || self.ending || bytes.is_empty() || !self.flush(stream)? {
            return Ok(0);
        }
        let take = bytes.len().min(limits::DATA_CHUNK);
        self.put(Then::Encrypt(&bytes[..take]), stream, scratch)?;
        Ok(take)
    }

    /// Says that nothing more comes. Answers whether all is written: the socket's end may be closed; else
    /// [`Session::flush`] will answer that.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub(crate) fn close(&mut self, stream: &mut impl Write, scratch: &mut Scratch) -> io::Result<bool> {
        if self.phase == Phase::Open && !self.ending && !self.broken {
            self.put(Then::CloseNotify, stream, scratch)?;
        }
        self.ending = true;
        Ok(self.pending() == 0)
    }

    /// Writes what waits; answers whether nothing is left.
    ///
    /// # Errors
    /// The socket failed.
    pub(crate) fn flush(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        let Some(held) = &mut self.held else { return Ok(true) };
        held.written += write_some(stream, &held.outgoing[held.written..])?;
        let done = held.written == held.outgoing.len();
        if done {
            held.outgoing = Vec::new();
            held.written = 0;
            self.settle();
        }
        Ok(done)
    }

    /// Whether the socket's end is to be closed as soon as nothing waits.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending
    }

    /// There will be no session. `reason` is written as it is, in plain text; an alert was written before.
    ///
    /// # Errors
    /// The socket failed.
    pub(crate) fn refuse(&mut self, reason: &[u8], stream: &mut impl Write) -> io::Result<bool> {
        self.phase = Phase::Refused(0);
        self.ending = true;
        if !reason.is_empty() {
            self.held().outgoing.extend_from_slice(reason);
        }
        self.flush(stream)
    }

    /// Whether the handshake failed, and the client's end is awaited.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.phase, Phase::Refused(_))
    }

    /// Counts a read whose bytes are dropped, if it is that; `None`: there have been enough.
    pub(crate) fn drops(&mut self) -> Option<bool> {
        match &mut self.phase {
            Phase::Refused(reads) if *reads >= limits::REFUSED_READS => None,
            Phase::Refused(reads) => {
                *reads += 1;
                Some(true)
            }
            _ => Some(false),
        }
    }

    /// Whether no byte has come yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.phase == Phase::Handshake && self.unfinished() == 0
    }

    /// Version and cipher, for the log.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{:?}, {:?}, {:?}",
            self.connection.protocol_version(),
            self.connection.negotiated_cipher_suite().map(|suite| suite.suite()),
            self.connection.handshake_kind()
        )
    }

    fn put(&mut self, then: Then<'_>, stream: &mut impl Write, scratch: &mut Scratch) -> io::Result<()> {
        let mut incoming =
            self.held.as_mut().map(|held| std::mem::take(&mut held.incoming)).unwrap_or_default();
        // None of it is a whole record, or it would have been decrypted when it came; so none of it is used.
        let used = self.work(&mut incoming, scratch, then).map_err(io::Error::other)?;
        incoming.drain(..used);
        if !incoming.is_empty() {
            self.held().incoming = incoming;
        }
        self.send(stream, scratch)
    }

    /// Lets rustls work on `input` until it needs more; answers how many bytes it used.
    fn work(&mut self, input: &mut [u8], scratch: &mut Scratch, then: Then<'_>) -> Result<usize, Error> {
        if self.broken {
            return Err(Error::General("the session is broken".to_owned()));
        }
        let result = self.work_on(input, scratch, then);
        self.broken = result.is_err();
        result
    }

    fn work_on(&mut self, input: &mut [u8], scratch: &mut Scratch, then: Then<'_>) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let status = self.connection.process_tls_records(&mut input[used..]);
            let mut discard = status.discard;
            let mut done = false;
            match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        scratch.plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut scratch.cipher, 0, |out| {
                    data.encode(out).map_err(|error| match error {
                        EncodeError::InsufficientSize(size) => Some(size.required_size),
                        EncodeError::AlreadyEncoded => None,
                    })
                })?,
                // It is in `scratch.cipher`, which will be written.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.closed_by_peer = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => done = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let size = |error| match error {
                        EncryptError::InsufficientSize(size) => Some(size.required_size),
                        EncryptError::EncryptExhausted => None,
                    };
                    let out = &mut scratch.cipher;
                    match then {
                        Then::Nothing => {}
                        Then::Encrypt(bytes) => {
                            encode(out, bytes.len() + 64, |out| traffic.encrypt(bytes, out).map_err(size))?;
                        }
                        Then::CloseNotify => {
                            encode(out, 64, |out| traffic.queue_close_notify(out).map_err(size))?;
                        }
                    }
                    done = true;
                }
                // Early data, which is not offered.
                Ok(_) => return Err(Error::General("an unexpected state of TLS".to_owned())),
                Err(error) => {
                    self.encode_alert(input.get_mut(used + discard..).unwrap_or_default(), scratch);
                    return Err(error);
                }
            }
            used += discard;
            if done {
                return Ok(used);
            }
        }
    }

    /// After an error: what rustls has queued, and nothing else. Asked for more it would go on with the bytes that it
    /// refused, so it gets exactly those that follow.
    fn encode_alert(&mut self, rest: &mut [u8], scratch: &mut Scratch) {
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(rest);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { return };
            let encoded = encode(&mut scratch.cipher, 64, |out| {
                data.encode(out).map_err(|error| match error {
                    EncodeError::InsufficientSize(size) => Some(size.required_size),
                    EncodeError::AlreadyEncoded => None,
                })
            });
            if encoded.is_err() {
                return;
            }
        }
    }

    /// Writes `scratch.cipher`, behind what waits; keeps what the socket does not take.
    fn send(&mut self, stream: &mut impl Write, scratch: &mut Scratch) -> io::Result<()> {
        let cipher = &mut scratch.cipher;
        let result = if cipher.is_empty() {
            Ok(())
        } else if self.pending() > 0 {
            self.held().outgoing.extend_from_slice(cipher);
            self.flush(stream).map(|_| ())
        } else {
            write_some(stream, cipher).map(|count| {
                if count < cipher.len() {
                    self.held().outgoing.extend_from_slice(&cipher[count..]);
                }
            })
        };
        cipher.clear();
        result
    }

    fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_with(Box::default)
    }

    /// Gives the memory back when nothing is in it.
    fn settle(&mut self) {
        if self
            .held
            .as_ref()
            .is_some_and(|held| held.incoming.is_empty() && held.plain.is_empty() && held.outgoing.is_empty())
        {
            self.held = None;
        }
    }
}
