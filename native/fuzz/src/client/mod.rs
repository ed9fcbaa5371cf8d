//! Scripts of what can happen to a client connection of the connection manager, and a model to compare with.
//!
//! A script says what the client sends and when it reads, what the node sends on the link, and when limits pass.
//! Asserted after each event:
//!
//! * The node gets the requests that a simple reader finds in the client's bytes, each once, whole and in order, one at
//!   a time, with the head written anew; all of what is due as far as credit goes, never more. A request of which some
//!   is missing is not begun, save a long body. Nothing after close, one close for each open.
//! * The client hears what the node sent, in order, at most one interim answer for each request that asks for it, and
//!   in the end at most one answer of our own: whole, 4xx or 5xx, never within another answer; nothing after it.
//! * The node may send what fits its window and no more, and is never left without credit for what was taken.
//! * Memory is within the named limits, and none is held by a connection that waits. The time limit is the right one.
//!
//! The same script with the client's bytes cut into other pieces ends in the same way.

mod model;
mod say;
mod world;

use megaphone_core::client::{Client, Timer};
use megaphone_core::http::response;
use megaphone_core::limits::{
    DATA_CHUNK, MAX_EMPTY_LINES, MAX_HEAD, MAX_PAYLOAD, MIN_WINDOW, PIPELINE, WINDOW,
};
use megaphone_core::link::{CloseReason, ReadyMode};

use crate::Script;
use model::{Model, Phase};
use world::World;

/// Most bytes of input that can be held: all but the end of a head, with empty lines before it, and one read more.
const MOST_HELD: usize = MAX_HEAD + 2 * MAX_EMPTY_LINES + DATA_CHUNK;

/// Most bytes for the client: the node's within its window, and an answer of our own.
const MOST_OUTPUT: usize = WINDOW as usize + 1_000;

/// Most bytes that the client of a script sends: more than the longest body.
const MOST_SENT: usize = 1_300_000;

struct Scene {
    client: Client,
    world: World,
    model: Model,
    /// Bytes that the client has sent and that were not read.
    unread: Vec<u8>,
    sent: usize,
    /// Bytes that the node has sent.
    answers: usize,
    cuts: u8,
    state: u32,
    /// How the client's bytes are cut may be seen.
    cuts_matter: bool,
    trace: bool,
}

/// Runs a script, twice.
///
/// # Panics
/// When the client connection does what it must not.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let cuts = script.byte();
    let script = script.rest();
    let (one, other) = (play(script, cuts), play(script, cuts.wrapping_add(1)));
    assert_eq!(one.cuts_matter, other.cuts_matter);
    if !one.cuts_matter {
        let (one, other) = (one.world, other.world);
        assert!(one.node == other.node && one.heard == other.heard, "cuts");
        assert_eq!((one.closes, one.refused, one.ended), (other.closes, other.refused, other.ended), "cuts");
    }
}

fn play(input: &[u8], cuts: u8) -> Scene {
    let mut script = Script::new(input);
    let takes = if script.byte().is_multiple_of(2) { usize::MAX } else { 0 };
    let mut scene = Scene {
        client: Client::new(),
        world: World::new(window(&mut script), takes),
        model: Model::new(),
        unread: Vec::new(),
        sent: 0,
        answers: 0,
        cuts,
        state: cuts.into(),
        cuts_matter: false,
        trace: std::env::var_os("FUZZ_TRACE").is_some(),
    };
    while !script.is_done() && !scene.client.is_closed() {
        scene.step(&mut script);
        scene.check();
        scene.read();
        scene.check();
    }
    scene.finish();
    scene
}

fn window(script: &mut Script<'_>) -> u32 {
    [MIN_WINDOW, WINDOW, MIN_WINDOW + 1, u32::MAX - 60_000][script.below(4)]
}

