//! rten, its own pool of threads.

use crate::{Forward, Work};
use rten::{Model, RunOptions, ThreadPool};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};
use std::error::Error;
use std::sync::Arc;

pub fn load(work: &Work) -> Result<Forward, Box<dyn Error>> {
    let model = Model::load_file(&work.model)?;
    let options = RunOptions::default().with_thread_pool(Some(Arc::new(ThreadPool::with_num_threads(work.threads))));
    let input = NdTensor::from_data([work.batch, 3, work.size, work.size], work.input.clone());
    Ok(Box::new(move || {
        let out: Tensor<f32> = model.run_one(input.view().into(), Some(options.clone()))?.try_into()?;
        Ok(out.to_vec())
    }))
}
