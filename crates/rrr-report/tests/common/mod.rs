//! Reading golden files.

use rrr_report::metrics::{Combine, Predictions, softmax_of_mean_logits};
use serde_json::Value;

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

pub fn names(classes: usize) -> Vec<String> {
    (0..classes).map(|class| format!("class {class}")).collect()
}

/// The predictions of a case.
pub fn predictions(case: &Value) -> Predictions {
    let classes = case["classes"].as_u64().unwrap() as usize;
    let branches = case["branches"].as_u64().unwrap() as usize;
    let single = |value: &Value| floats(value).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    Predictions {
        classes: names(classes),
        labels: floats(&case["labels"]).into_iter().map(|label| label as u32).collect(),
        branches,
        probs: single(&case["probs"]),
        combine: match &case["logits"] {
            Value::Null => Combine::MeanOfSoftmax,
            logits => Combine::Given(softmax_of_mean_logits(&single(logits), branches, classes)),
        },
        temperature: None,
    }
}
