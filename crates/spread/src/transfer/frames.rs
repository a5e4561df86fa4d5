//! A set of frames, one bit each.

#[derive(Default)]
pub(super) struct Frames {
    bits: Vec<u64>,
    pub(super) count: u32,
}

impl Frames {
    /// Was it not there?
    pub(super) fn insert(&mut self, index: u32) -> bool {
        let (word, bit) = (index as usize / 64, 1 << (index % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.count += u32::from(new);
        new
    }

    pub(super) fn has(&self, index: u32) -> bool {
        let word = self.bits.get(index as usize / 64);
        word.is_some_and(|word| word & 1 << (index % 64) != 0)
    }
}