impl Scene {
    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte() % 32;
        if self.trace {
            eprintln!("operation {op}, then {script:?}");
        }
        match op {
            0..=11 => self.say(script),
            12..=15 => self.data(script),
            16..=18 => self.ready(ReadyMode::Request),
            19 => self.ready(ReadyMode::Tunnel),
            20 | 21 => self.credit(script),
            22 => self.node_lost(script),
            23 => self.link_lost(),
            24 => self.world.window = self.world.window.or(Some(window(script))),
            25..=27 => {
                self.world.takes = script.size(&[300, 65_536, 131_072, 200_000]);
                if !script.byte().is_multiple_of(4) {
                    self.writable();
                }
            }
            28 => self.timeout(),
            29 => self.leave(script),
            30 => self.stop(),
            _ => {
                self.world.crowded = !self.world.crowded;
                self.cuts_matter = true;
            }
        }
    }

    /// The client sends; what there is room for is read when the event is over.
    fn say(&mut self, script: &mut Script<'_>) {
        let bytes = say::words(script);
        if self.sent + bytes.len() > MOST_SENT {
            return;
        }
        self.sent += bytes.len();
        self.unread.extend_from_slice(&bytes);
        // Whether leave to go on is given depends on whether some of the body has come: so does what the client takes.
        self.cuts_matter |= bytes.windows(6).any(|word| word.eq_ignore_ascii_case(b"expect"));
    }

    /// Reads as much as there is and is wanted, in pieces.
    fn read(&mut self) {
        let (held, mut used) = (self.model.held(), 0);
        while used < self.unread.len() && !self.client.is_closed() {
            let room = self.client.room();
            assert!(room <= DATA_CHUNK);
            if room == 0 {
                break;
            }
            let size = self.cut(used).min(room).min(self.unread.len() - used);
            self.client.input(&self.unread[used..used + size], &mut self.world);
            used += size;
        }
        let read: Vec<u8> = self.unread.drain(..used).collect();
        if used == 0 || self.model.is_over() {
            return;
        }
        self.model.read.extend_from_slice(&read);
        if self.world.crowded {
            self.model.advance_crowded(held, &self.world);
        } else {
            self.model.advance(&self.world);
        }
    }

    /// Sizes of pieces; small ones only at first, since a body can be long.
    fn cut(&mut self, used: usize) -> usize {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match self.cuts % 4 {
            0 => usize::MAX,
            1 if used < 1_500 => 1,
            2 if used < 3_000 => 1 + (self.state >> 24) as usize % 9,
            _ => 1 + (self.state >> 16) as usize % 20_000,
        }
    }

    fn data(&mut self, script: &mut Script<'_>) {
        let length = script.size(&[DATA_CHUNK, 40_000, MAX_PAYLOAD]).clamp(1, MAX_PAYLOAD);
        let allowed = self.world.allowed;
        // Seldom more than it may send.
        let length = if script.byte() < 250 { length.min(allowed as usize).max(1) } else { length };
        let payload: Vec<u8> = (0..length).map(|n| (self.answers + n) as u8).collect();
        self.answers += length;
        let pending = self.client.pending();
        if self.world.open {
            self.model.data(&payload, allowed, pending, self.world.crowded);
            self.world.allowed = allowed.saturating_sub(length as u64);
        }
        self.client.data(&payload, &mut self.world);
    }

    fn ready(&mut self, mode: ReadyMode) {
        let sent = self.model.is_sent(&self.world);
        self.client.ready(mode, &mut self.world);
        self.model.ready(mode, sent, &self.world);
    }

    fn credit(&mut self, script: &mut Script<'_>) {
        let increment = script.size(&[MIN_WINDOW as usize, 65_536, 70_000, u32::MAX as usize - 3]) as u32;
        if self.world.open {
            self.world.credit += u64::from(increment);
            if self.world.credit > u32::MAX.into() {
                self.model.abort(CloseReason::Protocol);
            }
        }
        self.client.grant_credit(increment, &mut self.world);
    }

    /// The node closes the virtual connection, or does not know it.
    fn node_lost(&mut self, script: &mut Script<'_>) {
        if !self.world.open {
            return;
        }
        let reason = script.byte() % 8;
        if reason == 7 {
            (self.world.open, self.model.open) = (false, false);
            self.model.lose_node(502);
            return self.client.unknown(&mut self.world);
        }
        let reason = CloseReason::from_code(reason);
        self.model.say_close(CloseReason::Normal);
        self.model.lose_node(match reason {
            CloseReason::Shutdown | CloseReason::Limit => 503,
            _ => 502,
        });
        self.client.closed(reason, &mut self.world);
    }

    /// All that has to do with the node is gone. One that only waits does not notice, if it has taken all it was sent:
    /// what it has not taken is held to the window of the connection that it came from.
    fn link_lost(&mut self) {
        if self.world.window.take().is_none() {
            return;
        }
        (self.world.open, self.model.open) = (false, false);
        let unread = self.client.pending() > 0;
        if matches!(self.model.phase, Phase::Asked | Phase::Stream(_) | Phase::Tunnel) || unread {
            self.model.lose_node(503);
        }
        self.client.link_lost(&mut self.world);
    }

    fn writable(&mut self) {
        self.client.writable(&mut self.world);
    }

    fn timeout(&mut self) {
        let timer = self.client.timer();
        self.model.timeout(timer);
        self.client.timeout(&mut self.world);
    }

    fn gone_in_model(&mut self) {
        let sent = self.model.is_sent(&self.world);
        self.model.gone(self.client.pending(), sent);
    }

    /// The client ends its stream, resets it, or cannot be asked for its address.
    fn leave(&mut self, script: &mut Script<'_>) {
        match script.byte() % 4 {
            0 => self.world.present = false,
            1 => {
                self.gone_in_model();
                self.client.gone(&mut self.world);
            }
            _ => {
                // What is being written may still be read.
                if self.model.phase != Phase::Ending || self.world.ended {
                    self.gone_in_model();
                }
                self.client.eof(&mut self.world);
            }
        }
    }

    fn stop(&mut self) {
        self.model.stop(self.client.pending());
        self.client.stop(&mut self.world);
    }

    fn check(&mut self) {
        let (client, world, pending) = (&self.client, &self.world, self.client.pending());
        if self.trace {
            eprintln!("    {client:?} {:?} {:?}", self.model.phase, self.model.own);
        }
        self.model.check(pending, world);
        let model = &self.model;
        assert_eq!(client.is_closed(), model.phase == Phase::Closed);
        assert_eq!(client.is_ending(), model.is_over());
        assert_eq!(client.is_open(), model.open);
        let in_flight = matches!(model.phase, Phase::Asked | Phase::Stream(_) | Phase::Tunnel);
        assert_eq!(client.in_flight(), in_flight);
        assert_eq!(client.timer(), model.timer(pending, world));
        assert!(world.ended || model.phase != Phase::Ending || pending > 0, "the end is not told");
        assert!(pending <= MOST_OUTPUT + model.interims * response::CONTINUE.len());
        let heap = client.heap();
        assert!(heap <= model.most_heap(pending, world), "{heap} bytes are held");
        if model.open {
            // Answers of our own on the way are not the node's, but wait in the same queue.
            let (used, own) = (world.allowed as usize + pending, model.interims * response::CONTINUE.len());
            assert!(used <= WINDOW as usize + own, "more is granted than may be held");
            assert!(used > WINDOW as usize / 2, "credit is withheld");
        }
        self.check_room();
    }

    /// Reads as much as can be used, and never nothing without a reason.
    fn check_room(&self) {
        let (model, room, credit) = (&self.model, self.client.room(), self.world.credit);
        let held = model.held();
        match model.phase {
            Phase::Between => assert!(room > 0 && held < MAX_HEAD + 2 * MAX_EMPTY_LINES),
            Phase::Collect => assert!(room > 0),
            Phase::Stream(left) => assert!(room as u64 <= credit.min(left) && (room > 0 || credit == 0)),
            Phase::Asked if model.is_last() || !model.is_sent(&self.world) => {}
            Phase::Asked => assert!(held <= PIPELINE && room == (PIPELINE - held).min(DATA_CHUNK)),
            Phase::Tunnel => assert!(room as u64 <= credit && (room > 0 || credit == 0)),
            Phase::Ending => assert_eq!(room > 0, self.client.timer() == Timer::Linger),
            Phase::Closed => assert_eq!((room, self.client.heap()), (0, 0)),
        }
    }

    /// The client takes everything, then leaves: nothing stays.
    fn finish(&mut self) {
        self.world.crowded = false;
        if !self.client.is_closed() {
            self.world.takes = usize::MAX;
            self.writable();
            self.check();
            assert_eq!(self.client.pending(), 0);
            self.gone_in_model();
            self.client.eof(&mut self.world);
            self.check();
        }
        assert!(self.client.is_closed() && !self.world.open);
        assert_eq!(self.client.heap(), 0);
    }
}
