//! The input queue of a connection: large pieces as they came, small ones joined, handed out without copying where
//! the borders allow it.

use std::collections::VecDeque;

use super::Chunks;
use crate::limits::{MAX_HEAD, MAX_LINE};

/// Owned bytes as the host keeps them: in the NIF a reference-counted binary of the VM, in tests a `Vec<u8>`.
pub trait Chunk: AsRef<[u8]> {
    /// Copies bytes into a new chunk.
    fn copy_from(bytes: &[u8]) -> Self;
}

impl Chunk for Vec<u8> {
    fn copy_from(bytes: &[u8]) -> Self {
        bytes.to_vec()
    }
}

/// The bytes of all chunks, one after the other.
pub fn concat<C: Chunk>(chunks: &[C]) -> Vec<u8> {
    chunks.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>().concat()
}

/// Pieces below this size are joined, unless they are alone. So a queue has at most about one chunk for each 2 kB, however
/// small the pieces are that a peer sends: what it costs to hold and to hand out follows the bytes.
const PIECE: usize = 4_096;

/// Joined pieces become a chunk at this size. No line and no head is longer, so looking for the end of one never has to
/// put chunks together again and again.
const TAIL: usize = 131_072;

const _: () = assert!(TAIL > MAX_LINE + 1 && TAIL > 2 * MAX_HEAD);

/// Bytes in order: whole chunks, then a tail to which small pieces are joined. An empty queue owns no heap memory, and a
/// single piece nothing but itself: that is how most requests come.
#[derive(Debug)]
pub(super) struct Input<C> {
    /// The first chunk. When there is none, there are no more.
    chunk: Option<C>,
    /// Bytes of the first chunk that were taken already.
    offset: usize,
    more: VecDeque<C>,
    tail: Vec<u8>,
    /// Bytes of the tail that were taken already.
    tail_offset: usize,
    length: usize,
}

impl<C> Default for Input<C> {
    fn default() -> Self {
        Self { chunk: None, offset: 0, more: VecDeque::new(), tail: Vec::new(), tail_offset: 0, length: 0 }
    }
}

