//! A client that speaks XMPP over a WebSocket (RFC 7395): messages to the node and back, pings, and every end.
//!
//! ```text
//!   Socket ◀──any byte── Pinged ──nothing for a while──▶ Closed
//!     │ └──silence, ping──▶ │
//!     └─fault told to the node─▶ Deaf ──the node closes, or is late──▶ Flush
//!   any ──the client's close frame, the node's close, a lost link──▶ Flush
//! ```
//!
//! Between messages such a client owns no heap memory. `Client::requests`, which means nothing here, holds the code with
//! which the connection will be closed.

use super::{Client, Io, Refusal, Stage};
use crate::http::Head;
use crate::limits;
use crate::link::messages::{Fault, MESSAGE_HEADER, Part, header};
use crate::link::{CloseReason, Kind};
use crate::websocket::frame::{self, MAX_CONTROL};
use crate::websocket::{Frame as SocketFrame, FrameKind, Offer, Violation};

/// Codes of close frames (RFC 6455, 7.4.1, and the registry that it made).
mod code {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const GOING_AWAY: u16 = 1001;
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const UNSUPPORTED: u16 = 1003;
    pub(super) const NOT_UTF8: u16 = 1007;
    pub(super) const POLICY: u16 = 1008;
    pub(super) const TOO_BIG: u16 = 1009;
    pub(super) const INTERNAL: u16 = 1011;
    pub(super) const RESTART: u16 = 1012;
    pub(super) const TRY_LATER: u16 = 1013;
}

/// A message of the client of which not all is there.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// Room for the message's header on the link, and its text as far as it came.
    message: Vec<u8>,
    /// Bytes of the text that are known to be UTF-8.
    checked: usize,
    /// Some of it was read, maybe of no length.
    begun: bool,
    /// The frame that is being read, and how many bytes of its payload were.
    frame: Option<(SocketFrame, u64)>,
}

impl Incoming {
    pub(super) const fn is_idle(&self) -> bool {
        !self.begun
    }

    pub(super) const fn heap(&self) -> usize {
        self.message.capacity()
    }

    fn text_len(&self) -> usize {
        self.message.len().saturating_sub(MESSAGE_HEADER)
    }

    /// Looks at the text that was added last; `is_whole`: nothing follows.
    fn check(&mut self, is_whole: bool) -> bool {
        let fresh = &self.message[MESSAGE_HEADER + self.checked..];
        match std::str::from_utf8(fresh) {
            Ok(_) => self.checked += fresh.len(),
            Err(error) if error.error_len().is_none() && !is_whole => self.checked += error.valid_up_to(),
            Err(_) => return false,
        }
        true
    }
}

