//! What convolutions compute with.

use crate::Isa;
use crate::micro::Micro;
use crate::pool::Pool;
use crate::precision::Precision;
use std::sync::Arc;

/// The kernels and threads to compute with.
#[derive(Clone)]
pub struct Compute {
    pub(crate) micro: Micro,
    pub(crate) pool: Arc<Pool>,
    pub(crate) precision: Precision,
}

impl Compute {
    /// The active instruction set ([`Isa::active`]) on a pool's threads, in f32.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self::with_isa(pool, Isa::active()).expect("the active instruction set is available")
    }

    /// A given instruction set, in f32, or `None` if this CPU lacks it.
    pub fn with_isa(pool: Arc<Pool>, isa: Isa) -> Option<Self> {
        Some(Self { micro: Micro::new(isa)?, pool, precision: Precision::F32 })
    }

    /// The same in a given precision.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The precision of products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.micro.isa()
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The threads, to share with others.
    pub fn shared_pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }
}