impl<C: Chunk> Input<C> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let alone = self.length == 0;
        self.length += bytes.len();
        if alone || bytes.len() >= PIECE {
            self.seal();
            self.append(C::copy_from(bytes));
            return;
        }
        if self.more.is_empty() && self.tail.is_empty() {
            self.unseal();
        }
        if self.tail_offset >= PIECE && 2 * self.tail_offset >= self.tail.len() {
            self.tail.drain(..self.tail_offset);
            self.tail_offset = 0;
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= TAIL {
            self.seal();
        }
    }

    fn append(&mut self, chunk: C) {
        match self.chunk {
            Some(_) => self.more.push_back(chunk),
            None => self.chunk = Some(chunk),
        }
    }

    /// Makes a chunk of the tail.
    fn seal(&mut self) {
        if self.tail.len() > self.tail_offset {
            let chunk = C::copy_from(&self.tail[self.tail_offset..]);
            self.append(chunk);
        }
        self.tail = Vec::new();
        self.tail_offset = 0;
    }

    /// Makes a tail of a small chunk that was alone until now.
    fn unseal(&mut self) {
        if let Some(chunk) = self.chunk.take_if(|chunk| chunk.as_ref().len() < PIECE) {
            self.tail.extend_from_slice(&chunk.as_ref()[self.offset..]);
            self.offset = 0;
        }
    }

    /// Bytes of the first piece that are left.
    pub(super) fn first_len(&self) -> usize {
        match &self.chunk {
            Some(chunk) => chunk.as_ref().len() - self.offset,
            None => self.tail.len() - self.tail_offset,
        }
    }

    /// Takes exactly `count` bytes, which must be there: whole chunks move, parts are copied.
    pub(super) fn take(&mut self, count: usize) -> Chunks<C> {
        debug_assert!(count <= self.length);
        let mut taken = Chunks::new();
        let mut left = count;
        while left > 0 {
            let first = self.first_len();
            let part = first.min(left);
            if self.offset == 0 && part == first && self.chunk.is_some() {
                taken.extend(self.next_chunk());
            } else {
                taken.push(C::copy_from(&self.first()[..part]));
                self.advance(part, first);
            }
            left -= part;
        }
        self.forget(count);
        taken
    }

    /// The same as one chunk: moved if it is one, else copied.
    pub(super) fn take_joined(&mut self, count: usize) -> C {
        match self.take(count).into_inner() {
            Ok([chunk]) => chunk,
            Err(chunks) => C::copy_from(&concat(&chunks)),
        }
    }

    /// Drops `count` bytes, which must be there.
    pub(super) fn skip(&mut self, count: usize) {
        debug_assert!(count <= self.length);
        let mut left = count;
        while left > 0 {
            let first = self.first_len();
            let part = first.min(left);
            self.advance(part, first);
            left -= part;
        }
        self.forget(count);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The first bytes in one piece: at least `count` of them, or all there are. Copies only when they lie in several
    /// pieces; when these are all there is, what follows is joined to them without copying them once more.
    pub(super) fn contiguous(&mut self, count: usize) -> &[u8] {
        let want = count.min(self.length);
        if self.first_len() < want {
            let mut joined = Vec::with_capacity(want);
            while joined.len() < want {
                let first = self.first_len();
                joined.extend_from_slice(self.first());
                self.advance(first, first);
            }
            if joined.len() == self.length {
                self.tail = joined;
            } else {
                let after = self.chunk.replace(C::copy_from(&joined));
                if let Some(after) = after {
                    self.more.push_front(after);
                }
            }
        }
        self.first()
    }

    fn first(&self) -> &[u8] {
        match &self.chunk {
            Some(chunk) => &chunk.as_ref()[self.offset..],
            None => &self.tail[self.tail_offset..],
        }
    }

    /// Goes on by a part of the first piece, which has `first` bytes left.
    fn advance(&mut self, part: usize, first: usize) {
        let whole = part == first;
        match (self.chunk.is_some(), whole) {
            (true, true) => drop(self.next_chunk()),
            (true, false) => self.offset += part,
            (false, true) => {
                self.tail.clear();
                self.tail_offset = 0;
            }
            (false, false) => self.tail_offset += part,
        }
    }

    /// Takes the first chunk; the next one is first then.
    fn next_chunk(&mut self) -> Option<C> {
        self.offset = 0;
        std::mem::replace(&mut self.chunk, self.more.pop_front())
    }

    fn forget(&mut self, count: usize) {
        self.length -= count;
        if self.length == 0 {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the sizes of pieces and reads, the bytes come out as they went in, in few chunks.
        #[test]
        fn bytes_are_kept_in_order(steps in prop::collection::vec((0..6_000_usize, 0..9_000_usize, 0..3_u8), 1..40)) {
            let (mut input, mut model, mut next) = (Input::<Vec<u8>>::default(), Vec::new(), 0_u8);
            for (put, take, how) in steps {
                let bytes: Vec<u8> = (0..put).map(|_| { next = next.wrapping_add(1); next }).collect();
                input.push(&bytes);
                model.extend(bytes);
                let count = take.min(model.len());
                match how {
                    0 => {
                        let taken = input.take(count);
                        prop_assert!(taken.len() <= 2 + 2 * count / PIECE + 1);
                        prop_assert_eq!(taken.concat(), &model[..count]);
                        model.drain(..count);
                    }
                    1 => {
                        input.skip(count);
                        model.drain(..count);
                    }
                    _ => {
                        let first = input.contiguous(count);
                        prop_assert!(first.len() >= count && model.starts_with(first));
                    }
                }
                prop_assert_eq!(input.len(), model.len());
            }
            prop_assert_eq!(input.take(model.len()).concat(), model);
        }
    }

    /// Single bytes do not cost a chunk each.
    #[test]
    fn small_pieces_are_joined() {
        let mut input = Input::<Vec<u8>>::default();
        (0..100_000).for_each(|_| input.push(b"x"));
        assert!(input.take(100_000).len() <= 100_000 / PIECE + 1);
    }

    /// Looking at what there is after each byte copies each byte a bounded number of times: a head or a line that comes
    /// byte by byte costs what it is long.
    #[test]
    fn looking_at_pieces_copies_no_byte_again_and_again() {
        for before in [1, PIECE - 1, PIECE, 50_000] {
            let mut input = Input::<Vec<u8>>::default();
            input.push(&vec![b'x'; before]);
            let (mut moves, mut place) = (0, std::ptr::null());
            for count in before + 1..=MAX_LINE {
                input.push(b"x");
                let all = input.contiguous(MAX_LINE + 1);
                assert_eq!(all.len(), count);
                moves += usize::from(place != all.as_ptr());
                place = all.as_ptr();
            }
            // A vector that grows moves once each time it doubles.
            assert!(moves <= 20, "{moves} moves after {before} bytes");
        }
    }
}
