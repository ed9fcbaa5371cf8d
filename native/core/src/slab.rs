//! Numbered slots in blocks of fixed size: growing never moves or doubles what is there, and a block whose slots are
//! all free is given back.

const BLOCK: usize = 64;

#[derive(Debug)]
struct Block<T> {
    slots: [Option<T>; BLOCK],
    /// One bit for each occupied slot.
    used: u64,
}

/// A slab. Numbers of removed slots are used again, lowest block first.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    blocks: Vec<Option<Box<Block<T>>>>,
    /// Blocks below this one are full.
    first_free: usize,
    length: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), first_free: 0, length: 0 }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        let blocks = self.blocks.iter().flatten().count();
        blocks * size_of::<Block<T>>() + self.blocks.capacity() * size_of::<Option<Box<Block<T>>>>()
    }

    /// One more than the highest number that may be in use.
    pub(crate) fn bound(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    pub(crate) fn insert(&mut self, value: T) -> usize {
        self.insert_with(|_| value)
    }

    /// Inserts what `make` gives for its number.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(usize) -> T) -> usize {
        while self
            .blocks
            .get(self.first_free)
            .is_some_and(|block| matches!(block, Some(b) if b.used == u64::MAX))
        {
            self.first_free += 1;
        }
        if self.first_free == self.blocks.len() {
            self.blocks.push(None);
        }
        let number = self.first_free;
        let block = self.blocks[number]
            .get_or_insert_with(|| Box::new(Block { slots: [const { None }; BLOCK], used: 0 }));
        let at = block.used.trailing_ones() as usize; // below BLOCK: the block is not full
        block.slots[at] = Some(make(number * BLOCK + at));
        block.used |= 1 << at;
        self.length += 1;
        number * BLOCK + at
    }

    pub(crate) fn remove(&mut self, number: usize) -> Option<T> {
        let at = number / BLOCK;
        let block = self.blocks.get_mut(at)?.as_mut()?;
        let value = block.slots[number % BLOCK].take()?;
        block.used &= !(1 << (number % BLOCK));
        self.length -= 1;
        self.first_free = self.first_free.min(at);
        if block.used == 0 {
            self.blocks[at] = None;
            while matches!(self.blocks.last(), Some(None)) {
                self.blocks.pop();
            }
        }
        Some(value)
    }

    pub(crate) fn get(&self, number: usize) -> Option<&T> {
        self.blocks.get(number / BLOCK)?.as_ref()?.slots[number % BLOCK].as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.blocks.get_mut(number / BLOCK)?.as_mut()?.slots[number % BLOCK].as_mut()
    }
}