impl Client {
    /// Whether it is a WebSocket that ends here.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        matches!(self.stage, Stage::Socket | Stage::Pinged | Stage::Deaf)
    }

    /// Whether a message has begun and is not complete.
    pub(super) fn is_within_message(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.incoming.is_idle() || !work.input.is_empty())
    }

    /// The request, whose head this is, asks for a WebSocket that ends here.
    pub(super) fn shake_hands(&mut self, bytes: &[u8], head: &Head, io: &mut dyn Io) {
        let offer = match Offer::parse(bytes, head) {
            Ok(offer) => offer,
            Err(error) => return self.refuse(Refusal::WebSocket, error.status(), &error.to_string(), io),
        };
        if offer.origin.is_some_and(|origin| !io.allows_origin(origin)) {
            return self.refuse(Refusal::Origin, 403, "pages of this origin may not connect", io);
        }
        if self.is_open() {
            // It was for requests. The one for messages is another one.
            self.say_close(CloseReason::Normal, io);
            io.renew();
        }
        self.requests = code::NORMAL;
        self.stage = Stage::Socket;
        self.emit(&offer.answer(), io);
    }

    /// Works off a part of what the client sent; answers how many bytes.
    pub(super) fn socket(&mut self, bytes: &[u8], io: &mut dyn Io) -> usize {
        if self.unsent() > 0 || self.pending() > limits::DATA_CHUNK {
            return 0;
        }
        self.stage = Stage::Socket;
        if self.work.as_ref().is_some_and(|work| work.incoming.frame.is_some()) {
            return self.payload(bytes, io);
        }
        let (frame, size) = match SocketFrame::parse(bytes) {
            Ok(None) => return 0,
            Ok(Some(parsed)) => parsed,
            Err(violation) => return self.violated(violation, bytes, io),
        };
        match frame.kind {
            FrameKind::Close | FrameKind::Ping | FrameKind::Pong => self.control(frame, size, bytes, io),
            FrameKind::Continue | FrameKind::Text | FrameKind::Binary => {
                self.begin_frame(frame, size, bytes, io)
            }
        }
    }

    fn violated(&mut self, violation: Violation, bytes: &[u8], io: &mut dyn Io) -> usize {
        match violation {
            Violation::CloseText => self.fault(Fault::Encoding, code::NOT_UTF8, io),
            _ => self.fault(Fault::Protocol, code::PROTOCOL, io),
        }
        bytes.len()
    }

    fn control(&mut self, frame: SocketFrame, size: usize, bytes: &[u8], io: &mut dyn Io) -> usize {
        // At most MAX_CONTROL.
        let length = frame.length as usize;
        let Some(masked) = bytes.get(size..size + length) else { return 0 };
        let mut buffer = [0; MAX_CONTROL];
        let payload = &mut buffer[..length];
        payload.copy_from_slice(masked);
        frame.unmask(0, payload);
        match frame.kind {
            FrameKind::Ping if self.is_between() => {
                let mut pong = Vec::new();
                frame::pong(payload, &mut pong);
                self.emit(&pong, io);
            }
            // After the message that is being sent, and only to the last one (RFC 6455, 5.5.3).
            FrameKind::Ping => self.work().pong = Some(payload.to_vec()),
            FrameKind::Close => match frame::close_code(payload) {
                Ok(code) => {
                    self.say_close(CloseReason::Normal, io);
                    self.close_socket(code.unwrap_or(code::NORMAL), io);
                }
                Err(violation) => return self.violated(violation, bytes, io),
            },
            _ => {}
        }
        size + length
    }

    fn begin_frame(&mut self, frame: SocketFrame, size: usize, bytes: &[u8], io: &mut dyn Io) -> usize {
        let (begun, text) = self
            .work
            .as_ref()
            .map_or((false, 0), |work| (!work.incoming.is_idle(), work.incoming.text_len()));
        if begun != (frame.kind == FrameKind::Continue) {
            return self.violated(Violation::Order, bytes, io);
        }
        if frame.kind == FrameKind::Binary {
            self.fault(Fault::Binary, code::UNSUPPORTED, io);
            return bytes.len();
        }
        if frame.length.saturating_add(text as u64) > u64::from(io.bounds().message) {
            self.fault(Fault::TooBig, code::TOO_BIG, io);
            return bytes.len();
        }
        let incoming = &mut self.work().incoming;
        if !begun {
            // As much as is there; a length that is only told is not believed.
            incoming.message =
                Vec::with_capacity(MESSAGE_HEADER + (bytes.len() - size).min(frame.length as usize));
            incoming.message.extend_from_slice(&[0; MESSAGE_HEADER]);
            incoming.begun = true;
        }
        incoming.frame = Some((frame, 0));
        if frame.length == 0 {
            self.end_frame(frame.is_final, io);
        }
        size
    }

    fn payload(&mut self, bytes: &[u8], io: &mut dyn Io) -> usize {
        let incoming = &mut self.work().incoming;
        let Some((frame, taken)) = &mut incoming.frame else { return 0 };
        let left = usize::try_from(frame.length - *taken).unwrap_or(usize::MAX);
        let count = left.min(bytes.len());
        let start = incoming.message.len();
        incoming.message.extend_from_slice(&bytes[..count]);
        frame.unmask(*taken, &mut incoming.message[start..]);
        *taken += count as u64;
        let (is_done, is_final) = (count == left, frame.is_final);
        if !incoming.check(is_done && is_final) {
            self.fault(Fault::Encoding, code::NOT_UTF8, io);
            return bytes.len();
        }
        if is_done {
            self.end_frame(is_final, io);
        } else if io.crowded() {
            io.refused(Refusal::Memory, code::TRY_LATER);
            self.say_close(CloseReason::Limit, io);
            self.close_socket(code::TRY_LATER, io);
        }
        count
    }

    fn end_frame(&mut self, is_final: bool, io: &mut dyn Io) {
        let incoming = &mut self.work().incoming;
        incoming.frame = None;
        if !is_final {
            return;
        }
        if !incoming.check(true) {
            return self.fault(Fault::Encoding, code::NOT_UTF8, io);
        }
        let mut message = std::mem::take(incoming).message;
        if message.len() == MESSAGE_HEADER {
            // No message of the link is empty. It is no element, which the node will say.
            message.push(b' ');
        }
        let length = (message.len() - MESSAGE_HEADER) as u32; // within the bounds, which are 32 bits
        message[..MESSAGE_HEADER].copy_from_slice(&header(length));
        self.work().up = message;
        self.send_message(io);
    }

    fn send_message(&mut self, io: &mut dyn Io) {
        let is_open = self.is_open() || (io.serves_xmpp() && self.open(Kind::Xmpp, io));
        if !is_open {
            io.refused(Refusal::NoLink, code::TRY_LATER);
            return self.close_socket(code::TRY_LATER, io);
        }
        io.message();
        self.send_up(io);
    }

    /// The client is not read any more. The node learns why, so that it can end the stream; then, or when it does not, the
    /// connection is closed with this code.
    fn fault(&mut self, fault: Fault, code: u16, io: &mut dyn Io) {
        io.refused(Refusal::WebSocket, code);
        self.requests = code;
        let work = self.work();
        (work.incoming, work.input) = (Incoming::default(), Vec::new());
        if !self.is_open() {
            return self.close_socket(code, io);
        }
        self.work().up.extend_from_slice(&fault.encode());
        self.stage = Stage::Deaf;
        self.send_up(io);
    }

    /// Data of the node, which is within its credit.
    pub(super) fn socket_data(&mut self, mut payload: &[u8], io: &mut dyn Io) {
        let mut reader = self.work.as_ref().map(|work| work.reader).unwrap_or_default();
        let mut out = Vec::with_capacity(payload.len() + 16);
        while let Some(part) = reader.next(&mut payload) {
            match part {
                Part::Begin(length) => frame::text_header(length, &mut out),
                Part::Text { bytes, .. } => out.extend_from_slice(bytes),
                Part::Fault(_) => return self.abort(CloseReason::Protocol, io),
            }
        }
        if !reader.is_between() || self.work.is_some() {
            self.work().reader = reader;
        }
        if reader.is_between()
            && let Some(pong) = self.work.as_mut().and_then(|work| work.pong.take())
        {
            frame::pong(&pong, &mut out);
        }
        self.emit(&out, io);
    }

    /// Whether no message to the client has been sent in part: only then another frame may be.
    fn is_between(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.reader.is_between())
    }

    /// The node has closed, or is lost.
    pub(super) fn end_socket(&mut self, reason: Option<CloseReason>, io: &mut dyn Io) {
        let code = match reason {
            _ if self.stage == Stage::Deaf => self.requests,
            Some(CloseReason::Normal | CloseReason::PeerGone) => code::NORMAL,
            Some(CloseReason::Shutdown) => code::GOING_AWAY,
            Some(CloseReason::Limit) => code::TRY_LATER,
            Some(CloseReason::Timeout) => code::POLICY,
            Some(CloseReason::Protocol | CloseReason::Internal | CloseReason::Unanswered) => code::INTERNAL,
            None => code::RESTART,
        };
        self.close_socket(code, io);
    }

    /// Nothing has come from the client for a while: it is asked whether it is there, or, when no more clients are served,
    /// sent away.
    pub(super) fn silent(&mut self, io: &mut dyn Io) {
        if io.draining() {
            self.say_close(CloseReason::Shutdown, io);
            return self.close_socket(code::GOING_AWAY, io);
        }
        if self.is_between() {
            let mut ping = Vec::new();
            frame::ping(&mut ping);
            self.stage = Stage::Pinged;
            self.emit(&ping, io);
        }
    }

    /// A message was not completed in time.
    pub(super) fn late_message(&mut self, io: &mut dyn Io) {
        self.fault(Fault::Timeout, code::POLICY, io);
    }

    /// The connection manager stops.
    pub(super) fn stop_socket(&mut self, io: &mut dyn Io) {
        self.close_socket(code::GOING_AWAY, io);
    }

    /// The node does not close although it knows why it should.
    pub(super) fn late_node(&mut self, io: &mut dyn Io) {
        self.say_close(CloseReason::Protocol, io);
        self.close_socket(self.requests, io);
    }

    /// Says close, if that is possible, and ends the connection when it is written.
    fn close_socket(&mut self, code: u16, io: &mut dyn Io) {
        if self.is_between() {
            let mut close = Vec::new();
            frame::close(code, &mut close);
            self.emit(&close, io);
        }
        self.finish(io);
    }
}
