//! A thread pool for short, uniform pieces of work.
//!
//! Every thread begins with a share of its own, the same from one piece of work to the next, so that it finds in its caches
//! what it has made before; then it takes what others have left, so that a thread that loses its core to a neighbour does
//! not hold them up; idle threads spin briefly (a wake-up through the kernel costs more than most pieces), then
//! yield, then sleep.

use crate::buffer::Buffer;
use crate::scratch::Scratch;
use crate::shared::SharedMut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

// Miri interprets every one of them.
const SPINS: u32 = if cfg!(miri) { 4 } else { 4_000 };
const YIELDS: u32 = if cfg!(miri) { 2 } else { 200 };

type Job = *const (dyn Fn(usize) + Sync);

/// A team of threads that runs one piece of work at a time.
///
/// Results never depend on the number of threads: a piece of work is cut the same way for any number.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a job runs: one job at a time.
    running: Mutex<()>,
    /// As many as calls were nested.
    scratch: Mutex<Vec<Scratch>>,
    floats: Mutex<Buffer>,
}

struct Shared {
    /// Odd while a job is open, even between jobs; grows by one at each change.
    epoch: AtomicUsize,
    job: Mutex<Option<JobRef>>,
    /// Of every thread, its next piece.
    next: Vec<Next>,
    /// Workers inside the open job.
    inside: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: Mutex<usize>,
    wake: Condvar,
}

/// On a cache line of its own, with the neighbour that is fetched with it.
#[repr(align(128))]
struct Next(AtomicUsize);

#[derive(Clone, Copy)]
struct JobRef {
    f: Job,
    tasks: usize,
}

