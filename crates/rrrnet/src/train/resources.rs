//! What several trainings of one process have in common: decoded datasets and loaded backbones.

use super::data::{SourceKey, store_options};
use super::{Event, TrainError};
use crate::backbone::{Backbone, BackboneOptions};
use crate::config::TrainConfig;
use rrr_checkpoint::PullOptions;
use rrr_data::{DecodedImages, Source, Workers};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps what was read for one training at hand for the next. Results do not depend on it.
///
/// The datasets used last stay decoded as far as the memory budget of the configuration goes, and the backbone used
/// last stays loaded.
#[derive(Debug, Default)]
pub struct Resources {
    backbone: Mutex<Option<(BackboneKey, Arc<Backbone>)>>,
    /// Least recently used first.
    datasets: Mutex<Vec<(SourceKey, Arc<DecodedImages>)>>,
}

/// What determines a loaded backbone.
#[derive(Clone, Debug, PartialEq)]
struct BackboneKey {
    name: String,
    mean_std: Option<([f64; 3], [f64; 3])>,
}

impl Resources {
    /// The backbone of `config`, found, downloaded where allowed, and read.
    pub(super) fn backbone(
        &self,
        config: &TrainConfig,
        offline: bool,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Arc<Backbone>, TrainError> {
        let mean_std = config.mean.zip(config.std);
        let key = BackboneKey { name: config.backbone.clone(), mean_std };
        let mut held = lock(&self.backbone);
        if let Some((_, backbone)) = held.as_ref().filter(|(of, _)| *of == key) {
            return Ok(Arc::clone(backbone));
        }
        // Two at once may not fit into memory.
        *held = None;
        let events = RefCell::new(events);
        let progress = |p| (events.borrow_mut())(&Event::Backbone(p));
        let normalize = mean_std.map(|(mean, std)| (mean.map(|x| x as f32), std.map(|x| x as f32)));
        let pull = PullOptions { offline, progress: &progress, ..PullOptions::default() };
        let backbone = Arc::new(Backbone::load(&config.backbone, &BackboneOptions { pull, normalize })?);
        *held = Some((key, Arc::clone(&backbone)));
        Ok(backbone)
    }

    /// All images of `source`, decoded as `config` says; `None` if they do not fit into its memory budget.
    pub(super) fn images(
        &self,
        config: &TrainConfig,
        source: &Source,
        workers: &Workers,
    ) -> Option<Arc<DecodedImages>> {
        let budget = config.memory_budget_mib << 20;
        let all = source.everything();
        let bytes = (all.len() * config.image_size * config.image_size * 3) as u64;
        if bytes > budget {
            return None;
        }
        let key = SourceKey::new(config);
        let mut held = lock(&self.datasets);
        if let Some(at) = held.iter().position(|(of, _)| *of == key) {
            let found = held.remove(at);
            held.push(found.clone());
            return Some(found.1);
        }
        while held.iter().map(|(_, images)| images.bytes() as u64).sum::<u64>() + bytes > budget {
            held.remove(0);
        }
        let images = Arc::new(DecodedImages::load(&all, store_options(config), workers));
        tracing::info!(images = all.len(), dataset = source.name, "decoded");
        held.push((key, Arc::clone(&images)));
        Some(images)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
