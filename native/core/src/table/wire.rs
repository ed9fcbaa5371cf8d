//! What a link calls: input from its socket, output for it, its end.

use std::hash::Hash;

use super::connection::Request;
use super::input::Chunk;
use super::link::{Intake, Link, Served};
use super::messages::{Activated, Batch};
use super::shard::Shard;
use super::slot::{Bits, Framing, Wire};
use super::{End, Handle, Host, Refused, SHARDS, Table};
use crate::cursor;
use crate::limits::{
    ACTIONS_PER_CALL, DATA_CHUNK, DELIVERED_PER_CALL, FRAMES_PER_CALL, MAX_NAME, OUTPUT_BATCH,
    SWEEP_PER_CALL, VISITS_PER_CALL, WINDOW,
};
use crate::link::{
    AuthError, CloseReason, Credentials, ErrorCode, Frame, Handshake, Hello, Kind, Open, ReadyMode, Role,
};
use crate::sync::{Arc, Ordering};

/// What the caller has to do, in order.
#[derive(Debug)]
pub enum Action<P, C> {
    /// A complete request waits on this connection and nobody reads: start a consumer and name it with
    /// [`Table::set_owner`].
    Start(Handle),
    /// The first message of an XMPP connection waits: start its owner, and name it with [`Table::set_owner`].
    Attach(Handle),
    /// Messages for the owner of a connection that has asked for them: hand them on.
    Deliver(Batch<P, C>),
    /// A message for such an owner that takes long to be taken apart: hand on what [`Table::take_large`] gives.
    Large(Handle),
    /// The link is open: the other end has said hello, and has proved that it knows the secret if there is one.
    Open,
}

/// How a call on a link's input ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputEnd {
    /// All of it is handled.
    Done,
    /// The slice is full: call again without input.
    More,
    /// The link has to be closed once its output is out, for this reason.
    Stop(String),
    /// The peer does not know the secret. Nothing of it is taken any more; it is told by [`Table::link_refuse`], later
    /// than it could be.
    Refused(String),
    /// The link was closed before.
    Closed,
}

/// Why a frame ends the link, or nothing.
type Verdict = Result<(), String>;

const UNREAD: &str = "too much is owed to a peer that does not read";

impl<P: Copy + Eq + Hash, C: Chunk> Table<P, C> {
    /// A new link; its hello is queued as the first output. `software` names this end, `peer` the other in logs. With
    /// credentials the link opens only to a peer that knows their secret; until then it takes nothing else. `served` is what it
    /// takes then.
    ///
    /// # Errors
    /// [`Refused::Links`].
    pub fn link_open(
        &self,
        peer: String,
        software: &str,
        served: Served,
        credentials: Option<Credentials>,
    ) -> Result<Arc<Link<P>>, Refused> {
        self.links.open(peer, served, Handshake::new(hello(software, served), credentials))
    }

    /// What to send on a connection that becomes no link: hello, and why. `None`: there are as many links as
    /// [`Table::link_open`] allows.
    #[must_use]
    pub fn link_refusal(&self, software: &str, why: Option<&str>) -> Vec<u8> {
        let most = format!("there are {} links already, which is the most", self.limits.links);
        let (code, text) = why.map_or((ErrorCode::Limit, most.as_str()), |text| (ErrorCode::Auth, text));
        let mut out = Vec::new();
        Frame::Hello(hello(software, Served::Http)).encode(&mut out);
        Frame::Error { id: 0, code, text }.encode(&mut out);
        out
    }

