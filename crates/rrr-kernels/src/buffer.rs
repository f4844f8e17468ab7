//! Memory for activations, weights and gradients.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ALIGN: usize = 64;
const QUARTER_PAGE: usize = 1024;
/// Size of the pages that the system is asked for where they fit, and least size of such memory.
#[cfg(all(target_os = "linux", not(miri)))]
const LARGE_PAGE: usize = 2 << 20;

/// Plain numbers of which all bits zero is one.
pub trait Element: Copy + Send + Sync + private::Sealed {}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
    impl Sealed for u16 {}
    impl Sealed for u8 {}
}

impl Element for f32 {}
impl Element for u32 {}
impl Element for u16 {}
impl Element for u8 {}

/// Numbers as bytes.
pub(crate) fn bytes<T: Element>(numbers: &[T]) -> &[u8] {
    // SAFETY: elements are plain numbers, and the slice is borrowed.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// Numbers as bytes.
pub(crate) fn bytes_mut<T: Element>(numbers: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes`; every byte pattern is an element, and the slice is borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

/// A zero-initialised `[T]` that begins on a cache line.
pub struct Aligned<T: Element> {
    /// Owns what `ptr` points to.
    _memory: Memory,
    ptr: NonNull<T>,
    len: usize,
}

enum Memory {
    None,
    Part(#[expect(dead_code, reason = "kept to be freed")] Arc<Buffer>),
    Heap(#[expect(dead_code, reason = "kept to be freed")] Heap),
    #[cfg(all(target_os = "linux", not(miri)))]
    Pages(#[expect(dead_code, reason = "kept to be unmapped")] memmap2::MmapMut),
}

/// A zero-initialised `[f32]` that begins on a cache line.
pub type Buffer = Aligned<f32>;

impl<T: Element> Aligned<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self { _memory: Memory::None, ptr: NonNull::dangling(), len };
        }
        let bytes = len.checked_mul(size_of::<T>()).expect("buffer size overflows");
        #[cfg(all(target_os = "linux", not(miri)))]
        if bytes >= LARGE_PAGE
            && let Some((pages, ptr)) = large_pages(bytes)
        {
            return Self { _memory: Memory::Pages(pages), ptr: ptr.cast(), len };
        }
        let heap = Heap::zeros(bytes);
        let base = heap.base;
        // SAFETY: there is room for `bytes` bytes behind the first cache line that begins in the allocation.
        let ptr = unsafe { base.add(base.align_offset(ALIGN)) }.cast();
        Self { _memory: Memory::Heap(heap), ptr, len }
    }

    /// As [`zeros`](Self::zeros), but `quarters` of a page further on, if they are in large pages.
    ///
    /// For what is read and written side by side: CPUs that go by the last 12 bits of addresses first would take a read of
    /// the one for a read of what was just written to the other, and wait.
    pub fn zeros_aside(len: usize, quarters: usize) -> Self {
        let gap = quarters * QUARTER_PAGE / size_of::<T>();
        let Self { _memory, ptr, .. } = Self::zeros(len.checked_add(gap).expect("buffer size overflows"));
        // SAFETY: that many and `len` more were allocated.
        Self { _memory, ptr: unsafe { ptr.add(gap) }, len }
    }

    /// The memory as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        bytes(self)
    }

    /// The memory as bytes.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        bytes_mut(self)
    }
}

/// Memory for many buffers in one piece, so that small ones lie in large pages too.
///
/// It is freed when the last of them is.
pub struct Arena {
    whole: Arc<Buffer>,
    /// Where the whole begins; taken while nobody else could have.
    base: NonNull<f32>,
    /// How much of it is taken.
    taken: AtomicUsize,
}

impl Arena {
    /// Room for `len` values in buffers of whole cache lines.
    pub fn new(len: usize) -> Self {
        let whole = Buffer::zeros(len);
        Self { base: whole.ptr, whole: Arc::new(whole), taken: AtomicUsize::new(0) }
    }

    /// As [`Buffer::zeros`]; of memory of its own if there is no room left.
    pub fn zeros(&self, len: usize) -> Buffer {
        let whole_lines = len.next_multiple_of(ALIGN / size_of::<f32>());
        let start = self.taken.fetch_add(whole_lines, Ordering::Relaxed);
        if start.checked_add(len).is_none_or(|end| end > self.whole.len) {
            return Buffer::zeros(len);
        }
        // SAFETY: inside of the whole, which nobody reads or writes but through parts, of which none overlap.
        let ptr = unsafe { self.base.add(start) };
        Aligned { _memory: Memory::Part(Arc::clone(&self.whole)), ptr, len }
    }
}

// SAFETY: it only hands out parts, each of which is one owner's.
unsafe impl Send for Arena {}
// SAFETY: as above; every part is handed out once.
unsafe impl Sync for Arena {}

/// Zeroed memory of the allocator, a cache line more than asked for.
struct Heap {
    base: NonNull<u8>,
    layout: Layout,
}

impl Heap {
    /// The alignment is the allocator's usual one: asked for more, it would write the zeros itself, where fresh memory
    /// comes zeroed from the system and is touched first by whoever uses it.
    fn zeros(bytes: usize) -> Self {
        let padded = bytes.checked_add(ALIGN);
        let layout = padded.and_then(|padded| Layout::from_size_align(padded, align_of::<u32>()).ok());
        let layout = layout.expect("buffer size overflows");
        // SAFETY: the layout has a non-zero size.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Self { base, layout }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated by `zeros` with the same layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// Zeroed memory that begins with a large page, of which it is made where the system has such: a first touch of 4 KiB
/// pages costs more than what a single image does with them. `None` if there is none to map.
#[cfg(all(target_os = "linux", not(miri)))]
fn large_pages(bytes: usize) -> Option<(memmap2::MmapMut, NonNull<u8>)> {
    let mut pages = memmap2::MmapMut::map_anon(bytes.checked_add(LARGE_PAGE)?).ok()?;
    let offset = pages.as_ptr().align_offset(LARGE_PAGE);
    // Advice that is not taken costs nothing but time.
    let _ = pages.advise_range(memmap2::Advice::HugePage, offset, bytes);
    let ptr = NonNull::new(pages[offset..][..bytes].as_mut_ptr())?;
    Some((pages, ptr))
}

impl<T: Element> Default for Aligned<T> {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl<T: Element> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Element> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `ptr` is valid for `len` initialised elements (dangling but aligned when `len` is 0).
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

// SAFETY: an `Aligned` owns its memory, as a `Vec` does.
unsafe impl<T: Element> Send for Aligned<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Element> Sync for Aligned<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_aside_are_zeroed_and_aligned_whatever_their_size() {
        for len in [1, 1000, 600_000] {
            for quarters in 0..4 {
                let mut aside = Buffer::zeros_aside(len, quarters);
                assert!(aside.len() == len && aside.iter().all(|v| *v == 0.0));
                assert_eq!(aside.as_ptr().align_offset(ALIGN), 0);
                aside.fill(1.0);
            }
        }
    }

    #[test]
    fn parts_of_an_arena_are_zeroed_apart_and_outlive_it() {
        let arena = Arena::new(64);
        let mut parts: Vec<Buffer> = std::thread::scope(|scope| {
            [20, 30, 16, 1]
                .map(|len| {
                    scope
                        .spawn({
                            let arena = &arena;
                            move || arena.zeros(len)
                        })
                        .join()
                        .unwrap()
                })
                .into()
        });
        drop(arena);
        for (i, part) in parts.iter_mut().enumerate() {
            assert!(part.iter().all(|v| *v == 0.0) && part.as_ptr().align_offset(ALIGN) == 0);
            part.fill(i as f32 + 1.0);
        }
        for (i, part) in parts.iter().enumerate() {
            assert!(part.iter().all(|v| *v == i as f32 + 1.0));
        }
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [20, 30, 16, 1]);
    }
}
