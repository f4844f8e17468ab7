//! Pixels as words, the first channel in the lowest byte: what the compiler vectorises, as it does not three bytes.

/// Takes pixels in.
#[inline(always)]
pub fn to_words(pixels: &[u8], words: &mut [u32]) {
    for (word, &[a, b, c]) in words.iter_mut().zip(pixels.as_chunks::<3>().0) {
        *word = u32::from_le_bytes([a, b, c, 0]);
    }
}

/// Gives pixels back.
#[inline(always)]
pub fn from_words(words: &[u32], pixels: &mut [u8]) {
    for (pixel, word) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(words) {
        let [a, b, c, _] = word.to_le_bytes();
        *pixel = [a, b, c];
    }
}
