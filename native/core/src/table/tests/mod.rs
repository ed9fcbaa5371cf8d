//! Tests of the table's contract, with processes that are numbers and messages that are kept.

mod link;
mod local;
mod messages;
mod model;
mod poll;

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;

use super::*;

/// The world around a table in a test.
/// Owns connections and is no process.
pub(super) const SESSION: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) mail: VecDeque<(u32, Message<Vec<u8>>)>,
    pub(super) dead: HashSet<u32>,
    pub(super) monitored: HashSet<u32>,
    /// Processes of polls whose clients are gone.
    pub(super) abandoned: Vec<u32>,
    /// Those behind which other requests wait.
    pub(super) hurried: Vec<(u32, Handle)>,
    /// Those whose answers are lost.
    pub(super) lost: Vec<(u32, Handle)>,
    pub(super) millis: u32,
    /// How often something became busy after all was quiet.
    pub(super) busy: usize,
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

    fn hurry(&mut self, pid: u32, handle: Handle) {
        self.hurried.push((pid, handle));
    }

    fn lost(&mut self, pid: u32, handle: Handle) {
        self.lost.push((pid, handle));
    }

    fn is_process(&mut self, pid: u32) -> bool {
        pid != SESSION
    }

    fn is_alive(&mut self, pid: u32) -> bool {
        !self.dead.contains(&pid)
    }

    fn monitor(&mut self, pid: u32) -> bool {
        self.monitored.insert(pid);
        self.is_alive(pid)
    }

    fn millis(&mut self) -> u32 {
        self.millis
    }

    fn busy(&mut self) {
        self.busy += 1;
    }
}

pub(super) type TestTable = Table<u32, Vec<u8>>;

pub(super) fn client() -> SocketAddr {
    "[2001:db8::1]:4711".parse().expect("an address")
}

pub(super) fn bytes(data: Data<Vec<u8>>) -> Vec<u8> {
    match data {
        Data::Bytes(chunks) | Data::Line { bytes: chunks, .. } => chunks.concat(),
    }
}

impl World {
    /// The next message: receiver, token, bytes or the end.
    pub(super) fn answer(&mut self) -> Option<(u32, u64, Result<Vec<u8>, End>)> {
        match self.mail.pop_front()? {
            (to, Message::Answer { token, result }) => Some((to, token, result.map(bytes))),
            other => panic!("not an answer: {other:?}"),
        }
    }

    pub(super) fn kill(&mut self, table: &TestTable, pid: u32) {
        self.dead.insert(pid);
        if self.monitored.remove(&pid) {
            while table.process_down(pid, 0, self) {}
        }
    }
}

/// Asserts that nothing is left of what a test did.
pub(super) fn assert_empty(table: &TestTable) {
    let stats = table.stats();
    assert_eq!(
        (stats.connections, stats.waiters, stats.input_bytes, stats.output_bytes),
        (0, 0, 0, 0),
        "{stats:?}"
    );
}
