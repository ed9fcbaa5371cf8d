//! What the fuzz targets share: how they read their input, and the models.
//!
//! Targets on bytes take the bytes as they are, after a few that choose limits and cuts. Targets on operations read a
//! script: each operation is one byte that chooses it and a few for its arguments. When the input is used up every
//! further byte is 0, so a script that was cut is a script.

pub mod client;
pub mod plain;
pub mod socket;
pub mod table;

/// Input that is read as numbers.
#[derive(Debug)]
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// Reads from the start.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Whether everything was read.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `most`.
    pub fn below(&mut self, most: usize) -> usize {
        usize::from(self.byte()) % most
    }

    /// A size: mostly small, at times around one of the given ones.
    pub fn size(&mut self, around: &[usize]) -> usize {
        let byte = usize::from(self.byte());
        match byte.checked_sub(192) {
            None => byte,
            Some(rest) => (around[rest / 4 % around.len()] + rest % 4).saturating_sub(2),
        }
    }

    /// What was not read.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Cuts `input` into pieces of sizes that follow from `seed`: single bytes, a few, many.
pub fn pieces(input: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (input, u32::from(seed) + 1);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = match seed % 3 {
            0 => 1,
            1 => 1 + (state >> 24) as usize % 9,
            _ => 1 + (state >> 16) as usize % 3_000,
        };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        Some(piece)
    })
}
