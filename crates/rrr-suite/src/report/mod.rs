//! The report of a suite: one HTML page, Markdown, LaTeX, every figure as SVG and as data.

mod data;
mod figures;
mod html;
mod latex;
mod markdown;
mod text;

pub use data::{CellSummary, Chain, Comparison, MethodSummary, Pair, Report};
pub use figures::Figure;

use crate::error::{Result, SuiteError};
use serde_json::Value;
use std::path::{Path, PathBuf};

impl Report {
    /// Writes the report to the folder `out`: `index.html`, `report.md`, `tables.tex`, `report.json`, `results.csv`, and
    /// `figures/` with every figure as `.svg` and `.csv`. Gives the files. A report that is there is replaced, other files of
    /// these names only with `overwrite`.
    ///
    /// # Errors
    /// [`SuiteError::NoReport`], before anything is written; others name the file that cannot be written.
    pub fn write(&self, out: &Path, overwrite: bool) -> Result<Vec<PathBuf>> {
        let folder = out.join("figures");
        let figures = figures::figures(self);
        let mut json = serde_json::to_vec_pretty(self).expect("a report is plain values");
        json.push(b'\n');
        // The one that tells a report comes first: whatever a kill leaves is known as one.
        let marker = out.join("report.json");
        let mut files: Vec<(PathBuf, Vec<u8>)> = vec![
            (marker.clone(), json),
            (out.join("index.html"), html::page(self, &figures).into_bytes()),
            (out.join("report.md"), markdown::page(self, &figures).into_bytes()),
            (out.join("tables.tex"), latex::tables(self).into_bytes()),
            (out.join("results.csv"), crate::export::table(&self.rows).to_csv()),
        ];
        for figure in &figures {
            let svg = rrr_report::svg::standalone(&figure.svg);
            files.push((folder.join(format!("{}.svg", figure.name)), svg.into_bytes()));
            files.push((folder.join(format!("{}.csv", figure.name)), figure.csv.clone().into_bytes()));
        }
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        if !overwrite
            && !is_report(&marker)
            && let Some((path, _)) = files.iter().find(|(path, _)| is_there(path))
        {
            return Err(SuiteError::NoReport(path.clone()));
        }
        std::fs::create_dir_all(&folder).map_err(|e| SuiteError::file("make the folder", &folder, e))?;
        for (path, bytes) in &files {
            rrr_checkpoint::atomic_write(path, bytes)?;
        }
        Ok(files.into_iter().map(|(path, _)| path).collect())
    }
}

/// Whether a file is the `report.json` of a suite's report.
fn is_report(path: &Path) -> bool {
    let json = std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    json.is_some_and(|json| {
        ["suite", "counts", "datasets", "methods", "cells"].iter().all(|key| json.get(key).is_some())
    })
}