    /// Handles bytes read from a link: splits them into frames, queues data, wakes waiters. At most
    /// [`FRAMES_PER_CALL`] frames, [`ACTIONS_PER_CALL`] actions or [`DELIVERED_PER_CALL`] bytes of messages a call. To be called by one process per link.
    pub fn link_input<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        input: &[u8],
        now: u32,
        actions: &mut Vec<Action<P, C>>,
        host: &mut H,
    ) -> InputEnd {
        // Looked at under the lock that `link_down` takes: a sweep that follows finds all that this call opens.
        let mut intake = link.intake.lock();
        if link.is_down() || link.is_stopping() {
            return InputEnd::Closed;
        }
        link.bytes_in.fetch_add(input.len() as u64, Ordering::Relaxed);
        if !input.is_empty() {
            intake.decoder.push(input);
        }
        if let Some((id, reason)) = intake.closing.take()
            && let Err(text) = self.close_frame(link, id, reason, now, host)
        {
            link.stop(&Frame::Error { id: 0, code: ErrorCode::Protocol, text: &text }, host);
            return InputEnd::Stop(text);
        }
        let mut delivered = 0;
        for _ in 0..FRAMES_PER_CALL {
            if intake.closing.is_some()
                || actions.len() >= ACTIONS_PER_CALL
                || delivered >= DELIVERED_PER_CALL
            {
                break;
            }
            let before = actions.len();
            match self.next_frame(link, &mut intake, now, actions, host) {
                Ok(true) => delivered += actions[before..].iter().map(bytes_of).sum::<usize>(),
                Ok(false) => return InputEnd::Done,
                Err((ErrorCode::Auth, text)) => {
                    intake.decoder.close();
                    return InputEnd::Refused(text);
                }
                Err((code, text)) => {
                    link.stop(&Frame::Error { id: 0, code, text: &text }, host);
                    return InputEnd::Stop(text);
                }
            }
        }
        InputEnd::More
    }

    /// Handles one frame, if there is one.
    fn next_frame<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        intake: &mut Intake,
        now: u32,
        actions: &mut Vec<Action<P, C>>,
        host: &mut H,
    ) -> Result<bool, (ErrorCode, String)> {
        let Intake { decoder, handshake, closing } = intake;
        let Some(frame) = decoder.next().map_err(|error| (error.code(), error.to_string()))? else {
            decoder.release();
            return Ok(false);
        };
        let Some(opening) = handshake else {
            if let Frame::Close { id, reason } = frame
                && starts(link, id, actions)
            {
                *closing = Some((id, reason));
                return Ok(true);
            }
            let verdict = self.frame(link, frame, now, actions, host);
            return verdict.map(|()| true).map_err(|text| (ErrorCode::Protocol, text));
        };
        if let Some(window) = opened(link, frame, opening, host)? {
            link.peer_window.store(window, Ordering::Relaxed);
            *handshake = None;
            decoder.admit();
            actions.push(Action::Open);
        }
        Ok(true)
    }

    fn frame<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        frame: Frame<'_>,
        now: u32,
        actions: &mut Vec<Action<P, C>>,
        host: &mut H,
    ) -> Verdict {
        match frame {
            Frame::Open { id, open } => self.open_frame(link, id, &open, now, host),
            Frame::Data { id, payload } => self.data_frame(link, id, payload, now, actions, host),
            Frame::Close { id, reason } => self.close_frame(link, id, reason, now, host),
            Frame::Window { id, increment } => self.window_frame(link, id, increment, host),
            Frame::Ping(bytes) => owe(link, &Frame::Pong(bytes), host),
            Frame::Error { id: 0, text, .. } => Err(reported(text)),
            Frame::Error { .. } => {
                link.undelivered.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Frame::Ready { id, mode: ReadyMode::Request } => {
                self.ready_frame(link, id, host);
                Ok(())
            }
            // The decoder lets no auth and no second hello through.
            Frame::Ready { .. } | Frame::Auth(_) | Frame::Hello(_) => {
                Err(format!("{} frame from this end of the link", frame.name()))
            }
            Frame::Pong(_) | Frame::Drain => Ok(()),
        }
    }

    fn open_frame<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        id: u64,
        open: &Open,
        now: u32,
        host: &mut H,
    ) -> Verdict {
        if open.kind != Kind::Http && link.served == Served::Http {
            return refuse(link, id, ErrorCode::Other, "connections of kind xmpp are not served here", host);
        }
        let hash = self.key_hash(link.incarnation, id);
        let mut shard = self.shard(Self::shard_of(hash));
        if shard.find_wire(hash, link.incarnation, id).is_some() {
            return Err(format!("open for connection {id}, which is in use"));
        }
        if link.connections.load(Ordering::Relaxed) >= self.limits.link_connections {
            drop(shard);
            return refuse(link, id, ErrorCode::Limit, "too many connections on this link", host);
        }
        link.connections.fetch_add(1, Ordering::Relaxed);
        link.opened.fetch_add(1, Ordering::Relaxed);
        let place = shard.insert(link.incarnation, id, open.client, now, Some((hash, &self.hasher)));
        if let Some(slot) = shard.slots.get_mut(place as usize) {
            slot.flags.http = open.kind == Kind::Http;
            slot.bits.set(Bits::MESSAGES, open.kind == Kind::Xmpp);
            slot.bits.set(Bits::TLS, open.tls);
            slot.local = link.intern_local(open.local);
            slot.send_credit = link.peer_window.load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn data_frame<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        id: u64,
        payload: &[u8],
        now: u32,
        actions: &mut Vec<Action<P, C>>,
        host: &mut H,
    ) -> Verdict {
        let hash = self.key_hash(link.incarnation, id);
        let mut shard = self.shard(Self::shard_of(hash));
        let Some(place) = shard.find_wire(hash, link.incarnation, id) else {
            drop(shard);
            link.undelivered.fetch_add(1, Ordering::Relaxed);
            let text = "data for an unknown connection";
            return owe(link, &Frame::Error { id, code: ErrorCode::UnknownConnection, text }, host);
        };
        let Some(slot) = shard.slots.get(place as usize) else { return Ok(()) };
        if slot.wire != Wire::Open || slot.flags.input_closed {
            return Ok(()); // it crossed our close
        }
        shard.equip(place);
        let Some(slot) = shard.slots.get_mut(place as usize) else { return Ok(()) };
        slot.last_activity = now;
        let messages = slot.bits.has(Bits::MESSAGES);
        let mut refused = None;
        if payload.len() as u64 + u64::from(slot.received) > u64::from(WINDOW) {
            refused = Some("more data than was granted");
        } else {
            slot.received += payload.len() as u32; // at most WINDOW
            if !slot.bits.has(Bits::DEAF) {
                slot.queues().input.push(payload);
            }
            match messages {
                true => self.messages(&mut shard, place, actions, host),
                false => refused = requests(&mut shard, place, actions, host),
            }
        }
        let mut effect = None;
        if refused.is_some() {
            effect = shard.close(place, CloseReason::Protocol, now, host);
            if let Some(slot) = shard.slots.get_mut(place as usize) {
                slot.flags.released = true;
                if let Some(queues) = slot.queues.as_mut() {
                    queues.input.clear();
                }
            }
            shard.set_owner(place, None);
        }
        let effect = shard.finish(place).or(effect);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, Some(link), host);
        }
        match refused {
            Some(text) => owe(link, &Frame::Error { id, code: ErrorCode::Protocol, text }, host),
            None => Ok(()),
        }
    }

    /// Something has come on a connection with messages.
    fn messages<H: Host<Pid = P, Chunk = C>>(
        &self,
        shard: &mut Shard<P, C>,
        place: u32,
        actions: &mut Vec<Action<P, C>>,
        host: &mut H,
    ) {
        shard.stir(place, &self.quiet, host);
        let Some(handle) = shard.handle(place) else { return };
        if shard.needs_owner(place, &self.message_limits) {
            return actions.push(Action::Attach(handle));
        }
        match shard.next_batch(place, &self.message_limits, host) {
            Activated::Waits | Activated::Shaped(_) => {}
            Activated::Batch(batch) => actions.push(Action::Deliver(batch)),
            Activated::Large => actions.push(Action::Large(handle)),
        }
    }

    fn close_frame<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        id: u64,
        reason: CloseReason,
        now: u32,
        host: &mut H,
    ) -> Verdict {
        let hash = self.key_hash(link.incarnation, id);
        let mut shard = self.shard(Self::shard_of(hash));
        let Some(place) = shard.find_wire(hash, link.incarnation, id) else { return Ok(()) };
        if reason == CloseReason::Unanswered {
            shard.unanswered(place, host);
        }
        let Some(slot) = shard.slots.get_mut(place as usize) else { return Ok(()) };
        slot.last_activity = now;
        let answered = slot.wire == Wire::CloseSent;
        // Our own close is owed unless it is out already. What the client can no longer read is dropped with it.
        shard.forget_id(hash, place);
        shard.end_wire(place, End::Closed, host);
        shard.settle(place);
        drop(shard);
        link.connections.fetch_sub(1, Ordering::Relaxed);
        if answered { Ok(()) } else { owe(link, &Frame::Close { id, reason: CloseReason::Normal }, host) }
    }

    /// The client has sent its next request already. Whoever holds its poll may answer that now.
    fn ready_frame<H: Host<Pid = P, Chunk = C>>(&self, link: &Link<P>, id: u64, host: &mut H) {
        let hash = self.key_hash(link.incarnation, id);
        let mut shard = self.shard(Self::shard_of(hash));
        let Some(place) = shard.find_wire(hash, link.incarnation, id) else { return };
        if let Some(slot) = shard.slots.get_mut(place as usize) {
            // The request may not be taken yet: then it is told with it.
            slot.bits.set(Bits::NEXT_WAITS, true);
        }
        shard.tell_of_next(place, host);
    }

    fn window_frame<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        id: u64,
        increment: u32,
        host: &mut H,
    ) -> Verdict {
        let hash = self.key_hash(link.incarnation, id);
        let mut shard = self.shard(Self::shard_of(hash));
        let Some(place) = shard.find_wire(hash, link.incarnation, id) else { return Ok(()) };
        let Some(slot) = shard.slots.get_mut(place as usize) else { return Ok(()) };
        let Some(credit) = slot.send_credit.checked_add(increment) else {
            return Err(format!("credit of connection {id} out of range"));
        };
        slot.send_credit = credit;
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, Some(link), host);
        }
        Ok(())
    }

    /// Queues the error frame that ends a link which was not authenticated; `text` says why.
    pub fn link_refuse<H: Host<Pid = P, Chunk = C>>(&self, link: &Link<P>, text: &str, host: &mut H) {
        link.stop(&Frame::Error { id: 0, code: ErrorCode::Auth, text }, host);
    }

    /// Asks the other end of a link whether it is there: a ping is queued, its pong is input as any other. Nothing is
    /// queued for a peer to which too much is owed already.
    pub fn link_ping<H: Host<Pid = P, Chunk = C>>(&self, link: &Link<P>, host: &mut H) {
        let _ = link.push_control(&Frame::Ping(*b"megaphon"), host);
    }

    /// Asks the peer to open no further connections on this link; those that are there go on. False: the link is not open, or takes no
    /// more frames now.
    #[must_use]
    pub fn link_drain<H: Host<Pid = P, Chunk = C>>(&self, link: &Link<P>, host: &mut H) -> bool {
        let is_open = link.peer_window.load(Ordering::Relaxed) != 0 && !link.is_stopping() && !link.is_down();
        is_open && link.drain(host)
    }

    /// Collects output of a link: frames about the link, then one data frame from each ready connection in turn, up to
    /// about [`OUTPUT_BATCH`] bytes. Empty: there is none, and `sender` is told once with
    /// [`Message::LinkOutput`](super::Message::LinkOutput) when there is. To be called by one process per link.
    pub fn link_output<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        sender: P,
        host: &mut H,
    ) -> Vec<u8> {
        link.set_sender(sender);
        loop {
            let mut out = link.take_control();
            let mut visits = 0;
            // After the error frame that ends the link nothing follows.
            while out.len() < OUTPUT_BATCH && visits < VISITS_PER_CALL && !link.is_stopping() {
                let Some((slot, generation)) = link.pop_ready() else { break };
                visits += 1;
                self.drain(link, slot, generation, &mut out, host);
            }
            if !out.is_empty() {
                link.bytes_out.fetch_add(out.len() as u64, Ordering::Relaxed);
                return out;
            }
            if link.is_stopping() || (visits < VISITS_PER_CALL && link.fall_asleep()) {
                return out;
            }
        }
    }

    /// Takes what one connection has to say now; queues it again if there is more.
    fn drain<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        slot: u32,
        generation: u64,
        out: &mut Vec<u8>,
        host: &mut H,
    ) {
        let mut shard = self.shard(slot as usize % SHARDS);
        let Some(place) = shard.find_ready(slot, generation) else { return };
        let again = shard.drain(place, out);
        shard.wake_senders(place, self.limits.output_queue, host);
        shard.settle(place);
        drop(shard);
        if again {
            link.push_ready(slot, generation, host);
        }
    }

    /// The link has ended: from now on it takes no input. Its connections close as [`Table::link_sweep`] reaches them.
    ///
    /// Waits for a call of [`Table::link_input`] that is under way, at most [`FRAMES_PER_CALL`] frames.
    pub fn link_down(&self, link: &Link<P>) {
        {
            let _input = link.intake.lock();
            link.set_down();
        }
        self.links.remove(link.incarnation);
    }

    /// Closes connections of a link that is down, at most [`SWEEP_PER_CALL`] places and waits a call
    /// (and the waits of one connection more). Start with 0 and call
    /// again with what it returns until it returns `None`.
    pub fn link_sweep<H: Host<Pid = P, Chunk = C>>(
        &self,
        link: &Link<P>,
        cursor: u64,
        host: &mut H,
    ) -> Option<u64> {
        self.sweep(link.incarnation, cursor, host)
    }

    /// Closes the connections that were opened from Erlang, in the same slices: the application stops.
    pub fn local_sweep<H: Host<Pid = P, Chunk = C>>(&self, cursor: u64, host: &mut H) -> Option<u64> {
        self.sweep(0, cursor, host)
    }

    fn sweep<H: Host<Pid = P, Chunk = C>>(&self, link: u32, cursor: u64, host: &mut H) -> Option<u64> {
        let (number, from) = cursor::parts(cursor);
        if number >= SHARDS {
            return None;
        }
        let mut shard = self.shard(number);
        let (mut at, mut work) = (from, 0);
        while at < shard.slots.bound() && work < SWEEP_PER_CALL {
            work += 1;
            if shard.slots.get(at).is_some_and(|slot| slot.link == link) {
                work += shard.link_gone(at as u32, &self.hasher, host);
            }
            at += 1;
        }
        cursor::next(number, at, shard.slots.bound(), SHARDS)
    }
}

