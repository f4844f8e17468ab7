//! The thread pool that decodes and augments.

use std::sync::Arc;

use crate::error::{DataError, Result};

/// A shared pool of worker threads. Cloning shares the pool. Results never depend on its size.
#[derive(Clone, Debug)]
pub struct Workers(Arc<rayon::ThreadPool>);

impl Workers {
    /// A pool of `threads` threads; 0 means one per available core.
    ///
    /// # Errors
    /// [`DataError::Threads`] if the system refuses to start them.
    pub fn new(threads: usize) -> Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("rrr-data-{i}"))
            .build()
            .map(|pool| Self(Arc::new(pool)))
            .map_err(|e| DataError::Threads { reason: e.to_string() })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Runs `job` in the pool, so that rayon's parallel iterators inside it use these threads.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        self.0.install(job)
    }
}
