//! Quantised inference allocates nothing once it is warm.

mod common;

use common::*;
use rrr_nn::{Calibrator, Logits, Normalize, Pool, QuantizedNetwork};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_warm_forward_allocates_nothing() {
    let spec = split_spec();
    let mut rng = Rng(1);
    let state = rng.net_state(&spec);
    let images = rng.batch(35, 20, 20);
    let pool = Arc::new(Pool::new(2));
    let mut calibrator = Calibrator::new(&spec, &state, Arc::clone(&pool)).unwrap();
    calibrator.observe(&images.u8());
    let state = calibrator.quantize(Normalize { mean: [0.5; 3], std: [0.25; 3] });
    let mut network = QuantizedNetwork::new(&spec, &state, pool).unwrap();
    let mut logits = Logits { branches: 0, n: 0, classes: 0, data: Vec::new() };
    for n in [35, 1] {
        network.forward_into(&images.u8().slice(0, n), &mut logits);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for n in [35, 1, 35] {
        network.forward_into(&images.u8().slice(0, n), &mut logits);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}
