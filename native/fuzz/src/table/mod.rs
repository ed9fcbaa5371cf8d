//! Scripts of operations on a table, and a model to compare with.
//!
//! Asserted after each operation:
//!
//! * Input comes out in order, each byte once, and to nobody that is dead; output likewise.
//! * Each wait is answered at most once, in its turn, and not after it was cancelled. Nobody waits for what is there,
//!   and nobody waits on a connection that is closed.
//! * A link gets well-formed frames: data within credit and in order, one ready for each request, one close for each
//!   connection; what has to go out is told of, once. Each request starts one consumer.
//! * What the table counts is what the model counts; in the end all of it is 0.

mod conn;
mod links;
mod locals;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use megaphone_core::limits::TableLimits;
use megaphone_core::table::{Active, Data, Handle, Host, Message, Packet, RecvError, Sent, Stats, Table};

use crate::Script;
use conn::{Conn, Sender};
use links::Peer;

/// Processes that a script uses; one that dies is followed by another.
const PROCESSES: usize = 5;

/// Connections of a script; more are not opened.
const MOST: usize = 24;

#[derive(Debug, Default)]
struct World {
    mail: VecDeque<(u32, Message<Vec<u8>>)>,
    dead: HashSet<u32>,
    monitors: HashMap<u32, usize>,
    /// Processes of polls that are to end.
    abandoned: Vec<u32>,
}

impl Host for World {
    type Pid = u32;
    type Chunk = Vec<u8>;

    fn deliver(&mut self, to: u32, message: Message<Vec<u8>>) {
        self.mail.push_back((to, message));
    }

    fn abandon(&mut self, pid: u32, _handle: Handle) {
        self.abandoned.push(pid);
    }

    fn is_alive(&mut self, pid: u32) -> bool {
        !self.dead.contains(&pid)
    }

    fn monitor(&mut self, pid: u32) -> bool {
        *self.monitors.entry(pid).or_default() += 1;
        self.is_alive(pid)
    }
}

struct Scene {
    table: Table<u32, Vec<u8>>,
    world: World,
    limits: TableLimits,
    /// The live process in each place.
    pids: [u32; PROCESSES],
    next_pid: u32,
    conns: Vec<Conn>,
    peer: Option<Peer>,
    /// Tell of each operation and message, to read a script that failed.
    trace: bool,
}

/// Runs a script.
///
/// # Panics
/// When the table does what it must not.
pub fn run(script: &mut Script<'_>) {
    let small = script.byte() % 2 == 0;
    let mut limits = TableLimits {
        waiters: 3,
        local_connections: 3,
        link_connections: 2,
        links: 1,
        ..TableLimits::default()
    };
    if small {
        (limits.local_queue, limits.output_queue) = (300, 100);
    }
    let mut scene = Scene {
        table: Table::with_limits(limits),
        world: World::default(),
        limits,
        pids: std::array::from_fn(|at| at as u32 + 1),
        next_pid: PROCESSES as u32 + 1,
        conns: Vec::new(),
        peer: None,
        trace: std::env::var_os("FUZZ_TRACE").is_some(),
    };
    while !script.is_done() {
        scene.step(script);
        scene.read_mail();
        scene.check();
    }
    scene.finish();
}

