//! The input queue of a connection: chunks as they came, handed out without copying where the borders allow it.

use std::collections::VecDeque;

use super::Chunks;

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

/// Bytes in order. An empty queue owns no heap memory.
#[derive(Debug)]
pub(super) struct Input<C> {
    chunks: VecDeque<C>,
    /// Bytes of the first chunk that were taken already.
    offset: usize,
    length: usize,
}

impl<C> Default for Input<C> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), offset: 0, length: 0 }
    }
}

impl<C: Chunk> Input<C> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, chunk: C) {
        self.length += chunk.as_ref().len();
        self.chunks.push_back(chunk);
    }

    /// Bytes of the first chunk that are left.
    pub(super) fn first_len(&self) -> usize {
        self.chunks.front().map_or(0, |chunk| chunk.as_ref().len() - self.offset)
    }

    /// Takes exactly `count` bytes, which must be there: whole chunks move, a part of one is copied.
    pub(super) fn take(&mut self, count: usize) -> Chunks<C> {
        debug_assert!(count <= self.length);
        let mut taken = Chunks::new();
        let mut left = count;
        while left > 0 {
            let first = self.first_len();
            if self.offset == 0 && first <= left {
                taken.extend(self.chunks.pop_front());
                left -= first;
            } else {
                let part = first.min(left);
                if let Some(chunk) = self.chunks.front() {
                    taken.push(C::copy_from(&chunk.as_ref()[self.offset..self.offset + part]));
                }
                self.advance(part, first);
                left -= part;
            }
        }
        self.forget(count);
        taken
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
    /// chunks; called with a count that grows no faster than the input does, so the copying stays linear.
    pub(super) fn contiguous(&mut self, count: usize) -> &[u8] {
        let want = count.min(self.length);
        if self.first_len() < want {
            let mut joined = Vec::with_capacity(want);
            while joined.len() < want {
                let Some(chunk) = self.chunks.pop_front() else { break };
                joined.extend_from_slice(&chunk.as_ref()[self.offset..]);
                self.offset = 0;
            }
            self.chunks.push_front(C::copy_from(&joined));
        }
        self.chunks.front().map_or(&[], |chunk| &chunk.as_ref()[self.offset..])
    }

    fn advance(&mut self, part: usize, first: usize) {
        if part == first {
            self.chunks.pop_front();
            self.offset = 0;
        } else {
            self.offset += part;
        }
    }

    fn forget(&mut self, count: usize) {
        self.length -= count;
        if self.length == 0 {
            self.chunks = VecDeque::new();
        }
    }
}
