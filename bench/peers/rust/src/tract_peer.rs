//! tract, its own pool of threads.

use crate::{Forward, Work};
use std::error::Error;
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::*;

pub fn load(work: &Work) -> Result<Forward, Box<dyn Error>> {
    set_default_executor(Executor::multithread(work.threads));
    let model = tract_onnx::onnx().model_for_path(&work.model)?.into_optimized()?.into_runnable()?;
    let input = Tensor::from_shape(&[work.batch, 3, work.size, work.size], &work.input)?;
    Ok(Box::new(move || {
        let out = model.run(tvec!(input.clone().into()))?;
        Ok(out[0].to_plain_array_view::<f32>()?.iter().copied().collect())
    }))
}
