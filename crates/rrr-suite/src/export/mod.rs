//! All tasks of a suite as one flat table: CSV, JSON or Parquet.

mod parquet;
mod thrift;

use crate::db::Row;
use serde_json::{Map, Value};

/// A table in columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Names and values; all columns are equally long.
    pub columns: Vec<(String, Column)>,
    /// Number of rows.
    pub rows: usize,
}

/// Values of one kind; absent ones are none.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// UTF-8 text.
    Text(Vec<Option<String>>),
    /// 64-bit integers.
    Integer(Vec<Option<i64>>),
    /// Doubles.
    Real(Vec<Option<f64>>),
}

/// One row per task, in the suite's order.
pub fn table(rows: &[Row]) -> Table {
    let mut t = Table { columns: Vec::new(), rows: rows.len() };
    t.text(rows, "hash", |r| Some(r.hash.clone()));
    t.text(rows, "dataset", |r| Some(r.cell.dataset.clone()));
    t.text(rows, "method", |r| Some(r.cell.method.clone()));
    t.text(rows, "series", |r| r.cell.series.clone());
    t.integer(rows, "step", |r| r.cell.step.map(|s| s as i64));
    t.integer(rows, "seed", |r| Some(r.cell.seed as i64));
    let mut varied: Vec<&String> = rows.iter().flat_map(|r| r.cell.varied.keys()).collect();
    varied.sort();
    varied.dedup();
    for key in varied {
        t.text(rows, key, |r| r.cell.varied.get(key).cloned());
    }
    t.text(rows, "state", |r| Some(r.state.as_str().into()));
    t.text(rows, "message", |r| r.message.clone());
    let score = |t: &mut Table, name: &str, get: fn(&crate::result::Scores) -> f64| {
        t.real(rows, name, |r| r.result.as_ref()?.test.as_ref().map(get));
    };
    score(&mut t, "accuracy", |s| s.accuracy);
    score(&mut t, "balanced_accuracy", |s| s.balanced_accuracy);
    score(&mut t, "macro_f1", |s| s.macro_f1);
    score(&mut t, "nll", |s| s.nll);
    score(&mut t, "brier", |s| s.brier);
    score(&mut t, "ece", |s| s.ece);
    score(&mut t, "branch_accuracy", |s| s.branch_accuracy);
    t.real(rows, "disagreement", |r| r.result.as_ref()?.test.as_ref()?.disagreement);
    t.integer(rows, "test_images", |r| Some(r.result.as_ref()?.test.as_ref()?.images as i64));
    t.real(rows, "validation_accuracy", |r| r.result.as_ref()?.validation_accuracy);
    t.real(rows, "train_loss", |r| Some(r.result.as_ref()?.train_loss));
    t.real(rows, "train_seconds", |r| Some(r.result.as_ref()?.train_seconds));
    t.real(rows, "task_seconds", |r| r.result.as_ref().map(|_| r.seconds));
    t.integer(rows, "params", |r| Some(r.result.as_ref()?.params as i64));
    t.integer(rows, "macs", |r| Some(r.result.as_ref()?.macs as i64));
    t.integer(rows, "blocks", |r| Some(r.result.as_ref()?.blocks as i64));
    t.integer(rows, "model_branches", |r| Some(r.result.as_ref()?.branches as i64));
    t.real(rows, "latency_ms", |r| Some(r.result.as_ref()?.latency_ms));
    t.real(rows, "images_per_second", |r| Some(r.result.as_ref()?.images_per_second));
    t.text(rows, "model_sha256", |r| Some(r.result.as_ref()?.model_sha256.clone()));
    t.text(rows, "host", |r| Some(r.result.as_ref()?.machine.host.clone()));
    t.text(rows, "cpu", |r| r.result.as_ref()?.machine.cpu.clone());
    t.text(rows, "isa", |r| Some(r.result.as_ref()?.machine.isa.clone()));
    t.text(rows, "precision", |r| Some(r.result.as_ref()?.machine.precision.clone()));
    t.integer(rows, "threads", |r| Some(r.result.as_ref()?.machine.threads as i64));
    t.text(rows, "version", |r| Some(r.result.as_ref()?.machine.version.clone()));
    t
}

impl Table {
    fn text<R>(&mut self, rows: &[R], name: &str, get: impl Fn(&R) -> Option<String>) {
        self.columns.push((name.into(), Column::Text(rows.iter().map(get).collect())));
    }

    fn integer<R>(&mut self, rows: &[R], name: &str, get: impl Fn(&R) -> Option<i64>) {
        self.columns.push((name.into(), Column::Integer(rows.iter().map(get).collect())));
    }

    fn real<R>(&mut self, rows: &[R], name: &str, get: impl Fn(&R) -> Option<f64>) {
        self.columns.push((name.into(), Column::Real(rows.iter().map(get).collect())));
    }

    /// Comma-separated values with a header; absent values are empty.
    pub fn to_csv(&self) -> Vec<u8> {
        let mut out = csv::Writer::from_writer(Vec::new());
        let in_memory = "writing to memory cannot fail";
        out.write_record(self.columns.iter().map(|(name, _)| name)).expect(in_memory);
        for i in 0..self.rows {
            out.write_record(self.columns.iter().map(|(_, c)| c.as_text(i))).expect(in_memory);
        }
        out.into_inner().expect(in_memory)
    }

    /// An array of objects.
    pub fn to_json(&self) -> Vec<u8> {
        let row = |i: usize| {
            let fields = self.columns.iter().map(|(name, c)| (name.clone(), c.as_json(i)));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        let rows: Vec<Value> = (0..self.rows).map(row).collect();
        let mut bytes = serde_json::to_vec_pretty(&rows).expect("a table is plain values");
        bytes.push(b'\n');
        bytes
    }

    /// An Apache Parquet file: one row group, plain encoding, no compression.
    pub fn to_parquet(&self) -> Vec<u8> {
        parquet::write(self)
    }
}

impl Column {
    fn as_text(&self, i: usize) -> String {
        match self {
            Self::Text(v) => v[i].clone(),
            Self::Integer(v) => v[i].map(|x| x.to_string()),
            Self::Real(v) => v[i].map(|x| x.to_string()),
        }
        .unwrap_or_default()
    }

    fn as_json(&self, i: usize) -> Value {
        match self {
            Self::Text(v) => v[i].clone().map_or(Value::Null, Value::String),
            Self::Integer(v) => v[i].map_or(Value::Null, Value::from),
            Self::Real(v) => v[i].map_or(Value::Null, Value::from),
        }
    }
}