// SAFETY: the pointee is `Sync`, and `Pool::run` keeps it alive until every worker has left the job.
unsafe impl Send for JobRef {}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; 0 means one per available core.
    pub fn new(threads: usize) -> Self {
        let threads =
            if threads == 0 { std::thread::available_parallelism().map_or(1, |n| n.get()) } else { threads };
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            next: (0..threads).map(|_| Next(AtomicUsize::new(0))).collect(),
            inside: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .map(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("rrr-{i}"))
                    .spawn(move || shared.work(i))
                    .expect("cannot start a thread")
            })
            .collect();
        Self { shared, workers, running: Mutex::new(()), scratch: Mutex::default(), floats: Mutex::default() }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(0)`, `f(1)`, ..., `f(tasks - 1)`, in any order and in parallel, and returns when all are done.
    ///
    /// # Panics
    /// If `f` panics. Must not be called from within `f`.
    pub fn run(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(f);
            return;
        }
        let _one_job = self.running.lock().unwrap_or_else(|e| e.into_inner());
        let s = &*self.shared;
        let f: &(dyn Fn(usize) + Sync) = &f;
        // SAFETY: erases the lifetime of `f`; the pointer is taken back below, before `f` ends.
        let erased: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(f) };
        // Before the job is visible: a worker late for the last job may take this one at once.
        for (thread, next) in s.next.iter().enumerate() {
            next.0.store(s.start(thread, tasks), Ordering::Relaxed);
        }
        *lock(&s.job) = Some(JobRef { f: erased, tasks });
        s.epoch.fetch_add(1, Ordering::SeqCst);
        if *lock(&s.sleepers) > 0 {
            s.wake.notify_all();
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| s.drain(0, f, tasks)));
        // Close the job, so that no worker enters any more, then wait for those inside.
        *lock(&s.job) = None;
        s.epoch.fetch_add(1, Ordering::SeqCst);
        let mut backoff = 0;
        while s.inside.load(Ordering::SeqCst) > 0 {
            backoff += 1;
            if backoff < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        if let Err(payload) = result {
            s.panicked.store(false, Ordering::SeqCst);
            std::panic::resume_unwind(payload);
        }
        assert!(!s.panicked.swap(false, Ordering::SeqCst), "a task of the thread pool panicked");
    }

    /// Cuts `data` into pieces of `size` elements (the last may be shorter) and calls `f(index, piece)` for
    /// each, in parallel.
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let (len, data) = (data.len(), SharedMut::new(data));
        self.run(len.div_ceil(size), |i| {
            let start = i * size;
            // SAFETY: the pieces do not overlap.
            f(i, unsafe { data.part(start, size.min(len - start)) });
        });
    }

    /// Calls `f(index, item)` for each item, in parallel.
    pub fn for_each<T: Send>(&self, items: impl IntoIterator<Item = T>, f: impl Fn(usize, T) + Sync) {
        self.with_slice(items.into_iter().map(Some), |items| {
            let (len, items) = (items.len(), SharedMut::new(items));
            self.run(len, |i| {
                // SAFETY: every task has an item of its own.
                let item = unsafe { items.part(i, 1) }[0].take();
                f(i, item.expect("each item is taken once"));
            });
        });
    }

    /// Collects `items` in memory that is kept for the next call, and hands them to `f`.
    pub fn with_slice<T, R>(&self, items: impl IntoIterator<Item = T>, f: impl FnOnce(&mut [T]) -> R) -> R {
        let mut scratch = lock(&self.scratch).pop().unwrap_or_default();
        let result = scratch.with_slice(items, f);
        lock(&self.scratch).push(scratch);
        result
    }

    /// Hands `len` unspecified floats, kept for the next call, to `f`.
    pub(crate) fn with_floats<R>(&self, len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
        let mut floats = std::mem::take(&mut *lock(&self.floats));
        if floats.len() < len {
            floats = Buffer::zeros(len);
        }
        let result = f(&mut floats[..len]);
        *lock(&self.floats) = floats;
        result
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let guard = lock(&self.shared.sleepers);
        self.shared.wake.notify_all();
        drop(guard);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// First of a thread's pieces.
    fn start(&self, thread: usize, tasks: usize) -> usize {
        tasks * thread / self.next.len()
    }

    /// Does a thread's own pieces, then what the others have left of theirs.
    fn drain(&self, thread: usize, f: &(dyn Fn(usize) + Sync), tasks: usize) {
        let threads = self.next.len();
        for owner in (thread..threads).chain(0..thread) {
            let end = self.start(owner + 1, tasks);
            loop {
                let i = self.next[owner].0.fetch_add(1, Ordering::Relaxed);
                if i >= end {
                    break;
                }
                if self.panicked.load(Ordering::Relaxed) {
                    return;
                }
                f(i);
            }
        }
    }

    fn work(&self, thread: usize) {
        let mut seen = 0;
        loop {
            if !self.wait_for_job(&mut seen) {
                return;
            }
            let job = {
                let job = lock(&self.job);
                if job.is_some() {
                    // Counted while the job cannot be closed, so that `run` waits for this thread.
                    self.inside.fetch_add(1, Ordering::SeqCst);
                }
                *job
            };
            let Some(job) = job else { continue };
            // SAFETY: `run` returns, and so ends the life of `f`, only when `inside` is back to 0.
            let f = unsafe { &*job.f };
            let result =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.drain(thread, f, job.tasks)));
            if result.is_err() {
                self.panicked.store(true, Ordering::SeqCst);
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Waits for an epoch other than `seen` that is odd; false when the pool stops.
    fn wait_for_job(&self, seen: &mut usize) -> bool {
        let mut tries = 0;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            let now = self.epoch.load(Ordering::SeqCst);
            if now != *seen && now % 2 == 1 {
                *seen = now;
                return true;
            }
            tries += 1;
            if tries < SPINS {
                std::hint::spin_loop();
            } else if tries < SPINS + YIELDS {
                std::thread::yield_now();
            } else {
                let mut sleepers = lock(&self.sleepers);
                *sleepers += 1;
                while self.epoch.load(Ordering::SeqCst) == now && !self.stop.load(Ordering::SeqCst) {
                    sleepers = self.wake.wait(sleepers).unwrap_or_else(|e| e.into_inner());
                }
                *sleepers -= 1;
                tries = 0;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_task_runs_once() {
        let rounds = if cfg!(miri) { 2 } else { 50 };
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicU64> = (0..tasks).map(|_| AtomicU64::new(0)).collect();
                for _ in 0..rounds {
                    pool.run(tasks, |i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == rounds));
            }
        }
    }

    #[test]
    fn sleeping_workers_wake_up() {
        let pool = Pool::new(3);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(30));
            let sum = AtomicU64::new(0);
            pool.run(100, |i| {
                sum.fetch_add(i as u64, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(64, |i| assert_ne!(i, 33));
        }));
        assert!(result.is_err());
        let mut data = vec![0u32; 10];
        pool.for_each_chunk(&mut data, 3, |i, c| c.fill(i as u32));
        assert_eq!(data, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]);
    }
}