/// Bytes of messages that are to be taken apart.
fn bytes_of<P, C: Chunk>(action: &Action<P, C>) -> usize {
    match action {
        Action::Deliver(batch) => batch.texts().map(<[u8]>::len).sum(),
        _ => 0,
    }
}

/// What this end says of itself.
fn hello(software: &str, served: Served) -> Hello<'_> {
    let name = &software[..software.floor_char_boundary(MAX_NAME)];
    let features = match served {
        Served::Http => Hello::CREDIT | Hello::PIPELINE,
        Served::HttpAndXmpp => Hello::CREDIT | Hello::PIPELINE | Hello::XMPP,
    };
    Hello { role: Role::Ejabberd, features, window: WINDOW, name }
}

/// A frame of the handshake. `Some`: the link is open, and this is the peer's window.
fn opened<P: Copy, H: Host<Pid = P>>(
    link: &Link<P>,
    frame: Frame<'_>,
    handshake: &mut Handshake,
    host: &mut H,
) -> Result<Option<u32>, (ErrorCode, String)> {
    let mut answer = Vec::new();
    let open = match frame {
        Frame::Hello(hello) => handshake.hello(&hello),
        Frame::Auth(payload) => handshake.auth(payload, &mut answer),
        Frame::Error { text, .. } => return Err((ErrorCode::Protocol, reported(text))),
        // The decoder lets nothing else through.
        _ => Err(AuthError::Order),
    }
    .map_err(|error| (error.code(), error.to_string()))?;
    if !answer.is_empty() && !link.push_encoded(&answer, host) {
        return Err((ErrorCode::Protocol, UNREAD.into()));
    }
    Ok(open)
}