impl Scene {
    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte() % 32;
        if self.trace {
            eprintln!("operation {op}, then {script:?}");
        }
        match op {
            0 => self.open(script),
            1..=4 => self.put(script),
            5..=9 => self.recv(script),
            10 => self.ask(script),
            11 => self.cancel(script),
            12..=14 => self.send(script),
            15 => self.go_on(script),
            16 | 17 => self.output(script),
            18 | 19 => self.set_active(script),
            20 => self.set_packet(script),
            21 if script.byte() % 2 == 0 => self.set_owner(script),
            21 => self.end_poll(script),
            22 => self.close(script),
            23 => self.shutdown(script),
            24 => self.kill(script),
            25 => {
                self.link_output();
            }
            _ => self.link(script),
        }
    }

    fn pid(&self, script: &mut Script<'_>) -> u32 {
        self.pids[script.below(PROCESSES)]
    }

    /// Any connection that was ever opened and has a handle: those that are gone have to say so.
    fn any(&self, script: &mut Script<'_>) -> Option<(usize, Handle)> {
        let at = script.below(self.conns.len().max(1));
        self.conns.get(at).and_then(|conn| conn.handle).map(|handle| (at, handle))
    }

    fn is_gone(&self, at: usize) -> bool {
        self.conns[at].handle.is_none_or(|handle| self.table.info(&handle).is_err())
    }

    fn find(&self, handle: &Handle) -> usize {
        self.conns.iter().position(|conn| conn.handle == Some(*handle)).expect("a connection of ours")
    }

    /// Any bytes for readers are handed out through here.
    fn recv(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let (pid, length) = (self.pid(script), script.size(&[300, 16_384, 65_536, 200_000]));
        let length = if script.byte() % 2 == 0 { 0 } else { length };
        let gone = self.is_gone(at);
        let result = self.table.recv(&handle, length, pid, 0, &mut self.world);
        let conn = &mut self.conns[at];
        match result {
            Ok(Ok(data)) => {
                assert!(conn.readers.is_empty(), "went before others");
                conn.got(data, length);
            }
            Ok(Err(token)) => {
                conn.wait(conn::Reader { pid, token: Some(token), length });
                assert!(conn.readers.len() <= self.limits.waiters);
            }
            Err(RecvError::Closed) => conn.end_of_input(length, gone),
            Err(RecvError::Invalid) => conn.invalid(length),
            Err(RecvError::Waiters) => assert_eq!(conn.readers.len(), self.limits.waiters),
        }
    }

    /// As the original asks: the answer is a plain message.
    fn ask(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        // Its answer does not say on which connection, so each asker asks on one only.
        let pid = self.conns[at].asker;
        if self.world.dead.contains(&pid) {
            return;
        }
        let gone = self.is_gone(at);
        self.table.get_data(&handle, pid, 0, &mut self.world);
        let (full, conn) = (self.limits.waiters, &mut self.conns[at]);
        match self.world.mail.pop_front() {
            Some((to, Message::Plain(result))) => {
                assert_eq!(to, pid);
                match result {
                    Ok(data) => {
                        assert!(conn.readers.is_empty(), "went before others");
                        conn.got(data, 0);
                    }
                    Err(_) if conn.readers.len() == full || conn.active != Active::Passive => {}
                    Err(_) => conn.end_of_input(0, gone),
                }
            }
            other => {
                self.world.mail.extend(other);
                conn.wait(conn::Reader { pid, token: None, length: 0 });
            }
        }
    }

    fn cancel(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let conn = &mut self.conns[at];
        let tokens: Vec<u64> = conn
            .readers
            .iter()
            .filter_map(|reader| reader.token)
            .chain(conn.senders.iter().map(|sender| sender.token))
            .collect();
        let token = tokens.get(script.below(tokens.len() + 1)).copied().unwrap_or(u64::MAX);
        let reader = conn.readers.iter().position(|reader| reader.token == Some(token));
        let sender = conn.senders.iter().position(|sender| sender.token == token);
        let told = sender.is_some_and(|place| conn.senders[place].told);
        // Before its mail is read: that a wait was cancelled may be good news for those behind it.
        reader.map(|place| conn.readers.remove(place));
        sender.map(|place| conn.senders.remove(place));
        let cancelled = self.table.cancel(&handle, token, &mut self.world);
        assert_eq!(cancelled, reader.is_some() || (sender.is_some() && !told));
    }

    fn send(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let (pid, count) = (self.pid(script), script.size(&[100, 16_384, 65_536, 150_000]));
        self.send_as(at, &handle, pid, count);
    }

    /// A sender that was told of room sends on.
    fn go_on(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let Some(first) = self.conns[at].senders.front().copied() else { return };
        if first.told {
            self.send_as(at, &handle, first.pid, script.size(&[100, 65_536]));
        }
    }

    fn send_as(&mut self, at: usize, handle: &Handle, pid: u32, count: usize) {
        let conn = &mut self.conns[at];
        let data: Vec<u8> = (0..count).map(|n| (conn.accepted + n) as u8).collect();
        let turn = conn.senders.front().is_some_and(|first| first.told && first.pid == pid);
        let first = conn.senders.is_empty() || turn;
        if turn {
            conn.senders.pop_front();
        }
        let room = self.limits.output_queue - conn.untaken();
        let sent = self.table.send(handle, &data, pid, 0, &mut self.world);
        let conn = &mut self.conns[at];
        let Ok(sent) = sent else {
            assert!(conn.output_closed && !turn, "refused");
            return;
        };
        assert!(!conn.output_closed, "accepted after the end");
        if let Some(remote) = &mut conn.remote {
            remote.answered = true;
        }
        let accepted = match sent {
            Sent::All => count,
            Sent::Wait { accepted, token } => {
                let sender = Sender { pid, token, told: false };
                if turn {
                    conn.senders.push_front(sender)
                } else {
                    conn.senders.push_back(sender)
                }
                assert!(conn.senders.len() <= self.limits.waiters);
                accepted
            }
            Sent::Refused => {
                assert_eq!(conn.senders.len(), self.limits.waiters);
                0
            }
        };
        assert_eq!(accepted, if first { room.min(count) } else { 0 });
        conn.accepted += accepted;
    }

    fn set_active(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let active = match script.byte() % 8 {
            0 => Active::Passive,
            1..=3 => Active::Once,
            4 | 5 => Active::Always,
            _ => Active::Count(i16::from(script.byte()) - 4),
        };
        let gone = self.is_gone(at);
        let conn = &mut self.conns[at];
        if !conn.may_be_active() {
            return;
        }
        // What it brings is read afterwards.
        let before = conn.active;
        conn.active = match (before, active) {
            (Active::Count(left), Active::Count(more)) => Active::Count(left + more),
            (_, active) => active,
        };
        if let (Active::Once | Active::Always | Active::Count(_), Some(remote)) = (active, &mut conn.remote) {
            (remote.tunnel, remote.polled) = (true, false);
        }
        if let Err(error) = self.table.set_active(&handle, active, &mut self.world) {
            assert_eq!(error, RecvError::Closed);
            assert!(gone);
            self.conns[at].active = before;
        } else if self.conns[at].owner.is_none() && matches!(self.conns[at].active, Active::Count(..=0)) {
            self.conns[at].active = Active::Passive; // there is nobody to tell
        }
    }

    fn set_owner(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let (pid, gone) = (self.pid(script), self.is_gone(at));
        let result = self.table.set_owner(&handle, pid, 0, &mut self.world);
        let conn = &mut self.conns[at];
        if result.is_ok() {
            conn.owner = Some(pid);
        } else {
            assert!(
                gone || conn.over
                    || conn.deaf
                    || conn.remote.as_ref().is_some_and(|remote| !remote.started && !remote.tunnel)
            );
        }
    }

    fn close(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let by = self.pid(script);
        if !self.is_gone(at) {
            self.conns[at].close();
        }
        self.table.close(&handle, by, 0, &mut self.world);
    }

    fn shutdown(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let how = script.byte() % 3 + 1;
        let (read, write) = (how & 1 > 0, how & 2 > 0);
        let gone = self.is_gone(at);
        if !gone {
            self.conns[at].shutdown(read, write);
        }
        let result = self.table.shutdown(&handle, read, write, 0, &mut self.world);
        assert!(result.is_ok() || gone);
    }

    fn kill(&mut self, script: &mut Script<'_>) {
        let at = script.below(PROCESSES + 1);
        let pid = match self.pids.get_mut(at) {
            Some(pid) => std::mem::replace(pid, self.next_pid),
            None => match self.any(script) {
                Some((at, _)) => self.conns[at].asker,
                None => return,
            },
        };
        self.next_pid += 1;
        self.end_process(pid);
    }

    fn end_process(&mut self, pid: u32) {
        self.read_mail();
        self.world.dead.insert(pid);
        for conn in &mut self.conns {
            conn.process_ended(pid);
        }
        for _ in 0..self.world.monitors.remove(&pid).unwrap_or(0) {
            while self.table.process_down(pid, 0, &mut self.world) {}
        }
    }

    fn read_mail(&mut self) {
        while let Some((to, message)) = self.world.mail.pop_front() {
            if self.trace {
                eprintln!("  to {to}: {message:?}");
            }
            assert!(!self.world.dead.contains(&to), "mail for the dead: {message:?}");
            match message {
                Message::Answer { token, result } => self.answered(to, Some(token), result.ok()),
                Message::Plain(result) => self.answered(to, None, result.ok()),
                Message::Room { token, result } => self.told_of_room(to, token, result.is_ok()),
                Message::Active(handle, data) => {
                    let at = self.find(&handle);
                    self.conns[at].active_data(to, data);
                }
                Message::Passive(handle) => {
                    let at = self.find(&handle);
                    self.conns[at].passive(to);
                }
                Message::ActiveClosed(handle) => {
                    let at = self.find(&handle);
                    self.conns[at].active_closed(to);
                }
                Message::Output(handle) => {
                    let at = self.find(&handle);
                    self.conns[at].told_of_output(to);
                }
                Message::LinkOutput => self.peer.as_mut().expect("a link").told_of_output(to),
            }
        }
    }

    fn answered(&mut self, to: u32, token: Option<u64>, result: Option<Data<Vec<u8>>>) {
        let waits =
            |conn: &&mut Conn| conn.readers.iter().any(|reader| (reader.pid, reader.token) == (to, token));
        let conn = self.conns.iter_mut().find(waits).expect("an answer that nobody waits for");
        let reader = conn.readers.pop_front().expect("one waits");
        assert_eq!((reader.pid, reader.token), (to, token), "answered out of turn");
        match result {
            Some(data) => conn.got(data, reader.length),
            None => conn.end_of_input(reader.length, false),
        }
    }

    fn told_of_room(&mut self, to: u32, token: u64, room: bool) {
        let waits = |conn: &&mut Conn| conn.senders.iter().any(|sender| sender.token == token);
        let conn = self.conns.iter_mut().find(waits).expect("told of room that nobody waits for");
        if !room {
            conn.forget_told();
        }
        let first = conn.senders.front_mut().expect("one waits");
        assert_eq!((first.pid, first.token, first.told), (to, token, false), "told out of turn");
        if room {
            first.told = true;
        } else {
            assert!(conn.output_closed);
            conn.senders.pop_front();
        }
    }

    fn check(&mut self) {
        assert_eq!(self.world.abandoned, [], "ended though its client is there");
        let mut sum = Stats::default();
        for conn in &mut self.conns {
            if self.trace {
                eprintln!("    {}", conn.summary());
            }
            conn.check(&self.table, &self.limits, &mut sum);
        }
        let stats = self.table.stats();
        assert_eq!(stats.waiters, sum.waiters);
        assert_eq!((stats.input_bytes, stats.output_bytes), (sum.input_bytes, sum.output_bytes));
        assert_eq!((stats.connections, stats.local), (sum.connections, sum.local));
        assert_eq!(stats.links, usize::from(self.peer.is_some()));
    }

    fn finish(mut self) {
        self.drain_link();
        self.read_mail();
        self.check();
        self.end_link();
        self.read_mail();
        for pid in 0..self.next_pid {
            self.end_process(pid);
        }
        let askers: Vec<u32> = self.conns.iter().map(|conn| conn.asker).collect();
        askers.into_iter().for_each(|pid| self.end_process(pid));
        self.read_mail();
        // What the table keeps for the next connection is no leftover.
        assert_eq!(Stats { memory: 0, ..self.table.stats() }, Stats::default());
        for handle in self.conns.iter().filter_map(|conn| conn.handle) {
            assert!(self.table.info(&handle).is_err());
        }
    }
}

fn client() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4711))
}

fn bytes(data: Data<Vec<u8>>) -> Vec<u8> {
    match data {
        Data::Bytes(chunks) | Data::Line { bytes: chunks, .. } => chunks.concat(),
    }
}

/// The packet modes of connections without a link.
const PACKETS: [Packet; 3] = [Packet::Raw, Packet::HttpBin, Packet::Httph];
