//! Memory for short-lived lists and numbers, kept from one to the next.

use crate::buffer::Aligned;
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Room for one cache line of anything.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "only its place is used")] [MaybeUninit<u8>; 64]);

/// A list whose memory serves lists of other types later.
#[derive(Default)]
pub(crate) struct Scratch {
    lines: Vec<Line>,
}

/// Drops the items written so far, whatever happens.
struct Filled<T> {
    items: *mut T,
    len: usize,
}

impl<T> Drop for Filled<T> {
    fn drop(&mut self) {
        // SAFETY: `len` items were written at `items` and not taken out since.
        unsafe { std::ptr::slice_from_raw_parts_mut(self.items, self.len).drop_in_place() }
    }
}

impl Scratch {
    /// Collects `items` and hands them to `f`.
    pub fn with_slice<T, R>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        f: impl FnOnce(&mut [T]) -> R,
    ) -> R {
        assert!(align_of::<T>() <= align_of::<Line>(), "items of unusual alignment");
        let mut filled = Filled { items: self.lines.as_mut_ptr().cast::<T>(), len: 0 };
        for item in items {
            let needed = ((filled.len + 1) * size_of::<T>()).div_ceil(size_of::<Line>());
            if needed > self.lines.len() {
                // Moves the items with their memory; `filled` must not point to the old one meanwhile.
                let len = std::mem::take(&mut filled.len);
                self.lines.resize(needed.next_power_of_two(), Line([MaybeUninit::uninit(); 64]));
                filled.items = self.lines.as_mut_ptr().cast();
                filled.len = len;
            }
            // SAFETY: there is room for `len + 1` items, aligned as a line is.
            unsafe { filled.items.add(filled.len).write(item) };
            filled.len += 1;
        }
        if filled.len == 0 {
            return f(&mut []);
        }
        // SAFETY: `len` items were written there, and nothing else refers to them.
        f(unsafe { std::slice::from_raw_parts_mut(filled.items, filled.len) })
    }
}

thread_local! {
    static OF_THREAD: RefCell<Aligned<u32>> = RefCell::default();
}

/// Scratch of this thread, for as long as a task holds it.
///
/// Not a closure's argument: code inside of a closure that the standard library calls would not be compiled for
/// the task's instruction set.
pub struct ThreadScratch(pub Aligned<u32>);

impl ThreadScratch {
    /// At least `len` u32 with unspecified values; kept, so that only the largest task so far allocates.
    pub fn take(len: usize) -> Self {
        let kept = OF_THREAD.take();
        Self(if kept.len() < len { Aligned::zeros(len) } else { kept })
    }

    /// As numbers.
    pub fn floats(&mut self) -> &mut [f32] {
        // SAFETY: of the same size and alignment, and all bits are numbers.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len()) }
    }
}

impl Drop for ThreadScratch {
    fn drop(&mut self) {
        OF_THREAD.set(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn lists_of_any_type_share_memory_and_are_dropped_once() {
        let mut scratch = Scratch::default();
        let counted = Rc::new(());
        for len in [0, 1, 3, 100] {
            let sum = scratch.with_slice((0..len).map(|i| (i, Rc::clone(&counted))), |items| {
                assert_eq!(Rc::strong_count(&counted), len + 1);
                items.iter().map(|(i, _)| i).sum::<usize>()
            });
            assert_eq!(sum, len * len.saturating_sub(1) / 2);
            assert_eq!(Rc::strong_count(&counted), 1);
            assert_eq!(scratch.with_slice([1u8, 2, 3], |items| items.to_vec()), [1, 2, 3]);
        }
    }

    #[test]
    fn a_panic_while_collecting_drops_what_was_collected() {
        let counted = Rc::new(());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let items = (0..5).map(|i| if i < 4 { Rc::clone(&counted) } else { panic!("no more") });
            Scratch::default().with_slice(items, |_| ());
        }));
        assert!(result.is_err());
        assert_eq!(Rc::strong_count(&counted), 1);
    }
}
