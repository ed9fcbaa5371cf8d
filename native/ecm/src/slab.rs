//! The client connections: found by index, checked by generation, in chunks.
//!
//! Why not a task each on an async runtime: that costs some 900 bytes per idle connection; a slot here costs 40, and
//! an idle connection has nothing else. Chunks, because a vector that doubles copies all slots and holds up to twice
//! the memory.

use megaphone_core::client::{Client, Timer};
use megaphone_core::limits;
use mio::net::TcpStream;

use crate::links::LinkIndex;
use crate::tls::Session;

/// Slots of one chunk: 40 kB.
const CHUNK: usize = 1_024;

/// Ends the list of free slots.
const NONE: u32 = u32::MAX;

/// One client connection and what the event loop knows of it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// `None` in a free slot.
    pub(crate) stream: Option<TcpStream>,
    /// Counts the uses of the slot; never 0, so that no id is 0.
    generation: u32,
    /// In ticks; in a free slot the next free one.
    pub(crate) deadline: u32,
    /// What `deadline` is for.
    pub(crate) timer: Timer,
    pub(crate) bits: Bits,
    /// The link of its virtual connection, while that is open.
    pub(crate) link: LinkIndex,
    pub(crate) client: Client,
}

// A debug build's TcpStream is larger.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Slot>() <= 40);

/// What was seen of the socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bits(u16);

impl Bits {
    /// There may be something to read.
    pub(crate) const READABLE: u16 = 1;
    /// The client has ended its stream.
    pub(crate) const ENDED: u16 = 2;
    /// In the queue of clients to be read.
    pub(crate) const QUEUED: u16 = 4;
    /// A PROXY header is due, before anything else.
    pub(crate) const PREFACE: u16 = 8;
    /// What it says of others is believed.
    pub(crate) const TRUSTED: u16 = 16;
    /// It was refused when it came, and waits for its answer to be read.
    pub(crate) const TURNED: u16 = 32;

    /// The client comes by TLS; while there is no session for it yet, that begins behind a PROXY header.
    pub(crate) const TLS: u16 = 64;
    /// The session's handshake is not complete: the state machine knows nothing of the client yet.
    pub(crate) const HANDSHAKE: u16 = 128;
    /// The session has decrypted bytes for the state machine.
    pub(crate) const HELD: u16 = 256;
    /// So many records wait in the session that nothing may be read.
    pub(crate) const FULL: u16 = 512;

    /// Whether one of the bits is set.
    pub(crate) fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    pub(crate) fn set(&mut self, bits: u16, on: bool) {
        self.0 = if on { self.0 | bits } else { self.0 & !bits };
    }

    /// Puts down what of a session decides whether the client is read.
    pub(crate) fn note(&mut self, session: &Session) {
        self.set(Self::HELD, session.has_plain());
        self.set(Self::FULL, session.pending() > limits::TLS_OUTPUT);
    }
}

/// All client connections.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    chunks: Vec<Box<[Slot]>>,
    free: Option<u32>,
    len: usize,
}

impl Slab {
    /// Clients in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Slots in it, used or free; each index is below.
    pub(crate) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Puts a new client in; answers its id: index and generation.
    pub(crate) fn insert(&mut self, stream: TcpStream) -> u64 {
        if self.free.is_none() {
            self.grow();
        }
        let index = self.free.unwrap_or_default();
        let slot = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        self.free = (slot.deadline != NONE).then_some(slot.deadline);
        slot.stream = Some(stream);
        slot.client = Client::new();
        slot.timer = Timer::None;
        slot.bits = Bits::default();
        self.len += 1;
        id(index, slot.generation)
    }

    /// Takes a client out; its id is not used again before the generation has gone all the way round.
    pub(crate) fn remove(&mut self, index: u32) -> Option<TcpStream> {
        let next = self.free.unwrap_or(NONE);
        let slot = self.at(index)?;
        let stream = slot.stream.take();
        slot.rename(self::next(slot.id(index)));
        slot.deadline = next;
        slot.client = Client::new();
        self.free = Some(index);
        self.len -= 1;
        stream
    }

    /// The client with this id, if it is still there.
    pub(crate) fn find(&mut self, id: u64) -> Option<u32> {
        // The low half of the id, by construction.
        let index = id as u32;
        let slot = self.at(index)?;
        (slot.generation == (id >> 32) as u32).then_some(index)
    }

    /// The used slot at an index.
    pub(crate) fn at(&mut self, index: u32) -> Option<&mut Slot> {
        self.chunks
            .get_mut(index as usize / CHUNK)
            .map(|chunk| &mut chunk[index as usize % CHUNK])
            .filter(|slot| slot.stream.is_some())
    }

    fn grow(&mut self) {
        let first = self.capacity();
        // More than 2^32 descriptors do not exist, so the indexes fit.
        let next = |at: usize| if at + 1 < CHUNK { (first + at + 1) as u32 } else { NONE };
        let chunk = (0..CHUNK)
            .map(|at| Slot {
                stream: None,
                generation: 1,
                deadline: next(at),
                timer: Timer::None,
                bits: Bits::default(),
                link: 0,
                client: Client::new(),
            })
            .collect();
        self.chunks.push(chunk);
        self.free = Some(first as u32);
    }
}

impl Slot {
    /// The id of the client in this slot.
    pub(crate) fn id(&self, index: u32) -> u64 {
        id(index, self.generation)
    }

    /// Gives the client an id of [`next`]: only while nobody knows this one.
    pub(crate) fn rename(&mut self, id: u64) {
        self.generation = (id >> 32) as u32;
    }
}

/// The id of the next generation in the same slot.
pub(crate) fn next(before: u64) -> u64 {
    let generation = ((before >> 32) as u32).checked_add(1).unwrap_or(1);
    id(before as u32, generation)
}

fn id(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stream() -> TcpStream {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn an_id_is_never_the_same_twice() {
        let mut slab = Slab::default();
        let first = slab.insert(stream());
        let index = slab.find(first).unwrap();
        assert!(slab.remove(index).is_some());
        assert_eq!(slab.find(first), None);
        let second = slab.insert(stream());
        assert_eq!(slab.find(second), Some(index));
        assert_ne!(first, second);
        assert_eq!(slab.len(), 1);
        assert_ne!(first, 0);
    }

    #[test]
    fn grows_by_chunks_and_uses_free_slots_again() {
        let mut slab = Slab::default();
        let ids: Vec<u64> = (0..=CHUNK).map(|_| slab.insert(stream())).collect();
        assert_eq!(slab.capacity(), 2 * CHUNK);
        for id in &ids {
            let index = slab.find(*id).unwrap();
            slab.remove(index);
        }
        assert_eq!(slab.len(), 0);
        for _ in 0..2 * CHUNK {
            slab.insert(stream());
        }
        assert_eq!((slab.len(), slab.capacity()), (2 * CHUNK, 2 * CHUNK));
        assert_eq!(slab.find(u64::MAX), None);
    }
}
