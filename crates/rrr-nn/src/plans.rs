//! Convolution plans and activation memory, made once and reused.

use crate::profile::Profile;
use rrr_kernels::{Activation, Compute, Conv, ConvPlan};
use std::collections::HashMap;
use std::sync::Arc;

/// A convolution and the height and width of its input.
type SizedConv = (Conv, (usize, usize));

/// What a plan is for: a convolution or the sum of two, the number of images, and that of the output's.
type Key = (SizedConv, Option<SizedConv>, (usize, usize));

/// Plans by convolutions and inputs.
pub(crate) struct Plans {
    compute: Compute,
    gradients: bool,
    plans: HashMap<Key, Arc<ConvPlan>>,
    /// Where the layers' times go, while somebody wants them.
    pub profile: Option<Profile>,
}

impl Plans {
    pub fn new(compute: Compute, gradients: bool) -> Self {
        Self { compute, gradients, plans: HashMap::new(), profile: None }
    }

    pub fn compute_and_profile(&mut self) -> (&Compute, &mut Option<Profile>) {
        (&self.compute, &mut self.profile)
    }

    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    pub fn get(&mut self, conv: Conv, size: (usize, usize), n: usize) -> Arc<ConvPlan> {
        self.within(conv, size, (n, n))
    }

    /// For `n` images whose outputs are some of `all`; see [`ConvPlan::within`].
    pub fn within(&mut self, conv: Conv, size: (usize, usize), (n, all): (usize, usize)) -> Arc<ConvPlan> {
        let plan = self.plans.entry(((conv, size), None, (n, all))).or_insert_with(|| {
            Arc::new(if n == all {
                ConvPlan::new(conv, size, n, self.gradients, &self.compute)
            } else {
                ConvPlan::within(conv, size, (n, all), &self.compute)
            })
        });
        Arc::clone(plan)
    }

    /// For the sum of two convolutions, as [`Plans::within`]; see [`ConvPlan::sum`].
    pub fn sum(&mut self, first: SizedConv, second: SizedConv, images: (usize, usize)) -> Arc<ConvPlan> {
        let plan = self
            .plans
            .entry((first, Some(second), images))
            .or_insert_with(|| Arc::new(ConvPlan::sum([first, second], images, &self.compute)));
        Arc::clone(plan)
    }
}

/// Activations that are not in use, to be taken again instead of allocated (touching new memory is slow).
#[derive(Default)]
pub(crate) struct Workspace {
    free: Vec<Activation>,
    /// Empty lists, for their memory.
    lists: Vec<Vec<Activation>>,
}

impl Workspace {
    /// An activation with unspecified values (zero rows aside).
    pub fn take(&mut self, channels: usize, (height, width): (usize, usize), n: usize) -> Activation {
        let fits = |a: &Activation| (a.channels(), a.height(), a.width()) == (channels, height, width);
        match self.free.iter().rposition(fits) {
            Some(i) => {
                let mut a = self.free.swap_remove(i);
                a.set_batch(n);
                a
            }
            None => Activation::zeros(channels, height, width, n),
        }
    }

    pub fn take_many(
        &mut self,
        count: usize,
        channels: usize,
        size: (usize, usize),
        n: usize,
    ) -> Vec<Activation> {
        let fits = self.lists.iter().rposition(|list| list.capacity() >= count);
        let mut list = fits.map(|i| self.lists.swap_remove(i)).unwrap_or_else(|| Vec::with_capacity(count));
        for _ in 0..count {
            list.push(self.take(channels, size, n));
        }
        list
    }

    /// Bytes of all activations that are not in use.
    pub fn bytes(&self) -> usize {
        self.free.iter().map(|a| size_of_val(a.data())).sum()
    }

    pub fn give(&mut self, mut activations: Vec<Activation>) {
        self.free.append(&mut activations);
        self.lists.push(activations);
    }
}