/// The other end says why the link ends.
fn reported(text: &str) -> String {
    format!("the other end reports: {}", printable(text))
}

/// Something has come on a connection with requests. `Some`: it is not as it has to be.
fn requests<P: Copy + Eq + Hash, C: Chunk, H: Host<Pid = P, Chunk = C>>(
    shard: &mut Shard<P, C>,
    place: u32,
    actions: &mut Vec<Action<P, C>>,
    host: &mut H,
) -> Option<&'static str> {
    if let Some(slot) = shard.slots.get_mut(place as usize) {
        slot.skip_rest();
    }
    shard.advance(place, host);
    match due(shard, place) {
        Request::Partial => None,
        Request::Complete(_) => {
            actions.extend(shard.handle(place).map(Action::Start));
            None
        }
        Request::Bad(text) => Some(text),
    }
}

/// Whether the caller is yet to hear of a request on this connection. A client may say all it has to say and go: what it said
/// counts, and a BOSH session would wait for a request that is missing.
fn starts<P, C>(link: &Link<P>, id: u64, actions: &[Action<P, C>]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Start(handle) if (handle.link, handle.id) == (link.incarnation, id)))
}

/// Whether the request at the start of a connection's input needs a consumer; notes that one is being started.
fn due<P: Copy + Eq + Hash, C: Chunk>(shard: &mut Shard<P, C>, place: u32) -> Request {
    let Some(slot) = shard.slots.get_mut(place as usize) else { return Request::Partial };
    if !slot.flags.http || slot.flags.started {
        return Request::Partial;
    }
    let request = slot.request();
    if let Request::Complete(size) = request {
        slot.queues().framing = Framing::unread(size);
        slot.flags.started = true;
    }
    request
}

impl<P: Copy + Eq + Hash, C: Chunk> Shard<P, C> {
    /// Writes the frames that a ready connection has to send now: new credit, at most one data frame, then, when all
    /// its output is out, ready and close. True: there is more.
    fn drain(&mut self, place: u32, out: &mut Vec<u8>) -> bool {
        let Some(slot) = self.slots.get_mut(place as usize) else { return false };
        let (id, credit, wire) = (slot.id, slot.send_credit, slot.wire);
        let Some(queues) = slot.queues.as_mut() else { return false };
        queues.queued = false;
        if matches!(wire, Wire::CloseSent | Wire::Done) {
            return false;
        }
        if queues.grant > 0 {
            Frame::Window { id, increment: std::mem::take(&mut queues.grant) }.encode(out);
        }
        let count = queues.output.len().min(DATA_CHUNK).min(credit as usize);
        if count > 0 {
            Frame::Data { id, payload: queues.output.first(count) }.encode(out);
            queues.output.skip(count);
            slot.send_credit -= count as u32; // count <= credit
        }
        if queues.output.len() > 0 {
            return self.queue(place);
        }
        if let Some(mode) = queues.ready.take() {
            Frame::Ready { id, mode }.encode(out);
        }
        if let Wire::Closing(reason) = wire {
            Frame::Close { id, reason }.encode(out);
            slot.wire = Wire::CloseSent;
        }
        false
    }
}

/// Queues a frame about the link or answers for a connection that is not there.
fn owe<P: Copy, H: Host<Pid = P>>(link: &Link<P>, frame: &Frame<'_>, host: &mut H) -> Verdict {
    if link.push_control(frame, host) { Ok(()) } else { Err(UNREAD.into()) }
}

/// Refuses an open: says why, and closes. The other end answers the close, which then finds no connection.
fn refuse<P: Copy, H: Host<Pid = P>>(
    link: &Link<P>,
    id: u64,
    code: ErrorCode,
    text: &str,
    host: &mut H,
) -> Verdict {
    owe(link, &Frame::Error { id, code, text }, host)?;
    owe(link, &Frame::Close { id, reason: CloseReason::Limit }, host)
}

/// Text from the peer, fit for a log.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
